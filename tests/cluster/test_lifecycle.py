"""
Restarts, clean-up, cancelling, and two runs beside each other.
"""

import time

import pytest
from outside import Cluster, name_of, until

import programs
from distrib import RunState, UnsupportedError

PLURALS = {"operator": "tfjobs", "job": "jobs", "jobset": "jobsets", "trainjob": "trainjobs"}
#: What each policy leaves of the pods of a job whose parameter server would go on for ever.
KEPT = {"All": set(), "Running": {"chief-0", "worker-0"}, "None": {"chief-0", "worker-0", "ps-0"}}


@pytest.mark.parametrize("workload", ["operator", "job", "jobset", "trainjob"])
def test_cancel_leaves_nothing(cluster: Cluster, workload: str) -> None:
    """
    Cancelling deletes the pods and everything else that the run had, and comes back when they are gone.
    """
    if not cluster.has(PLURALS[workload]):
        pytest.skip(f"the cluster has no {PLURALS[workload]}")
    run = cluster.task(programs.count, worker=2, options={"workload": workload}).submit(600)
    cluster.await_pods(name_of(run), "worker-0", "worker-1")
    began = time.monotonic()
    run.cancel()
    assert time.monotonic() - began < 30
    assert run.status().state is RunState.CANCELLED
    assert not [each for each in cluster.left(name_of(run)) if each.startswith("pod/")]
    assert cluster.gone(name_of(run))


@pytest.mark.parametrize("policy", KEPT)
@pytest.mark.parametrize("workload", ["operator", "job"])
def test_clean_pod_policy(cluster: Cluster, workload: str, policy: str) -> None:
    """
    Once the run has its value, the pods that the policy keeps are there, and no service of ours runs on.
    """
    if workload == "operator" and not cluster.has("tfjobs"):
        pytest.skip("the cluster has no training operator")
    job = {"chief": 1, "worker": 1, "ps": 1, "run_policy": {"clean_pod_policy": policy}, "options": {"workload": workload}}
    task = cluster.task(programs.serve, **job)
    if (workload, policy) == ("job", "All"):
        with pytest.raises(UnsupportedError, match="clean_pod_policy"):  # plain Jobs keep the pods that have ended
            task.submit()
        return
    run = task.submit()
    assert run.result(90)["peers"] == 3
    name = name_of(run)

    def settled() -> bool | None:
        pods = cluster.pods(name)
        kept = set(pods) if policy == "None" else {each for each in pods if each != "ps-0"}
        running = [each for each, pod in pods.items() if pod.status.phase in ("Running", "Pending")]
        return (kept == KEPT[policy] and not running) or None

    until(settled, f"{policy} keeps {KEPT[policy]}", 40, lambda: {each: pod.status.phase for each, pod in cluster.pods(name).items()})
    run.cancel()
    assert run.status().state is RunState.SUCCEEDED


@pytest.mark.parametrize("workload", ["operator", "job", "jobset"])
def test_time_to_live(cluster: Cluster, workload: str) -> None:
    """
    After its time to live nothing of a run is in the namespace, its Secret and Service included.
    """
    if not cluster.has(PLURALS[workload]):
        pytest.skip(f"the cluster has no {PLURALS[workload]}")
    run = cluster.task(programs.seen, worker=1, run_policy={"ttl_seconds_after_finished": 1}, options={"workload": workload}).submit()
    run.result(60)
    assert cluster.gone(name_of(run), 60)


@pytest.mark.parametrize(
    ("workload", "policy", "code"), [("operator", "OnFailure", 3), ("operator", "ExitCode", 138), ("job", "OnFailure", 3)]
)
def test_restart(cluster: Cluster, workload: str, policy: str, code: int) -> None:
    """
    A replica that fails is started again, and the run has its value; how often is told.
    """
    if workload == "operator" and not cluster.has("tfjobs"):
        pytest.skip("the cluster has no training operator")
    worker = {"replicas": 2, "restart_policy": policy}
    run = cluster.task(programs.fail_before, worker=worker, options={"workload": workload}).submit(time.time() + 12, code)
    run.result(120)
    assert run.status().state is RunState.SUCCEEDED
    assert run.status().restarts >= 1
    assert run.status().replicas["worker-1"].attempt >= 2


def test_permanent_exit_code(cluster: Cluster) -> None:
    """
    Under ExitCode, a code below 128 is final.
    """
    worker = {"replicas": 2, "restart_policy": "ExitCode"}
    run = cluster.task(programs.fail_before, worker=worker, options={"workload": "job"}).submit(time.time() + 60, 9)
    error = run.exception(60)
    assert error is not None
    assert getattr(error, "exit_code", None) == 9
    assert run.status().restarts == 0


def test_two_runs_at_once(cluster: Cluster) -> None:
    """
    Two runs of one task in one namespace meet only their own replicas.
    """
    task = cluster.task(programs.meet, worker=2, options={"workload": "job"})
    runs = [task.submit(), task.submit()]
    assert [run.result(90)["peers"] for run in runs] == [2, 2]
    assert runs[0].id != runs[1].id
