"""
An engine that is tested: what its author says about it, and what all laws ask of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from itertools import islice
from typing import Any, ClassVar, TypeVar

import pytest

import distrib

from ..._cluster import RUN_VARIABLE, ClusterSpec
from ..._job import Job
from ..._linux import descendants, processes_with
from ..._registry import backends, engines, get_backend, get_engine
from ...backend import Backend
from ...engine import Call, Engine, Plan, Run, RunState
from ...errors import DistribError, ReplicaFailedError, UnsupportedError
from .._law import Contract
from .._probe import ProbeBackend

T = TypeVar("T")
X = TypeVar("X", bound=Exception)


class EngineSubject(Contract):
    """
    An engine, and what is asked of it.
    """

    #: The engine, or the name of one that is installed.
    engine: ClassVar[Engine | str]
    #: Options of the engine for every run.
    options: ClassVar[Mapping[str, Any]] = {}
    #: The framework of the jobs: a backend, or the name of one that is installed.
    framework: ClassVar[Backend | str] = ProbeBackend()
    #: Its roles: of any number of replicas, of at most one that decides, and of those that never end by themselves.
    worker: ClassVar[str] = "worker"
    lead: ClassVar[str] = "lead"
    service: ClassVar[str] = "helper"
    #: Whether it starts runs at all. The laws about them are left out for one that does not, as one whose tasks others start.
    starts_runs: ClassVar[bool] = True
    #: After how many seconds whatever should have happened is taken for lost.
    patience: ClassVar[float] = 60.0

    # What an engine may need to say in its own way

    def job(self, **keywords: Any) -> Job:
        """
        The job of a law: two workers unless *keywords*, which are those of :class:`~distrib.Job`, say otherwise.
        """
        return Job(self._backend.name, **{self.worker: 2, "engine_options": {self._subject.name: dict(self.options)}, **keywords})

    def leftovers(self, run: Run[Any]) -> Collection[Any]:
        """
        What is left of a run: this machine's processes that have its id, without ``engine://``, in ``DISTRIB_RUN_ID``.
        """
        return processes_with(RUN_VARIABLE, run.id.rpartition("://")[2])

    def traces(self) -> dict[str, Collection[Any]]:
        """
        What planning must not add anything to: runs, and processes, threads, variables and open files of this process.
        """
        return {
            "runs": [run.id for run in self._subject.runs()],
            "processes": descendants(),
            "threads": [thread.name for thread in threading.enumerate()],
            "variables": [f"{name}={value}" for name, value in os.environ.items()],
            "open files": _open_files(),
            "working directory": [os.getcwd()],  # noqa: PTH109  # as it is
        }

    # What the laws ask

    @cached_property
    def _subject(self) -> Engine:
        if not hasattr(self, "engine") or isinstance(self.engine, type):
            kind = getattr(self, "engine", Engine).__name__
            raise TypeError(f"{type(self).__name__}: write engine = {kind}(), or the name of one that is installed.")
        return get_engine(self.engine) if isinstance(self.engine, str) else self.engine

    @cached_property
    def _started(self) -> list[Run[Any]]:
        return []

    @property
    def _backend(self) -> Backend:
        return get_backend(self.framework) if isinstance(self.framework, str) else self.framework

    @property
    def _options_class(self) -> Any:
        return self._subject.options

    def _who(self) -> str:
        engine = self._subject
        return f"{type(engine).__name__} (engine={getattr(engine, 'name', None)!r})"

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(backends.standing_in(self._backend.name, self._backend))
            name = getattr(self._subject, "name", None)
            if isinstance(name, str):
                stack.enter_context(engines.standing_in(name, self._subject))
            stack.callback(self._stop_all)
            yield

    def _stop_all(self) -> None:
        for run in self._started:
            with suppress(Exception):
                if not run.status().state.is_final:
                    self._within("cancel()", partial(run.cancel, at_once=True))

    def _start(self, function: Callable[..., Any], *args: Any, job: Job | None = None, **kwargs: Any) -> Run[Any]:
        wanted = job or self.job()
        return self._starting(wanted, lambda: self._subject.start(wanted, Call(function, args, kwargs)))

    def _submit(self, plan: Plan[Any]) -> Run[Any]:
        return self._starting(plan.job, lambda: self._subject.submit(plan))

    def _starting(self, job: Job, start: Callable[[], Run[Any]]) -> Run[Any]:
        try:
            run = start()
        except UnsupportedError as error:  # what an engine says that it does not do is no broken promise
            if self.starts_runs and job == self.job():
                remedy = "If it starts no runs at all, write starts_runs = False."
                raise AssertionError(f"it refuses the plainest job, which every engine runs: {error}\n{remedy}") from error
            pytest.skip(str(error))
        self._started.append(run)
        return run

    def _within(self, what: str, act: Callable[[], T]) -> T:
        """
        What *act* gives, if it does so before patience runs out.
        """
        done: list[T] = []
        failed: list[BaseException] = []

        def try_it() -> None:
            try:
                done.append(act())
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                failed.append(error)

        thread = threading.Thread(target=try_it, name=what, daemon=True)
        thread.start()
        thread.join(self.patience)
        assert not thread.is_alive(), f"{what} has not come back after {self.patience:g} s"
        if not failed:
            return done[0]
        error = failed[0]
        if isinstance(error, DistribError | LookupError | pytest.skip.Exception):
            raise error
        raise AssertionError(f"{what} has raised {error!r}") from error

    def _raised(self, kind: type[X], what: str, act: Callable[[], object]) -> X:
        """
        The error of that kind that *act* raises.
        """
        try:
            value = self._within(what, act)
        except kind as error:
            return error
        raise AssertionError(f"{what} has come back with {value!r}, and not raised a {kind.__name__}")

    def _await_lines(self, run: Run[Any]) -> None:
        """
        Wait until both replicas have written a line.
        """
        self._within("the first lines of logs(follow=True)", lambda: list(islice(run.logs(follow=True), 2)))

    def _result(self, run: Run[Any]) -> Any:
        return self._within("result()", run.result)

    def _failure(self, run: Run[Any], because: str) -> ReplicaFailedError:
        error = self._within("exception()", run.exception)
        assert error is not None, f"{because}, and the run has no error; its state is {run.status().state}"
        assert isinstance(error, ReplicaFailedError), f"{because}, and the error is {error!r}"
        again = self._raised(ReplicaFailedError, "result()", run.result)
        assert again.replica == error.replica, f"exception() names {error.replica}, result() {again.replica}"
        return error

    def _check_failed(self, run: Run[Any]) -> None:
        state = run.status().state
        assert state is RunState.FAILED, f"the run has failed, and its state is {state}"
        self._check_nothing_left(run)

    def _check_nothing_left(self, run: Run[Any]) -> None:
        left = self.leftovers(run)
        assert not left, f"the run is over, and left of it: {', '.join(map(str, left))}"

    def _check_found(self, run: Run[Any]) -> None:
        assert distrib.get_run(run.id).id == run.id, f"asked for {run.id}, it is {distrib.get_run(run.id).id}"
        known = [each.id for each in distrib.runs(self._subject.name)]
        assert run.id in known, f"{run.id} is none of the runs: {known}"
        assert known[0] == run.id, f"the newest run is {run.id}, and the first one {known[0]}"

    def _names(self, job: Job) -> list[str]:
        return [f"{group.role}-{index}" for group in job.groups for index in range(group.replicas)]

    def _coordinator(self, job: Job) -> str:
        cluster = ClusterSpec({group.role: [f"{group.role}:{1 + index}" for index in range(group.replicas)] for group in job.groups})
        return self._backend.coordinator(cluster).name


def _open_files() -> list[str]:
    try:
        names = os.listdir("/proc/self/fd")  # noqa: PTH208  # descriptors
    except OSError:
        return []
    found = []
    for name in names:
        with suppress(OSError):  # the listing's own is closed
            found.append(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115  # descriptors
    return found
