"""
Flyte runs a task on this machine: its replicas are processes of the local engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._cancelling import cancelling
from ..._registry import get_engine
from ...engine import Call
from ...errors import EngineError
from ._members import Carrying, taken_over

if TYPE_CHECKING:
    from ._task import DistributedFlyteTask

__all__ = ["run_locally"]


def run_locally(task: DistributedFlyteTask, inputs: Mapping[str, Any]) -> Any:
    """
    The coordinator's value.

    Raises:
        EngineError: The run failed.

        InvalidJobError: An input cannot be sent to the replicas; the message names it.
    """
    call = Call(Carrying(task.function, here=True), (), dict(inputs))
    try:
        with cancelling() as watch:
            return taken_over(watch.over(get_engine("local").start(task.job, call)).result())
    except EngineError as error:
        # Where in our code the error was made helps nobody: what the user sees starts at the task.
        failure = error.with_traceback(None)
    raise failure from failure.__cause__
