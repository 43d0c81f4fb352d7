"""
The page that says what becomes of the run policy on each workload, held against what is rendered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reading import WORKLOADS, plan_of

from distrib import Job
from distrib.engines.kubernetes._plan import KubernetesPlan
from distrib.errors import UnsupportedError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "kubernetes.md"
AGAIN = {"restart_policy": "OnFailure"}
BY_CODE = {"restart_policy": "ExitCode"}


def rows() -> dict[str, list[str]]:
    """
    What the page says: first cell -> the word for each workload.
    """
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"
    ]
    return {first: words[:4] for first, *words in cells}


def roles(worker: dict[str, Any] | None = None, chief: dict[str, Any] | None = None, **policy: Any) -> dict[str, Any]:
    """
    A job of two roles.
    """
    return {"chief": {"replicas": 1, **(chief or {})}, "worker": {"replicas": 2, **(worker or {})}, "run_policy": policy}


def workers(worker: dict[str, Any] | None = None, **policy: Any) -> dict[str, Any]:
    """
    A job whose workers decide.
    """
    return {"worker": {"replicas": 2, **(worker or {})}, "run_policy": policy}


#: First cell -> a job that says so, and one that does not.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    '`clean_pod_policy="Running"`': (roles(), roles(clean_pod_policy="None")),
    '`clean_pod_policy="None"`': (roles(clean_pod_policy="None"), roles()),
    '`clean_pod_policy="All"`': (roles(clean_pod_policy="All"), roles()),
    "`ttl_seconds_after_finished`": (roles(ttl_seconds_after_finished=9), roles()),
    "`active_deadline_seconds`": (roles(active_deadline_seconds=9), roles()),
    "`backoff_limit`": (roles(AGAIN, backoff_limit=9), roles(AGAIN)),
    "`backoff_limit` under `ExitCode`": (roles(BY_CODE, backoff_limit=9), roles(BY_CODE)),
    "`backoff_limit` of several roles": (roles(AGAIN, AGAIN, backoff_limit=9), roles(AGAIN, AGAIN)),
    "`success_policy`": (workers(success_policy=""), workers()),
    '`restart_scope="Job"`': (roles(AGAIN, restart_scope="Job"), roles(AGAIN)),
    "`suspend`": (roles(suspend=True), roles()),
    "`scheduling_policy`": (roles(scheduling_policy={"min_available": 2}), roles()),
    '`restart_policy="OnFailure"`': (roles(AGAIN), roles()),
    '`restart_policy="ExitCode"`': (roles(BY_CODE), roles()),
    '`restart_policy="Always"`': (roles({"restart_policy": "Always"}), roles()),
    "`queue`": (roles(), roles()),
}


def plan(which: str, job: dict[str, Any], workload: str) -> KubernetesPlan[Any]:
    """
    The plan of a job that says what the row is about.
    """
    return plan_of(Job("tensorflow", **job), workload=workload, **({"queue": "q"} if which == "`queue`" else {}))


def sent(plan: KubernetesPlan[Any]) -> list[dict[str, Any]]:
    """
    What controllers are told: without the annotation, which is for us.
    """
    objects = list(plan.rendered.objects)
    for each in objects:
        each["metadata"].pop("annotations", None)
    return objects


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("which", CASES)
def test_what_becomes_of_it(which: str, workload: str) -> None:
    """
    What is refused raises, what is sent changes an object, and what is ours, or so anyway, changes none.
    """
    word = rows()[which][WORKLOADS.index(workload)]
    said, plain = CASES[which]
    if word == "refused":
        with pytest.raises(UnsupportedError, match=which.split("`")[1].partition("=")[0]):
            plan(which, said, workload)
        return
    made = plan(which, said, workload)
    if which == '`clean_pod_policy="Running"`' and workload in ("jobset", "trainjob"):
        plain = said  # what would differ is refused
    other = plan("", plain, workload)
    assert (sent(made) != sent(other)) == (word == "sent")
    if which == "`success_policy`":
        assert made.rendered.orders.deciders != other.rendered.orders.deciders


def test_the_page_is_whole() -> None:
    """
    Every row has its case, and no other word is used.
    """
    assert list(rows()) == list(CASES)
    assert {word for words in rows().values() for word in words} == {"sent", "ours", "so anyway", "refused"}
