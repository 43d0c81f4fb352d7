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


def race(commands: Mapping[str, Sequence[str]], *, runs: int = 5) -> dict[str, list[float]]:
    """
    The seconds that each command takes, turn by turn. They run one after the other in each turn; the first warms up.
    """
    turns = [{name: seconds(command) for name, command in commands.items()} for _ in range(runs + 1)][1:]
    return {name: [turn[name] for turn in turns] for name in commands}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """
    The median of the ratios turn by turn: a slow minute hits both.
    """
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


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


def beside(title: str, taken: Mapping[str, Sequence[float]], targets: Mapping[str, str]) -> None:
    """
    Print the first of *taken* as ours and the others as its peers, each with its target.
    """
    (name, ours), *peers = taken.items()
    rows = [Row(name, statistics.median(ours))]
    for peer, theirs in peers:
        rows.append(Row(peer, statistics.median(theirs), f"ours is {ratio(ours, theirs):.2f}x of it", targets.get(peer, "")))
    table(title, rows)
