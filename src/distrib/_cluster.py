"""
Who is in the cluster, and which of them this process is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import takewhile

import attrs

from ._refusal import refuse

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
        self._addresses = {role: _listed(role, of_role) for role, of_role in addresses.items() if of_role}
        taken: set[str] = set()
        for role, of_role in self._addresses.items():
            for index, address in enumerate(of_role):
                _check_address(f"cluster[{role!r}][{index}]", address, taken)

    def __getitem__(self, role: str) -> tuple[str, ...]:
        return self._addresses[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Thousands of replicas look things up by one and the same cluster.
        return hash(tuple(self._addresses.items()))

    def __eq__(self, other: object) -> bool:
        # The order of the roles is the order of the ranks, so it counts.
        if not isinstance(other, ClusterSpec):
            return NotImplemented
        return self is other or list(self._addresses.items()) == list(other._addresses.items())

    def __getstate__(self) -> dict[str, dict[str, tuple[str, ...]]]:
        # Texts hash differently in another process, and replicas can be made again.
        return {"_addresses": self._addresses}

    def __repr__(self) -> str:
        return f"ClusterSpec({self._addresses!r})"

    @property
    def world_size(self) -> int:
        """
        How many replicas there are.
        """
        return sum(map(len, self._addresses.values()))

    @cached_property
    def replicas(self) -> tuple[Replica, ...]:
        """
        All replicas in the order of their ranks; none of them is marked as the coordinator.
        """
        places = ((role, index) for role, addresses in self._addresses.items() for index in range(len(addresses)))
        return tuple(Replica(role=role, index=index, rank=rank, cluster=self) for rank, (role, index) in enumerate(places))


_PORTS = range(1, 2**16)
_LONGEST_PORT = 5


def _listed(role: str, addresses: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    if isinstance(addresses, str):
        raise refuse(f"cluster[{role!r}]", addresses, "write a list of addresses.")
    return tuple(addresses)


def _check_address(field: str, address: object, taken: set[str]) -> None:
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    legal = port.isdecimal() and port.isascii() and len(port) <= _LONGEST_PORT and int(port) in _PORTS
    if not host or not legal or any(mark.isspace() or mark in "/@," for mark in host):
        raise refuse(field, address, "this is not an address; write 'host:port'.")
    if address in taken:
        raise refuse(field, address, "another replica has the same address; each needs its own.")
    taken.add(f"{host}:{port}")


@attrs.frozen(kw_only=True)
class Replica:
    """
    One process of a run: what :func:`replica` gives.

    Where a node of PyTorch runs several processes, the node is the replica: *index* and *rank* are the node's for all of them,
    and ``torch.distributed.get_rank()`` is the process's own. Only one of all the processes is the coordinator.

    .. doctest::

        >>> from distrib import ClusterSpec
        >>> last = ClusterSpec({"chief": ["a:1"], "worker": ["b:1", "c:1"]}).replicas[-1]
        >>> last.name, last.rank, last.world_size, last.address
        ('worker-1', 2, 3, 'c:1')

    Args:
        role: E.g. ``"worker"``.

        index: Its number within the role, from 0.

        rank: Its number overall, from 0.

        cluster: All replicas' addresses; empty for a process that is no replica.

        is_coordinator: Whether its return value is the result.
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
    role, index = data["role"], data["index"]
    # The one rank, without making all the other replicas.
    before = sum(len(cluster[earlier]) for earlier in takewhile(lambda earlier: earlier != role, cluster))
    return Replica(role=role, index=index, rank=before + index, cluster=cluster, is_coordinator=data["coordinator"])
