"""
Following the logs of 200 replicas on Kubernetes, beside the official client with a thread for each of them.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from _measure import Row, answer, program, table, version

PODS, LINES, SECONDS = 200, 100, 10


def cost(name: str) -> tuple[float, float]:
    """
    The cores that a program takes to follow them, and the lines that it has read.
    """
    with tempfile.TemporaryDirectory() as folder:
        cluster = subprocess.Popen(program("follow_cluster", folder, PODS, LINES, SECONDS), stdin=subprocess.PIPE)
        try:
            while not Path(folder, "config").exists():
                assert cluster.poll() is None, "there is no cluster"
                time.sleep(0.05)
            cores, lines = answer(program(name, folder, PODS))
        finally:
            cluster.communicate()
    assert lines == PODS * LINES * SECONDS, f"{name} has read {lines:.0f} lines"
    return cores, lines


def main() -> None:
    ours, peer = f"distrib, worker={PODS}", f"{version('kubernetes')}, a thread for each"
    taken = {ours: cost("follow_distrib")[0], peer: cost("follow_client")[0]}
    rows = [
        Row(ours, taken[ours], f"{taken[ours] / taken[peer]:.2f}x of its peer", "<= 1 core", unit=" "),
        Row(peer, taken[peer], unit=" "),
    ]
    table(f"Cores for following {PODS * LINES:,} lines a second from {PODS} replicas on Kubernetes", rows)
