"""
What the function's process is told to do by the tests of pods.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil

from distrib import replica
from distrib._outcome import ProcessFailedError, tell_end
from distrib._report import serving

#: Longer than any test is patient.
EVER = 3600.0


def only(who: str, act: str, *args: Any) -> Any:
    """One replica acts, the others wait for ever."""
    if replica().name == who:
        return globals()[act](*args)
    time.sleep(EVER)
    return None


def each(acts: dict[str, tuple[Any, ...]]) -> Any:
    """Every replica has an act of its own."""
    act, *args = acts[replica().name]
    return globals()[act](*args)


def give(value: Any) -> Any:
    """Return it."""
    return value


def later(seconds: float, value: Any) -> Any:
    """Return it then."""
    time.sleep(seconds)
    return value


def wait() -> None:
    """Wait for ever."""
    time.sleep(EVER)


def fail(text: str) -> NoReturn:
    """Raise."""
    raise ValueError(text)


def fail_later(seconds: float, text: str) -> NoReturn:
    """Raise then."""
    time.sleep(seconds)
    raise ValueError(text)


def leave(code: int) -> None:
    """End without a word."""
    os._exit(code)


def exit_with(code: int) -> NoReturn:
    """End as programs do."""
    sys.exit(code)


def kill(number: int) -> None:
    """End by a signal."""
    os.kill(os.getpid(), number)
    time.sleep(EVER)


def lose_a_process(number: int) -> NoReturn:
    """Raise what is raised for a process of the function's own that a signal has ended."""
    raise ProcessFailedError(tell_end(-number), 3)


def serve() -> None:
    """Serve the others for ever."""
    serving()
    time.sleep(EVER)


def serve_among_others() -> None:
    """Serve, when something else has been written where the first process listens."""
    number = int(os.environ["DISTRIB_CHANNEL"].partition(":")[0])
    os.write(number, b'7\n[]\n{}\nhello\n{"kind": "serving"}\n')
    time.sleep(EVER)


def stubborn(folder: str) -> None:
    """Take no notice of SIGTERM, with a process of its own that takes none either."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    process = subprocess.Popen(["sleep", str(EVER)], start_new_session=True)
    Path(folder, f"{replica().name}.pid").write_text(f"{os.getpid()} {process.pid}")
    time.sleep(EVER)


def save(folder: str) -> str:
    """Save something when asked to end."""

    def put(*_: object) -> None:
        Path(folder, "saved").write_text(replica().name)
        sys.exit(0)

    signal.signal(signal.SIGTERM, put)
    Path(folder, f"{replica().name}.ready").touch()
    time.sleep(EVER)
    return "not reached"


def linger(value: Any) -> Any:
    """Return, but leave a thread that never ends."""
    threading.Thread(target=time.sleep, args=(EVER,)).start()
    return value


def unpicklable() -> Any:
    """Return what cannot be sent."""
    return threading.Lock()


def where() -> dict[str, Any]:
    """What the process finds."""
    me = replica()
    lines = psutil.Process(os.getppid()).net_connections()
    return {
        "listening": [line.laddr.port for line in lines if line.status == psutil.CONN_LISTEN],
        "name": me.name,
        "coordinator": me.is_coordinator,
        "rank": me.rank,
        "world": me.world_size,
        "environ": dict(os.environ),
        "session": os.getsid(0) == os.getpid(),
        "argv": sys.argv,
    }


def once(folder: str, act: str, *args: Any) -> Any:
    """Act the first time only; the second time, return the name."""
    mark = Path(folder, f"{replica().name}.mark")
    if mark.exists():
        return replica().name
    mark.touch()
    return globals()[act](*args)
