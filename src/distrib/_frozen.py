"""
Mappings and plain data that nobody can change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ._refusal import a_or_an, refuse, shown, under
from .errors import InvalidJobError

V_co = TypeVar("V_co", covariant=True)

_DEEPEST = 50
_SCALARS = (str, bool, int, float, type(None))


class FrozenMap(Mapping[str, V_co]):
    """
    A private copy of a mapping: keeps its order, is equal to any mapping with the same items, and can be hashed and pickled.

    >>> FrozenMap({"a": 1}) == {"a": 1}
    True
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V_co] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> V_co:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenMap):
            return self._items == other._items
        return self._items == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


#: The default of every field that holds a mapping.
EMPTY: FrozenMap[Any] = FrozenMap()


def freeze(value: Any, depth: int = 0, *, objects: bool = False) -> Any:
    """
    A frozen copy of plain data (what JSON can hold): lists become tuples, mappings :class:`FrozenMap`.

    Args:
        value: What to freeze.

        depth: How deep it is nested already.

        objects: Whether it may hold anything else too, which is kept as it is.

    Raises:
        InvalidJobError: It holds something else; the field says where.
    """
    if depth > _DEEPEST:
        raise refuse("", value, f"nested more than {_DEEPEST} levels deep.")
    if isinstance(value, _SCALARS) and not (objects and type(value) not in _SCALARS):
        return _scalar(value)
    if isinstance(value, Mapping):
        return FrozenMap({_key(key): _at(f"[{key!r}]", item, depth, objects) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_at(f"[{place}]", item, depth, objects) for place, item in enumerate(value))
    if objects:
        return value
    raise refuse("", value, f"{a_or_an(type(value).__name__)} is no plain data; write text, numbers, booleans, lists and mappings.")


def thaw(value: Any) -> Any:
    """
    The inverse of :func:`freeze`: fresh lists and dictionaries.
    """
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


def _at(place: str, item: Any, depth: int, objects: bool) -> Any:
    try:
        return freeze(item, depth + 1, objects=objects)
    except InvalidJobError as error:
        raise under(place, error) from None


def _key(key: object) -> str:
    if type(key) is not str:
        raise refuse(f"[{shown(key)}]", key, "write the key as text.")
    return checked_text(key)


def _scalar(value: Any) -> Any:
    if type(value) is str:
        return checked_text(value)
    # An enumeration's member, or NumPy's float, is more than what JSON gives back.
    if type(value) not in _SCALARS:
        raise refuse("", value, f"{a_or_an(type(value).__name__)} is no plain data; write text, a number, a boolean or None.")
    if type(value) is float and not math.isfinite(value):
        raise refuse("", value, "write a finite number.")
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise refuse("", value, "write a number of at most 64 bits.")
    return value


def checked_text(text: str) -> str:
    """
    *text*, if it can be written to a file.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise refuse("", text, "this text cannot be written as UTF-8.") from error
    return text
