"""
A hundred replicas that do nothing: how long, and how much memory each.
"""

from __future__ import annotations

import statistics

from _measure import Row, answer, program, race, table

COUNT = 100


def main() -> None:
    taken = race({"whole": program("crowd", COUNT)}, runs=3)
    called = statistics.median(answer(program("crowd", COUNT))[0] for _ in range(3))
    _, mean, most = answer(program("crowd", COUNT, 10))
    rows = [
        Row("from the call to all results", called, target="<= 3 s"),
        Row("the whole process", statistics.median(taken["whole"])),
        Row("proportional memory of a replica, mean", mean, target="<= 15 MB", unit="MB"),
        Row("proportional memory of a replica, most", most, unit="MB"),
    ]
    table(f"{COUNT} replicas that do nothing", rows)
