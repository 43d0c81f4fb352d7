"""
A backend that is tested: what its author says about it, and what all laws ask of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import attrs
import pytest

from ..._cluster import ClusterSpec, Replica
from ..._fields import field_names
from ..._job import Job
from ..._registry import backends, get_backend
from ...backend import Backend, Role
from ...errors import InvalidJobError, MissingDependencyError
from .. import _calls
from .._law import Contract


@attrs.frozen(kw_only=True)
class Seen:
    """
    What a framework makes of its environment in one replica. What it cannot tell is left at None.

    Args:
        rank: Which of all processes it takes itself for.

        world_size: How many processes it expects.

        address: Where it listens, as ``host:port``.

        coordinator: Where it looks for the coordinator, as ``host:port``.

        cluster: Role -> addresses, or a plain list of addresses, for what all replicas have to see alike.
    """

    rank: int | None = None
    world_size: int | None = None
    address: str | None = None
    coordinator: str | None = None
    cluster: Mapping[str, Sequence[str]] | Sequence[str] | None = None


class BackendSubject(Contract):
    """
    A backend, and what is asked of it.
    """

    #: The backend, or the name of one that is installed.
    backend: ClassVar[Backend | str]
    #: Fields of a job, such as ``"run_policy"``, that the backend may refuse although they are right by themselves.
    refuses: ClassVar[Collection[str]] = ()
    #: How many seconds a run of two or more replicas that return at once may take.
    patience: ClassVar[float] = 120.0

    #: Choices of the backend's own options for more real runs, besides those with none: ``({"fan_out": 1},)``.
    runs_with: ClassVar[Sequence[Mapping[str, Any]]] = ()

    def seen(self, environment: Mapping[str, str]) -> Seen | None:  # noqa: ARG002  # for those who override it
        """
        What the framework reads from the environment of a replica; None leaves the laws about it out.
        """
        return None

    def counts_in(self, manifest: Mapping[str, Any]) -> Mapping[str, int] | Iterable[int]:
        """
        The counts of replicas in a manifest: role -> count where the backend's ``operator`` says how it calls the roles, else all
        numbers under a key ``replicas``.
        """
        operator = self._subject.operator
        if operator is None:
            return values_of("replicas", manifest)
        specs = manifest["spec"][operator.replica_specs]
        return {role: specs[named]["replicas"] for role, named in operator.types.items() if named in specs}

    # What the laws ask

    @cached_property
    def _subject(self) -> Backend:
        if not hasattr(self, "backend") or isinstance(self.backend, type):
            kind = getattr(self, "backend", Backend).__name__
            raise TypeError(f"{type(self).__name__}: write backend = {kind}(), or the name of one that is installed.")
        return get_backend(self.backend) if isinstance(self.backend, str) else self.backend

    def _who(self) -> str:
        backend = self._subject
        return f"{type(backend).__name__} (framework={getattr(backend, 'name', None)!r})"

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        name = getattr(self._subject, "name", None)
        with backends.standing_in(name, self._subject) if isinstance(name, str) else nullcontext():
            yield

    @property
    def _role_names(self) -> list[str]:
        return [role.name for role in self._subject.roles]

    @property
    def _option_names(self) -> list[str]:
        kind = self._subject.options
        return [] if kind is None else field_names(kind)

    def _options_class(self) -> Any:
        if self._subject.options is None:
            pytest.skip(f"{self._subject.name} has no options")
        return self._subject.options

    def _counts_within_bounds(self, without: Role | None = None) -> Iterator[dict[str, int]]:
        """
        Small counts of all roles but one, the smallest first.
        """
        roles = [role for role in self._subject.roles if role != without]
        few = [range(role.at_least, 1 + _few(role)) for role in roles]
        for counts in sorted(product(*few), key=sum):
            yield {role.name: count for role, count in zip(roles, counts, strict=True)}

    @cached_property
    def _legal_counts(self) -> list[dict[str, Any]]:
        """
        Counts that are legal, the smallest first.
        """
        within = list(self._counts_within_bounds())
        legal = [counts for counts in within if self._refused(counts) is None]
        assert legal, f"no job is accepted: {self._refused(within[0]) if within else 'there are no counts within the bounds'}"
        return legal

    def _refused(self, keywords: Mapping[str, Any]) -> InvalidJobError | None:
        return refusal(Job, self._subject.name, **keywords)

    def _examples(self, port: int = 2222) -> list[ClusterSpec]:
        """
        A few clusters, the same ones each time.
        """
        counts = self._legal_counts
        return [cluster_of(each, port) for each in (counts[0], counts[len(counts) // 2], counts[-1])]

    def _skip_without(self, method: str) -> None:
        if getattr(type(self._subject), method) is getattr(Backend, method):
            pytest.skip(f"{self._subject.name} has no {method}()")

    def _skip_unless_installed(self) -> None:
        try:
            self._subject.check_installed()
        except MissingDependencyError as error:
            pytest.skip(str(error))


def refusal(make: Callable[..., Any], *args: Any, **kwargs: Any) -> InvalidJobError | None:
    """
    How *make* refuses what it is given, or None.
    """
    try:
        make(*args, **kwargs)
    except InvalidJobError as error:
        return error
    return None


def root(field: str | None) -> str:
    """
    The field of the job that a path leads to.

    >>> root("worker.env['A']")
    'worker'
    """
    return re.split(r"[.\[]", field or "")[0]


def cluster_of(counts: Mapping[str, int], port: int = 2222) -> ClusterSpec:
    """
    A cluster with so many replicas of each role.
    """
    return ClusterSpec({role: [f"{role}-{index}.example.com:{port + index}" for index in range(count)] for role, count in counts.items()})


def items_of(backend: Backend, replica: Replica, cluster: ClusterSpec) -> list[tuple[str, str]]:
    """
    The environment of one replica, in its order.
    """
    return list(backend.environment(replica, cluster).items())


def environments_of(backend: Backend, cluster: ClusterSpec) -> list[list[tuple[str, str]]]:
    """
    The environments of all replicas, in the order of their ranks.
    """
    return [items_of(backend, replica, cluster) for replica in _calls.marked(backend, cluster)]


def values_of(key: str, data: Any) -> Iterator[int]:
    """
    All numbers under a key, at any depth of plain data.

    >>> list(values_of("replicas", {"a": {"replicas": 2}, "b": [{"replicas": 3}]}))
    [2, 3]
    """
    if isinstance(data, Mapping):
        yield from (item for name, item in data.items() if name == key and isinstance(item, int))
    parts = data.values() if isinstance(data, Mapping) else data if isinstance(data, (list, tuple)) else ()
    for part in parts:
        yield from values_of(key, part)


def _few(role: Role) -> int:
    return role.at_least + 2 if role.at_most is None else min(role.at_least + 2, role.at_most)
