"""
A call in pickle's words: the function by its name where another process finds it by that, else itself; and its arguments.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import IO, Any

from .._pickling import pickler
from ._values import is_plain, resolve

__all__ = ["by_value", "dump_call", "reference", "target_of"]


def target_of(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[str | Callable[..., Any], tuple[Any, ...]]:
    """
    What :func:`dump_call` takes for a function and its arguments: its reference where it has one, else itself.
    """
    if isinstance(function, MethodType):
        # The function by reference where that can be had: its module's globals then stay where they are.
        method = reference(function.__func__)
        return (method, (function.__self__, *args)) if method else (function, tuple(args))
    return reference(function) or function, tuple(args)


def dump_call(
    target: str | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    file: IO[bytes],
    keep: Callable[[pickle.PickleBuffer], Any] | None = None,
) -> None:
    """
    Pickle a function, or its reference, and its arguments; large buffers go to *keep* instead.
    """
    value = (target, (args, kwargs))
    if isinstance(target, str) and is_plain((args, kwargs), depth=4):
        pickle.dump(value, file, protocol=5)
        return
    # What a backend puts in the place of a function holds it under this name.
    with by_value(getattr(target, "function", target)):
        # A buffer is kept out of the stream when the callback returns something false, as append does.
        _pickler()(file, protocol=5, buffer_callback=keep).dump(value)


def _pickler() -> Any:
    class Pickler(pickler()):  # type: ignore[misc]
        """
        One that lets the function of a task travel as a name wherever it is met: under that name its module holds the task.
        """

        def reducer_override(self, obj: Any) -> Any:
            name = reference(obj) if isinstance(obj, FunctionType) and _is_of_task(obj) else None
            return super().reducer_override(obj) if name is None else (resolve, (name,))

    return Pickler


def _is_of_task(function: FunctionType) -> bool:
    home = sys.modules.get(function.__module__ or "")
    return hasattr(getattr(home, function.__qualname__.partition(".")[0], None), "__distrib_task__") or "." in function.__qualname__


@contextmanager
def by_value(target: Any, is_meant: Callable[[str], bool] | None = None) -> Iterator[None]:
    """
    Have everything of the target's module travel itself, if the module is one that *is_meant*: by default, one that no other process
    can import.
    """
    import cloudpickle

    name = getattr(target, "__module__", None)
    if name in (None, "__main__") or name not in sys.modules or not _is_registrable(name) or not (is_meant or _is_unknown_elsewhere)(name):
        yield
        return
    cloudpickle.register_pickle_by_value(sys.modules[name])
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[name])


def _is_unknown_elsewhere(name: str) -> bool:
    return not _is_importable(name)


def _is_registrable(name: str) -> bool:
    import cloudpickle

    return isinstance(sys.modules[name], ModuleType) and name not in cloudpickle.list_registry_pickle_by_value()


def reference(function: Callable[..., Any]) -> str | None:
    """
    ``"module:name"`` if importing the module in another process gives the same function; None if it has to travel itself.
    """
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or module not in sys.modules or "<" in path or not path:
        return None
    if not _is_importable(module) or _wants_by_value(module):
        return None
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part, None)
    if hasattr(found, "__distrib_task__"):
        found = found.function
    return f"{module}:{path}" if found is function else None


def _is_importable(module: str) -> bool:
    """
    Whether another process that imports *module* gets the same one: not if it was made by hand, or run from a path.
    """
    spec = getattr(sys.modules.get(module), "__spec__", None)
    parent = module.rpartition(".")[0]
    if spec is None or (parent and not _is_importable(parent)):
        return False
    path = getattr(sys.modules[parent], "__path__", None) if parent else None
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        found = find_spec(module, path) if find_spec is not None else None
        if found is not None:
            return bool(found.origin == spec.origin)
    return False


def _wants_by_value(module: str) -> bool:
    # Only somebody who has imported cloudpickle can have told it to.
    cloudpickle: Any = sys.modules.get("cloudpickle")
    return cloudpickle is not None and module in cloudpickle.list_registry_pickle_by_value()
