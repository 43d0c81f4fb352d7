"""
The names of ``flytekitplugins.kfpytorch``: distributed PyTorch as a Flyte task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import task
from .task import CleanPodPolicy, Elastic, ElasticWorkerResult, Master, PyTorch, RestartPolicy, RunPolicy, Worker

if TYPE_CHECKING:
    from .task import PytorchElasticFunctionTask, PyTorchFunctionTask

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


def __getattr__(name: str) -> Any:
    return getattr(task, name)
