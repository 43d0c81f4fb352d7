"""
Which modules to import once before replicas are forked.

The framework is imported only where the function will use it. A wrong guess may cost time, never correctness: what was
not imported here is imported by the replicas themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

# Helpers may call helpers; further away than this nobody looks.
_DEPTH = 4


def modules_to_preload(function: Callable[..., Any], known: tuple[str, ...], wish: bool | tuple[str, ...] | None) -> tuple[str, ...]:
    """
    The modules to import before forking.

    Args:
        function: What the replicas will run.

        known: The backend's own list.

        wish: What the user says: nothing, yes, no, or which.
    """
    if isinstance(wish, tuple):
        return wish
    if wish is not None:
        return known if wish else ()
    named = set(_named_in(function))
    return tuple(module for module in known if module in named)


def _named_in(function: Callable[..., Any]) -> Iterator[str]:
    """
    The first and further parts of all names of modules that the function's code, or its module, mentions.
    """
    seen: set[int] = set()
    fringe: list[Any] = [_plain(function)]
    for _ in range(_DEPTH):
        reached: list[Any] = []
        for each in fringe:
            if id(each) not in seen and isinstance(each, FunctionType):
                seen.add(id(each))
                yield from _names_in_code(each.__code__)
                yield from _names_of_values(each.__globals__.values())
                reached += [value for value in _values_used(each) if isinstance(_plain(value), FunctionType)]
        fringe = [_plain(each) for each in reached]


def _plain(function: Any) -> Any:
    # Through bound methods, partial objects and decorators that say what they wrap.
    for attribute in ("function", "__func__", "func", "__wrapped__"):
        function = getattr(function, attribute, function)
    return function


def _names_in_code(code: CodeType) -> Iterator[str]:
    for name in code.co_names:
        yield from name.split(".")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in_code(constant)


def _names_of_values(values: Iterable[Any]) -> Iterator[str]:
    for value in list(values):
        # No attribute of the value itself is read: one that loads its module lazily would do so.
        if isinstance(value, ModuleType):
            home = value.__dict__.get("__name__", "")
        else:
            home = value.__module__ if isinstance(value, (type, FunctionType)) else type(value).__module__
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
