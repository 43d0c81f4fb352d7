"""
A run as its folder tells it, for whoever has not started it.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ..._cluster import RUN_VARIABLE
from ..._linux import has_variable, watch_process
from ..._outcome import ByRank
from ...engine import Event, Run, RunState, RunStatus
from ...errors import EngineError, InvalidJobError, did_you_mean
from .._patience import AWAKE_SECONDS, Patience
from .._results import NamedResults
from ._history import Progress, for_people, is_alive, read_about, read_events
from ._logs import LOOK_SECONDS, Follower

R_co = TypeVar("R_co", covariant=True)


class LocalResults(NamedResults[R_co]):
    """
    The values of a run's replicas, read from its folder when they are asked for.
    """

    def __init__(self, folder: str, names: Sequence[str], coordinator: str) -> None:
        super().__init__(names, coordinator)
        self._folder = folder

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, "results", f"{name}.pickle")

    def _is_kept(self, name: str) -> bool:
        return os.path.exists(self._path(name))

    def _read(self, name: str) -> R_co | ByRank:
        try:
            with open(self._path(name), "rb") as file:
                return pickle.load(file)  # type: ignore[no-any-return]
        except FileNotFoundError:
            raise LookupError(f"{name} returned no value: it was stopped before its function returned") from None


class StoredRun(Run[R_co]):
    """
    A run as its folder tells it: from any process, also when the one that submitted it is gone.
    """

    def __init__(self, folder: str, about: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.about = about or read_about(folder)
        self.names: list[str] = self.about["replicas"]

    @property
    def id(self) -> str:
        return os.path.basename(self.folder)

    def __repr__(self) -> str:
        return f"<Run {self.id}: {self.status().state.value}>"

    def _progress(self) -> Progress:
        # Asked before reading: the last event of a run that ends at this moment is then read after it.
        alive = is_alive(self.folder)
        progress = Progress(self.names)
        for event in read_events(self.folder):
            progress.take(event)
        if not progress.finished and not alive:
            progress.lose()
        return progress

    def status(self) -> RunStatus:
        return self._progress().status()

    def wait(self, timeout: float | None = None) -> RunStatus:
        patience = Patience(timeout)
        while is_alive(self.folder):
            patience.check(self.id)
            self._await_supervisor(patience.seconds())
        return self.status()

    def _await_supervisor(self, seconds: float) -> None:
        pid = self._supervisor()
        watched = watch_process(pid) if pid is not None else None
        if watched is None:  # it has not said yet who it is, or this system cannot watch it
            time.sleep(min(LOOK_SECONDS, seconds))
            return
        try:
            if is_alive(self.folder):  # the number was still its own when the descriptor was opened
                select.select([watched], [], [], seconds)
        finally:
            os.close(watched)

    def _supervisor(self) -> int | None:
        return next((event["pid"] for event in read_events(self.folder) if event["kind"] == "supervising"), None)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.wait(timeout)
        return self._error(self._progress())

    def _error(self, progress: Progress) -> EngineError | None:
        if progress.state is RunState.SUCCEEDED:
            return None
        from ._failure import error_of

        return error_of(self.folder, progress)

    def results(self, timeout: float | None = None) -> LocalResults[R_co]:
        error = self.exception(timeout)
        if error is not None:
            # Asked for twice, it does not tell of the first time too.
            raise error.with_traceback(None)
        return LocalResults(self.folder, self.names, self.about["coordinator"])

    def cancel(self, *, at_once: bool = False) -> None:
        while is_alive(self.folder):
            pid = self._supervisor()
            # The number may be another process's by now: a run's own has its id in the environment, where that can be read.
            if pid is not None and has_variable(pid, RUN_VARIABLE, self.id) is not False:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGQUIT if at_once else signal.SIGTERM)
                self.wait()
                return
            time.sleep(LOOK_SECONDS)  # it is being started, or ends at this moment

    def events(self) -> Sequence[Event]:
        return [for_people(event) for event in read_events(self.folder)]

    def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
        if replica is not None and replica not in self.names:
            raise InvalidJobError(f"no replica is called {replica!r}.{did_you_mean(replica, self.names)}", field="replica", value=replica)
        return self._lines([replica] if replica else self.names, follow=follow, prefixed=replica is None)

    def _lines(self, names: Sequence[str], *, follow: bool, prefixed: bool) -> Iterator[str]:
        follower = Follower(os.path.join(self.folder, "logs"), names)
        try:
            over = not follow
            while True:
                # Asked before reading: what was written before the end is then read after it.
                over = over or self._is_over()
                for name, data in follower.read(last=over):
                    for line in data.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n"):
                        yield f"[{name}] {line}" if prefixed else line
                if over:
                    return
                if not follower.is_behind:
                    self._await_growth(follower)
        finally:
            follower.close()

    def _is_over(self) -> bool:
        return not is_alive(self.folder)

    def _await_growth(self, follower: Follower) -> None:
        pid = self._supervisor()
        ended = watch_process(pid) if pid is not None else None
        watched = [number for number in (follower.grown, ended) if number is not None]
        try:
            select.select(watched, [], [], AWAKE_SECONDS if len(watched) == 2 else LOOK_SECONDS)  # noqa: PLR2004  # both can be waited for
        finally:
            if ended is not None:
                os.close(ended)
