"""
What every engine has to offer: plans that can be read before anything starts, and runs that can be followed.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import attrs

from . import _fields
from ._refusal import refuse
from .errors import EngineError, InvalidJobError, did_you_mean

if TYPE_CHECKING:
    from ._job import Job

__all__ = ["Call", "Engine", "Event", "Plan", "ReplicaStatus", "Results", "Run", "RunState", "RunStatus"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@attrs.frozen
class Call(Generic[R_co]):
    """
    A function and what it is called with.

    .. doctest::

        >>> from distrib.engine import Call
        >>> call = Call(max, (1, 2))
        >>> call.name, call.function(*call.args, **call.kwargs)
        ('max', 2)
    """

    function: Callable[..., R_co]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        """
        The function's name, for people.
        """
        function = self.function
        while isinstance(function, partial):
            function = function.func
        return getattr(function, "__name__", type(function).__name__)


class RunState(Enum):
    """
    Where a run stands.

    .. doctest::

        >>> from distrib import RunState
        >>> RunState.RUNNING.is_final, RunState.SUCCEEDED.is_final
        (False, True)
    """

    PENDING = "Pending"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        """
        Whether nothing will change any more.
        """
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)


@attrs.frozen(kw_only=True)
class ReplicaStatus:
    """
    Where one replica stands.

    Args:
        state: ``Waiting``, ``Running``, ``Stopping``, ``Succeeded``, ``Failed`` or ``Stopped``.

        attempt: How often it has been started.

        exit_code: Of its last end, or None; a signal is in *signal*.

        signal: The number of the signal that ended it, or None.

        message: What it is doing, or why it ended.
    """

    state: str = "Waiting"
    attempt: int = 0
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""


@attrs.frozen(kw_only=True)
class RunStatus:
    """
    Where a run stands, and each of its replicas.

    Args:
        state: Of the run as a whole.

        reason: Why it ended as it did; an empty string while it runs.

        replicas: Name of a replica -> where it stands.

        restarts: How often replicas have been started again, in all.
    """

    state: RunState
    reason: str = ""
    replicas: Mapping[str, ReplicaStatus] = attrs.field(factory=dict)
    restarts: int = 0


@attrs.frozen(kw_only=True)
class Event:
    """
    One thing that happened.

    Args:
        time: Seconds since the epoch.

        kind: E.g. ``"started"``, ``"exited"``, ``"finished"``.

        replica: Whom it happened to; an empty string for the run as a whole.

        message: The rest of it, for people.
    """

    time: float
    kind: str
    replica: str = ""
    message: str = ""


class Plan(ABC, Generic[R_co]):
    """
    A job, a call and an engine, fully rendered. Nothing has been started; print it to see all of it.
    """

    job: Job
    call: Call[R_co]

    @abstractmethod
    def __str__(self) -> str:
        """
        All that would be started or sent, for people.
        """

    def __repr__(self) -> str:
        return str(self)


class Results(ABC, Generic[R_co]):
    """
    What the replicas returned.

    ``results.value`` is the coordinator's value; ``results["worker"][1]`` is that of worker 1; iteration gives the values
    of all replicas that returned one, in the order of their ranks. A replica that was stopped, a parameter server say, has
    none: asking for it is a ``LookupError``.

    Where a replica runs several processes, each of them has a rank and a value of its own: iteration and :meth:`by_rank` give
    them all, ``results["worker"][1]`` is that of the first process of worker 1.

    .. doctest::

        >>> from distrib import distributed, replica
        >>> @distributed(framework="tensorflow", chief=1, worker=2, local={"echo": False})
        ... def square() -> int:
        ...     return replica().rank ** 2
        >>> results = square.submit().results()
        >>> results.value, results["worker"][1], list(results), dict(results.items())
        (0, 4, [0, 1, 4], {'chief-0': 0, 'worker-0': 1, 'worker-1': 4})
    """

    @property
    @abstractmethod
    def value(self) -> R_co:
        """
        The coordinator's value.
        """

    @abstractmethod
    def __getitem__(self, role: str) -> Sequence[R_co]:
        """
        The values of a role's replicas, by index.
        """

    @abstractmethod
    def items(self) -> Iterator[tuple[str, R_co]]:
        """
        The names and values of all replicas that returned one, in the order of their ranks; ``"worker-0/1"`` is the second
        process of worker 0.
        """

    @abstractmethod
    def by_rank(self) -> Mapping[int, R_co]:
        """
        The values by rank: of the processes where replicas run several, else of the replicas. Whoever returned none is left out.
        """

    @abstractmethod
    def __len__(self) -> int:
        """
        How many values there are.
        """

    def __iter__(self) -> Iterator[R_co]:
        return (value for _, value in self.items())


class Run(ABC, Generic[R_co]):
    """
    One submission of a plan: ``task.submit(...)`` gives it, and :func:`distrib.get_run` finds it again.

    .. doctest::

        >>> from distrib import distributed
        >>> @distributed(framework="tensorflow", worker=2, local={"echo": False})
        ... def train(epochs: int) -> int:
        ...     print(epochs, "epochs")
        ...     return epochs
        >>> run = train.submit(epochs=3)
        >>> run.result(timeout=60)
        3
        >>> run.status().state.value, list(run.logs("worker-1"))
        ('Succeeded', ['3 epochs'])

    In async code ``await run`` gives the coordinator's value as well.
    """

    @property
    @abstractmethod
    def id(self) -> str:
        """
        What :func:`distrib.get_run` takes.
        """

    @abstractmethod
    def status(self) -> RunStatus:
        """
        Where it stands now.
        """

    @abstractmethod
    def wait(self, timeout: float | None = None) -> RunStatus:
        """
        Block until the run is over, however it ends.

        Raises:
            RunTimeoutError: *timeout* seconds were not enough; the run goes on.

            EngineError: The run can no longer be followed, and may go on.
        """

    @abstractmethod
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """
        Wait; the error that :meth:`result` would raise, or None.
        """

    @abstractmethod
    def results(self, timeout: float | None = None) -> Results[R_co]:
        """
        Wait; what the replicas returned.

        Raises:
            EngineError: What :meth:`result` would raise.
        """

    @abstractmethod
    def cancel(self, *, at_once: bool = False) -> None:
        """
        Stop the run and wait until nothing of it is left: SIGTERM, the grace period, SIGKILL. A run that is over stays as it is.

        Args:
            at_once: Leave out the grace period.
        """

    @abstractmethod
    def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
        """
        The lines that the replicas wrote, without their line ends. One that is very long may come in pieces: memory stays bounded.

        Args:
            replica: E.g. ``"worker-1"``; None for all of them, each line with its replica's name in front.

            follow: Go on until the run is over.

        Raises:
            InvalidJobError: No replica is called so.
        """

    @abstractmethod
    def events(self) -> Sequence[Event]:
        """
        What has happened, in order.
        """

    def result(self, timeout: float | None = None) -> R_co:
        """
        Wait; the coordinator's value.

        Raises:
            ReplicaFailedError: A replica failed; its own exception is the cause where it can be rebuilt.

            RunFailedError: The run failed for another reason: what looked after it was killed, for instance.

            RunCancelledError: The run was cancelled.

            RunTimeoutError: *timeout* seconds were not enough (the run goes on), or the run outlived its deadline.
        """
        try:
            return self.results(timeout).value
        except EngineError as error:
            # Where in our code the error was made helps nobody, and the report is to stay short.
            failure = error.with_traceback(None)
        raise failure from failure.__cause__

    def __await__(self) -> Generator[Any, None, R_co]:
        import asyncio

        # A thread that nobody joins: leaving the loop does not wait for the run.
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def deliver() -> None:
            if not done.done():
                done.set_result(None)

        def watch() -> None:
            try:
                with suppress(EngineError):  # result() tells of it
                    self.wait()
            finally:
                with suppress(RuntimeError):  # the loop may have been closed meanwhile
                    loop.call_soon_threadsafe(deliver)

        threading.Thread(target=watch, name=f"await {self.id}", daemon=True).start()
        yield from done.__await__()
        return self.result()


class Engine(ABC):
    """
    Where jobs run.
    """

    #: What users write as ``engine=``.
    name: ClassVar[str]
    #: A frozen attrs class: what ``.on(name, ...)`` takes.
    options: ClassVar[type]
    #: Whether options may hold objects that are no plain data. Jobs that have such options cannot be written down as data.
    takes_objects: ClassVar[bool] = False

    def options_of(self, job: Job) -> Any:
        """
        What *job* says to this engine: an object of :attr:`options`.

        Raises:
            InvalidJobError: There is no such option, or it does not take this value.
        """
        given = job.engine_options.get(self.name, {})
        legal = _fields.field_names(self.options)
        for option, value in given.items():
            if option not in legal:
                raise refuse(f"{self.name}.{option}", value, f"no such option.{did_you_mean(option, legal)}")
        try:
            return self.options(**given)
        except InvalidJobError:
            raise
        except Exception as error:  # the options class is the engine's, and may raise anything
            raise refuse(self.name, dict(given), f"{type(error).__name__}: {error}") from error

    @abstractmethod
    def plan(self, job: Job, call: Call[R]) -> Plan[R]:
        """
        Render the job and the call; pure. :meth:`options_of` has what the job says to this engine.

        Raises:
            InvalidJobError: What the job says to this engine is wrong.

            UnsupportedError: The engine cannot honour a field of the job.
        """

    @abstractmethod
    def submit(self, plan: Plan[R]) -> Run[R]:
        """
        Start what was planned.

        Raises:
            SubmitError: It could not be started; nothing of it is left.

            MissingDependencyError: The framework is not installed.
        """

    def start(self, job: Job, call: Call[R]) -> Run[R]:
        """
        Plan and submit in one step, for engines that can do part of both at once.
        """
        return self.submit(self.plan(job, call))

    @abstractmethod
    def runs(self) -> Sequence[Run[Any]]:
        """
        All runs that are known, the newest first.
        """

    @abstractmethod
    def get_run(self, id: str) -> Run[Any]:
        """
        The run of that id.

        Raises:
            LookupError: There is none.
        """
