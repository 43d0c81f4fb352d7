"""
Flyte runs a task on this machine: its replicas are processes of the local engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..._cancelling import cancelling
from ..._registry import get_engine
from ...engine import Call
from ...errors import EngineError

if TYPE_CHECKING:
    from ..._job import Job
    from ._task import DistributedFlyteTask

__all__ = ["run_job", "run_locally"]


def run_locally(task: DistributedFlyteTask, inputs: Mapping[str, Any]) -> Any:
    """
    The coordinator's value.

    Raises:
        EngineError: The run failed.

        InvalidJobError: An input cannot be sent to the replicas; the message names it.
    """
    return run_job(task.job, task.function, inputs)


def run_job(job: Job, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    """
    The same of a job and a function that are in no task.
    """
    try:
        with cancelling() as watch:
            return watch.over(get_engine("local").start(job, Call(function, (), dict(inputs)))).result()
    except EngineError as error:
        # Where in our code the error was made helps nobody: what the user sees starts at the task.
        failure = error.with_traceback(None)
    raise failure from failure.__cause__
