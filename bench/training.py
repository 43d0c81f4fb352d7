"""
TensorFlow with two and with six workers, from the call to the end of the first step, beside one process that does it alone.
"""

from __future__ import annotations

import statistics

from _measure import Row, answer, program, ratio, table, version

RUNS = 5


def main() -> None:
    taken: dict[int, list[float]] = {0: [], 2: [], 6: []}
    for _ in range(RUNS):
        for workers, values in taken.items():
            values.extend(answer(program("first_step", workers)))
    rows = [
        Row(f"one process alone ({version('tensorflow-cpu')}, {version('keras')})", statistics.median(taken[0])),
        row(2, taken, "<= 1.35x"),
        row(6, taken, "<= 2x"),
    ]
    table("From the call to the first training step", rows)


def row(workers: int, taken: dict[int, list[float]], target: str) -> Row:
    return Row(
        f"distrib, worker={workers}", statistics.median(taken[workers]), f"{ratio(taken[workers], taken[0]):.2f}x of one alone", target
    )
