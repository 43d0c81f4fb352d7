"""
How long after a replica failed its caller has the error.
"""

from __future__ import annotations

import statistics

from _measure import Row, answer, program, table


def main() -> None:
    taken = statistics.median(answer(program("failing"))[0] for _ in range(5))
    table("A replica raises while the other one sleeps", [Row("from raising there to the error here", taken, target="<= 0.3 s")])
