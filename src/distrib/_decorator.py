"""
The ``@distributed`` decorator, and what it makes of a function.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from ._job import Job
from ._registry import engines, get_engine
from .engines.flyte import _late
from .errors import InvalidJobError, UnknownEngineError, did_you_mean

if TYPE_CHECKING:
    from _typeshed import StrPath

    from ._model import Resources, RunPolicy
    from .engine import Call, Engine, Plan, Run

P = ParamSpec("P")
P_rest = ParamSpec("P_rest")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
P_own = ParamSpec("P_own")
R_own_co = TypeVar("R_own_co", covariant=True)

#: Names the engine where neither ``.on()`` nor ``engine=`` does.
ENGINE_VARIABLE = "DISTRIB_ENGINE"
_DEFAULT_ENGINE = "local"


class DistributedTask(Generic[P, R_co]):
    """
    A function that runs as a group of replicas when it is called.

    Made by :func:`distributed`. It keeps the function's name, docstring and signature.

    .. doctest::

        >>> from distrib import distributed
        >>> @distributed(framework="tensorflow", worker=2, local={"echo": False})
        ... def add(a: int, b: int) -> int:
        ...     return a + b
        >>> add(1, 2), add.submit(1, 2).result(), add.function(1, 2)
        (3, 3, 3)
        >>> add.options(chief=1).job
        Job('tensorflow', chief=1, worker=2, local={'echo': False})
        >>> add.on("local", grace_period=5).job
        Job('tensorflow', worker=2, engine='local', local={'echo': False, 'grace_period': 5})
        >>> print(add.plan(1, 2))
        add: 2 replicas of tensorflow on this machine
        ...

    Attributes:
        function: The plain function.

        job: What is to run, a frozen value.
    """

    #: How code that must not import this module recognises a task.
    __distrib_task__ = True

    def __init__(self, function: Callable[P, R_co], job: Job) -> None:
        update_wrapper(self, function)
        self.function = function
        self.job = job

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """
        Run it, wait, and return the coordinator's value. Ctrl-C, SIGTERM and SIGHUP stop the run first.

        Raises:
            EngineError: The run failed, or could not be started; see :meth:`Run.result`.

            DistribError: It was refused before anything started; see :meth:`submit`.

            TypeError: The function does not take these arguments.
        """
        from ._cancelling import cancelling
        from .errors import EngineError

        if not _late.is_flytes(self) and _late.in_flyte():
            _late.become(self)
            return self(*args, **kwargs)
        try:
            with cancelling() as watch:
                return watch.over(self.submit(*args, **kwargs)).result()
        except EngineError as error:
            # Where in our code the error was made helps nobody: what the user sees starts at the user's own call.
            failure = error.with_traceback(None)
        except KeyboardInterrupt as interrupt:
            # Nor where we were when the key was pressed.
            raise interrupt.with_traceback(None) from None
        raise failure from failure.__cause__

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Run[R_co]:
        """
        Start it without waiting.

        Raises:
            SubmitError: It could not be started.

            MissingDependencyError: The framework is not installed.

            UnsupportedError: The engine cannot honour a field of the job.

            InvalidJobError: The job is wrong for this engine.

            TypeError: The function does not take these arguments.
        """
        return self._engine().start(self.job, self._call(args, kwargs))

    def plan(self, *args: P.args, **kwargs: P.kwargs) -> Plan[R_co]:
        """
        What :meth:`submit` would start, fully rendered; nothing is started.

        Raises:
            UnsupportedError: The engine cannot honour a field of the job.

            InvalidJobError: The job is wrong for this engine.

            TypeError: The function does not take these arguments.
        """
        return self._engine().plan(self.job, self._call(args, kwargs))

    def on(self, engine: str, **options: Any) -> DistributedTask[P, R_co]:
        """
        A copy bound to an engine and its options, which are added to those it has.

        Args:
            engine: Where it runs: ``"local"``, ``"kubernetes"``, ``"flyte"``, or an engine of another package.

            options: The engine's own options.

        Raises:
            UnknownEngineError: There is no such engine.

            InvalidJobError: It has no such option.
        """
        options = {**self.job.engine_options.get(engine, {}), **options}
        job = self.job.evolve(engine=engine, engine_options={**self.job.engine_options, engine: options})
        return self._copy(job)

    def options(self, **changes: Any) -> DistributedTask[P, R_co]:
        """
        A copy with another job: takes the keywords of :func:`distributed`.

        Raises:
            InvalidJobError: A keyword or its value is wrong.
        """
        return self._copy(self.job.evolve(**changes))

    def _copy(self, job: Job) -> DistributedTask[P, R_co]:
        _check_engine_options(job)
        # Not yet a task of Flyte's: most copies are for one call. It becomes one when Flyte meets it.
        copy = DistributedTask(self.function, job)
        _late.note_home(copy)
        return copy

    if not TYPE_CHECKING:  # for what has types, a misspelt name stays an error

        def __getattr__(self, name: str) -> Any:
            """
            What only tasks of Flyte have: looked for, it turns this one into such a task if flytekit is imported.
            """
            if _late.has(self, name):
                _late.become_for(self, name)
                return getattr(self, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        counts = ", ".join(f"{group.role}={group.replicas}" for group in self.job.groups)
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"<{name}: distributed {self.job.framework}, {counts}>"

    @overload
    def __get__(self, instance: None, owner: type) -> DistributedTask[P, R_co]: ...

    @overload
    def __get__(
        self: DistributedTask[Concatenate[S, P_rest], R_co], instance: S, owner: type | None = None
    ) -> DistributedTask[P_rest, R_co]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """
        Of a decorated method: the task of the bound method.
        """
        return self if instance is None else DistributedTask(self.function.__get__(instance, owner), self.job)

    def __reduce__(self) -> tuple[Any, ...]:
        # By what it is made of: a function of a module is then pickled by reference, a closure by value.
        return (DistributedTask, (self.function, self.job))

    def _engine(self) -> Engine:
        chosen = os.environ.get(ENGINE_VARIABLE)
        if self.job.engine is None and chosen and chosen not in engines:
            raise UnknownEngineError(f"{ENGINE_VARIABLE}={chosen!r}: no such engine.{did_you_mean(chosen, engines)}")
        return get_engine(self.job.engine or chosen or _DEFAULT_ENGINE)

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call[R_co]:
        from .engine import Call

        call = Call(self.function, args, dict(kwargs))
        try:
            signature = inspect.signature(self.function)
        except ValueError:  # a built-in function that does not tell
            return call
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            # A wrong call is told here, as Python tells it, not by every replica.
            raise TypeError(f"{call.name}() {error}") from None
        return call


def _from_flyte(config: object, **keywords: Any) -> Callable[[Callable[P, R]], DistributedTask[P, R]]:
    """
    Make a function run as the job that a task config of Flyte's Kubeflow plugins describes: theirs, or one of ``distrib.compat``.

    .. doctest::

        >>> from distrib import distributed
        >>> from distrib.compat.kftensorflow import Chief, TfJob, Worker
        >>> @distributed.from_flyte(TfJob(chief=Chief(replicas=1), worker=Worker(replicas=2)), env={"SEED": "1"})
        ... def train() -> None: ...
        >>> train.job
        Job('tensorflow', chief=1, worker=2, env={'SEED': '1'})

    Args:
        config: A ``TfJob``, ``PyTorch`` or ``Elastic``.

        keywords: What else the job is made of, as for :func:`distrib.distributed`.

    Raises:
        InvalidJobError: It is no such config, or something in it, or a keyword, is wrong.
    """
    from .compat._convert import job_of

    return _decorator_of(job_of(config).evolve(**keywords))


class _Distributed(Protocol[P_own, R_own_co]):
    """
    What type checkers know of :func:`distributed`: itself, and what hangs on it.
    """

    def __call__(self, *args: P_own.args, **kwargs: P_own.kwargs) -> R_own_co: ...

    def from_flyte(self, config: object, **keywords: Any) -> Callable[[Callable[P, R]], DistributedTask[P, R]]: ...


def _with_others(function: Callable[P_own, R_own_co]) -> _Distributed[P_own, R_own_co]:
    vars(function)["from_flyte"] = _from_flyte
    return cast("_Distributed[P_own, R_own_co]", function)


@_with_others
def distributed(
    framework: str,
    *,
    image: str | None = None,
    env: Mapping[str, str] | None = None,
    requests: Resources | Mapping[str, Any] | None = None,
    limits: Resources | Mapping[str, Any] | None = None,
    run_policy: RunPolicy | Mapping[str, Any] | None = None,
    name: str | None = None,
    engine: str | None = None,
    **keywords: Any,
) -> Callable[[Callable[P, R]], DistributedTask[P, R]]:
    """
    Make a function run as a group of replicas.

    .. doctest::

        >>> from distrib import distributed
        >>> @distributed(framework="tensorflow", worker=2, local={"echo": False})
        ... def add(a: int, b: int) -> int:
        ...     return a + b
        >>> add(1, 2)
        3

    Args:
        framework: E.g. ``"tensorflow"``.

        image: The container image, for engines that use one.

        env: Environment variables of all replicas.

        requests: What each replica is to be given.

        limits: What each replica may use at most.

        run_policy: Deadline, restarts, clean-up.

        name: The job's name; the function's if left out.

        engine: Where it runs, unless ``.on()`` says otherwise; ``DISTRIB_ENGINE``, else ``"local"``, if left out.

        keywords: A role of the framework (an ``int``, a mapping or a ``ReplicaGroup``), an option of the framework, or
            the name of an engine with a mapping of its options.

    Raises:
        InvalidJobError: A keyword or its value is wrong; the message names the legal ones.

        UnknownBackendError: There is no such framework.
    """
    if callable(framework):
        raise InvalidJobError("@distributed needs a framework: write @distributed(framework='tensorflow', worker=2).", field="framework")
    own = {"image": image, "env": env, "requests": requests, "limits": limits, "run_policy": run_policy, "name": name, "engine": engine}
    given: dict[str, Any] = {key: value for key, value in own.items() if value is not None}
    return _decorator_of(Job(framework, **given, **keywords))


def _decorator_of(job: Job) -> Callable[[Callable[P, R]], DistributedTask[P, R]]:
    _check_engine_options(job)

    def decorate(function: Callable[P, R]) -> DistributedTask[P, R]:
        _check_function(function)
        task = DistributedTask(function, job)
        _late.offer(task)
        return task

    return decorate


def launch(argv: Iterable[StrPath], *, framework: str, **keywords: Any) -> None:
    """
    Run a program as every replica of a job, and wait until it is over: what ``torchrun`` is for PyTorch, for all frameworks.

    It is supervised as a decorated function is: the same logs, restarts, policies and errors. Each replica finds its place in the
    environment of its framework, and with :func:`distrib.replica`.

    .. doctest::

        >>> import sys, distrib
        >>> program = "import distrib; distrib.replica().world_size == 2 or exit(1)"
        >>> distrib.launch([sys.executable, "-c", program], framework="tensorflow", worker=2, local={"echo": False})

    Args:
        argv: The program and its arguments; no shell reads them.

        framework: E.g. ``"tensorflow"``.

        keywords: As for :func:`distrib.distributed`.

    Raises:
        InvalidJobError: The command, or a keyword, is wrong.

        UnknownBackendError: There is no such framework.

        MissingDependencyError: The framework is not installed.

        EngineError: The run failed: the program could not be started, or ended with another code than 0.
    """
    from ._command import Command

    distributed(framework, **keywords)(Command(argv))()


def _check_engine_options(job: Job) -> None:
    for name in job.engine_options:
        get_engine(name).options_of(job)
    if job.engine is not None and job.engine not in job.engine_options:
        get_engine(job.engine)


def _check_function(function: Any) -> None:
    if not callable(function):
        raise InvalidJobError(f"@distributed decorates a function; this is {function!r}.", field="function", value=function)
    if isinstance(function, DistributedTask):
        raise InvalidJobError(
            f"{function!r} is decorated already: write .options(...) for a copy with another job, .function for the plain function.",
            field="function",
            value=function,
        )
    if _late.is_entity(function):
        raise InvalidJobError(
            f"{getattr(function, '__name__', function)}() is Flyte's already: write @distributed in place of flytekit's own decorator, "
            "whose settings go into flyte={...}; or @task(task_config=Job(...)).",
            field="function",
            value=function,
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        kind, instead = ("a generator", "list") if inspect.isgeneratorfunction(function) else ("async", "asyncio.run")
        raise InvalidJobError(
            f"{getattr(function, '__name__', function)}() is {kind}: a replica runs a plain function and returns its value. "
            f"Wrap it in one, e.g. with {instead}().",
            field="function",
            value=function,
        )
