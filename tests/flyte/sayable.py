"""
Jobs that Flyte can be told of.
"""

from __future__ import annotations

from hypothesis import strategies as st

from distrib import Job, ReplicaGroup, RunPolicy
from distrib._flyte_wire import GROUP_FIELDS, RESOURCES, RUN_POLICY_FIELDS
from distrib._model import Resources, RestartPolicy
from distrib._quantity import nano
from distrib.errors import UnsupportedError
from distrib.testing.strategies import jobs

__all__ = ["sayable", "told"]


def told(framework: str) -> st.SearchStrategy[Job]:
    """
    Jobs that Flyte is told of. Were most of them refused, Hypothesis would refuse to go on.
    """
    return jobs(framework).map(sayable).filter(_is_told)


def _is_told(job: Job) -> bool:
    try:
        job.backend.flyte_task(job)
    except UnsupportedError:
        return False
    return True


def sayable(job: Job) -> Job:
    """
    The job without what Flyte has no word for, which is refused elsewhere.
    """
    # A number of 0 is none of its words either.
    policy = {name: value for name in RUN_POLICY_FIELDS if (value := getattr(job.run_policy, name))}
    resources = {"requests": _plain(job.requests), "limits": _plain(job.limits)}
    return job.evolve(groups=[_sayable(group) for group in job.groups], run_policy=RunPolicy(**policy), engine_options={}, **resources)


def _sayable(group: ReplicaGroup) -> ReplicaGroup:
    fields = {name: getattr(group, name) for name in GROUP_FIELDS}
    policy = None if group.restart_policy is RestartPolicy.EXIT_CODE else group.restart_policy
    return ReplicaGroup(**{**fields, "requests": _plain(group.requests), "limits": _plain(group.limits), "restart_policy": policy})


def _plain(resources: Resources | None) -> Resources | None:
    """
    Of resources, an amount of 0 cannot be said, but for GPUs.
    """
    if resources is None:
        return None
    amounts = {name: getattr(resources, name) for name in RESOURCES}
    return Resources(**{name: amount for name, amount in amounts.items() if name == "gpu" or nano(amount or 0)})
