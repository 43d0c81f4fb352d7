"""
What flytekit notes while a task's function runs in another process: decks, and what belongs to the value.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from distrib._cluster import replica
from distrib.engines.flyte._members import surroundings

from .kfpytorch.task import ElasticWorkerResult

__all__ = ["Worker", "take_over"]


class Worker:
    """
    The task's function, in a process that flytekit does not know of.

    Args:
        function: The function.

        afresh: Whether the process is a fresh interpreter, to which what Flyte's own process knows has to be told.
    """

    def __init__(self, function: Callable[..., Any], *, afresh: bool) -> None:
        self.function = function
        self.__name__ = function.__name__
        self.__module__ = function.__module__
        self.afresh = afresh
        self.surroundings = surroundings()

    def __call__(self, **inputs: Any) -> ElasticWorkerResult:
        """
        The function's value, and what was noted beside it. Only the coordinator's will be looked at.
        """
        import flytekit

        with self._surrounded() as context:
            value = self.function(**inputs)
            if not replica().is_coordinator:
                return ElasticWorkerResult(value, [])
            tracker = context.output_metadata_tracker
            noted = None if tracker is None else tracker.get(value)
            return ElasticWorkerResult(value, list(flytekit.current_context().decks), noted)

    def _surrounded(self) -> AbstractContextManager[Any]:
        from flytekit.core.context_manager import FlyteContextManager, OutputMetadataTracker

        if self.afresh:
            from flytekit.bin.entrypoint import setup_execution

            surrounded: AbstractContextManager[Any] = setup_execution(**self.surroundings)
            return surrounded
        here = FlyteContextManager.current_context()
        inherited = here.output_metadata_tracker is not None
        builder = here.new_builder() if inherited else self._locally(here).with_output_metadata_tracker(OutputMetadataTracker())
        with_context: AbstractContextManager[Any] = FlyteContextManager.with_context(builder)
        return with_context

    def _locally(self, here: Any) -> Any:
        """
        What flytekit gives a task that runs without Flyte: a folder, and the checkpoint that all its processes share.
        """
        from flytekit.core.checkpointer import SyncCheckpoint

        parameters = here.user_space_params.with_task_sandbox()
        if self.surroundings["checkpoint_path"] is not None:
            parameters.checkpoint = SyncCheckpoint(self.surroundings["checkpoint_path"], self.surroundings["prev_checkpoint"])
        state = here.execution_state or here.new_execution_state()
        return here.with_execution_state(state.with_params(user_space_params=parameters.build()))


def take_over(result: ElasticWorkerResult) -> Any:
    """
    The coordinator's value; what was noted beside it is noted here.
    """
    import flytekit
    from flytekit.core.context_manager import FlyteContextManager
    from flytekit.deck.deck import TimeLineDeck

    mine = flytekit.current_context().decks
    mine += [deck for deck in result.decks if not isinstance(deck, TimeLineDeck)]
    tracker = FlyteContextManager.current_context().output_metadata_tracker
    if result.om and tracker is not None:
        tracker.add(result.return_value, result.om)
    return result.return_value
