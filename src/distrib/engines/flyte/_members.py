"""
What the processes of a pod hand to the one that Flyte has started: the value, and what flytekit keeps beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["Carried", "Carrying", "carrying", "surroundings"]


class Carried:
    """
    A value, with the decks and the metadata of outputs of the process that has made it.
    """

    def __init__(self, value: Any, decks: list[Any], metadata: Any) -> None:
        self.value = value
        self.decks = decks
        self.metadata = metadata

    def unpack(self) -> Any:
        """
        The value; the rest goes where flytekit looks for it in this process.
        """
        from flytekit.core.context_manager import FlyteContextManager

        context = FlyteContextManager.current_context()
        parameters = context.user_space_params
        if parameters is not None:
            known = {deck.name for deck in parameters.decks}
            parameters.decks.extend(deck for deck in self.decks if deck.name not in known)
        if context.output_metadata_tracker is not None and self.metadata is not None:
            context.output_metadata_tracker.add(self.value, self.metadata)
        return self.value


class Carrying:
    """
    The function, in a process that was started for it: what flytekit keeps there is handed over with the value.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.pid = os.getpid()
        self.surroundings = surroundings()
        self.is_afresh = False
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Whoever has unpickled it is an interpreter of its own, to which nothing of this execution is known.
        self.__dict__.update(state, is_afresh=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if os.getpid() == self.pid:
            return self.function(*args, **kwargs)
        _forget_threads()
        with self._surrounded():
            value = self.function(*args, **kwargs)
            from flytekit.core.context_manager import FlyteContextManager

            context = FlyteContextManager.current_context()
            tracker = context.output_metadata_tracker
            decks = [] if context.user_space_params is None else list(context.user_space_params.decks)
            return Carried(value, decks, None if tracker is None else tracker.get(value))

    def _surrounded(self) -> AbstractContextManager[Any]:
        if not self.is_afresh:
            return nullcontext()
        from flytekit.bin.entrypoint import setup_execution

        surrounded: AbstractContextManager[Any] = setup_execution(**self.surroundings)
        return surrounded


def carrying(function: Callable[..., Any]) -> Carrying:
    """
    The function, to be called in this process or in others.
    """
    return Carrying(function)


def _forget_threads() -> None:
    # flytekit reads and writes data by threads of its own, which a forked process does not have and would wait for.
    from flytekit.utils import asyn

    runners = getattr(asyn.loop_manager, "_runner_map", None)
    if runners is not None:
        runners.clear()


def surroundings() -> dict[str, Any]:
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
