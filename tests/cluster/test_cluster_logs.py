"""
Logs are whole: under load, from pods that were pending, and over connections that break.
"""

import subprocess
import threading
import time

import pytest
from outside import Cluster, name_of

import programs

LINES = 20_000


def test_logs_under_load(cluster: Cluster) -> None:
    """
    Two replicas write as fast as they can, followed from Pending on: every line once, in order, with its replica's name.
    """
    run = cluster.task(programs.flood, worker=2, options={"workload": "job"}).submit(LINES, 0.005)
    seen: dict[str, list[str]] = {"worker-0": [], "worker-1": []}
    for line in run.logs(follow=True):
        for name, lines in seen.items():
            if line.startswith(f"[{name}]") and line.endswith("x" * 60):
                lines.append(line.split()[-2])
    assert run.result(60) == LINES
    for name, lines in seen.items():
        assert len(lines) == LINES, (name, len(lines))
        assert lines == sorted(set(lines))


def test_a_broken_connection_loses_nothing(cluster: Cluster, request: pytest.FixtureRequest) -> None:
    """
    The API server is restarted in mid-run: logs go on without loss or repeats, and the value comes back.
    """
    command = request.config.getoption("--restart-api", default=None)
    if not command:
        pytest.skip("no --restart-api: nobody may restart the API server of a cluster that others use")
    run = cluster.task(programs.count, worker=2, options={"workload": "job"}).submit(12, 0.01)
    cluster.await_pods(name_of(run), "worker-0", "worker-1")

    def restart() -> None:
        time.sleep(1)
        subprocess.run([command], check=True, timeout=60)

    thread = threading.Thread(target=restart)
    thread.start()
    numbers = [int(line.split()[-1]) for line in run.logs("worker-1", follow=True) if line.startswith("line ")]
    thread.join()
    assert numbers == list(range(len(numbers)))
    assert run.results(60)["worker"][1] == len(numbers)
