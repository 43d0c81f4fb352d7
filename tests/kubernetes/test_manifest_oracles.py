"""
Kubeflow's and Kubernetes' own clients read what is rendered.
"""

from __future__ import annotations

from typing import Any

import pytest
from drawing import any_plans, plans
from hypothesis import given, settings
from oracles import written_back
from reading import WORKLOADS, plan_of, sights

from distrib import Job
from distrib.engines.kubernetes._plan import KubernetesPlan, secret


@settings(any_plans, max_examples=30)
@given(of_a_job=plans(sound=True))
def test_the_clients_know_all_of_it(of_a_job: list[KubernetesPlan[Any]]) -> None:
    """
    Whatever a job becomes, the models of the clients have a field of that type for each thing in it, and lose nothing.
    """
    for plan in of_a_job:
        for each in plan.rendered.objects:
            assert written_back(each) == each


def test_the_secret() -> None:
    """
    The run's Secret is one of Kubernetes'.
    """
    found = secret("train", "team-a", {"call.pickle": "AAAA"})
    assert written_back(found) == found


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("spoil", ["pod", "container", "variable", "group"])
def test_the_clients_notice_a_slip(workload: str, spoil: str) -> None:
    """
    A field that Kubernetes does not have would not be written back, wherever it is.
    """
    plan = plan_of(Job("pytorch", worker=1, nnodes="1:1"), workload=workload)
    (sight,) = sights(plan)
    places = {"pod": sight.spec, "container": sight.main, "variable": sight.main["env"][0], "group": sight.pods}
    places[spoil]["slip"] = "of the pen"
    assert [written_back(each) for each in plan.rendered.objects] != list(plan.rendered.objects)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_clients_notice_a_wrong_type(workload: str) -> None:
    """
    A number is none in quotation marks.
    """
    plan = plan_of(Job("jax", worker=1), workload=workload)
    sights(plan)[0].spec["terminationGracePeriodSeconds"] = "15"
    with pytest.raises((AssertionError, ValueError)):
        list(map(written_back, plan.rendered.objects))
