"""
The supervisor's process as its launcher sees it: started first, told later what to do.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING

from ..._cluster import RUN_VARIABLE
from ...errors import InvalidJobError, SubmitError
from .._rules import LONGEST_VARIABLE, length_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..._job import Job

_STANDARD = (0, 1, 2)
_BOOT = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from distrib.engines.local._supervisor import main; main()"


class SupervisorProcess:
    """
    A supervisor that waits for its orders. Used as a context it is ended on the way out, unless it was released.

    Attributes:
        id: The id of the run; in the environment of all its processes from their start.

        payload: Descriptor of the memory for the call; the supervisor has it under the same number.
    """

    def __init__(self, job: Job, id: str) -> None:
        self.id = id
        try:
            self.payload = _open_payload()
        except OSError as error:
            raise SubmitError(f"the run could not be started: {error}") from error
        try:
            self._process = self._start(job)
        except BaseException as error:
            os.close(self.payload)
            if not isinstance(error, OSError):
                raise
            raise SubmitError(f"the supervisor could not be started with {sys.executable}: {error}") from error

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if name not in job.backend.reserved}
        return subprocess.Popen(
            [sys.executable, *interpreter_flags(), "-c", _BOOT, "\n".join(import_path(job.env))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**inherited, **job.env, RUN_VARIABLE: self.id},
            pass_fds=(self.payload,),
            start_new_session=True,
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        os.close(self.payload)
        if kind is not None:
            self.end()

    def release(self) -> subprocess.Popen[bytes]:
        """
        Hand the process over to whoever follows the run.
        """
        return self._process

    def end(self) -> None:
        """
        Have it take down whatever it has started, and wait until it is gone.
        """
        for stream in self._streams():
            stream.close()
        self._process.wait()

    def send(self, line: bytes) -> None:
        """
        Give it its orders.

        Raises:
            SubmitError: It is gone.
        """
        stdin, _ = self._streams()
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[stdin.write(rest) :]
        except BrokenPipeError:
            code = self._process.wait()
            raise SubmitError(f"the supervisor ended at once, with code {code}; it was started with {sys.executable}") from None

    def _streams(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def check_variables(job: Job) -> None:
    """
    Refuse variables of the job that no process could be started with.

    Raises:
        InvalidJobError: One is too long.
    """
    for where, env in [("env", job.env), *((f"{group.role}.env", group.env) for group in job.groups)]:
        for name, value in env.items():
            length = length_of(name, value)
            if length > LONGEST_VARIABLE:
                raise InvalidJobError(
                    f"{where}[{name!r}] has {length:,} bytes, and the system takes {LONGEST_VARIABLE:,} for a variable. "
                    "Hand it to the function as an argument, or keep it in a file.",
                    field=f"{where}[{name!r}]",
                    value=value,
                )


def import_path(env: Mapping[str, str]) -> list[str]:
    """
    Where the processes of a run look for modules: as this one does, and where ``PYTHONPATH`` in *env* says.

    Without what the interpreter passes over too: anything that is no text.
    """
    path: list[object] = [*sys.path]
    entries = [entry for entry in path if isinstance(entry, str)]
    added = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    return [*entries[:1], *added, *entries[1:]]  # after the program's own folder, where Python puts them too


def interpreter_flags() -> list[str]:
    """
    The interpreter's own switches, such as ``-X dev``: they go on to the processes it starts, as multiprocessing does it.
    """
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]


def _open_payload() -> int:
    # Memory without a name: nothing is left of it whatever happens.
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("distrib-call")
    else:
        import tempfile

        number, path = tempfile.mkstemp(prefix="distrib-call-")
        os.unlink(path)
    if number > _STANDARD[-1]:
        return number
    # This process has closed one of its standard descriptors; in the supervisor it is going to be a pipe.
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _STANDARD[-1] + 1)
    finally:
        os.close(number)
