"""
Several processes in one replica: forked from it, watched by it, gone with it.

For frameworks that want one process for each device. The replica's own process only watches, and ends as its first failing
process did: with the exception, the exit code or the signal that this one had.
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NoReturn

from ._cluster import REPLICA_VARIABLE, decode_replica, encode_cluster, encode_replica
from ._command import Command
from ._linux import die_with_parent, fork
from ._outcome import SIGNALLED, ByRank, ProcessFailedError, end, tell, tell_end
from ._pickling import dumps
from ._streams import flush, say, say_why

__all__ = ["Outcome", "call_in_child", "die_like", "run_processes"]

#: Seconds between SIGTERM and SIGKILL for those that are left when one has failed.
GRACE_SECONDS = 5.0


class Outcome:
    """
    What a process left: its pickled value, or what is told of its exception, or neither.
    """

    __slots__ = ("told", "value")

    def __init__(self, *, value: bytes | None = None, told: Mapping[str, Any] | None = None) -> None:
        self.value = value
        self.told = told


def run_processes(function: Callable[[], Any], environments: Sequence[Mapping[str, str]], ranks: Sequence[int]) -> ByRank:
    """
    Call *function* in one forked process for each of *environments*, and wait for all of them.

    When one fails, the others are stopped. A SIGTERM is handed on to all of them, and no more are forked; this process then ends
    by it too, unless they all return all the same.

    Args:
        function: What to call. A :class:`~distrib.Command` takes its process's place and has None for a value.

        environments: The variables of each process, besides those of this one.

        ranks: The rank of each process, for messages and values.

    Raises:
        ProcessFailedError: A process raised.
    """
    crew = _Crew(ranks, isinstance(function, Command))
    with crew:
        for environment in environments:
            if crew.stopped_by is None:
                crew.start(function, environment)
        crew.wait()
    return crew.result()


class _Crew:
    """
    The processes while they run.
    """

    def __init__(self, ranks: Sequence[int], are_programs: bool) -> None:
        self.ranks = ranks
        self.are_programs = are_programs
        self.pids: dict[int, int] = {}
        self.files: dict[int, IO[bytes]] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.failed: tuple[int, int] | None = None
        self.stopped_by: int | None = None
        self.deadline: float | None = None
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGTERM, self._hand_on)

    def __exit__(self, *_: object) -> None:
        for pid in self.pids:
            _signal(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.selector.close()
        signal.signal(signal.SIGTERM, self.before)

    def start(self, function: Callable[[], Any], environment: Mapping[str, str]) -> None:
        """
        Fork the next one.
        """
        place = len(self.files)
        # A file without a name: it cannot fill up as a pipe does, and nothing is left of it, however this ends.
        file = self.files[place] = tempfile.TemporaryFile()  # noqa: SIM115  # closed when it has been read
        parent = os.getpid()
        flush()
        pid = fork()
        if pid == 0:
            _be(function, environment, file, parent)
        self.pids[pid] = place
        self.selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
        if self.stopped_by is not None:
            _signal(pid, self.stopped_by)

    def wait(self) -> None:
        """
        Until none is left.
        """
        while self.pids:
            patience = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            ready = self.selector.select(patience)
            if not ready and patience is not None:
                self._signal_all(signal.SIGKILL)
                self.deadline = None
            ended = [self._reap(key) for key, _ in ready]
            # One that ended without a word goes first: what its peers have to say may well be its consequence.
            for place, status in sorted(ended, key=lambda one: self.outcomes[one[0]].told is not None):
                self._ended(place, status)

    def result(self) -> ByRank:
        """
        The values, if all have one; else this process ends as the first that failed, or as it was told to.
        """
        if self.stopped_by is not None and (self.failed is not None or len(self.outcomes) < len(self.ranks)):
            die_like(-self.stopped_by)
        if self.failed is None:
            return ByRank({rank: self.outcomes[place].value or b"" for place, rank in enumerate(self.ranks)})
        place, status = self.failed
        told = self.outcomes[place].told
        if told is None:
            say(f"the process of rank {self.ranks[place]} ended with {tell_end(status)['text']}")
            die_like(status)
        raise ProcessFailedError(told, self.ranks[place])

    def _reap(self, key: selectors.SelectorKey) -> tuple[int, int]:
        pid: int = key.data
        _, status = os.waitpid(pid, 0)
        self.selector.unregister(key.fd)
        os.close(key.fd)
        place = self.pids.pop(pid)
        self.outcomes[place] = _read(self.files.pop(place))
        if self.are_programs and status == 0:
            self.outcomes[place].value = pickle.dumps(None)
        return place, os.waitstatus_to_exitcode(status)

    def _ended(self, place: int, status: int) -> None:
        if self.outcomes[place].value is None and self.failed is None:
            self.failed = (place, status)
            self._signal_all(signal.SIGTERM)
            # Whoever told this process to stop decides how long that may take.
            self.deadline = None if self.stopped_by is not None else time.monotonic() + GRACE_SECONDS

    def _hand_on(self, number: int, _frame: object) -> None:
        self.stopped_by = number
        self._signal_all(number)

    def _signal_all(self, number: int) -> None:
        for pid in list(self.pids):
            _signal(pid, number)


def _be(function: Callable[[], Any], environment: Mapping[str, str], file: IO[bytes], parent: int) -> NoReturn:
    """
    Be one of the processes, just forked. Does not return.
    """
    try:
        die_with_parent(parent)
        outcome, code = call_in_child(function, environment)
        if outcome is not None:
            try:
                pickle.dump((outcome.value, outcome.told), file)
                file.flush()
            except (OSError, ValueError) as error:  # a full disk, or the function has closed what it did not open
                say(f"what became of the process of rank {os.environ.get('RANK', '?')} could not be kept: {error}")
                code = code or 1
        end(code)
    finally:
        os._exit(1)  # whatever happens, the child never goes on as a copy of its parent


def call_in_child(function: Callable[[], Any], environment: Mapping[str, str]) -> tuple[Outcome | None, int]:
    """
    Call *function* in a process that was just forked for it from a replica's.

    Returns:
        What became of it, and the exit code that says so. None if this is a process that the function has forked, which
        speaks for nobody.
    """
    me = os.getpid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    os.environ.update(environment)
    _take_place()
    try:
        outcome, code = Outcome(value=dumps(function())), 0
    except SystemExit as exit:
        say_why(exit)
        told = tell(exit)
        code = int(told["code"])
        outcome = Outcome(told=told) if code else Outcome(value=dumps(None))
    except BaseException as error:  # noqa: BLE001  # whatever it is has to be carried home
        told = tell(error)
        outcome, code = Outcome(told=told), int(told["code"])
    return (outcome if os.getpid() == me else None), code


def _take_place() -> None:
    """
    What a process may not share with its siblings: the numbers that it draws, the settings of its threads, the word of the coordinator.
    """
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    text, rank = os.environ.get(REPLICA_VARIABLE), os.environ.get("RANK")
    if text and rank is not None:
        import attrs

        me = attrs.evolve(decode_replica(text), is_coordinator=rank == "0")
        os.environ[REPLICA_VARIABLE] = encode_replica(me, encode_cluster(me.cluster))


def die_like(status: int) -> NoReturn:
    """
    End this process with an exit code, or by a signal: *status* is negative then.
    """
    flush()
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
        time.sleep(GRACE_SECONDS)  # the signal may be blocked
    os._exit(status if status >= 0 else SIGNALLED - status)


def _read(file: IO[bytes]) -> Outcome:
    with file:
        file.seek(0)
        try:
            value, told = pickle.load(file)  # noqa: S301  # unpickles only what its own processes wrote
        except (EOFError, pickle.UnpicklingError):  # it ended without a word, or in the midst of it
            return Outcome()
    return Outcome(value=value, told=told)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
