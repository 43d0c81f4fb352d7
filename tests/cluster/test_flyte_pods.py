"""
The jobs that Flyte's back end makes of tasks, on a real cluster: pods with ``pyflyte-execute``, on a folder that they share.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flyting import JUDGE, Attempt, attempted
from outside import Cluster

#: What flytekit says where a task's outputs are not wanted.
IGNORED = "Outputs.pb will not be uploaded"
#: Task -> its coordinator, another replica, and how many more return, whose outputs nobody wants.
TASKS = {
    "with_chief": ("chief-0", "worker-0", 2),
    "without_chief": ("worker-0", "worker-1", 1),
    "standard": ("rank-0", "rank-1", 1),
    "elastic": ("rank-0", "rank-1", 1),
}


@pytest.fixture(name="run")
def _run(cluster: Cluster) -> Iterator[Callable[..., Attempt]]:
    """
    Run a task as Flyte does, and wait for its end.
    """
    _import_flytekit()
    if not os.environ.get(JUDGE):
        pytest.skip(f"{JUDGE} names no program; `nox -s judge` builds it, where there is Go")
    if cluster.storage is None or not Path(cluster.storage).is_dir():
        pytest.skip("--storage names no folder, and what Flyte reads is looked for in one")
    if not cluster.has("tfjobs"):
        pytest.skip("the cluster has no training operator")
    import flyte_programs

    attempts: list[Attempt] = []

    def run(name: str, failing: str = "") -> Attempt:
        attempt = attempted(cluster, getattr(flyte_programs, name), failing=failing)
        attempts.append(attempt)
        attempt.create()
        assert attempt.wait() == "Succeeded", attempt.logs()
        return attempt

    yield run
    for attempt in attempts:
        attempt.delete()


def _import_flytekit() -> None:
    # It takes over Ctrl-C and tracebacks when it is imported.
    handler, hook = signal.getsignal(signal.SIGINT), sys.excepthook
    try:
        pytest.importorskip("flytekit", reason="flytekit says what Flyte is told, and is not installed here")
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.excepthook = hook


@pytest.mark.parametrize("name", TASKS)
def test_only_the_coordinator_s_outputs_are_there(run: Callable[..., Attempt], name: str) -> None:
    """
    They are the chief's, worker 0's where there is no chief, the master's, or those of rank 0, whichever node has it. Servers end too.
    """
    coordinator, _, others = TASKS[name]
    attempt = run(name)
    logs = attempt.logs()
    assert attempt.left() == ["outputs.pb"], logs
    assert attempt.value() == coordinator
    assert sum(IGNORED in log for replica, log in logs.items() if not replica.startswith("ps")) == others, logs


@pytest.mark.parametrize("name", TASKS)
def test_a_worker_s_error_is_there_and_ends_the_others(run: Callable[..., Attempt], name: str) -> None:
    """
    With its traceback, and without outputs; for the operator all have succeeded, or Flyte would not read it.
    """
    _, failing, _ = TASKS[name]
    attempt = run(name, failing)
    assert attempt.left() == ["error.pb"], attempt.logs()
    error = attempt.error()
    assert f"ValueError: {failing} is out of luck" in error.message
    assert "flyte_programs.py" in error.message
