"""
The names of ``flytekitplugins.kftensorflow``: distributed TensorFlow as a Flyte task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import task
from .task import PS, Chief, CleanPodPolicy, Evaluator, RestartPolicy, RunPolicy, TfJob, Worker

if TYPE_CHECKING:
    from .task import TensorflowFunctionTask

__all__ = ["PS", "Chief", "CleanPodPolicy", "Evaluator", "RestartPolicy", "RunPolicy", "TensorflowFunctionTask", "TfJob", "Worker"]


def __getattr__(name: str) -> Any:
    return getattr(task, name)
