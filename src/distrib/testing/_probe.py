"""
The framework that engines are tried with: none at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from .._cluster import ClusterSpec, Replica
from ..backend import Backend, Role

__all__ = ["ProbeBackend"]


class ProbeBackend(Backend):
    """
    Workers, a lead that decides although it is not the first, and helpers that never end.
    """

    name = "probe"
    roles = (Role("worker", at_least=1), Role("lead", at_most=1), Role("helper", service=True))
    reserved = ("PROBE_RANK", "PROBE_PEERS")

    def coordinator(self, cluster: ClusterSpec) -> Replica:
        """
        The lead, or worker 0 where there is none.
        """
        return next((replica for replica in cluster.replicas if replica.role == "lead"), cluster.replicas[0])

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        """
        The rank, and everybody's address.
        """
        peers = [address for addresses in cluster.values() for address in addresses]
        return {"PROBE_RANK": str(replica.rank), "PROBE_PEERS": ",".join(peers)}
