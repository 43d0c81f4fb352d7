"""
What every pod of a run is told: who is in the run, and how it is to end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs

from ..._cluster import ClusterSpec, Replica
from ..._outcome import restarts_after

#: Of what a Secret holds; a pod whose distrib speaks another one refuses to start.
FORMAT = 1


@attrs.frozen(kw_only=True, slots=False)
class Orders:
    """
    The orders of one run; the same for all of its pods.

    Args:
        run: The run's name.

        namespace: Where it runs.

        workload: ``operator``, ``job``, ``jobset`` or ``trainjob``.

        cluster: Role -> ``host:port`` of each replica, in the order of the ranks.

        coordinator: The name of the replica whose value is the result, e.g. ``"worker-0"``.

        services: The roles that never end by themselves.

        restarts: Role -> restart policy; ``Never`` for a role that is not named.

        deciders: The names of the replicas that must return for the run to succeed.

        needed: With how many replicas the framework goes on when others are lost; None if it needs them all.

        grace_period: Seconds between SIGTERM and SIGKILL, and what others may take to return once the deciders have.

        storage: The run's own folder as a URL for ``fsspec``; None if there is none.

        control_port: Where the coordinator's pod listens for the others.

        peers_timeout: Seconds to wait for the names of the peers, and for a peer that is to come back.

        message_limit: The most bytes of a termination message: 4,096, or 12,288 divided by the number of containers if that is less.

        token: Known to the pods of this run only; made when the call is packed.
    """

    run: str
    namespace: str
    workload: str
    cluster: Mapping[str, tuple[str, ...]]
    coordinator: str
    services: tuple[str, ...] = ()
    restarts: Mapping[str, str] = attrs.field(factory=dict)
    deciders: tuple[str, ...] = ()
    needed: int | None = None
    grace_period: float = 10.0
    storage: str | None = None
    control_port: int = 29400
    peers_timeout: float = 600.0
    message_limit: int = 4096
    token: str = attrs.field(default="", repr=False)

    @cached_property
    def spec(self) -> ClusterSpec:
        """
        The cluster as backends take it.
        """
        return ClusterSpec(self.cluster)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """
        The names of all replicas, in the order of their ranks.
        """
        return tuple(replica.name for replica in self.spec.replicas)

    def replica(self, role: str, index: int) -> Replica:
        """
        One of the replicas, as it is to see itself.

        Raises:
            LookupError: The run has no such replica.
        """
        for replica in self.spec.replicas:
            if (replica.role, replica.index) == (role, index):
                return attrs.evolve(replica, is_coordinator=replica.name == self.coordinator)
        raise LookupError(f"{role}-{index}: no replica of the run {self.run} is called so; it has {', '.join(self.names[:10])}.")

    @property
    def coordinator_host(self) -> str:
        """
        Where the coordinator's pod is found.
        """
        role, _, index = self.coordinator.rpartition("-")
        return self.cluster[role][int(index)].rpartition(":")[0]

    def restarts_after(self, role: str, code: int) -> bool:
        """
        Whether a replica of *role* that fails with the exit code *code* is started again, as far as its own policy goes.
        """
        return restarts_after(self.restarts.get(role, "Never"), code)

    def to_json(self) -> bytes:
        """
        For the Secret: the same bytes for equal orders.
        """
        return json.dumps({"format": FORMAT, **attrs.asdict(self)}, sort_keys=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Orders:
        """
        The inverse of :meth:`to_json`.

        Raises:
            ValueError: They are of another format.
        """
        given: dict[str, Any] = json.loads(data)
        spoken = given.pop("format", None)
        if spoken != FORMAT:
            raise ValueError(f"the orders of this run are of format {spoken}; the distrib in this image reads format {FORMAT}.")
        cluster = {role: tuple(addresses) for role, addresses in given.pop("cluster").items()}
        return cls(cluster=cluster, services=tuple(given.pop("services")), deciders=tuple(given.pop("deciders")), **given)
