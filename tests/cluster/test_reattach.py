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

from outside import Cluster

import distrib
import programs
from distrib import RunState

SUBMIT = """
import json, os, sys, time
sys.path.insert(0, {folder!r})
import programs
from distrib import distributed
options = json.loads(os.environ["OPTIONS"])
run = distributed("tensorflow", worker=2)(programs.count).on("kubernetes", **options).submit(8)
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


def python(text: str, *arguments: str, cluster: Cluster) -> "subprocess.Popen[str]":
    """
    A Python of its own that runs this.
    """
    environment = {**os.environ, "OPTIONS": json.dumps(cluster.options)}
    program = textwrap.dedent(text).format(folder=str(Path(__file__).parent)) if "{folder" in text else text
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


def test_another_process_goes_on_after_the_first_was_killed(cluster: Cluster) -> None:
    """
    The submitting process is killed in mid-run; another one knows only the id, and gets logs, state and values.
    """
    first = python(SUBMIT, cluster=cluster)
    assert first.stdout
    id = first.stdout.readline().strip()
    assert id.startswith(f"kubernetes://{cluster.namespace}/")
    cluster.await_pods(id.rpartition("/")[2], "worker-0", "worker-1")
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
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
