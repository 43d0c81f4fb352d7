"""
Kubeflow's training operator runs the jobs: what it tells the pods is what our backends say, and the values come back.
"""

import json
import re
from typing import Any

import pytest
from outside import Cluster, name_of

import programs
from distrib import ClusterSpec, RunState
from distrib.backends.tensorflow import operator_tf_config
from distrib.pytorch import Elastic


@pytest.fixture(autouse=True)
def _operator(cluster: Cluster) -> None:
    if not cluster.has("tfjobs"):
        pytest.skip("the cluster has no training operator")


def test_tfjob_of_all_roles(cluster: Cluster) -> None:
    """
    Chief, workers, a parameter server that never returns, and an evaluator: each meets all others, and all but the server return.
    """
    run = cluster.task(programs.serve, chief=1, worker=2, ps=1, evaluator=1).submit()
    values = run.results(120)
    assert values.value == {**values.value, "name": "chief-0", "rank": 0, "world_size": 5, "coordinator": True, "peers": 5}
    assert [name for name, _ in values.items()] == ["chief-0", "worker-0", "worker-1", "evaluator-0"]
    assert {value["peers"] for value in values} == {5}
    assert run.status().state is RunState.SUCCEEDED


def test_tf_config_is_the_operators(cluster: Cluster) -> None:
    """
    What the operator puts into TF_CONFIG is byte for byte what the backend says that it does; pods find it made usable.
    """
    run = cluster.task(programs.seen, chief=1, worker=2, ps=1, evaluator=1, options={"workload": "operator"}).submit("TF_CONFIG")
    # ps returns too: it is a function like any other
    injected = injected_into(cluster, name_of(run), "tensorflow", "TF_CONFIG")
    run.result(120)
    name = name_of(run)
    counts = {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1}
    spec = ClusterSpec({role: [f"{name}-{role}-{i}.{cluster.namespace}.svc:2222" for i in range(n)] for role, n in counts.items()})
    assert injected == {replica.name: operator_tf_config(replica, spec) for replica in spec.replicas}
    worker = run.results()["worker"][1]["environment"]["TF_CONFIG"]
    assert json.loads(worker)["task"] == {"type": "worker", "index": 1}
    assert "evaluator" not in json.loads(worker)["cluster"]


def injected_into(cluster: Cluster, name: str, container: str, variable: str) -> dict[str, str]:
    """
    Replica -> the last value of a variable in the specification of its container.
    """
    found = {}
    for replica, pod in cluster.await_all(name, 5 if container == "tensorflow" else 2).items():
        variables = next(each for each in pod.spec.containers if each.name == container).env
        found[replica] = [each.value for each in variables if each.name == variable][-1]
    return found


def test_keras_digits_on_two_workers(cluster: Cluster) -> None:
    """
    Keras 3 trains on two pods, and the accuracy comes back as a number.
    """
    run = cluster.task(programs.keras_digits, worker=2, env={"TF_CPP_MIN_LOG_LEVEL": "2"}).submit(epochs=5)
    accuracy = run.result(180)
    assert isinstance(accuracy, float)
    assert accuracy > 0.9
    assert run.results()["worker"][1] == pytest.approx(accuracy, abs=0.02)
    assert any(re.search(r"^\[worker-0\].*accuracy", line) for line in run.logs())


def test_pytorchjob(cluster: Cluster) -> None:
    """
    A master and a worker find each other by the operator's variables, and DDP averages their gradients.
    """
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
    run = cluster.task(programs.torch_sum, "pytorch", master=1, worker=1).submit()
    values = list(run.results(120))
    assert [value["sum"] for value in values] == [3.0, 3.0]
    assert [value["gradient"] for value in values] == [[[2.0, 2.0]]] * 2
    assert names


PYTORCH = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "PYTHONUNBUFFERED")


def test_pytorch_variables_are_the_operators(cluster: Cluster) -> None:
    """
    What the operator tells the pods of a PyTorchJob is, name for name, what the backend's own environment says to a function.
    """
    run = cluster.task(programs.seen, "pytorch", master=1, worker=1).submit(*PYTORCH)
    name = name_of(run)
    injected = {each: injected_into(cluster, name, "pytorch", each) for each in PYTORCH}
    values = {value["name"]: value["environment"] for value in run.results(120)}
    for replica, found in values.items():
        for variable in ("MASTER_PORT", "RANK", "WORLD_SIZE"):
            assert found[variable] == injected[variable][replica], variable
        assert found["MASTER_ADDR"].partition(".")[0] == injected["MASTER_ADDR"][replica]


def test_elastic_survives_a_killed_pod(cluster: Cluster) -> None:
    """
    Of two nodes, one is deleted in the midst of training: the other one goes on, with a new group.
    """
    quick: Any = {"last_call_timeout": 1, "keep_alive_interval": 1, "keep_alive_max_attempt": 2, "join_timeout": 60}
    task = cluster.task(programs.elastic, "pytorch", elastic=Elastic(min_nodes=1, max_nodes=2, rdzv_configs=quick))
    run = task.submit(300)
    seen = 0
    for line in run.logs(follow=True):
        seen += "of a group of 2" in line
        if seen >= 6:
            break
    name = name_of(run)
    pod = cluster.pods(name)["worker-1"]
    cluster.core.delete_namespaced_pod(pod.metadata.name, cluster.namespace, grace_period_seconds=0)
    value = run.result(120)
    assert value["last"] in (1, 2)
    assert run.status().state is RunState.SUCCEEDED


def test_jaxjob(cluster: Cluster) -> None:
    """
    JAX meets on two pods of a JAXJob.
    """
    assert list(cluster.task(programs.jax_sum, "jax", worker=2).submit().results(120)) == [3.0, 3.0]
