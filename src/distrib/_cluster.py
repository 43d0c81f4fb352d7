"""
Who is in the cluster, and which of them this process is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property

import attrs

from .errors import InvalidJobError

#: Carries the replica's identity into its process; the cluster with it.
REPLICA_VARIABLE = "DISTRIB_REPLICA"
#: Carries the id of the run; also how leftovers of a run are recognised.
RUN_VARIABLE = "DISTRIB_RUN_ID"


class ClusterSpec(Mapping[str, tuple[str, ...]]):
    """
    Role -> addresses (``host:port``), in the order of the ranks.

    .. doctest::

        >>> cluster = ClusterSpec({"chief": ["a:1"], "worker": ["b:1", "c:1"]})
        >>> cluster["worker"]
        ('b:1', 'c:1')
        >>> [replica.name for replica in cluster.replicas]
        ['chief-0', 'worker-0', 'worker-1']

    Args:
        addresses: The addresses of each role. A role without any is left out.

    Raises:
        InvalidJobError: Two replicas share an address, or an address is not ``host:port``.
    """

    def __init__(self, addresses: Mapping[str, tuple[str, ...] | list[str]]) -> None:
        self._addresses = {role: tuple(of_role) for role, of_role in addresses.items() if of_role}
        flat = [address for of_role in self._addresses.values() for address in of_role]
        for address in flat:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal():
                raise InvalidJobError(f"cluster: {address!r} is not an address; write 'host:port'.", field="cluster", value=address)
        if len(set(flat)) != len(flat):
            twice = next(address for address in flat if flat.count(address) > 1)
            raise InvalidJobError(f"cluster: two replicas have the address {twice!r}; each needs its own.", field="cluster", value=twice)

    def __getitem__(self, role: str) -> tuple[str, ...]:
        return self._addresses[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def __hash__(self) -> int:
        return hash(tuple(self._addresses.items()))

    def __eq__(self, other: object) -> bool:
        # The order of the roles is the order of the ranks, so it counts.
        if not isinstance(other, ClusterSpec):
            return NotImplemented
        return list(self._addresses.items()) == list(other._addresses.items())

    def __repr__(self) -> str:
        return f"ClusterSpec({self._addresses!r})"

    @property
    def world_size(self) -> int:
        """
        How many replicas there are.
        """
        return len(self.replicas)

    @cached_property
    def replicas(self) -> tuple[Replica, ...]:
        """
        All replicas in the order of their ranks; none of them is marked as the coordinator.
        """
        places = ((role, index) for role, addresses in self._addresses.items() for index in range(len(addresses)))
        return tuple(Replica(role=role, index=index, rank=rank, cluster=self) for rank, (role, index) in enumerate(places))


@attrs.frozen(kw_only=True)
class Replica:
    """
    One process of a run.

    Args:
        role: E.g. ``"worker"``.

        index: Its number within the role, from 0.

        rank: Its number overall, from 0.

        cluster: All replicas' addresses; empty for a process that is no replica.

        is_coordinator: Whether its return value and exit decide the job.
    """

    role: str
    index: int
    rank: int
    cluster: ClusterSpec = attrs.field(repr=False)
    is_coordinator: bool = False

    @property
    def name(self) -> str:
        """
        Role and index, e.g. ``"worker-1"``.
        """
        return f"{self.role}-{self.index}"

    @property
    def world_size(self) -> int:
        """
        How many replicas the run has; 1 outside of any.
        """
        return max(1, self.cluster.world_size)

    @property
    def address(self) -> str:
        """
        Its own ``host:port``; an empty string outside of any run.
        """
        return self.cluster[self.role][self.index] if self.cluster else ""


#: What :func:`replica` answers in a process that is no replica.
ALONE = Replica(role="worker", index=0, rank=0, cluster=ClusterSpec({}), is_coordinator=True)


def replica() -> Replica:
    """
    Which replica this process is.

    Outside of any it is the only replica of a world of one, so that training functions can be called and tested as
    they are.

    .. doctest::

        >>> import distrib
        >>> me = distrib.replica()
        >>> me.role, me.index, me.world_size, me.is_coordinator
        ('worker', 0, 1, True)
    """
    text = os.environ.get(REPLICA_VARIABLE)
    return decode_replica(text) if text else ALONE


def encode_cluster(cluster: ClusterSpec) -> str:
    """
    The cluster as compact JSON, for :func:`encode_replica`.
    """
    return json.dumps(cluster._addresses, separators=(",", ":"))


def encode_replica(replica: Replica, cluster_json: str) -> str:
    """
    What :func:`replica` reads back. *cluster_json* is the same text for all replicas of a run, so it is made once.
    """
    coordinator = "true" if replica.is_coordinator else "false"
    return f'{{"role":{json.dumps(replica.role)},"index":{replica.index},"coordinator":{coordinator},"cluster":{cluster_json}}}'


def decode_replica(text: str) -> Replica:
    """
    The inverse of :func:`encode_replica`.
    """
    data = json.loads(text)
    cluster = ClusterSpec(data["cluster"])
    found = next(r for r in cluster.replicas if (r.role, r.index) == (data["role"], data["index"]))
    return attrs.evolve(found, is_coordinator=data["coordinator"])
