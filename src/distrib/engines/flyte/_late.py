"""
Tasks that become Flyte's as soon as flytekit is there, whichever is imported first.

Costs nothing as long as it is not: flytekit is looked for among the modules that are loaded, and never imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any
from weakref import WeakSet

from ...errors import DistribError

__all__ = [
    "become",
    "become_for",
    "becoming",
    "flytekit_arrived",
    "has",
    "in_flyte",
    "is_entity",
    "is_flytes",
    "note_home",
    "offer",
    "task_becoming",
]

#: The module that turns tasks into Flyte's; flytekit itself loads it by the entry point.
_PLUGIN = "distrib._flyte"
#: Where a task was made, for Flyte's names: an attribute of the task.
HOME = "_made_in"

_waiting: WeakSet[Any] = WeakSet()
_becoming: ContextVar[Any] = ContextVar("becoming", default=None)


def is_there() -> bool:
    """
    Whether flytekit is imported, and whole.
    """
    flytekit = sys.modules.get("flytekit")
    return flytekit is not None and not getattr(getattr(flytekit, "__spec__", None), "_initializing", False)


def is_flytes(task: Any) -> bool:
    """
    Whether *task* is a task of Flyte's already.
    """
    return hasattr(type(task), "dispatch_execute")


def is_entity(function: Any) -> bool:
    """
    Whether *function* is something of flytekit's own that nodes are made of: a task, a workflow, a launch plan.
    """
    return hasattr(type(function), "construct_node_metadata")


def offer(task: Any) -> None:
    """
    Make a task that was just decorated one of Flyte's: now, or when flytekit is imported.

    Raises:
        InvalidJobError: Flyte does not take it, and it has settings for Flyte.
    """
    note_home(task)
    if not is_there():
        _waiting.add(task)
    elif "flyte" in task.job.engine_options:
        become(task)
    else:
        _become_if_possible(task)


def note_home(task: Any) -> None:
    """
    Remember the module that is being executed: it is the one that a variable will hold the task in.
    """
    task.__dict__[HOME] = _module_of_caller()


def flytekit_arrived() -> None:
    """
    Turn all that wait into Flyte's tasks; flytekit calls it when it is imported.
    """
    for task in list(_waiting):
        _become_if_possible(task)


def become(task: Any) -> None:
    """
    Turn *task* into one of Flyte's; flytekit is there.

    Raises:
        InvalidJobError: Flyte does not take it; the message says why.
    """
    _waiting.discard(task)
    import_module(_PLUGIN).become(task)


def _become_if_possible(task: Any) -> None:
    try:
        become(task)
    except DistribError as error:
        # Whoever uses it in Flyte is told by an error. What could never be used there is nobody's mistake.
        if "<locals>" not in getattr(task.function, "__qualname__", "<locals>"):
            import logging

            logging.getLogger("distrib").info("%s", error)


#: What tasks of Flyte have as attributes of their own.
_OWN = ("accelerator", "pod_template", "shared_memory")


def has(task: Any, name: str) -> bool:
    """
    Whether *name* is an attribute that *task* would have as a task of Flyte's, and flytekit is there.
    """
    if name.startswith("__") or is_flytes(task) or not is_there():
        return False
    from flytekit import PythonFunctionTask

    return name in _OWN or hasattr(PythonFunctionTask, name)


def become_for(task: Any, name: str) -> None:
    """
    Turn *task* into one of Flyte's, for the sake of an attribute.

    Raises:
        AttributeError: Flyte does not take it; the message says why.
    """
    try:
        become(task)
    except DistribError as error:
        raise AttributeError(f"{name}: {error}", name=name, obj=task) from error


def in_flyte() -> bool:
    """
    Whether a call now is Flyte's business: a workflow is being compiled or run, or ``pyflyte run`` runs a task.
    """
    if not is_there():
        return False
    from flytekit.core.context_manager import ExecutionState, FlyteContextManager

    context = FlyteContextManager.current_context()
    compilation, execution = context.compilation_state, context.execution_state
    if compilation is not None and compilation.mode == 1:
        return True
    # In the pod of another task, what is called is an ordinary function.
    ours = (None, ExecutionState.Mode.TASK_EXECUTION)
    return (execution is not None and execution.mode not in ours) or _runs_by_pyflyte(execution)


def _runs_by_pyflyte(execution: Any) -> bool:
    click, command = sys.modules.get("click"), sys.modules.get("flytekit.clis.sdk_in_container.run")
    if click is None or command is None:
        return False
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.obj, command.RunLevelParams) and (execution is None or execution.mode is None)


@contextmanager
def becoming(task: Any) -> Iterator[None]:
    """
    While the block runs, the task that flytekit makes is *task*.
    """
    token = _becoming.set(task)
    try:
        yield
    finally:
        _becoming.reset(token)


def task_becoming() -> Any:
    """
    The task that is being turned into Flyte's, or None.
    """
    return _becoming.get()


def _module_of_caller() -> str | None:
    """
    The name of the module whose top level is being executed, as flytekit finds it; None if it is the program itself.
    """
    frame = sys._getframe(1)  # noqa: SLF001  # the inspect module takes longer to import than all of this
    while frame is not None:
        if frame.f_code.co_name == "<module>" and "__name__" in frame.f_globals:
            name: str = frame.f_globals["__name__"]
            return None if name == "__main__" else name
        frame = frame.f_back  # type: ignore[assignment]
    return None
