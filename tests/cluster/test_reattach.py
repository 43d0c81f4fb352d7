"""
A run outlives whoever submitted it: other processes find it, follow it, and get its value.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from outside import Cluster, has_ended, until

import distrib
import programs
from distrib import RunState, RunTimeoutError

SUBMIT = """
import json, os, sys, time
sys.path.insert(0, {folder!r})
import programs
from distrib import distributed
options, policy, seconds = json.loads(os.environ["OPTIONS"]), json.loads(sys.argv[1]), float(sys.argv[2])
run = distributed("tensorflow", worker=2, run_policy=policy)(programs.count).on("kubernetes", **options).submit(seconds)
print(run.id, flush=True)
run.wait()
"""

REATTACH = """
import json, sys
import distrib
run = distrib.get_run(sys.argv[1])
lines = [line for line in run.logs("worker-1", follow=True) if line.startswith("line ")]
values = run.results(60)["worker"]
print(json.dumps([values[1], run.status().state.value, len(lines), len(values)]))
"""


def python(text: str, *arguments: str, cluster: Cluster, **options: str) -> "subprocess.Popen[str]":
    """
    A Python of its own that runs this.
    """
    environment = {**os.environ, "OPTIONS": json.dumps({**cluster.options, **options})}
    program = textwrap.dedent(text).format(folder=str(Path(__file__).parent)) if "{folder" in text else text
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


def orphan(cluster: Cluster, seconds: float, policy: dict[str, Any], **options: str) -> str:
    """
    A run whose submitting process was killed when its pods had started: its id.
    """
    first = python(SUBMIT, json.dumps(policy), str(seconds), cluster=cluster, **options)
    assert first.stdout
    id = first.stdout.readline().strip()
    assert id.startswith(f"kubernetes://{cluster.namespace}/")
    cluster.await_pods(id.rpartition("/")[2], "worker-0", "worker-1")
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    return id


@pytest.mark.parametrize("workload", ["operator", "job"])
def test_a_deadline_needs_nobody(cluster: Cluster, workload: str) -> None:
    """
    The pods keep it by themselves, also under an operator that does not look at the clock; whoever comes later is told.
    """
    if workload == "operator" and not cluster.has("tfjobs"):
        pytest.skip("the cluster has no training operator")
    id = orphan(cluster, 600, {"active_deadline_seconds": 8}, workload=workload)
    name = id.rpartition("/")[2]

    def is_over() -> bool | None:
        return all(map(has_ended, cluster.pods(name).values())) or None

    until(is_over, f"the pods of {name} have ended", 90, lambda: {each: pod.status.phase for each, pod in cluster.pods(name).items()})
    assert isinstance(distrib.get_run(id).exception(30), RunTimeoutError)


def test_another_process_goes_on_after_the_first_was_killed(cluster: Cluster) -> None:
    """
    The submitting process is killed in mid-run; another one knows only the id, and gets logs, state and values.
    """
    id = orphan(cluster, 8, {})
    second = python(REATTACH, id, cluster=cluster)
    output, _ = second.communicate(timeout=90)
    assert second.returncode == 0
    value, state, lines, values = json.loads(output.splitlines()[-1])
    assert value == lines
    assert value > 10
    assert (state, values) == ("Succeeded", 2)


def test_runs_are_listed(cluster: Cluster) -> None:
    """
    A run is among those of the engine, and what get_run gives is as good as what submit gave, also when it is over.
    """
    run = cluster.task(programs.seen, worker=1, options={"workload": "job"}).submit()
    value = run.result(60)
    again = distrib.get_run(run.id)
    assert again.result(30) == value
    assert again.status().state is RunState.SUCCEEDED
    assert run.id in [each.id for each in distrib.runs("kubernetes")]
