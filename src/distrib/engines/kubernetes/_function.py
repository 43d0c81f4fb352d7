"""
The process that calls the function: started by the pod's first process, which reads what it leaves.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any, NoReturn

from ..._command import Command
from ..._outcome import code_of, end, tell
from ..._report import NAME_VARIABLE, send
from ..._streams import flush, say_why
from .._values import dump, resolve

__all__ = ["COMMAND", "main"]

#: What its interpreter is started with, besides the descriptors of the call and of the file for its outcome.
COMMAND = "from distrib.engines.kubernetes._function import main; main()"


def main() -> NoReturn:
    """
    Call what the descriptors in the argument hold. Does not return.
    """
    given = json.loads(sys.argv[1])
    # Standard streams by lines, so that nothing written before a crash is lost; anything that Python can hold is written somehow.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    os.set_inheritable(given["left"], False)
    me = os.getpid()
    left = os.fdopen(given["left"], "wb")
    sys.argv[:] = given["argv"]
    value, error = _call(given["call"], given["versions"], left)
    if os.getpid() != me:
        # The function forked, and its child came back here as well. It is no replica, and speaks for none.
        if error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
        end(0 if error is None else 1)
    end(_keep(left, value, error))


class _MissingError(Exception):
    """
    The call cannot be read here.
    """


def _call(number: int, versions: Mapping[str, str], left: IO[bytes]) -> tuple[object, BaseException | None]:
    try:
        function, args, kwargs = _load(number, versions)
        if isinstance(function, Command):
            _leave(left, {"value": pickle.dumps(None)})  # nobody will be left to do it
        return function(*args, **kwargs), None
    except SystemExit as exit:
        say_why(exit)
        return None, exit if code_of(exit) else None
    except BaseException as error:  # noqa: BLE001  # whatever it is has to be carried home
        return None, error


def _load(number: int, versions: Mapping[str, str]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    with os.fdopen(number, "rb") as file:
        data = file.read()
    try:
        target, (args, kwargs) = pickle.loads(data)  # noqa: S301  # the submitter's own, which this pod is there to run
        return (resolve(target) if isinstance(target, str) else target), args, kwargs
    except Exception as error:  # modules that it imports may do anything
        raise _MissingError(_explained(error, versions)) from error


def _explained(error: Exception, versions: Mapping[str, str]) -> str:
    told = f"the function or its arguments cannot be read in the image: {type(error).__name__}: {error}."
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return f"{told} Are the same versions installed there as where the call was packed?"
    top = error.name.partition(".")[0]
    known = {name.replace("-", "_").lower(): f"{name}=={there}" for name, there in versions.items()}
    package = known.get(top.lower(), top)
    return (
        f"{told} Add it to the image, as in 'python -m pip install {package}'. "
        "Modules of your own project travel with the call if they are imported when it is made."
    )


def _keep(left: IO[bytes], value: object, error: BaseException | None) -> int:
    """
    Leave what became of the function; the exit code that says so.
    """
    flush()
    if error is None:
        held = io.BytesIO()
        try:
            dump(value, held)
        except BaseException as problem:  # noqa: BLE001  # the value's class decides what that raises
            kind = type(value).__qualname__
            error = TypeError(f"{os.environ.get(NAME_VARIABLE)} returned a value that cannot be pickled ({kind}): {problem}")
    if error is None:
        _leave(left, {"value": held.getvalue()})
        send("returned")
        return 0
    if isinstance(error, _MissingError):
        _leave(left, {"refused": str(error)})
        return 1
    told = tell(error)
    if not isinstance(error, SystemExit):
        # Where whoever looks at the pod looks first.
        print(told["traceback"], end="", file=sys.stderr, flush=True)  # noqa: T201
    _leave(left, {"told": told})
    send("raised")
    return int(told["code"])


def _leave(left: IO[bytes], outcome: Mapping[str, Any]) -> None:
    left.seek(0)
    pickle.dump(outcome, left, protocol=5)
    left.truncate()
    left.flush()
