"""
Two DDP ranks on one machine, from the call to the first all-reduce, beside torchrun and the Flyte plugin's local Elastic.

For torchrun the call is the start of its command.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from _measure import PROGRAMS, answer, beside, program, version

RUNS = 3
TORCHRUN = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", "2", str(PROGRAMS / "ddp_step.py")]


def main() -> None:
    torchrun = f"torchrun ({version('torch')})"
    spawn, fork = (f"{version('flytekitplugins-kfpytorch')}, Elastic, {method}" for method in ("spawn", "fork"))
    commands = {
        "distrib, worker=2": program("ddp_distrib"),
        torchrun: TORCHRUN,
        spawn: program("ddp_flyte", "spawn"),
        fork: program("ddp_flyte", "fork"),
    }
    reduced: dict[str, list[float]] = {name: [] for name in commands}
    stepped: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(RUNS + 1):
        for name, command in commands.items():
            started = time.monotonic()
            *called, first, step = answer(command)
            if turn:  # the first one warms up
                reduced[name].append(first - (called[0] if called else started))
                stepped[name].append(step - (called[0] if called else started))
    beside("Two DDP ranks, from the call to the first all-reduce", reduced, {torchrun: "<= 0.556x", spawn: "<= 0.25x"})
    # TorchDynamo, which DDP imports in every rank, takes as long as torch itself.
    beside("The same to the end of DDP's first step", stepped, {})
