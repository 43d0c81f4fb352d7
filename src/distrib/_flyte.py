"""
What flytekit loads of us: :class:`~distrib.Job` becomes a task config, and decorated functions become tasks of Flyte.

flytekit imports it by the entry point ``flytekit.plugins``; nothing else does before flytekit is there.
"""

from __future__ import annotations

import inspect
from typing import Any

import flytekit
from flytekit.core.context_manager import FlyteContextManager, FlyteEntities

from ._decorator import DistributedTask
from ._registry import get_engine
from .engines.flyte import _late
from .engines.flyte._task import DistributedFlyteTask, register
from .errors import DistribError, InvalidJobError

__all__ = ["FlyteDistributedTask", "become"]


class FlyteDistributedTask(DistributedTask, DistributedFlyteTask):  # type: ignore[type-arg]
    """
    Both: all that a :class:`~distrib.DistributedTask` has, and all that a task of Flyte has.
    """

    function = DistributedFlyteTask.function
    job = DistributedFlyteTask.job

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """
        The task that is being turned into Flyte's, or a new one for flytekit's own decorator.
        """
        task = _late.task_becoming()
        if task is None:
            return super().__new__(cls)
        for name in ("function", "job"):
            del task.__dict__[name]
        task.__class__ = cls
        return task

    def __init__(self, task_config: Any, task_function: Any, **keywords: Any) -> None:
        # By whose decorator it was made decides what a call outside of Flyte means.
        self._is_flytekits = _late.task_becoming() is None
        DistributedFlyteTask.__init__(self, task_config, task_function, **keywords)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """
        Within Flyte, a node of the workflow, or Flyte's own local execution; else a run by the configured engine.
        """
        if self._is_flytekits or self._is_mocked() or _late.in_flyte():
            return DistributedFlyteTask.__call__(self, *args, **kwargs)
        return DistributedTask.__call__(self, *args, **kwargs)

    def _is_mocked(self) -> bool:
        """
        Whether something else is executed in its place, as by flytekit's ``task_mock``.
        """
        return getattr(self.execute, "__func__", None) is not DistributedFlyteTask.execute


def _outside() -> Any:
    """
    As if no workflow was being compiled: that one's names are not those of the task.
    """
    context = FlyteContextManager.current_context().new_builder()
    context.compilation_state = None
    return FlyteContextManager.with_context(context)


def become(task: DistributedTask[Any, Any]) -> None:
    """
    Turn *task* into one of Flyte's.

    Raises:
        InvalidJobError: Flyte does not take it; the message says why.
    """
    before, entities = dict(task.__dict__), len(FlyteEntities.entities)
    job, function = task.job, task.function
    try:
        inspect.unwrap(function)  # refuses a function that wraps itself, which flytekit would follow for ever
        keywords = get_engine("flyte").options_of(job).keywords()
        with _late.becoming(task), _outside():
            flytekit.task(task_config=job, **keywords)(function)
    except Exception as error:
        task.__class__ = DistributedTask
        task.__dict__.clear()
        task.__dict__.update(before)
        # flytekit keeps tasks that it refuses halfway among those that it registers.
        del FlyteEntities.entities[entities:]
        if isinstance(error, DistribError):
            raise
        name = getattr(function, "__name__", type(function).__name__)
        raise InvalidJobError(f"{name}() cannot be a task of Flyte: {error}", field="function", value=function) from error
    task.__dict__["_instantiated_in"] = before.get(_late.HOME)


register(task=FlyteDistributedTask)
_late.flytekit_arrived()
