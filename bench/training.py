"""
TensorFlow with two and with six workers, from the call to the end of the first step, beside one process that does it alone.
"""

from __future__ import annotations

import statistics

from _measure import Row, answer, program, table, version

RUNS = 3


def main() -> None:
    taken: dict[int, list[float]] = {0: [], 2: [], 6: []}
    for _ in range(RUNS):
        for workers, values in taken.items():
            values.extend(answer(program("first_step", workers)))
    alone, two, six = (statistics.median(values) for values in taken.values())
    rows = [
        Row(f"one process alone ({version('tensorflow-cpu')}, {version('keras')})", alone),
        Row("distrib, worker=2", two, f"{two / alone:.2f}x of one alone", "<= 1.35x"),
        Row("distrib, worker=6", six, f"{six / alone:.2f}x of one alone", "<= 2x"),
    ]
    table("From the call to the first training step", rows)
