"""
What a job becomes on Kubernetes: one module for each kind of object that can own its pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ._base import Setting, Workload
from .job import JobWorkload
from .jobset import JobSetWorkload
from .operator import OperatorWorkload
from .trainjob import TrainJobWorkload

if TYPE_CHECKING:
    from ...._job import Job
    from .._options import KubernetesOptions

__all__ = ["WORKLOADS", "Setting", "Workload", "workload_of"]

#: By what users write as ``workload=``.
WORKLOADS: Mapping[str, Workload] = {each.name: each for each in (OperatorWorkload(), JobWorkload(), JobSetWorkload(), TrainJobWorkload())}


def workload_of(job: Job, options: KubernetesOptions) -> Workload:
    """
    What a job becomes.
    """
    return WORKLOADS[options.workload or ("job" if job.backend.operator is None else "operator")]
