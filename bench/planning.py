"""
Planning 2,000 replicas: with the environments of all of them, and as objects of Kubernetes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from _measure import Row, table
from distrib import distributed
from distrib.engine import Plan
from distrib.engines.local import LocalPlan

COUNT = 2000
WORKLOADS = ("operator", "job", "jobset", "trainjob")


@distributed(framework="tensorflow", worker=COUNT, image="train:1")
def nothing() -> None:
    """
    Never called: only planned.
    """


def main() -> None:
    planned, printed = _median(_with_environments)
    size = _size(_with_environments())
    rows = [
        Row(f"all environments ({size / 1e6:.0f} MB of TF_CONFIG)", planned, target="<= 1 s"),
        Row("and printing the plan", printed),
    ]
    for workload in WORKLOADS:
        planned, printed = _median(nothing.on("kubernetes", workload=workload).plan)
        rows += [
            Row(f"on Kubernetes, as {workload}", planned, target="<= 1 s"),
            Row("and printing the plan", printed),
        ]
    table(f"Planning {COUNT:,} replicas", rows)


def _with_environments() -> LocalPlan[None]:
    plan = nothing.plan()
    assert isinstance(plan, LocalPlan)
    # The variables are made when they are looked at.
    assert _size(plan)
    return plan


def _size(plan: LocalPlan[None]) -> int:
    return sum(len(process.environment["TF_CONFIG"]) for process in plan.processes)


def _median(make: Callable[[], Plan[Any]]) -> tuple[float, float]:
    """
    Seconds for making a plan, and for printing it.
    """
    planned, printed = [], []
    for _ in range(5):
        start = time.perf_counter()
        plan = make()
        planned.append(time.perf_counter() - start)
        start = time.perf_counter()
        str(plan)
        printed.append(time.perf_counter() - start)
    return statistics.median(planned), statistics.median(printed)
