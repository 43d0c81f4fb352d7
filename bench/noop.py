"""
Two replicas that do nothing, as a whole process from cold, beside what else starts two processes.

The pool and submitit bring back what the processes return, as we do; torchrun and TorchX have no way to.
"""

from __future__ import annotations

import sys
from pathlib import Path

from _measure import PROGRAMS, beside, program, race, version

BIN = Path(sys.executable).parent
NOTHING = str(PROGRAMS / "nothing.py")
TORCHRUN = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", NOTHING]
TORCHX = [str(BIN / "torchx"), "run", "--scheduler", "local_cwd", "--wait", "utils.python", "--num_replicas", "2", "--script", NOTHING, "-"]


def main() -> None:
    pool, torchrun = "multiprocessing, spawn Pool(2)", f"torchrun ({version('torch')})"
    submitit, torchx = f"submitit, local ({version('submitit')})", f"torchx run, local_cwd ({version('torchx')})"
    polled = "the same by TorchX's API, asked every 10 ms"
    commands = {
        "distrib, worker=2": program("noop_distrib"),
        pool: program("noop_pool"),
        torchrun: TORCHRUN,
        submitit: program("noop_submitit"),
        torchx: TORCHX,
        polled: program("noop_torchx"),
    }
    targets = {pool: "<= 1.25x", torchrun: "<= 0.125x", submitit: "<= 0.25x", torchx: "<= 0.25x"}
    beside("Two replicas that do nothing", race(commands), targets)
