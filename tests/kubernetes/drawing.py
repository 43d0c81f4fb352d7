"""
Plans of any job, with any options of the engine.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from reading import WORKLOADS, plan_of

from distrib import Job, ReplicaGroup, RunPolicy
from distrib.engines.kubernetes import KubernetesOptions
from distrib.engines.kubernetes._plan import KubernetesPlan
from distrib.errors import InvalidJobError, UnsupportedError
from distrib.testing.strategies import jobs, option_keywords

FRAMEWORKS = ("tensorflow", "pytorch", "jax")
#: More than anybody has to leave out.
_TURNS = 50

#: Jobs with every field are large, and none of them is too large. Making a failing one smaller would take minutes.
any_plans = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)],
)


#: A bit of everything that there is.
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a", "b"]}]}]
        }
    },
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"labelSelector": {"matchLabels": {"team": "a"}}, "topologyKey": "kubernetes.io/hostname"}}
        ]
    },
}


@st.composite
def plans(draw: st.DrawFn, *, sound: bool = False) -> list[KubernetesPlan[Any]]:
    """
    One drawn job as each of the workloads.

    What a workload cannot do has to be refused by its name: the fields that are named are left out, one after the other, until
    the job is accepted. One that never is fails the test.

    Args:
        draw: Hypothesis'.

        sound: Whether what is said in Kubernetes' own words makes sense to it too; any plain data does for us.
    """
    job = draw(st.sampled_from(FRAMEWORKS).flatmap(jobs))
    options = draw(option_keywords(KubernetesOptions))
    if sound:
        groups = [attrs.evolve(group, affinity=AFFINITY if group.affinity else {}) for group in job.groups]
        job = Job(**{**{each.name: getattr(job, each.name) for each in attrs.fields(Job)}, "groups": groups})
        if not isinstance(options.get("security_context", True), bool):
            options["security_context"] = {"pod": {"runAsUser": 1}, "container": {"privileged": False}}
    return [accepted(job, {**options, "workload": workload, "pod_patch": {}}) for workload in WORKLOADS]


def accepted(job: Job, options: dict[str, Any]) -> KubernetesPlan[Any]:
    """
    The plan of what is left of a job once all that was refused is left out.
    """
    refused: list[str] = []
    for _ in range(_TURNS):
        try:
            return plan_of(job, **options)
        except (UnsupportedError, InvalidJobError) as error:
            refused.append(str(error.field))
        job, options = without(job, options, refused[-1])
    pytest.fail(f"leaving them out helps nothing: {refused}")


def without(job: Job, options: dict[str, Any], field: str) -> tuple[Job, dict[str, Any]]:
    """
    A job and options that leave out a field, or name an image where there has to be one.
    """
    where, _, rest = field.partition(".")
    name = re.split(r"[.\[]", rest)[0]
    fields = {each.name: getattr(job, each.name) for each in attrs.fields(Job)}
    if where == "image":
        return job, {**options, "image": "train:1"}
    if where == "kubernetes":
        return job, {key: value for key, value in options.items() if key != name}
    if where == "run_policy":
        default = getattr(RunPolicy(), name)
        return Job(**{**fields, "run_policy": attrs.evolve(job.run_policy, **{name: default})}), options
    for place, group in enumerate(job.groups):
        if group.role == where and name:
            default = getattr(ReplicaGroup(role=where, replicas=1), name)
            groups = [*job.groups[:place], attrs.evolve(group, **{name: default}), *job.groups[place + 1 :]]
            return Job(**{**fields, "groups": groups}), options
    plainly = where.partition("[")[0]
    return Job(**{**fields, plainly: {} if plainly == "env" else None}), options
