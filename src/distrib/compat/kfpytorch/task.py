"""
The names of ``flytekitplugins.kfpytorch.task``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from distrib.compat import _registration
from distrib.compat._resources import Amounts
from distrib.compat._values import CleanPodPolicy, Config, Group, RestartPolicy, RunPolicy, Worker
from distrib.engines.flyte._members import WorkerResult

if TYPE_CHECKING:
    from typing_extensions import Self

    from distrib.compat._tasks import PytorchElasticFunctionTask, PyTorchFunctionTask

__all__ = [
    "CleanPodPolicy",
    "Elastic",
    "ElasticWorkerResult",
    "Master",
    "PyTorch",
    "PyTorchFunctionTask",
    "PytorchElasticFunctionTask",
    "RestartPolicy",
    "RunPolicy",
    "Worker",
]


@dataclass
class Master(Group):
    """
    The master, of which there is one. The fields are those of :class:`Worker`.
    """

    image: Any = None
    requests: Amounts = None
    limits: Amounts = None
    restart_policy: RestartPolicy | None = None


class _MoreMemory(Config):
    """
    A config that may ask for more shared memory.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Here, because the field's default cannot be told from the same value given.
        given = {**dict(zip((each.name for each in fields(cls)), args, strict=False)), **kwargs}  # type: ignore[arg-type]
        if given.get("increase_shared_mem") is True:
            text = f"{cls.__name__}(increase_shared_mem=) is deprecated; write @task(shared_memory=True) instead."
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        return super().__new__(cls, *args, **kwargs)


@dataclass
class PyTorch(_MoreMemory):
    """
    A PyTorch job of a master and workers.

    Args:
        master: The master.

        worker: The workers; how many has to be said.

        run_policy: When the job is over, when it is tried again, and what is left of it.

        num_workers: Deprecated: write ``worker=Worker(replicas=...)``.

        increase_shared_mem: Whether ``/dev/shm`` may be as large as the pod's memory where ``@task(shared_memory=)`` says nothing.
            Deprecated: write ``@task(shared_memory=True)``, or ``"2Gi"``.

    .. doctest::

        >>> from distrib.compat.kfpytorch import PyTorch, Worker
        >>> PyTorch(worker=Worker(replicas=2)).to_job()
        Job('pytorch', master=1, worker=2)
    """

    task_class = "PyTorchFunctionTask"
    replacements = {"num_workers": "worker=Worker(replicas=...)"}

    master: Master = field(default_factory=Master)
    worker: Worker = field(default_factory=Worker)
    run_policy: RunPolicy | None = None
    num_workers: int | None = None
    increase_shared_mem: bool = True


@dataclass
class Elastic(_MoreMemory):
    """
    A PyTorch job that goes on when nodes come and go, by PyTorch's own elastic launcher.

    With one node it runs in a single pod and needs no operator.

    Args:
        nnodes: How many nodes: ``2``, or the fewest and the most as in ``"1:2"``.

        nproc_per_node: Processes of each node.

        start_method: ``"spawn"``: processes are fresh interpreters; ``"fork"``: copies of the node's own.

        monitor_interval: Seconds between two looks at the processes.

        max_restarts: How often all processes are started again before the task fails.

        rdzv_configs: PyTorch's settings for how nodes find each other, in seconds; 15 minutes unless said, because pods may
            have to wait for machines and images.

        increase_shared_mem: As for :class:`PyTorch`.

        run_policy: When the job is over, when it is tried again, and what is left of it.

    .. doctest::

        >>> from distrib.compat.kfpytorch import Elastic
        >>> Elastic(nnodes="1:2", nproc_per_node=4).to_job().world_size
        2
    """

    task_class = "PytorchElasticFunctionTask"

    nnodes: int | str = 1
    nproc_per_node: int = 1
    start_method: str = "spawn"
    monitor_interval: int = 5
    max_restarts: int = 0
    rdzv_configs: dict[str, Any] = field(default_factory=lambda: {"timeout": 900, "join_timeout": 900})
    increase_shared_mem: bool = True
    run_policy: RunPolicy | None = None


#: What a process of an elastic task leaves.
ElasticWorkerResult = WorkerResult


def __getattr__(name: str) -> Any:
    # They need flytekit, which the configurations alone do without.
    if name in (PyTorch.task_class, Elastic.task_class):
        return _registration.task_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
