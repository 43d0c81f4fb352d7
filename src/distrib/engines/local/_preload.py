"""
Which modules to import once before replicas are forked.

The framework is imported only where the function will use it. A wrong guess may cost time, never correctness: what was
not imported here is imported by the replicas themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from inspect import getattr_static
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

# Helpers may call helpers, and be wrapped in each other; further away than this nobody looks.
_DEPTH = 4
_LAYERS = 10


def modules_to_preload(
    function: Callable[..., Any], known: tuple[str, ...], wish: bool | tuple[str, ...] | None, framework: str
) -> tuple[str, ...]:
    """
    The modules to import before forking.

    Args:
        function: What the replicas will run.

        known: The backend's own list.

        wish: What the user says: nothing, yes, no, or which.

        framework: What the backend is called. A function may name that alone, as in ``from distrib.pytorch import process_group``.
    """
    if isinstance(wish, tuple):
        return wish
    if wish is not None:
        return known if wish else ()
    named = set(_named_in(function))
    found = tuple(module for module in known if module in named)
    return found or (known if framework in named else ())


def _named_in(function: Callable[..., Any]) -> Iterator[str]:
    """
    The first and further parts of all names of modules that the function's code, or its module, mentions.
    """
    seen: set[int] = set()
    fringe: list[Any] = [function]
    for _ in range(_DEPTH):
        reached: list[Any] = []
        for each in (layer for value in fringe for layer in _layers(value)):
            if id(each) not in seen:
                seen.add(id(each))
                yield from _names_in_code(each.__code__)
                yield from _names_of_values(each.__globals__.values())
                reached += _values_used(each)
        fringe = reached


def _layers(value: Any) -> Iterator[FunctionType]:
    """
    The plain functions within bound methods, partial objects, callable objects and decorators that say what they wrap.
    """
    for _ in range(_LAYERS):
        if value is None:
            return
        if type(value) is FunctionType:
            yield value
        value = _within(value)


def _within(value: Any) -> Any:
    # The type is asked, and what has been stored: an attribute that is made when it is read may load a whole framework.
    kind = type(value)
    if issubclass(kind, MethodType):
        return value.__func__
    if issubclass(kind, partial):
        return value.func
    if getattr_static(kind, "__distrib_task__", False):
        return value.function
    wrapped = getattr_static(value, "__wrapped__", None)
    if wrapped is not None or kind is FunctionType:
        return wrapped
    called = getattr_static(kind, "__call__", None)
    return called if type(called) is FunctionType else None


def _names_in_code(code: CodeType) -> Iterator[str]:
    for name in code.co_names:
        yield from name.split(".")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in_code(constant)


def _names_of_values(values: Iterable[Any]) -> Iterator[str]:
    for value in list(values):
        # No attribute of the value itself is read, its class included: one that loads its module lazily would do so.
        kind = type(value)
        if issubclass(kind, ModuleType):
            home = object.__getattribute__(value, "__dict__").get("__name__", "")
        else:
            home = value.__module__ if issubclass(kind, (type, FunctionType)) else kind.__module__
        yield from str(home).split(".")


def _values_used(function: FunctionType) -> Iterator[Any]:
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield function.__globals__[name]
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
