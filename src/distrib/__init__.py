"""
Distributed training with one decorator, on this machine, on Kubernetes and in Flyte.

Frameworks are TensorFlow, PyTorch, JAX, and those of other packages' backends.

.. doctest::

    >>> from distrib import distributed, replica
    >>> @distributed(framework="tensorflow", worker=2, local={"echo": False})
    ... def who() -> str:
    ...     return replica().name
    >>> who()
    'worker-0'
    >>> list(who.submit().results())
    ['worker-0', 'worker-1']

Training code calls :func:`replica`, :func:`distrib.tensorflow.strategy` and :func:`distrib.pytorch.process_group`; what can go
wrong is in :mod:`distrib.errors`. Names are loaded when they are first used, so that ``import distrib`` costs next to nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._cluster import ClusterSpec, Replica, replica
    from ._command import Command
    from ._decorator import DistributedTask, distributed, launch
    from ._job import Job
    from ._model import (
        CleanPodPolicy,
        ReplicaGroup,
        Resources,
        RestartPolicy,
        RestartScope,
        RunPolicy,
        SchedulingPolicy,
        SuccessPolicy,
        Toleration,
        Volume,
    )
    from .backend import Backend, Role
    from .engine import Engine, Event, Plan, ReplicaStatus, Results, Run, RunState, RunStatus
    from .errors import (
        DistribError,
        EngineError,
        InvalidJobError,
        MissingDependencyError,
        ReplicaFailedError,
        RetryableError,
        RunCancelledError,
        RunFailedError,
        RunTimeoutError,
        SubmitError,
        UnknownBackendError,
        UnknownEngineError,
        UnsupportedError,
    )

    __version__: str

__all__ = [
    "Backend",
    "CleanPodPolicy",
    "ClusterSpec",
    "Command",
    "DistribError",
    "DistributedTask",
    "Engine",
    "EngineError",
    "Event",
    "InvalidJobError",
    "Job",
    "MissingDependencyError",
    "Plan",
    "Replica",
    "ReplicaFailedError",
    "ReplicaGroup",
    "ReplicaStatus",
    "Resources",
    "RestartPolicy",
    "RestartScope",
    "Results",
    "RetryableError",
    "Role",
    "Run",
    "RunCancelledError",
    "RunFailedError",
    "RunPolicy",
    "RunState",
    "RunStatus",
    "RunTimeoutError",
    "SchedulingPolicy",
    "SubmitError",
    "SuccessPolicy",
    "Toleration",
    "UnknownBackendError",
    "UnknownEngineError",
    "UnsupportedError",
    "Volume",
    "__version__",
    "distributed",
    "get_run",
    "launch",
    "replica",
    "runs",
]

_HOMES = {
    "_command": ("Command",),
    "_cluster": ("ClusterSpec", "Replica", "replica"),
    "_decorator": ("DistributedTask", "distributed", "launch"),
    "_job": ("Job",),
    "_model": (
        "CleanPodPolicy",
        "ReplicaGroup",
        "Resources",
        "RestartPolicy",
        "RestartScope",
        "RunPolicy",
        "SchedulingPolicy",
        "SuccessPolicy",
        "Toleration",
        "Volume",
    ),
    "backend": ("Backend", "Role"),
    "engine": ("Engine", "Event", "Plan", "ReplicaStatus", "Results", "Run", "RunState", "RunStatus"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("distrib")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    found = getattr(import_module(f"{__name__}.{_HOME_OF.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__


def runs(engine: str = "local") -> Sequence[Run[Any]]:
    """
    The runs that an engine knows of, the newest first; also those of other processes.

    .. doctest::

        >>> import distrib
        >>> distrib.launch(["true"], framework="tensorflow", worker=2, local={"echo": False})
        >>> distrib.runs()[0].status().state
        <RunState.SUCCEEDED: 'Succeeded'>

    Args:
        engine: The name of the engine.

    Raises:
        UnknownEngineError: There is no such engine.
    """
    from ._registry import get_engine

    return get_engine(engine).runs()


def get_run(id: str) -> Run[Any]:
    """
    A run by its id: ``run.id`` of a local one, ``engine://…`` of any other.

    .. doctest::

        >>> import distrib
        >>> distrib.launch(["true"], framework="tensorflow", worker=2, local={"echo": False})
        >>> latest = distrib.runs()[0].id
        >>> distrib.get_run(latest).id == latest
        True

    Args:
        id: What ``run.id`` was in the program that submitted it.

    Raises:
        LookupError: There is none.
    """
    from ._registry import get_engine

    name = str(id)
    engine, separator, _ = name.partition("://")
    return get_engine(engine if separator else "local").get_run(name)
