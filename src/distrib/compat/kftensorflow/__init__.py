"""
The names of ``flytekitplugins.kftensorflow``: distributed TensorFlow as a Flyte task.
"""

from __future__ import annotations

from .task import PS, Chief, CleanPodPolicy, Evaluator, RestartPolicy, RunPolicy, TfJob, Worker

__all__ = ["PS", "Chief", "CleanPodPolicy", "Evaluator", "RestartPolicy", "RunPolicy", "TfJob", "Worker"]
