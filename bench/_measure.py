"""
What all benches share: commands run in turn, medians, and one table.
"""

from __future__ import annotations

import importlib.metadata
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROGRAMS = Path(__file__).parent / "programs"


class Row(NamedTuple):
    """
    One line of a table.

    Args:
        name: What was measured.

        figure: In *unit*.

        note: A ratio, in words.

        target: What was set out to be reached, in words; empty for a peer that only stands beside.
    """

    name: str
    figure: float
    note: str = ""
    target: str = ""
    unit: str = "s"


def program(name: str, *arguments: object) -> list[str]:
    """
    The command that runs one of ``bench/programs`` in a fresh interpreter.
    """
    return [sys.executable, str(PROGRAMS / f"{name}.py"), *map(str, arguments)]


def seconds(command: Sequence[str]) -> float:
    """
    How long a command takes as a whole process, from before it starts until it has ended.
    """
    start = time.perf_counter()
    finish(command, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def answer(command: Sequence[str]) -> list[float]:
    """
    The numbers in the last line that a command prints: what it measured itself.
    """
    return [float(word) for word in finish(command, stdout=subprocess.PIPE).splitlines()[-1].split()]


def finish(command: Sequence[str], *, stdout: int) -> str:
    """
    Run a command and give back what it printed; a failing one ends the bench, with the last that it said.
    """
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout or ""


def race(commands: Mapping[str, Sequence[str]], *, runs: int = 5) -> dict[str, float]:
    """
    The median seconds of each command. They are run in turn, once for warming up, so that a slow minute hits all of them.
    """
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            if (one := seconds(command)) and turn:
                taken[name].append(one)
    return {name: statistics.median(values) for name, values in taken.items()}


def version(package: str) -> str:
    """
    ``package x.y``, for the name of a peer.
    """
    return f"{package} {importlib.metadata.version(package)}"


def table(title: str, rows: Sequence[Row]) -> None:
    """
    Print figures side by side.
    """
    width = max(len(row.name) for row in rows)
    print(f"\n{title}\n{'-' * len(title)}")
    for row in rows:
        target = f"target: {row.target}" if row.target else ""
        print(f"{row.name:<{width}}  {row.figure:>9.3f} {row.unit:<3} {row.note:<24} {target}".rstrip())
    sys.stdout.flush()


def beside(title: str, medians: Mapping[str, float], targets: Mapping[str, str]) -> None:
    """
    Print the first of *medians* as ours and the others as its peers, each with its target.
    """
    (ours, figure), *peers = medians.items()
    table(
        title,
        [Row(ours, figure), *(Row(name, other, f"ours is {figure / other:.2f}x of it", targets.get(name, "")) for name, other in peers)],
    )
