"""
A package with everything wrong that its entry points can get wrong.
"""

from collections.abc import Mapping

from distrib import Backend, ClusterSpec, Replica, Role

NUMBER = 3


class MisnamedBackend(Backend):
    """
    Calls itself otherwise than its entry point does.
    """

    name = "renamed"
    roles = (Role("peer", at_least=1),)

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        return {}


class UnfinishedBackend(Backend):
    """
    Has no environment.
    """

    name = "unfinished"
    roles = (Role("peer", at_least=1),)
