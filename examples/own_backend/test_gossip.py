"""
What every backend promises, of this one: ``python -m pytest``, without the real runs ``python -m pytest -m 'not slow'``.
"""

from collections.abc import Mapping

from distrib_gossip import GossipBackend

from distrib.testing import BackendContract, Seen


class TestGossip(BackendContract):
    """
    Gossip keeps it.
    """

    backend = GossipBackend()
    runs_with = ({"fan_out": 0},)

    def seen(self, environment: Mapping[str, str]) -> Seen:
        """
        What the framework makes of its environment.
        """
        return Seen(rank=int(environment["GOSSIP_RANK"]), cluster=environment["GOSSIP_PEERS"].split(","))
