"""
The same jobs without the training operator: plain Jobs, a JobSet, a TrainJob of Kubeflow's Trainer.
"""

import time

import pytest
from outside import Cluster
from ring import RingBackend

import programs
from distrib import ReplicaFailedError, RunState
from distrib._registry import backends

NEEDS = {"job": "jobs", "jobset": "jobsets", "trainjob": "trainjobs", "operator": "tfjobs"}


@pytest.fixture(params=["job", "jobset", "trainjob"])
def workload(request: pytest.FixtureRequest, cluster: Cluster) -> str:
    """
    Each way that this cluster has.
    """
    if not cluster.has(NEEDS[request.param]):
        pytest.skip(f"the cluster has no {NEEDS[request.param]}")
    name: str = request.param
    return name


def test_all_roles_of_tensorflow(cluster: Cluster, workload: str) -> None:
    """
    Chief, workers, a parameter server that never returns, and an evaluator meet; the run ends when the trainers have.
    """
    task = cluster.task(programs.serve, chief=1, worker=2, ps=1, evaluator=1, options={"workload": workload})
    run = task.submit()
    values = run.results(120)
    assert [name for name, _ in values.items()] == ["chief-0", "worker-0", "worker-1", "evaluator-0"]
    assert [value["rank"] for value in values] == [0, 1, 2, 4]
    assert {value["peers"] for value in values} == {5}
    assert run.status().state is RunState.SUCCEEDED
    assert run.status().replicas["ps-0"].state in ("Succeeded", "Stopped")


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("workload", NEEDS, indirect=True)
def test_parameter_server_training(cluster: Cluster, workload: str) -> None:
    """
    TensorFlow's own parameter-server strategy, across the pods of four roles.
    """
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    run = cluster.task(programs.tensorflow_ps, chief=1, worker=1, ps=1, evaluator=1, env=quiet, options={"workload": workload}).submit()
    values = run.results(240)
    assert values.value["total"] == 6.0
    assert "ps" in values.value["device"]


def test_torch(cluster: Cluster, workload: str) -> None:
    """
    PyTorch's processes meet, and DDP averages their gradients.
    """
    run = cluster.task(programs.torch_sum, "pytorch", worker=2, options={"workload": workload}).submit()
    assert [value["sum"] for value in run.results(120)] == [3.0, 3.0]


def test_jax(cluster: Cluster, workload: str) -> None:
    """
    JAX's processes meet.
    """
    run = cluster.task(programs.jax_sum, "jax", worker=2, options={"workload": workload}).submit()
    assert list(run.results(120)) == [3.0, 3.0]


def test_third_party(cluster: Cluster, workload: str) -> None:
    """
    A backend that only this test knows runs like ours, one of its roles a service.
    """
    with backends.standing_in("ring", RingBackend()):
        run = cluster.task(programs.around, "ring", node=2, store=1, options={"workload": workload}).submit()
        values = run.results(90)
    assert [name.rpartition("-")[2] for name in values["node"]] == ["1", "0"]
    assert len(values) == 2


def test_exception(cluster: Cluster, workload: str) -> None:
    """
    The user's exception is the cause, whatever the workload makes of the pod that failed.
    """
    error = cluster.task(programs.fail, worker=2, options={"workload": workload}).submit("exception").exception(90)
    assert isinstance(error, ReplicaFailedError), repr(error)
    assert (error.replica, type(error.__cause__)) == ("worker-1", programs.OutOfPaintError)


@pytest.mark.parametrize("workload", ["jobset", "trainjob"], indirect=True)
def test_all_are_started_again(cluster: Cluster, workload: str) -> None:
    """
    With restart_scope='Job' one failure starts all replicas again, and the run has its value.
    """
    worker = {"replicas": 2, "restart_policy": "OnFailure"}
    policy = {"restart_scope": "Job", "backoff_limit": 30}
    task = cluster.task(programs.fail_before, worker=worker, run_policy=policy, options={"workload": workload})
    run = task.submit(time.time() + 12, 3)  # longer than a busy cluster takes to start the first ones
    run.result(120)
    status = run.status()
    assert status.state is RunState.SUCCEEDED
    assert all(replica.attempt >= 2 for replica in status.replicas.values()), status
