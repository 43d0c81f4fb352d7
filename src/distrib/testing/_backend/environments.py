"""
What replicas find in their environment.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

import pytest

from ..._cluster import ClusterSpec
from .. import _calls
from .._elsewhere import elsewhere
from .._law import for_all, law
from ..strategies import cluster_specs
from .subject import BackendSubject, Seen, environments_of, items_of

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EnvironmentLaws(BackendSubject):
    """
    Variables, and what a framework makes of them.
    """

    @law
    def test_an_environment_is_text(self) -> None:
        """
        An environment maps names of variables to text, as a process can have them; none of them is ours.
        """

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            for replica in _calls.marked(self._subject, cluster):
                environment = self._subject.environment(replica, cluster)
                assert isinstance(environment, Mapping), f"{replica.name} is given a {type(environment).__name__}"
                for name, value in environment.items():
                    _check_variable(replica.name, name, value)

        holds()

    @law
    def test_an_environment_is_pure(self) -> None:
        """
        The same replica and cluster give the same bytes, whenever and in whatever order they are asked for.
        """

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            first = [items_of(self._subject, replica, cluster) for replica in _calls.marked(self._subject, cluster)]
            copy = pickle.loads(pickle.dumps(cluster))  # noqa: S301  # what was just written
            again = [items_of(self._subject, replica, copy) for replica in reversed(_calls.marked(self._subject, copy))]
            for replica, one, other in zip(cluster.replicas, first, reversed(again), strict=True):
                assert one == other, f"{replica.name} is given {dict(one)}, and then {dict(other)}"

        holds()

    @law
    def test_an_environment_is_nobody_elses(self) -> None:
        """
        Changing an environment that was handed out changes no other.
        """

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            replica = _calls.marked(self._subject, cluster)[0]
            handed_out = self._subject.environment(replica, cluster)
            before = dict(handed_out)
            if hasattr(handed_out, "clear"):
                handed_out.clear()
            assert dict(self._subject.environment(replica, cluster)) == before, "the next one is changed too"

        holds()

    @law
    def test_an_environment_is_the_same_everywhere(self) -> None:
        """
        Another process, whose texts hash differently, makes the same bytes of the same cluster.
        """
        clusters = self._examples()
        ours = [environments_of(self._subject, cluster) for cluster in clusters]
        for seed in (1, 2):
            theirs = elsewhere(self._subject, clusters, seed=seed)["environments"]
            for cluster, one, other in zip(clusters, ours, theirs, strict=True):
                assert [list(map(list, items)) for items in one] == other, f"with PYTHONHASHSEED={seed}, of {cluster!r}"

    @law
    def test_no_two_replicas_are_given_the_same(self) -> None:
        """
        Each replica of a cluster of several is told apart from all others by its environment.
        """

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            given: dict[tuple[tuple[str, str], ...], str] = {}
            for replica in _calls.marked(self._subject, cluster):
                items = tuple(sorted(self._subject.environment(replica, cluster).items()))
                assert items not in given, f"{given[items]} and {replica.name} are both given {dict(items)}"
                given[items] = replica.name

        holds()

    @law
    def test_what_it_sets_is_reserved(self) -> None:
        """
        A variable that tells replicas or clusters apart is in ``reserved``: no job can set it, and none is inherited.
        """
        told: dict[str, set[str]] = {}
        for cluster in (*self._examples(), *self._examples(port=7777)):
            for name, value in chain.from_iterable(environments_of(self._subject, cluster)):
                told.setdefault(name, set()).add(value)
        missing = [name for name, values in told.items() if len(values) > 1 and name not in self._subject.reserved]
        assert not missing, f"{', '.join(missing)}: not in reserved={self._subject.reserved!r}"
        for variable in self._subject.reserved:
            error = self._refused({**self._legal_counts[0], "env": {variable: "1"}})
            assert error is not None, f"env={{{variable!r}: '1'}} is accepted"

    @law
    def test_ranks_are_given_once_each(self) -> None:
        """
        The ranks that the framework sees are 0 up to the number of processes that it expects, once each.
        """
        self._skip_unless_seen("rank", "world_size")

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            views = self._views(cluster)
            ranks = {name: view.rank for name, view in views.items() if view.rank is not None}
            sizes = {name: view.world_size for name, view in views.items() if view.world_size is not None}
            assert sorted(ranks.values()) == list(range(len(ranks))), f"ranks: {ranks}"
            expected = len(ranks) or cluster.world_size
            assert set(sizes.values()) <= {expected}, f"there are {expected} processes, and they expect: {sizes}"

        holds()

    @law
    def test_each_replica_sees_its_own_address(self) -> None:
        """
        The address that a replica listens at is its own in the cluster.
        """
        self._skip_unless_seen("address")

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            views = self._views(cluster)
            for replica in cluster.replicas:
                address = views[replica.name].address
                assert address in (None, replica.address), f"{replica.name} is at {replica.address} and sees itself at {address}"

        holds()

    @law
    def test_all_replicas_see_one_cluster(self) -> None:
        """
        All replicas see the same cluster, made of addresses of the real one, none of them twice.
        """
        self._skip_unless_seen("cluster")

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            known = set(chain.from_iterable(cluster.values()))
            seen = [(name, view.cluster) for name, view in self._views(cluster).items() if view.cluster is not None]
            for name, view in seen:
                assert view == seen[0][1], f"{seen[0][0]} sees {seen[0][1]}, {name} sees {view}"
                addresses = list(chain.from_iterable(view.values())) if isinstance(view, Mapping) else list(view)
                assert set(addresses) <= known, f"{name} sees {', '.join(sorted(set(addresses) - known))}: nobody's address"
                assert len(set(addresses)) == len(addresses), f"{name} sees an address twice: {view}"

        holds()

    @law
    def test_all_replicas_look_for_the_coordinator(self) -> None:
        """
        Where a replica looks for the coordinator is where the coordinator is.
        """
        self._skip_unless_seen("coordinator")

        @for_all(cluster_specs(self._subject))
        def holds(cluster: ClusterSpec) -> None:
            coordinator = self._subject.coordinator(cluster)
            address = cluster[coordinator.role][coordinator.index]
            for name, view in self._views(cluster).items():
                assert view.coordinator in (None, address), f"{coordinator.name} is at {address}, {name} looks at {view.coordinator}"

        holds()

    def _views(self, cluster: ClusterSpec) -> dict[str, Seen]:
        replicas = _calls.marked(self._subject, cluster)
        return {replica.name: self.seen(self._subject.environment(replica, cluster)) or Seen() for replica in replicas}

    def _skip_unless_seen(self, *fields: str) -> None:
        views = [view for cluster in self._examples() for view in self._views(cluster).values()]
        if all(getattr(view, field) is None for view in views for field in fields):
            pytest.skip(f"seen() does not say what the framework makes of it: {', '.join(fields)}")


def _check_variable(who: str, name: Any, value: Any) -> None:
    assert isinstance(name, str), f"{who}: the variable {name!r} is no text"
    assert _VARIABLE.fullmatch(name), f"{who}: {name!r} is no name of a variable"
    assert not name.startswith("DISTRIB_"), f"{who}: {name} is ours"
    assert isinstance(value, str), f"{who}: {name}={value!r} is no text, but a {type(value).__name__}"
    assert "\0" not in value, f"{who}: {name}={value!r} holds a NUL"
    value.encode()
