"""
Each way in which a replica or a whole run may fail, and what the caller is told.
"""

import signal
import time

import pytest
from outside import Cluster, name_of, until

import distrib
import programs
from distrib import ReplicaFailedError, RunFailedError, RunState, RunTimeoutError, SubmitError
from distrib.engines.kubernetes._pack import pack_modules

NEVER = {"restart_policy": "Never", "replicas": 2}


@pytest.fixture(params=["operator", "job"])
def workload(request: pytest.FixtureRequest, cluster: Cluster) -> str:
    """
    With and without an operator.
    """
    if request.param == "operator" and not cluster.has("tfjobs"):
        pytest.skip("the cluster has no training operator")
    name: str = request.param
    return name


def failure(run: distrib.Run[object], seconds: float = 90) -> ReplicaFailedError:
    """
    The error of a run in which a replica failed.
    """
    began = time.monotonic()
    error = run.exception(seconds)
    assert isinstance(error, ReplicaFailedError), repr(error)
    assert run.status().state is RunState.FAILED
    assert time.monotonic() - began < 60
    return error


def test_exception(cluster: Cluster, workload: str) -> None:
    """
    The user's exception is the cause, with the user's own frames; the others are stopped at once.
    """
    error = failure(cluster.task(programs.fail, worker=NEVER, options={"workload": workload}).submit("exception"))
    assert (error.replica, error.exit_code) == ("worker-1", 1)
    assert isinstance(error.__cause__, programs.OutOfPaintError)
    assert "no blue left" in str(error)
    assert "in fail" in error.traceback
    assert "1 other" in str(error)


def test_exit_code(cluster: Cluster, workload: str) -> None:
    """
    A replica that ends with a code of its own.
    """
    error = failure(cluster.task(programs.fail, worker=NEVER, options={"workload": workload}).submit("exit"))
    assert (error.replica, error.exit_code) == ("worker-1", 7)
    assert "about to fail" in error.log_tail


def test_sigkill(cluster: Cluster, workload: str) -> None:
    """
    A replica that kills itself.
    """
    error = failure(cluster.task(programs.fail, worker=NEVER, options={"workload": workload}).submit("kill"))
    assert (error.replica, error.signal) == ("worker-1", signal.SIGKILL)


def test_out_of_memory(cluster: Cluster, workload: str) -> None:
    """
    A replica that takes more memory than it may is told from one that was killed otherwise.
    """
    worker = {**NEVER, "limits": {"memory": "128Mi"}}
    error = failure(cluster.task(programs.fail, worker=worker, options={"workload": workload}).submit("memory"))
    assert error.replica == "worker-1"
    assert error.signal == signal.SIGKILL
    assert "memory" in str(error)
    assert "128Mi" in str(error)


def test_missing_image(cluster: Cluster, workload: str) -> None:
    """
    An image that nobody has ends the run once patience has run out, and the error has its name and the reason.
    """
    options = {"workload": workload, "image": "registry.example/none:1", "patience": 4}
    run = cluster.task(programs.seen, worker=1, options=options).submit()
    error = run.exception(90)
    assert isinstance(error, RunFailedError), repr(error)
    assert "registry.example/none:1" in str(error)
    assert "ImagePull" in str(error)


def test_impossible_image(cluster: Cluster, workload: str) -> None:
    """
    A name that no image can have ends the run at once, long before patience has run out.
    """
    patch = {"spec": {"containers": [{"name": "*", "image": "registry.example/NONE:1"}]}}
    run = cluster.task(programs.seen, worker=1, options={"workload": workload, "pod_patch": patch}).submit()
    error = run.exception(90)
    assert isinstance(error, RunFailedError), repr(error)
    assert "worker-0 cannot start: InvalidImageName" in str(error)


def test_unschedulable(cluster: Cluster, workload: str) -> None:
    """
    A pod that fits nowhere is told in the scheduler's own words once patience has run out.
    """
    worker = {"replicas": 1, "requests": {"cpu": 10_000}}
    run = cluster.task(programs.seen, worker=worker, options={"workload": workload, "patience": 3}).submit()
    error = run.exception(60)
    assert isinstance(error, RunFailedError), repr(error)
    assert "Insufficient cpu" in str(error)


def test_what_has_not_started(cluster: Cluster) -> None:
    """
    When a run of plain Jobs has failed, a pod that fits nowhere yet is taken away: it would start some day, for nothing.
    """
    chief = {"replicas": 1, "node_selector": {"distrib.dev/nowhere": "yes"}}
    worker = {"replicas": 1, "env": {"PYTHONHOME": "/nowhere"}}
    run = cluster.task(programs.seen, chief=chief, worker=worker, options={"workload": "job"}).submit()
    assert failure(run).replica == "worker-0"
    until(lambda: set(cluster.pods(name_of(run))) == {"worker-0"} or None, "only the pod that has failed is left")
    assert isinstance(distrib.get_run(run.id).exception(30), ReplicaFailedError)


def test_deadline(cluster: Cluster, workload: str) -> None:
    """
    A run that outlives its deadline is stopped, and says so.
    """
    run = cluster.task(programs.count, worker=1, run_policy={"active_deadline_seconds": 4}, options={"workload": workload}).submit(300)
    error = run.exception(60)
    assert isinstance(error, RunTimeoutError), repr(error)
    assert "active_deadline_seconds=4" in str(error)
    assert run.status().state is RunState.FAILED


def test_quota(cluster: Cluster, workload: str) -> None:
    """
    Pods that the namespace's quota does not allow end the run at once, in the API server's words.
    """
    with cluster.beside("quota") as namespace:
        cluster.core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}})
        until(lambda: cluster.core.read_namespaced_resource_quota("small", namespace).status.hard, "the quota is counted")
        run = cluster.task(programs.seen, worker=1, options={"workload": workload, "namespace": namespace}).submit()
        error = run.exception(60)
    assert isinstance(error, RunFailedError), repr(error)
    assert "exceeded quota: small" in str(error)


def test_forbidden(cluster: Cluster) -> None:
    """
    Whoever may not submit is told what is missing; nothing is left in the namespace.
    """
    before = len(cluster.core.list_namespaced_secret(cluster.namespace).items)
    with cluster.acting_as("nobody") as options, pytest.raises(SubmitError, match=r"forbidden|may not"):
        cluster.task(programs.seen, worker=1, options=options).submit()
    assert len(cluster.core.list_namespaced_secret(cluster.namespace).items) == before


def test_large_values_need_storage(cluster: Cluster) -> None:
    """
    A value that does not fit a termination message is an error that names the remedy, or goes through the storage.
    """
    if not cluster.storage:
        pytest.skip("no --storage was given")
    run = cluster.task(programs.large, worker=1, options={"storage": cluster.storage}).submit(3)
    assert run.result(60) == programs.large(3)
    without = cluster.task(programs.noise, worker=1).submit(100_000)
    assert "storage" in str(without.exception(60))


def test_large_arguments(cluster: Cluster) -> None:
    """
    Arguments that nearly fill the run's Secret arrive.
    """
    size = 1_000_000 - len(pack_modules())
    assert cluster.task(programs.size, worker=1, options={"workload": "job"}).submit(bytes(size)).result(60) == size
