"""
Functions by their names, and values as bytes.

Loaded before replicas are forked, so it imports little.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import IO, Any

__all__ = ["dump", "is_plain", "resolve"]


def resolve(reference: str) -> Callable[..., Any]:
    """
    The function that ``"module:qualified.name"`` refers to; of a decorated one, the plain function.
    """
    from importlib import import_module

    module, _, path = reference.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found.function if hasattr(found, "__distrib_task__") else found  # type: ignore[no-any-return]


def dump(value: object, file: IO[bytes]) -> None:
    """
    Pickle *value* into *file*, with cloudpickle unless it is made of built-in values only.
    """
    if is_plain(value):
        pickle.dump(value, file, protocol=5)
    else:
        from .._pickling import pickler

        pickler()(file, protocol=5).dump(value)


_SCALARS = frozenset({type(None), bool, int, float, complex, str, bytes})
# Looking at more values than this takes longer than importing cloudpickle.
_MANY = 10_000


def is_plain(value: object, depth: int = 3) -> bool:
    """
    Whether *value* is made of built-in values only, so that pickling it needs no cloudpickle.
    """
    kind = type(value)
    if kind in _SCALARS:
        return True
    if depth == 0 or kind not in (list, tuple, dict) or len(value) > _MANY:  # type: ignore[arg-type]
        return False
    inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return all(is_plain(each, depth - 1) for each in inner)  # type: ignore[attr-defined]
