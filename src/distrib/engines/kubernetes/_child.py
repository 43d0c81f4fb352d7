"""
The function's process, as the pod's first process has it: started, heard, stopped, and reported.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..._linux import descendants, kill_and_wait
from ..._outcome import SIGNALLED
from ..._report import CHANNEL_VARIABLE, NAME_VARIABLE
from ._bootstrap import REFUSED_EXIT
from ._function import COMMAND
from ._report import Report

__all__ = ["Child"]

_KILL_SECONDS = 5.0
#: Where the kernel counts what it has killed: in the second version of control groups, and in the first.
_COUNTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


class Child:
    """
    The process, in a session of its own.

    Args:
        name: The replica's.

        hear: Called with what the process sends while it runs.
    """

    def __init__(self, name: str, hear: Callable[[dict[str, Any]], None]) -> None:
        self._name = name
        self._hear = hear
        self._process: subprocess.Popen[bytes] | None = None
        self._left: IO[bytes] | None = None
        self._rest = b""
        self._ended = asyncio.Event()
        self._code = 0
        #: Whether the function has returned, whatever its process still does.
        self.has_returned = False

    @property
    def pid(self) -> int:
        """
        Its process id; 0 before it was started.
        """
        return 0 if self._process is None else self._process.pid

    def start(self, about: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """
        Start it.

        Raises:
            OSError: There is no room for its files, or for another process.
        """
        # Files without a name: they cannot fill up as pipes do, and nothing is left of them, however this ends.
        call, self._left = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  # both outlive this function
        call.write(about["call"])
        call.seek(0)
        heard, told = os.pipe()
        given = {"call": call.fileno(), "left": self._left.fileno(), "argv": about["argv"], "versions": about["versions"]}
        variables = {**environment, CHANNEL_VARIABLE: f"{told}:{os.fstat(told).st_ino}", NAME_VARIABLE: self._name}
        folder = None if os.access(os.curdir, os.W_OK) else tempfile.gettempdir()
        argv = [sys.executable, "-c", COMMAND, json.dumps(given)]
        try:
            self._process = subprocess.Popen(  # our own words
                argv, env=variables, cwd=folder, start_new_session=True, pass_fds=(call.fileno(), self._left.fileno(), told)
            )
        finally:
            os.close(told)
            call.close()
        os.set_blocking(heard, False)
        asyncio.get_running_loop().add_reader(heard, self._read, heard)

    def was_reaped(self, status: int) -> None:
        """
        It has ended, with what ``waitpid`` says.
        """
        self._code = os.waitstatus_to_exitcode(status)
        if self._process is not None:
            self._process.returncode = self._code
        self._ended.set()

    async def stop(self, grace: float) -> None:
        """
        Have it end: SIGTERM, and SIGKILL after *grace* seconds, for all that have come from it too.
        """
        if self._process is not None and not self._ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), grace)
        self.kill()

    def kill(self) -> None:
        """
        End all processes that there are besides this one.
        """
        kill_and_wait(descendants(), _KILL_SECONDS)

    def report(self) -> Report:
        """
        What became of the function; of a process that has ended.
        """
        outcome, code = self._outcome(), self._code
        if "value" in outcome and (code == 0 or self._is_killed_late):
            return self._made("returned", 0, value=outcome["value"])
        if "refused" in outcome:
            return self._made("refused", REFUSED_EXIT, text=outcome["refused"])
        if "told" in outcome and code >= 0:
            told = outcome["told"]
            error = {key: told.get(key) for key in ("type", "text", "traceback", "frames", "rank", "ended")}
            return self._made("raised", int(told["code"]), error=error, exception=told["pickled"])
        if code < 0:
            return self._made("ended", SIGNALLED - code, signal=-code, oom=-code == signal.SIGKILL and _oom_kills() > 0)
        text = "" if code else "the process ended before the function returned: os._exit() was called"
        return self._made("ended", code or 1, text=text)

    @property
    def _is_killed_late(self) -> bool:
        # Its value is there: what keeps the process from ending is none of the run's business.
        return self._code == -signal.SIGKILL and self.has_returned

    def _made(self, kind: str, code: int, **fields: Any) -> Report:
        return Report(replica=self._name, kind=kind, code=code, time=time.time(), **fields)

    def _outcome(self) -> dict[str, Any]:
        if self._left is None:
            return {}
        self._left.seek(0)
        try:
            return dict(pickle.load(self._left))  # noqa: S301  # written by our own process
        except (EOFError, pickle.UnpicklingError):  # it has left nothing, or was killed while it wrote
            return {}

    def _read(self, number: int) -> None:
        try:
            data = os.read(number, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(number)
            os.close(number)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            message = _message(line)
            if message is not None:
                self.has_returned = self.has_returned or message["kind"] == "returned"
                self._hear(message)


def _message(line: bytes) -> dict[str, Any] | None:
    """
    What the function's process has sent; None for what none of ours would, since the descriptor is open to whatever the function does.
    """
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and "kind" in message else None


def _oom_kills() -> int:
    """
    How many processes of this container the kernel has killed for want of memory.
    """
    for path in _COUNTS:
        with suppress(OSError, ValueError):
            counts = dict(line.split() for line in path.read_text(encoding="ascii").splitlines())
            return int(counts.get("oom_kill", 0))
    return 0
