"""
How flytekit's ``@task(task_config=...)`` finds the task of a configuration: it goes by the exact class.

flytekit is imported when the first configuration is made, and only where it is installed: nobody makes one before using it there.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from distrib.errors import MissingDependencyError

__all__ = ["register", "task_class"]

_registered: set[type] = set()


def register(kind: type, name: str) -> None:
    """
    Have flytekit make a task of the class *name* of whatever has a configuration of exactly this class, unless somebody else has said.
    """
    if kind in _registered or find_spec("flytekit") is None:
        return
    task = task_class(name)
    from flytekit import PythonFunctionTask
    from flytekit.extend import TaskPlugins

    if TaskPlugins.find_pythontask_plugin(kind) is PythonFunctionTask:
        TaskPlugins.register_pythontask_plugin(kind, task)
    _registered.add(kind)


def task_class(name: str) -> Any:
    """
    One of the classes of tasks, by its name.

    Raises:
        MissingDependencyError: flytekit is not installed.
    """
    try:
        # First, because it looks for our own task once it is loaded.
        import_module("flytekit")
    except ImportError as error:
        raise MissingDependencyError(
            f"{name} needs the package 'flytekit'. Install it with: python -m pip install 'distrib[flyte]'", name="flytekit"
        ) from error
    return getattr(import_module("distrib.compat._tasks"), name)
