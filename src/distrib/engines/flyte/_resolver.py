"""
How a pod finds a task that is not what its function's own module holds under the function's name.
"""

from __future__ import annotations

import sys
from typing import Any

from flytekit.core.python_auto_container import DefaultTaskResolver, default_task_resolver
from flytekit.core.tracker import get_full_module_path

__all__ = ["VariableResolver", "resolver", "resolver_for"]


class VariableResolver(DefaultTaskResolver):  # type: ignore[misc]
    """
    Finds a task by the variable that holds it: of a function that another module has, or one of several tasks of a function.
    """

    def name(self) -> str:
        """
        What Flyte calls it.
        """
        return "VariableResolver"

    def loader_args(self, settings: Any, task: Any) -> list[str]:  # noqa: ARG002  # flytekit decides
        """
        What the pod is told, in flytekit's own form.
        """
        module, variable = self.place(task)
        return ["task-module", module, "task-name", variable]

    def place(self, task: Any) -> tuple[str, str]:
        """
        The module and the variable that hold *task*.
        """
        found = _place(task)
        assert found is not None  # noqa: S101  # else it is not the task's resolver
        module, variable = found
        return get_full_module_path(sys.modules[module], module), variable


resolver = VariableResolver()


def resolver_for(task: Any) -> VariableResolver | None:
    """
    The resolver, for tasks that need it; None for those that flytekit's own finds, or the user's.
    """
    if task._task_resolver is not default_task_resolver:  # noqa: SLF001  # what was given, not what is answered
        return None
    function = task.function
    home = getattr(sys.modules.get(function.__module__), function.__name__, None)
    if home is task or (home is None and task.instantiated_in in (None, function.__module__)):
        return None
    return resolver if _place(task) is not None else None


def _place(task: Any) -> tuple[str, str] | None:
    for name in dict.fromkeys((task.instantiated_in, task.function.__module__)):
        for variable, value in list(vars(sys.modules.get(name, object)).items()) if name else ():
            if value is task:
                return name, variable
    return None
