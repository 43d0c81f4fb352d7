"""
The names of ``flytekitplugins.kftensorflow.task``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distrib.compat import _registration
from distrib.compat._resources import Amounts
from distrib.compat._values import CleanPodPolicy, Config, Replicas, RestartPolicy, RunPolicy, Worker

if TYPE_CHECKING:
    from distrib.compat._tasks import TensorflowFunctionTask

__all__ = ["PS", "Chief", "CleanPodPolicy", "Evaluator", "RestartPolicy", "RunPolicy", "TensorflowFunctionTask", "TfJob", "Worker"]


class Chief(Replicas):
    """
    The chief, which coordinates the others; none unless *replicas* is 1. The fields are those of :class:`Worker`.
    """


class PS(Replicas):
    """
    The parameter servers, which hold the variables of the others. The fields are those of :class:`Worker`.
    """


@dataclass
class Evaluator(Replicas):
    """
    The evaluators, which follow the training. The fields are those of :class:`Worker`.
    """

    replicas: int = 0


#: Deprecated field -> what to write instead.
_REPLACEMENTS = {
    "num_workers": "worker=Worker(replicas=...)",
    "num_ps_replicas": "ps=PS(replicas=...)",
    "num_chief_replicas": "chief=Chief(replicas=...)",
    "num_evaluator_replicas": "evaluator=Evaluator(replicas=...)",
    "per_replica_requests": "@task(requests=...), or requests= of each group,",
    "per_replica_limits": "@task(limits=...), or limits= of each group,",
}


@dataclass
class TfJob(Config):
    """
    A TensorFlow job.

    Args:
        chief: The chief; none unless it has replicas.

        ps: The parameter servers; none unless they have replicas.

        worker: The workers; how many has to be said.

        evaluator: The evaluators.

        run_policy: When the job is over, when it is tried again, and what is left of it.

        num_workers: Deprecated: write ``worker=Worker(replicas=...)``.

        num_ps_replicas: Deprecated: write ``ps=PS(replicas=...)``.

        num_chief_replicas: Deprecated: write ``chief=Chief(replicas=...)``.

        num_evaluator_replicas: Deprecated: write ``evaluator=Evaluator(replicas=...)``.

        per_replica_requests: Deprecated: write ``@task(requests=...)``.

        per_replica_limits: Deprecated: write ``@task(limits=...)``.

    .. doctest::

        >>> from distrib.compat.kftensorflow import Chief, TfJob, Worker
        >>> TfJob(chief=Chief(replicas=1), worker=Worker(replicas=2)).to_job()
        Job('tensorflow', chief=1, worker=2)
    """

    task_class = "TensorflowFunctionTask"
    replacements = _REPLACEMENTS

    chief: Chief = field(default_factory=Chief)
    ps: PS = field(default_factory=PS)
    worker: Worker = field(default_factory=Worker)
    evaluator: Evaluator = field(default_factory=Evaluator)
    run_policy: RunPolicy | None = None
    num_workers: int | None = None
    num_ps_replicas: int | None = None
    num_chief_replicas: int | None = None
    num_evaluator_replicas: int | None = None
    per_replica_requests: Amounts = None
    per_replica_limits: Amounts = None


def __getattr__(name: str) -> Any:
    # It needs flytekit, which the configurations alone do without.
    if name == TfJob.task_class:
        return _registration.task_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
