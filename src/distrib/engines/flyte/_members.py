"""
What the processes that run the function hand to the one that Flyte knows of: the value, and what flytekit notes beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from ..._cluster import replica

__all__ = ["Carrying", "WorkerResult", "taken_over"]


class WorkerResult(NamedTuple):
    """
    What a process leaves.

    Attributes:
        return_value: What the function has returned.

        decks: flytekit's decks that it has filled.

        om: What flytekit has noted about the value; of several values, about each.
    """

    return_value: Any
    decks: list[Any]
    om: Any = None


class Carrying:
    """
    The function, in a process that was started for it: what flytekit keeps there is handed over with the value.

    Args:
        function: The function.

        here: Whether Flyte runs the task on this machine, and not in a pod.
    """

    def __init__(self, function: Callable[..., Any], *, here: bool = False) -> None:
        self.function = self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__module__ = function.__module__
        self.here = here
        self.pid = os.getpid()
        self.surroundings = _surroundings()
        self.is_afresh = False

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Whoever has unpickled it is an interpreter of its own, to which nothing of this execution is known.
        self.__dict__.update(state, is_afresh=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """
        The function's value, which is a :class:`WorkerResult` where it has to be carried.
        """
        if os.getpid() == self.pid or (self.here and "flytekit" not in sys.modules):
            return self.function(*args, **kwargs)
        from flytekit.core.context_manager import FlyteContextManager

        _forget_threads()
        with self._surrounded():
            before = len(_decks())
            value = self.function(*args, **kwargs)
            if not replica().is_coordinator:  # nobody will look
                return WorkerResult(value, [])
            tracker = FlyteContextManager.current_context().output_metadata_tracker
            return WorkerResult(value, _decks()[before:], _noted(tracker, value))

    def _surrounded(self) -> AbstractContextManager[Any]:
        if self.here:
            return _as_on_this_machine(self.surroundings)
        if not self.is_afresh:
            return nullcontext()
        from flytekit.bin.entrypoint import setup_execution

        surrounded: AbstractContextManager[Any] = setup_execution(**self.surroundings)
        return surrounded


def taken_over(result: Any) -> Any:
    """
    The value; what was noted beside it goes where flytekit looks for it in this process.
    """
    if not isinstance(result, WorkerResult):
        return result
    from flytekit.core.context_manager import FlyteContextManager
    from flytekit.deck.deck import TimeLineDeck

    _decks().extend(deck for deck in result.decks if not isinstance(deck, TimeLineDeck))
    tracker = FlyteContextManager.current_context().output_metadata_tracker
    for value, metadata in _each(result.return_value, result.om):
        if tracker is not None and metadata is not None:
            tracker.add(value, metadata)
    return result.return_value


def _noted(tracker: Any, value: Any) -> Any:
    if tracker is None:
        return None
    return tuple(tracker.get(each) for each in value) if isinstance(value, tuple) else tracker.get(value)


def _each(value: Any, metadata: Any) -> Iterable[tuple[Any, Any]]:
    # Several values are several outputs.
    return zip(value, metadata or (), strict=False) if isinstance(value, tuple) else [(value, metadata)]


def _decks() -> list[Any]:
    import flytekit

    context = flytekit.current_context()
    decks: list[Any] = [] if context is None else context.decks
    return decks


def _forget_threads() -> None:
    # flytekit reads and writes data by threads of its own, which a forked process does not have and would wait for.
    from flytekit.utils import asyn

    runners = getattr(asyn.loop_manager, "_runner_map", None)
    if runners is not None:
        runners.clear()


def _surroundings() -> dict[str, Any]:
    """
    What flytekit's ``setup_execution`` has to be told in a fresh interpreter: where data go, and the checkpoint.
    """
    import flytekit

    context = flytekit.current_context()
    try:
        checkpoint = context.checkpoint
    except NotImplementedError:  # the task has none
        checkpoint = None
    return {
        "raw_output_data_prefix": context.raw_output_prefix,
        "checkpoint_path": getattr(checkpoint, "_checkpoint_dest", None),
        "prev_checkpoint": getattr(checkpoint, "_checkpoint_src", None),
    }


def _as_on_this_machine(surroundings: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """
    What flytekit gives a task that runs without Flyte: a folder, and the checkpoint that all its processes share.
    """
    from flytekit.core.checkpointer import SyncCheckpoint
    from flytekit.core.context_manager import FlyteContextManager, OutputMetadataTracker

    context = FlyteContextManager.current_context()
    parameters = context.user_space_params.with_task_sandbox()
    if surroundings["checkpoint_path"] is not None:
        parameters.checkpoint = SyncCheckpoint(surroundings["checkpoint_path"], surroundings["prev_checkpoint"])
    state = (context.execution_state or context.new_execution_state()).with_params(user_space_params=parameters.build())
    builder = context.with_execution_state(state).with_output_metadata_tracker(OutputMetadataTracker())
    surrounded: AbstractContextManager[Any] = FlyteContextManager.with_context(builder)
    return surrounded
