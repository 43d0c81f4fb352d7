"""
The names of ``flytekitplugins.kfpytorch``: distributed PyTorch as a Flyte task.
"""

from __future__ import annotations

from .task import CleanPodPolicy, Elastic, ElasticWorkerResult, Master, PyTorch, RestartPolicy, RunPolicy, Worker

__all__ = [
    "CleanPodPolicy",
    "Elastic",
    "ElasticWorkerResult",
    "Master",
    "PyTorch",
    "RestartPolicy",
    "RunPolicy",
    "Worker",
]
