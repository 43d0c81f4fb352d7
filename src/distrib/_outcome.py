"""
How a process of a run ends, the same on every engine: its exit code, and what is told of its value or its exception.

Imports next to nothing: it is loaded in every replica.
"""

from __future__ import annotations

import atexit
import os
import pickle
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from ._streams import flush

if TYPE_CHECKING:
    from types import TracebackType

#: The code that Kubeflow sets aside for "retryable, says the user".
RETRYABLE_EXIT = 138
#: What Kubeflow's restart policy ``ExitCode`` takes for retryable starts here.
FIRST_RETRYABLE = 128
_LONGEST_TEXT = 1_000
_LONGEST_TRACEBACK = 200_000


class ByRank:
    """
    What a replica returns that ran several processes: the value of each, pickled, by its rank among all processes of the run.
    """

    def __init__(self, pickled: Mapping[int, bytes]) -> None:
        self.pickled = dict(sorted(pickled.items()))
        self._values: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"pickled": self.pickled, "_values": {}}

    def value(self, rank: int) -> Any:
        """
        The value of the process of that rank.
        """
        if rank not in self._values:
            self._values[rank] = pickle.loads(self.pickled[rank])  # noqa: S301  # unpickles only what its own processes wrote
        return self._values[rank]


class ProcessFailedError(Exception):
    """
    A replica raises it for a process of its own: the exception of that process is reported as if it were the replica's.

    Args:
        told: What :func:`tell` said in that process.

        rank: The rank of the process among all of the run; None if that says nothing new.
    """

    def __init__(self, told: Mapping[str, Any], rank: int | None = None) -> None:
        super().__init__(f"{told['type']}: {told['text']}")
        self.told = {**told, "rank": rank}

    @property
    def code(self) -> int:
        """
        The exit code that the exception stands for.
        """
        return int(self.told["code"])


_CONSEQUENCES = "closed|got 0 bytes|reset by peer|broken pipe|connection refused|timed out|timeout|unavailable|aborted|cancelled|heartbeat"


def may_be_a_consequence(text: str) -> bool:
    """
    Whether it is what a process says whose peer has failed before it.
    """
    import re

    return re.search(_CONSEQUENCES, text, re.IGNORECASE) is not None


class StoppedError(Exception):
    """
    A replica raises it that was told to stop, by whoever runs it: nothing has failed in it.
    """


#: The end by a signal, as a shell says it: this plus the signal's number.
SIGNALLED = 128
#: What a shell ends with when it cannot start a program.
NOT_STARTED = 126


def code_of(error: BaseException) -> int:
    """
    The exit code of a process that ends with *error*.
    """
    from .errors import RetryableError

    if isinstance(error, ProcessFailedError):
        return error.code
    if not isinstance(error, SystemExit):
        return RETRYABLE_EXIT if isinstance(error, RetryableError) else 1
    # As the interpreter has it: None is 0, a number is itself, anything else is a message and means 1.
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def describe(error: BaseException) -> dict[str, str]:
    """
    The type and the text of an exception, whatever it does when it is looked at.
    """
    if isinstance(error, ProcessFailedError):
        return {"type": error.told["type"], "text": error.told["text"]}
    kind = type(error)
    module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # its text may fail like anything of the user's
        text = "(its text cannot be had)"
    return {"type": f"{module}{kind.__qualname__}"[:200], "text": text[:_LONGEST_TEXT]}


def explain(error: BaseException) -> dict[str, Any]:
    """
    Where an exception comes from, as plain data; our own frames around the user's function are left out.
    """
    if isinstance(error, ProcessFailedError):
        return {key: error.told.get(key) for key in ("traceback", "frames", "rank", "ended")}
    import traceback

    where = _without_us(error.__traceback__)
    return {
        "traceback": "".join(traceback.format_exception(type(error), error, where))[-_LONGEST_TRACEBACK:],
        "frames": [[f.filename, f.lineno, f.name, f.line] for f in traceback.extract_tb(where)],
    }


def dump_exception(error: BaseException) -> bytes | None:
    """
    The exception itself for another process; None if it cannot be sent. Its type and text arrive all the same.
    """
    if isinstance(error, ProcessFailedError):
        data: bytes | None = error.told["pickled"]
        return data
    from ._pickling import dumps

    try:
        return dumps(error)
    except Exception:  # noqa: BLE001  # its class decides what that raises
        return None


def load_exception(data: bytes | None) -> BaseException | None:
    """
    The exception that :func:`dump_exception` has sent; None if it cannot be rebuilt here.
    """
    if data is None:
        return None
    try:
        found = pickle.loads(data)  # noqa: S301  # unpickles only what the run's own processes wrote
    except BaseException:  # noqa: BLE001  # its class may be missing here, refuse its own arguments, or do anything else
        return None
    # A SystemExit or KeyboardInterrupt as the cause is fine: only raising it would end the program.
    return found if isinstance(found, BaseException) else None


def tell(error: BaseException) -> dict[str, Any]:
    """
    All of it, for a :class:`ProcessFailedError` in another process.
    """
    try:
        details = explain(error)
    except Exception as problem:  # noqa: BLE001  # an exception may fail when it is looked at
        details = {"traceback": f"(its traceback cannot be had: {type(problem).__name__})", "frames": []}
    return {**describe(error), **details, "code": code_of(error), "pickled": dump_exception(error)}


def tell_end(status: int) -> dict[str, Any]:
    """
    The same of a process that has ended without a word, where it was to return a value or to raise.

    Args:
        status: Its exit code, or the number of the signal that ended it, negative.
    """
    code = SIGNALLED - status if status < 0 else status or 1
    how = f"signal {-status} ({signal_name(-status)})" if status < 0 else f"exit code {status}"
    how += "" if status else ", before the function returned"  # for a program 0 is an end like any other
    return {"type": "ProcessEnded", "text": how, "code": code, "ended": status, "traceback": "", "frames": [], "pickled": None}


def restarts_after(policy: str, code: int) -> bool:
    """
    Whether a restart policy wants a replica started again that has failed with an exit code.
    """
    return policy in ("Always", "OnFailure") or (policy == "ExitCode" and code >= FIRST_RETRYABLE)


def signal_name(number: int) -> str:
    """
    What a signal is called.
    """
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def end(code: int) -> NoReturn:
    """
    Do what the interpreter does at its own end, without tearing down the modules: frameworks crash in that.
    """
    try:
        if code == 0:
            # Joins the threads that are no daemons; multiprocessing calls it too.
            threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
        atexit._run_exitfuncs()  # noqa: SLF001
        flush()
    finally:
        os._exit(code)


_US = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH100, PTH120  # pathlib is an import that replicas do without


def _without_us(traceback: TracebackType | None) -> TracebackType | None:
    theirs = traceback
    while theirs is not None and theirs.tb_frame.f_code.co_filename.startswith(_US):
        theirs = theirs.tb_next
    return theirs or traceback
