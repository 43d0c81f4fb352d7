"""
Pods of a Flyte cluster: each a real ``pyflyte-execute`` with a real inputs.pb, and what the operator puts into its environment.
"""

import json
import re
import socket

import flows
import local_flows
import pytest
from flyteidl.core import errors_pb2
from flytekit import map_task
from pods import Attempt, tf_configs

pytestmark = pytest.mark.slow

RECOVERABLE = errors_pb2.ContainerError.RECOVERABLE
FINAL = errors_pb2.ContainerError.NON_RECOVERABLE
SHAPES = {
    "with_chief": {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1},
    "without_chief": {"worker": 2, "ps": 1, "evaluator": 1},
}


@pytest.fixture(name="tensorflow")
def _tensorflow(tmp_path):
    """
    Start the pods of a TFJob: all of them, or *only* some.
    """
    attempts = []

    def start(name, way="", only=()):
        attempt = Attempt(tmp_path, getattr(flows, name), way=way)
        attempts.append(attempt)
        for pod, config in tf_configs(**SHAPES[name]).items():
            if not only or pod in only:
                attempt.start(pod, TF_CONFIG=config)
        return attempt

    yield start
    for attempt in attempts:
        attempt.__exit__()


def port():
    """
    A free port.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def pytorch_environments(nodes):
    """
    What the operator gives each replica of a PyTorchJob with a master.
    """
    shared = {
        "PYTHONUNBUFFERED": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port(),
        "WORLD_SIZE": str(nodes),
        "PET_NNODES": str(nodes),
    }
    return {
        "master-0" if rank == 0 else f"worker-{rank - 1}": {
            **shared,
            "PET_MASTER_ADDR": shared["MASTER_ADDR"],
            "PET_MASTER_PORT": shared["MASTER_PORT"],
            "PET_NPROC_PER_NODE": "1",
            "RANK": str(rank),
            "PET_NODE_RANK": str(rank),
        }
        for rank in range(nodes)
    }


def elastic_environments(nodes):
    """
    What the operator gives each replica of an elastic PyTorchJob: nothing says which one it is but the pod's name.
    """
    shared = {"PYTHONUNBUFFERED": "1", "PET_RDZV_ENDPOINT": f"127.0.0.1:{port()}", "PET_RDZV_BACKEND": "c10d", "PET_MAX_RESTARTS": "0"}
    each = {**shared, "PET_NNODES": f"{nodes}:{nodes}", "PET_NPROC_PER_NODE": "2"}
    return {f"worker-{index}": {**each, "HOSTNAME": f"job-worker-{index}"} for index in range(nodes)}


@pytest.fixture(name="pytorch")
def _pytorch(tmp_path):
    """
    Start the pods of a PyTorchJob.
    """
    attempts = []

    def start(name, way="", **own):
        attempt = Attempt(tmp_path, getattr(flows, name), way=way)
        attempts.append(attempt)
        for pod, environment in (elastic_environments if name == "elastic" else pytorch_environments)(2).items():
            attempt.start(pod, **environment, **own)
        return attempt

    yield start
    for attempt in attempts:
        attempt.__exit__()


class TestTensorFlow:
    @pytest.mark.parametrize(("name", "lead"), [("with_chief", "chief"), ("without_chief", "worker")])
    def test_only_the_coordinators_outputs_are_kept(self, tensorflow, name, lead):
        """
        All replicas know who they are; the outputs are the chief's, or worker 0's where there is none; servers end with the rest.

        The operator puts the evaluator into everybody's TF_CONFIG, and parameter servers then wait for it: it alone sees itself there.
        """
        attempt = tensorflow(name)
        assert set(attempt.wait().values()) == {0}, attempt.log()
        assert attempt.left() == ["outputs.pb"]
        value = json.loads(attempt.value())
        assert (value["name"], value["is_coordinator"]) == (f"{lead}-0", True)
        assert value["world_size"] == sum(SHAPES[name].values())
        assert "ps-0 ends: the others are done" in attempt.log("ps-0")
        for pod, given in tf_configs(**SHAPES[name]).items():
            seen, told = json.loads(re.search("^TF_CONFIG (.*)$", attempt.log(pod), re.MULTILINE)[1]), json.loads(given)
            hidden = set() if told["task"]["type"] == "evaluator" else {"evaluator"}
            assert seen["task"] == told["task"]
            assert seen["cluster"] == {role: addresses for role, addresses in told["cluster"].items() if role not in hidden}

    @pytest.mark.parametrize(
        ("name", "who"),
        [(name, f"{role}-{index}") for name, counts in SHAPES.items() for role, count in counts.items() for index in range(count)],
    )
    def test_a_failure_of_any_replica_reaches_flyte(self, tensorflow, name, who):
        """
        The error is the replica's own, with its traceback; those who would wait for it end within seconds, with nothing to tell.
        """
        waiting = [f"{role}-{index} wait" for role, count in SHAPES[name].items() for index in range(count) if f"{role}-{index}" != who]
        attempt = tensorflow(name, ", ".join([f"{who} raise", *waiting]))
        assert set(attempt.wait().values()) == {0}, attempt.log()
        assert attempt.left() == ["error.pb"]
        error = attempt.error()
        assert (error.kind, error.code) == (FINAL, "USER:RuntimeError")
        assert f"ValueError: {who} is out of luck" in error.message
        assert "flows.py" in error.message
        assert "in told" in error.message

    def test_the_first_failure_is_the_one_told(self, tensorflow):
        """
        A replica that fails because another one is gone, and says so first, waits for the cause.
        """
        attempt = tensorflow("with_chief", "worker-1 late, worker-0 lose, chief-0 lose, evaluator-0 wait")
        assert set(attempt.wait().values()) == {0}, attempt.log()
        assert attempt.left() == ["error.pb"]
        assert "worker-1 is out of luck" in attempt.error().message
        assert "failed after another replica, whose error Flyte is told: ConnectionError" in attempt.log("worker-0")

    @pytest.mark.parametrize("way", ["recover", "retry"])
    def test_what_may_be_tried_again_stays_so(self, tensorflow, way):
        """
        A FlyteRecoverableException of any replica, and our own RetryableError, have Flyte try again.
        """
        attempt = tensorflow("without_chief", f"worker-1 {way}, worker-0 wait, evaluator-0 wait")
        attempt.wait()
        error = attempt.error()
        assert error.kind == RECOVERABLE
        assert "worker-1 may try again" in error.message
        assert "in told" in error.message

    @pytest.mark.parametrize(("way", "code"), [("die", -9), ("exit", 3)])
    def test_an_end_without_a_word_is_the_operators(self, tensorflow, way, code):
        """
        A replica that is killed, or exits by itself, leaves no file: its exit code tells the operator, whose job then fails.
        """
        attempt = tensorflow("with_chief", f"worker-1 {way}", only=["worker-1"])
        assert attempt.wait("worker-1") == code
        assert attempt.left() == []

    def test_an_error_that_is_there_already_ends_a_replica_at_once(self, tensorflow):
        """
        A replica that the operator has started again after an error that Flyte will tell does not train for nothing.
        """
        attempt = tensorflow("without_chief", "worker-1 raise, worker-0 wait", only=["worker-1"])
        assert attempt.wait("worker-1") == 0
        attempt.start("worker-0", TF_CONFIG=tf_configs(**SHAPES["without_chief"])["worker-0"])
        assert attempt.wait("worker-0") == 0

    def test_a_mapped_task_has_replicas_for_each_of_its_inputs(self, tmp_path):
        """
        Flyte starts the replicas of a map task once for each input: they take that one, and the outputs are the coordinator's.
        """
        index = {"BATCH_JOB_ARRAY_INDEX_VAR_NAME": "FLYTE_K8S_ARRAY_INDEX", "FLYTE_K8S_ARRAY_INDEX": "1"}
        with Attempt(tmp_path, map_task(local_flows.square), x=[5, 7, 9]) as attempt:
            for pod, config in tf_configs(worker=2).items():
                attempt.start(pod, TF_CONFIG=config, **index)
            assert set(attempt.wait().values()) == {0}, attempt.log()
            assert attempt.literals().literals["o0"].scalar.primitive.integer == 7 * 7 * 2


class TestGuard:
    @pytest.mark.parametrize("name", ["with_chief", "without_chief", "standard", "several", "elastic"])
    def test_a_pod_that_is_alone_does_not_train(self, tmp_path, name):
        """
        Without Flyte's plug-in for Kubeflow there is one ordinary container: it fails, and says which plug-in to enable.
        """
        task = getattr(flows, name)
        with Attempt(tmp_path, task, way="") as attempt:
            attempt.start("pod")
            assert attempt.wait("pod") == 0
            assert attempt.left()[-1] == "error.pb"
            error = attempt.error()
        assert error.kind == FINAL
        assert "this pod was started alone" in error.message
        assert f"Add {task.task_type!r} to tasks.task-plugins.enabled-plugins" in error.message

    def test_the_only_replica_needs_no_operator(self, tmp_path):
        """
        The operator gives nothing to the only replica of a job: it trains.
        """
        with Attempt(tmp_path, flows.alone, way="") as attempt:
            attempt.start("pod")
            assert attempt.wait("pod") == 0
            assert json.loads(attempt.value()) == {"name": "worker-0", "is_coordinator": True, "world_size": 1, "TF_CONFIG": {}}

    def test_a_task_without_a_value_leaves_empty_outputs(self, tmp_path):
        """
        The coordinator's outputs are there although there are none; Flyte looks for the file. The decks are the coordinator's.
        """
        with Attempt(tmp_path, flows.without_value, way="") as attempt:
            for pod, config in tf_configs(worker=2).items():
                attempt.start(pod, TF_CONFIG=config)
            attempt.wait()
            assert attempt.left() == ["deck.html", "outputs.pb"]
            assert attempt.value() is None
            deck = (attempt.outputs / "deck.html").read_text()
        assert "worker-0" in deck
        assert "worker-1" not in deck


class TestPyTorch:
    def test_the_master_is_the_coordinator(self, pytorch):
        """
        A master and a worker of one process each: the master's outputs are kept.
        """
        attempt = pytorch("standard")
        assert set(attempt.wait().values()) == {0}, attempt.log()
        assert attempt.left() == ["outputs.pb"]
        assert json.loads(attempt.value())["name"] == "master-0"

    @pytest.mark.parametrize("who", ["master-0", "worker-0"])
    def test_a_failure_of_either_reaches_flyte(self, pytorch, who):
        """
        The error is the replica's own, and the other one does not wait for it.
        """
        other = {"master-0": "worker-0", "worker-0": "master-0"}[who]
        attempt = pytorch("standard", f"{who} raise, {other} wait")
        assert set(attempt.wait().values()) == {0}, attempt.log()
        assert attempt.left() == ["error.pb"]
        assert f"ValueError: {who} is out of luck" in attempt.error().message

    def test_where_flyte_gathers_errors_each_has_a_file(self, tmp_path):
        """
        Flyte may have workers write errors into files of their own, to find the first one: the others do not wait there either.
        """
        with Attempt(tmp_path, flows.standard, way="worker-0 raise, master-0 wait") as attempt:
            for pod, environment in pytorch_environments(2).items():
                gathered = {"_F_DES": "Earliest", "_F_WN": pod} if pod == "worker-0" else {}
                attempt.start(pod, **environment, **gathered)
            assert set(attempt.wait().values()) == {0}, attempt.log()
            (name,) = attempt.left()
            error = errors_pb2.ErrorDocument.FromString((attempt.outputs / name).read_bytes()).error
        assert name.startswith("error-")
        assert (error.worker, error.timestamp.seconds > 0) == ("worker-0", True)
        assert "ValueError: worker-0 is out of luck" in error.message

    @pytest.mark.parametrize("name", ["several", "elastic"])
    def test_rank_zero_speaks_for_all_processes(self, pytorch, name):
        """
        Two nodes of two processes: the outputs and the decks are those of global rank 0, on whichever node it is.
        """
        attempt = pytorch(name)
        assert set(attempt.wait().values()) == {0}, attempt.log()
        assert attempt.left() == ["deck.html", "outputs.pb"]
        value = attempt.value()
        assert (value["RANK"], value["WORLD_SIZE"], value["LOCAL_WORLD_SIZE"], value["is_coordinator"]) == ("0", "4", "2", "True")
        deck = (attempt.outputs / "deck.html").read_text()
        assert "rank 0" in deck
        assert not any(f"rank {rank}" in deck for rank in (1, 2, 3))

    def test_the_users_threads_stay(self, pytorch):
        """
        Also on the node that is a worker of the job, and Flyte's master.
        """
        attempt = pytorch("threads", **flows.threads.environment)
        assert set(attempt.wait().values()) == {0}, attempt.log()
        assert attempt.value()["OMP_NUM_THREADS"] == "8"

    @pytest.mark.parametrize("rank", [0, 1, 3])
    @pytest.mark.parametrize("name", ["several", "elastic"])
    def test_a_failure_of_any_process_reaches_flyte(self, pytorch, name, rank):
        """
        The error is that of the process, with its own traceback, and nobody waits for the process.
        """
        others = ", ".join(f"{other} wait" for other in range(4) if other != rank)
        attempt = pytorch(name, f"{rank} raise, {others}")
        assert set(attempt.wait().values()) == {0}, attempt.log()
        assert "outputs.pb" not in attempt.left()
        error = attempt.error()
        assert (error.kind, error.code) == (FINAL, "USER:RuntimeError")
        assert f"ValueError: rank {rank} is out of luck" in error.message
        assert f"in the process of rank {rank}:" in error.message
        assert "in _rank" in error.message

    @pytest.mark.parametrize("way", ["recover", "retry"])
    @pytest.mark.parametrize("name", ["several", "elastic"])
    def test_what_may_be_tried_again_stays_so(self, pytorch, name, way):
        """
        A FlyteRecoverableException in any process, and our own RetryableError, have Flyte try again.
        """
        attempt = pytorch(name, f"2 {way}, 0 wait, 1 wait, 3 wait")
        attempt.wait()
        assert attempt.error().kind == RECOVERABLE
        assert "rank 2 may try again" in attempt.error().message

    def test_one_elastic_node_needs_no_operator(self, tmp_path):
        """
        An elastic job of one node is a plain task, whose processes are started in its only pod.
        """
        with Attempt(tmp_path, flows.elastic_alone, way="") as attempt:
            attempt.start("pod")
            assert attempt.wait("pod") == 0, attempt.log()
            value = attempt.value()
        assert (value["RANK"], value["WORLD_SIZE"]) == ("0", "2")
