"""
Planning 2,000 replicas, with the environments of all of them.
"""

from __future__ import annotations

import statistics
import time

from _measure import Row, table
from distrib import distributed
from distrib.engines.local import LocalPlan

COUNT = 2000


@distributed(framework="tensorflow", worker=COUNT)
def nothing() -> None:
    """
    Never called: only planned.
    """


def main() -> None:
    taken, printed = [], []
    for _ in range(5):
        start = time.perf_counter()
        plan = nothing.plan()
        assert isinstance(plan, LocalPlan)
        size = sum(len(process.environment["TF_CONFIG"]) for process in plan.processes)
        taken.append(time.perf_counter() - start)
        start = time.perf_counter()
        str(plan)
        printed.append(time.perf_counter() - start)
    rows = [
        Row(f"all environments ({size / 1e6:.0f} MB of TF_CONFIG)", statistics.median(taken), target="<= 1 s"),
        Row("and printing the plan", statistics.median(printed)),
    ]
    table(f"Planning {COUNT:,} replicas", rows)
