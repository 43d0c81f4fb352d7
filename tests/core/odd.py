"""
What no user writes on purpose.
"""

import enum
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from hypothesis import strategies as st

from distrib.errors import DistribError

T = TypeVar("T")


class Raises:
    """
    An object that raises whatever is done with it.
    """

    def __getattr__(self, name: str) -> NoReturn:
        raise OSError(name)

    def fail(self, *_: object) -> NoReturn:
        raise ZeroDivisionError

    __bool__ = __eq__ = __hash__ = __index__ = __int__ = __iter__ = __len__ = __repr__ = __str__ = fail  # type: ignore[assignment]


class RaisingMapping(dict[str, Any]):
    """
    A mapping that cannot be read.
    """

    def items(self) -> NoReturn:
        raise RuntimeError("no items")

    __iter__ = keys = items  # type: ignore[assignment]


class Shouting(str):
    """
    A text that lies about itself.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


class Colour(str, enum.Enum):
    """
    Somebody else's enumeration.
    """

    RED = "red"


def nested(depth: int) -> Any:
    """
    Lists in lists.
    """
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ODD = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**31,
    2**63,
    10**5000,
    float("nan"),
    float("inf"),
    Decimal("sNaN"),
    1j,
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "a=b",
    "Worker",
    "worker\n",
    "x" * 10_000,
    b"bytes",
    [],
    [None],
    [[]],
    {},
    {"": ""},
    {"a=b": "1"},
    {"a": 1},
    {1: 2},
    {None: None},
    {"\0": "\0"},
    {"a": "\ud800"},
    {"replicas": 10**30},
    {"cpu": Raises()},
    set(),
    object(),
    object,
    print,
    Raises(),
    Raises,
    RaisingMapping(a=1),
    Shouting("worker"),
    {Shouting("cpu"): 1},
    Colour.RED,
    nested(20_000),
    nested(100),
    {"a": nested(200)},
]

hashables = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3)
# By their places, because some of them cannot be shown.
odd = st.integers(0, len(ODD) - 1).map(lambda place: ODD[place])
anything = odd | st.recursive(
    hashables | st.decimals(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hashables, inner, max_size=3), max_leaves=5
)


def made_or_refused(make: Callable[[], T]) -> T | DistribError:
    """
    What *make* gives, or the error that it raises; anything else that it raises is raised.
    """
    try:
        return make()
    except DistribError as error:
        return error
