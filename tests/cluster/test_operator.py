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
from distrib._registry import backends
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
    name = name_of(run)
    injected = added_to(cluster, name, "tfjobs", 5)
    run.result(120)
    counts = {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1}
    spec = ClusterSpec({role: [f"{name}-{role}-{i}.{cluster.namespace}.svc:2222" for i in range(n)] for role, n in counts.items()})
    assert injected == {replica.name: {"TF_CONFIG": operator_tf_config(replica, spec)} for replica in spec.replicas}
    worker = run.results()["worker"][1]["environment"]["TF_CONFIG"]
    assert json.loads(worker)["task"] == {"type": "worker", "index": 1}
    assert "evaluator" not in json.loads(worker)["cluster"]


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
    run = cluster.task(programs.torch_sum, "pytorch", master=1, worker=1).submit()
    values = list(run.results(120))
    assert [value["sum"] for value in values] == [3.0, 3.0]
    assert [value["gradient"] for value in values] == [[[2.0, 2.0]]] * 2


def test_pytorch_variables_are_the_operators(cluster: Cluster) -> None:
    """
    What the operator puts into the environment of a PyTorchJob's pods is byte for byte what the backend says, at the operator's addresses.
    """
    run = cluster.task(programs.seen, "pytorch", master=1, worker=2).submit()
    name = name_of(run)
    injected = added_to(cluster, name, "pytorchjobs", 3)
    run.result(120)
    spec = ClusterSpec({"master": [f"{name}-master-0:23456"], "worker": [f"{name}-worker-{i}:23456" for i in range(2)]})
    for replica in spec.replicas:
        found, ours = injected[replica.name], backends["pytorch"].environment(replica, spec)
        # It says nothing of the cluster; elsewhere programs have it, unless somebody has set it to anything else.
        assert found.pop("PYTHONUNBUFFERED") == "1"
        assert {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "PET_NNODES", "PET_NODE_RANK"} <= set(found)
        assert found == {variable: ours[variable] for variable in found}


def added_to(cluster: Cluster, name: str, plural: str, replicas: int) -> dict[str, dict[str, str]]:
    """
    Replica -> what its container's environment has that nobody wrote into the job.
    """
    pods = cluster.await_all(name, replicas)
    (job,) = (each for each in cluster.top(plural) if each["metadata"]["name"] == name)
    specs = next(value for key, value in job["spec"].items() if key.endswith("ReplicaSpecs"))
    written = {each["name"] for spec in specs.values() for each in spec["template"]["spec"]["containers"][0]["env"]}
    return {
        replica: {each.name: each.value for each in pod.spec.containers[0].env if each.name not in written} for replica, pod in pods.items()
    }


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
    assert run.result(120)["name"] == "worker-0"
    assert run.status().state is RunState.SUCCEEDED
    # What was summed in the first group is over: the processes of the next one begin anew.
    assert sum(line.startswith("step 0 of a group") for line in run.logs("worker-0")) >= 2


def test_jaxjob(cluster: Cluster) -> None:
    """
    JAX meets on two pods of a JAXJob.
    """
    assert list(cluster.task(programs.jax_sum, "jax", worker=2).submit().results(120)) == [3.0, 3.0]
