"""
Gossip: peers that tell each other what they have heard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import attrs

from distrib import Backend, ClusterSpec, InvalidJobError, Job, Replica, Role


@attrs.frozen(kw_only=True)
class GossipOptions:
    """
    What ``@distributed(framework="gossip", ...)`` takes besides its roles: *fan_out*, how many others each one talks to.
    """

    fan_out: int = attrs.field(default=0, validator=[attrs.validators.instance_of(int), attrs.validators.ge(0)])


class GossipBackend(Backend):
    """
    Tells each replica who it is, and where all of them are.
    """

    name = "gossip"
    roles = (Role("seed", at_most=1), Role("peer", at_least=1))
    options = GossipOptions
    reserved = ("GOSSIP_RANK", "GOSSIP_PEERS", "GOSSIP_FAN_OUT")

    def validate(self, job: Job) -> None:
        """
        Refuse to talk to more replicas than there are.
        """
        others = job.world_size - 1
        if job.options.fan_out > others:
            raise InvalidJobError(f"fan_out={job.options.fan_out}: there are {others} others.", field="fan_out", value=job.options.fan_out)

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        """
        The rank, and everybody's address.
        """
        addresses = [each.address for each in cluster.replicas]
        return {"GOSSIP_RANK": str(replica.rank), "GOSSIP_PEERS": ",".join(addresses)}

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        """
        The function, called with what the options say.
        """
        return partial(_call, function, job.options.fan_out)


def _call(function: Callable[..., Any], fan_out: int, *args: Any, **kwargs: Any) -> Any:
    os.environ["GOSSIP_FAN_OUT"] = str(fan_out)
    return function(*args, **kwargs)
