"""
How a container of ours starts: its command, and the places that it and the manifests have to agree upon.
"""

from __future__ import annotations

from typing import Final

from ..._cluster import RUN_VARIABLE

#: Where the Secret of the run is mounted, and the volume that it is.
MOUNT: Final = "/var/run/distrib"
CALL_VOLUME: Final = "distrib"
#: The keys of the Secret.
ORDERS_KEY: Final = "orders.json"
CALL_KEY: Final = "call.pickle"
CODE_KEY: Final = "code.zip"
#: Where the kubelet looks for the termination message; its default.
TERMINATION_LOG: Final = "/dev/termination-log"

#: Which replica the container is: its role, and its index in it.
ROLE_VARIABLE: Final = "DISTRIB_ROLE"
INDEX_VARIABLE: Final = "DISTRIB_INDEX"
#: Other places than the usual ones, for a container that is none.
MOUNT_VARIABLE: Final = "DISTRIB_MOUNT"
TERMINATION_VARIABLE: Final = "DISTRIB_TERMINATION_LOG"

#: What the manifests set and no job may set itself.
RESERVED: Final = (ROLE_VARIABLE, INDEX_VARIABLE, RUN_VARIABLE, MOUNT_VARIABLE, TERMINATION_VARIABLE)

#: The exit code of a replica that was stopped because the run had failed elsewhere, or because the kubelet told it to end.
STOPPED_EXIT: Final = 143
#: The exit code of a container in which the function could not even be called: 126, as a shell has it.
REFUSED_EXIT: Final = 126

# Runs in whatever Python the image has, hence no syntax that an old one does not know.
STUB: Final = """\
import json, os, signal, sys

# The first process of a container has no default for it, and would go on.
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))

def refuse(text):
    sys.stderr.write("distrib: " + text + "\\n")
    sys.stderr.flush()
    try:
        with open(os.environ.get("DISTRIB_TERMINATION_LOG", "/dev/termination-log"), "w") as file:
            name = os.environ.get("DISTRIB_ROLE", "") + "-" + os.environ.get("DISTRIB_INDEX", "")
            file.write(json.dumps({"distrib": 1, "replica": name, "kind": "refused", "code": 126, "text": text[:2000]}))
    except (IOError, OSError):
        pass
    sys.exit(126)

if sys.version_info < (3, 10):
    refuse("the image has Python %d.%d (%s), and distrib needs 3.10 or newer. Use an image with a newer Python, or name the "
           "right one with kubernetes={'python': '/path/to/python'}." % (sys.version_info[0], sys.version_info[1], sys.executable))
try:
    import distrib
except ImportError as error:
    refuse("the image has no distrib for %s (%s). Install it there from a wheel: add 'COPY dist/distrib-*.whl /tmp/' and "
           "'RUN python -m pip install --no-cache-dir /tmp/distrib-*.whl' to its Containerfile; the wheel is made from a checkout of "
           "distrib, by 'python -m pip wheel --no-deps --wheel-dir dist CHECKOUT'." % (sys.executable, error))
try:
    from distrib.engines.kubernetes._pod import main
except ImportError as error:
    refuse("the distrib of the image (%s) is too old, or damaged (%s). Install the version there that you submit with."
           % (getattr(distrib, "__version__", "unknown"), error))
main()
"""


def command(python: str = "python") -> list[str]:
    """
    The command of a container, for an image in which *python* is the interpreter. No shell reads it.
    """
    return [python, "-c", STUB]
