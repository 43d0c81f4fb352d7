"""
What replicas returned, by their names: the same on every engine that keeps one value for each replica.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from .._outcome import ByRank
from ..engine import Results
from ..errors import did_you_mean

R_co = TypeVar("R_co", covariant=True)


class NamedResults(Results[R_co]):
    """
    The values of a run's replicas, loaded when they are asked for.

    Args:
        names: The names of all replicas, in the order of their ranks.

        coordinator: The one whose value is the result.
    """

    def __init__(self, names: Sequence[str], coordinator: str) -> None:
        self._names = names
        self._coordinator = coordinator
        self._loaded: dict[str, R_co | ByRank] = {}

    @abstractmethod
    def _is_kept(self, name: str) -> bool:
        """
        Whether that replica has returned a value.
        """

    @abstractmethod
    def _read(self, name: str) -> R_co | ByRank:
        """
        Load it.

        Raises:
            LookupError: There is none.
        """

    @property
    def value(self) -> R_co:
        if self._has(self._coordinator) and not isinstance(self._load(self._coordinator), ByRank):
            return self._value(self._coordinator)
        # Of several processes, the first may be on another replica than it was at the start.
        found = self.by_rank()
        return found[0] if 0 in found else self._value(self._coordinator)

    def __getitem__(self, role: str) -> Sequence[R_co]:
        names = [name for name in self._names if name.rpartition("-")[0] == role]
        if not names:
            roles = dict.fromkeys(name.rpartition("-")[0] for name in self._names)
            raise LookupError(f"no replica has the role {role!r}.{did_you_mean(role, roles)}")
        return _Values(self, names)

    def __repr__(self) -> str:
        return f"<Results: {', '.join(name for name in self._names if self._has(name)) or 'none yet'}>"

    def items(self) -> Iterator[tuple[str, R_co]]:
        return ((name, load()) for _, name, load in self._all())

    def by_rank(self) -> Mapping[int, R_co]:
        return {rank: load() for rank, _, load in self._all()}

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> list[tuple[int, str, Callable[[], R_co]]]:
        """
        The rank of each process that returned a value, its name, and what loads the value; by rank.
        """
        found: list[tuple[int, str, Callable[[], R_co]]] = []
        for place, name in enumerate(self._names):
            several = self._load(name) if self._has(name) else None
            if isinstance(several, ByRank):
                found += [(rank, f"{name}/{at}", partial(several.value, rank)) for at, rank in enumerate(several.pickled)]
            elif self._has(name):
                found.append((place, name, partial(self._value, name)))
        return sorted(found, key=lambda one: one[0])

    def _has(self, name: str) -> bool:
        return name in self._loaded or self._is_kept(name)

    def _value(self, name: str) -> R_co:
        found: Any = self._load(name)
        return found.value(min(found.pickled)) if isinstance(found, ByRank) else found  # type: ignore[no-any-return]

    def _load(self, name: str) -> R_co | ByRank:
        if name not in self._loaded:
            self._loaded[name] = self._read(name)
        return self._loaded[name]


class _Values(Sequence[Any]):
    """
    The values of one role, each loaded when it is asked for: a replica without one spoils only its own place.
    """

    def __init__(self, results: NamedResults[Any], names: Sequence[str]) -> None:
        self._results = results
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._results._value(name) for name in self._names[index]]  # noqa: SLF001  # of this module
        return self._results._value(self._names[index])  # noqa: SLF001  # of this module
