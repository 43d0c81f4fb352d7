"""
A backend as a third party would write it, in a module that no image has.
"""

from __future__ import annotations

from collections.abc import Mapping

from distrib import Backend, ClusterSpec, Replica, Role


class RingBackend(Backend):
    """
    Tells each node who comes after it.
    """

    name = "ring"
    roles = (Role("node", at_least=1), Role("store", service=True))
    reserved = ("RING_NEXT",)

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        """
        The address of the next one.
        """
        nodes = cluster["node"]
        return {"RING_NEXT": nodes[(replica.index + 1) % len(nodes)]}
