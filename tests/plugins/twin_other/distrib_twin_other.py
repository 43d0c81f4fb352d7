"""
One of two packages that bring a backend of the same name.
"""

from collections.abc import Mapping

from distrib import Backend, ClusterSpec, Replica, Role


class TwinBackend(Backend):
    """
    Nothing is wrong with it by itself.
    """

    name = "twin"
    roles = (Role("peer", at_least=1),)
    reserved = ("TWIN_RANK",)

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {"TWIN_RANK": str(replica.rank)}
