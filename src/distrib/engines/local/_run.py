"""
A local run as its launcher sees it.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ..._cluster import RUN_VARIABLE
from ..._linux import kill_and_wait, processes_with
from ..._streams import say
from ...engine import RunState, RunStatus
from ...errors import EngineError, RunFailedError, SubmitError
from .._echo import Echo
from .._patience import Patience
from ._history import Progress, outdated, remove
from ._logs import LOOK_SECONDS, Follower
from ._stored import StoredRun

if TYPE_CHECKING:
    import socket
    import subprocess

R_co = TypeVar("R_co", covariant=True)

_CHUNK = 1 << 16
# How long to wait for processes that were killed.
_GONE_SECONDS = 5.0
# A step of the start is told about when it has taken longer than this.
_LONG_SECONDS = 1.0


class LocalRun(StoredRun[R_co]):
    """
    A run of this process: what its supervisor says is followed as it comes, by a thread.
    """

    def __init__(self, folder: str, supervisor: subprocess.Popen[bytes], *, echo: bool, ports: Sequence[socket.socket], lock: int) -> None:
        super().__init__(folder)
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        self._process = supervisor
        self._orders: IO[bytes] = supervisor.stdin
        self._news: IO[bytes] = supervisor.stdout
        self._ports = ports
        self._lock: int | None = lock
        self._done = threading.Event()
        self._launcher = os.getpid()
        self._live = Progress(self.names)
        self._failed: EngineError | None = None
        self._echo = Echo(self.names, sys.stdout) if echo else None
        self._teller = _Teller() if echo else None
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._follow, name=f"distrib {self.id}", daemon=True)
        atexit.register(self._stop_at_exit)
        try:
            self._thread.start()
        except RuntimeError as error:  # as many processes and threads as the user may have, or no memory for its stack
            atexit.unregister(self._stop_at_exit)
            raise SubmitError(f"the thread that follows the run could not be started: {error}") from error

    # What its owner asks.

    # In a copy of the launcher, made by os.fork() or multiprocessing, nobody follows the run: there the history has to do.

    def _is_followed(self) -> bool:
        return os.getpid() == self._launcher

    def status(self) -> RunStatus:
        return self._live.status() if self._is_followed() else super().status()

    def wait(self, timeout: float | None = None) -> RunStatus:
        if not self._is_followed():
            return super().wait(timeout)
        patience = Patience(timeout)
        while not self._done.wait(patience.seconds()):
            patience.check(self.id)
        return self.status()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self._is_followed():
            return super().exception(timeout)
        self.wait(timeout)
        return self._failed

    def cancel(self, *, at_once: bool = False) -> None:
        if not self._is_followed():
            super().cancel(at_once=at_once)
        elif not self._done.is_set():
            if self._echo is not None:
                self._echo.hurry()
            order = {"why": "cancel() was called at once" if at_once else "cancel() was called", "at_once": at_once}
            with suppress(OSError, ValueError):  # it ends by itself at this moment
                self._orders.write(json.dumps(order).encode() + b"\n")
            self.wait()

    def _is_over(self) -> bool:
        # All that the replicas wrote is there before the thread has shown it.
        # The thread may be waiting for a terminal that is not read; the supervisor's end is then known all the same.
        return (self._is_followed() and self._live.finished) or super()._is_over()

    # What the thread does.

    def _follow(self) -> None:
        """
        Take in events and show logs until the supervisor has nothing more to say.
        """
        follower, old = None, []
        try:
            follower = Follower(os.path.join(self.folder, "logs"), self.names) if self._echo else None
            self._follow_until_end(follower)
            if not self._live.finished:
                self._supervisor_lost()
            self._failed = self._error(self._live)
            self._show(follower, last=True)
            self._summarise()
            self._clean()
        except BaseException as error:  # whatever it is, nobody may wait for ever
            self._failed = RunFailedError(f"following the run failed: {type(error).__name__}: {error}")
            self._failed.__cause__ = error
            self._live.state, self._live.reason, self._live.finished = RunState.FAILED, str(self._failed), True
        finally:
            try:
                if follower is not None:
                    follower.close()
                self._let_go()
                old = outdated()
            finally:
                self._done.set()
        remove(old)  # now that nobody waits any more

    def _follow_until_end(self, follower: Follower | None) -> None:
        number = self._news.fileno()
        poll = select.poll()
        poll.register(number, select.POLLIN)
        if follower is not None and follower.grown is not None:
            poll.register(follower.grown, select.POLLIN)
        rest = b""
        while not self._live.finished:
            ready = dict(poll.poll(self._patience(follower)))
            if number in ready:
                data = os.read(number, _CHUNK)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
            self._show(follower)
            if self._teller is not None:
                self._teller.look()

    def _patience(self, follower: Follower | None) -> float | None:
        """
        How many milliseconds to wait for news.
        """
        if follower is not None and follower.is_behind:
            return 0
        if self._teller is not None and self._teller.is_waiting:
            return 1000 * _LONG_SECONDS
        return 1000 * LOOK_SECONDS if follower is not None and follower.grown is None else None

    def _stop_at_exit(self) -> None:
        if self._is_followed() and not self._done.is_set():
            say(f"{self.id} is stopped because the program ends; call wait() or result() to wait for it")
            try:
                self.cancel()
            except KeyboardInterrupt:  # whoever presses Ctrl-C again does not wait any longer
                self.cancel(at_once=True)
            if getattr(sys, "last_type", None) is KeyboardInterrupt:
                # Python forgets that the program ends by Ctrl-C when text is executed meanwhile, as imports do, and learns it so.
                with suppress(KeyboardInterrupt):
                    exec("raise KeyboardInterrupt")  # noqa: S102

    def _let_go(self) -> None:
        atexit.unregister(self._stop_at_exit)
        self._unlock()
        for port in self._ports:
            port.close()
        self._orders.close()
        self._news.close()
        self._process.wait()

    def _unlock(self) -> None:
        # The supervisor has locked the folder itself once it has said anything.
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # closing it does not do where a copy of this process has it too
            os.close(self._lock)
            self._lock = None

    def _take(self, event: dict[str, Any]) -> None:
        self._unlock()
        self._live.take(event)
        if self._teller is not None:
            self._teller.take(event)

    def _show(self, follower: Follower | None, *, last: bool = False) -> None:
        if follower is not None and self._echo is not None:
            for name, data in follower.read(last=last):
                self._echo.show(name, data)
            if last:
                self._echo.end()

    def _supervisor_lost(self) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while left := processes_with(RUN_VARIABLE, self.id):
            kill_and_wait(left, _GONE_SECONDS)
            if time.monotonic() > deadline:  # nothing more can be done from here
                break
        self._live.lose(code=self._process.wait())

    def _summarise(self) -> None:
        if self._teller is not None:
            seconds = time.monotonic() - self._started
            told = f"{self._live.state.value.lower()} in {seconds:.1f} s"
            restarts = f", {_count(self._live.restarts, 'restart')}" if self._live.restarts else ""
            say(f"{self.id} {told} ({_count(len(self.names), 'replica')}{restarts}); logs: {os.path.join(self.folder, 'logs')}")

    def _clean(self) -> None:
        if self.about["clean_logs"]:
            for name in self.names:
                try:
                    os.unlink(os.path.join(self.folder, "logs", f"{name}.log"))
                except FileNotFoundError:  # it never started
                    continue


class _Teller:
    """
    Tells the user about the long steps of a start, and about what went wrong on the way.
    """

    def __init__(self) -> None:
        self._waiting: tuple[float, str] | None = None

    @property
    def is_waiting(self) -> bool:
        """
        Whether a step is under way that has not been told about.
        """
        return self._waiting is not None

    def take(self, event: dict[str, Any]) -> None:
        """
        Follow one event.
        """
        kind = event["kind"]
        if kind == "importing":
            self._waiting = (time.monotonic(), f"importing {event['module']} once for all replicas …")
        elif kind == "imported":
            told = self._waiting is None
            self._waiting = None
            if told:
                say(f"imported {event['module']} in {event['seconds']:.1f} s")
        elif kind == "unforkable":
            say(f"each replica imports for itself: {event['text']}")
        elif kind in ("progress", "note", "restarting"):
            say(f"{event['replica']}: {event['text']}" if kind == "progress" else f"{event['replica']} {event['text']}")

    def look(self) -> None:
        """
        Tell about a step that has turned out to be long.
        """
        if self._waiting is not None and time.monotonic() - self._waiting[0] >= _LONG_SECONDS:
            say(self._waiting[1])
            self._waiting = None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
