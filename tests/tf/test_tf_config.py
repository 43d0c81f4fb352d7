"""
TF_CONFIG: the operator's bytes, what replicas see of them, and the jobs that TensorFlow cannot run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrib import InvalidJobError
from distrib._cluster import ClusterSpec
from distrib._job import Job
from distrib._registry import get_backend
from distrib.backends.tensorflow import TensorFlowBackend, operator_tf_config, parse_tf_config, visible_cluster

BACKEND = TensorFlowBackend()

#: What operator v1.9.4 wrote for a job "mnist" in the namespace "team-a".
GOLDEN = (
    '{"cluster":{"chief":["mnist-chief-0.team-a.svc:2222"],"evaluator":["mnist-evaluator-0.team-a.svc:2222"],'
    '"ps":["mnist-ps-0.team-a.svc:2222"],"worker":["mnist-worker-0.team-a.svc:2222","mnist-worker-1.team-a.svc:2222"]},'
    '"task":{"type":"worker","index":1},"environment":"cloud"}'
)


def mnist(**counts: int) -> ClusterSpec:
    """
    The addresses that the operator gives the replicas of that job.
    """
    return ClusterSpec({role: [f"mnist-{role}-{i}.team-a.svc:2222" for i in range(n)] for role, n in counts.items()})


@st.composite
def clusters(draw: st.DrawFn) -> ClusterSpec:
    """
    Clusters of legal jobs, with the roles in the order of the ranks.
    """
    counts = {"chief": draw(st.integers(0, 1)), "worker": draw(st.integers(0, 5))}
    if not any(counts.values()):
        counts["worker"] = 1
    counts |= {"ps": draw(st.integers(0, 3)), "evaluator": draw(st.integers(0, 3))}
    host = draw(st.sampled_from(["127.0.0.1", "[::1]", "host.example", 'odd"host\\']))
    ports = iter(range(2000, 3000))
    return ClusterSpec({role: [f"{host}:{next(ports)}" for _ in range(n)] for role, n in counts.items()})


class TestOperator:
    """
    ``operator_tf_config``
    """

    def test_bytes(self) -> None:
        """
        The bytes are the operator's: roles in alphabetical order, then task, then environment, no spaces.
        """
        cluster = mnist(chief=1, worker=2, ps=1, evaluator=1)
        assert operator_tf_config(cluster.replicas[2], cluster) == GOLDEN

    def test_none_for_one_replica(self) -> None:
        """
        The operator sets none for the only replica of a job, and neither do we.
        """
        cluster = mnist(worker=1)
        assert operator_tf_config(cluster.replicas[0], cluster) is None
        assert BACKEND.environment(cluster.replicas[0], cluster) == {}

    @given(cluster=clusters())
    def test_parsing_gives_the_cluster_back(self, cluster: ClusterSpec) -> None:
        """
        Whatever is written can be read back, cluster, role and index.
        """
        for replica in cluster.replicas:
            text = operator_tf_config(replica, cluster)
            if text is not None:
                assert parse_tf_config(text) == (replica.role, replica.index, cluster)


class TestVisible:
    """
    What a replica finds in its environment.
    """

    @given(cluster=clusters())
    def test_everyone_names_its_own_address(self, cluster: ClusterSpec) -> None:
        """
        Each replica's task points to its own address.
        """
        for replica in cluster.replicas:
            role, index, seen = visible_cluster(replica, cluster)
            assert role == replica.role
            assert seen[role][index] == replica.address

    @given(cluster=clusters())
    def test_all_agree_on_who_trains(self, cluster: ClusterSpec) -> None:
        """
        Chief, workers and parameter servers are the same for all; evaluators are in nobody's cluster but their own.
        """
        training = {role: addresses for role, addresses in cluster.items() if role != "evaluator"}
        for replica in cluster.replicas:
            seen = dict(visible_cluster(replica, cluster)[2])
            assert seen.pop("evaluator", ()) == ((replica.address,) if replica.role == "evaluator" else ())
            assert seen == training

    @given(cluster=clusters())
    def test_environment_is_what_is_visible(self, cluster: ClusterSpec) -> None:
        """
        The environment holds just that, the same bytes each time, and a second look changes nothing.
        """
        for replica in cluster.replicas:
            environment = BACKEND.environment(replica, cluster)
            assert environment == BACKEND.environment(replica, cluster)
            if cluster.world_size > 1:
                assert parse_tf_config(environment["TF_CONFIG"]) == visible_cluster(replica, cluster)

    def test_without_evaluators_it_is_the_operators(self) -> None:
        """
        Where there is nothing to take out, the bytes are the operator's.
        """
        cluster = mnist(chief=1, worker=3, ps=2)
        for replica in cluster.replicas:
            assert BACKEND.environment(replica, cluster) == {"TF_CONFIG": operator_tf_config(replica, cluster)}

    def test_only_evaluator_sees_the_operators(self) -> None:
        """
        A single evaluator finds the bytes that the operator writes.
        """
        cluster = mnist(chief=1, worker=1, evaluator=1)
        evaluator = cluster.replicas[-1]
        assert BACKEND.environment(evaluator, cluster) == {"TF_CONFIG": operator_tf_config(evaluator, cluster)}

    @pytest.mark.parametrize("counts", [{"worker": 2000}, {"chief": 1, "worker": 999, "evaluator": 1000}])
    def test_thousands_are_quick(self, counts: dict[str, int]) -> None:
        """
        Two thousand environments take well under half a second of processor time.
        """
        cluster = mnist(**counts)
        before = time.process_time()
        environments = [BACKEND.environment(replica, cluster) for replica in cluster.replicas]
        assert time.process_time() - before < 0.5
        assert len(environments) == 2000


class TestCoordinator:
    """
    ``coordinator``
    """

    @pytest.mark.parametrize(
        ("counts", "name"),
        [
            ({"chief": 1, "worker": 2}, "chief-0"),
            ({"worker": 2, "ps": 1}, "worker-0"),
            ({"evaluator": 1, "ps": 1, "worker": 2}, "worker-0"),
            ({"evaluator": 1, "ps": 1, "worker": 1, "chief": 1}, "chief-0"),
        ],
    )
    def test_chief_else_first_worker(self, counts: dict[str, int], name: str) -> None:
        """
        The chief, or worker 0 without one, in whatever order the roles are given.
        """
        assert BACKEND.coordinator(mnist(**counts)).name == name


class TestValidation:
    """
    Jobs that TensorFlow cannot run.
    """

    @pytest.mark.parametrize(
        ("keywords", "field", "said"),
        [
            ({"ps": 2}, "ps", r"ps=2: parameter servers only hold .* neither a chief nor a worker; add them, e\.g\. chief=1, worker=2"),
            ({"evaluator": 1, "worker": 0}, "evaluator", r"evaluator=1: an evaluator only follows .*; add one, e\.g\. worker=2"),
            ({"worker": 1, "env": {"TF_CONFIG": "{}"}}, "env", r"env\['TF_CONFIG'\]='{}': tensorflow sets this variable"),
            ({"worker": {"replicas": 2, "env": {"TF_CONFIG": "x"}}}, "worker.env", r"worker\.env\['TF_CONFIG'\]"),
            ({"chief": 2}, "chief", "chief"),
            ({"master": 1}, None, "chief"),
            ({"wroker": 1}, None, "worker"),
        ],
    )
    def test_refused(self, keywords: dict[str, object], field: str | None, said: str) -> None:
        """
        The message names the field and the remedy.
        """
        with pytest.raises(InvalidJobError, match=said) as caught:
            Job("tensorflow", **keywords)
        if field is not None:
            assert str(caught.value.field).startswith(field)

    @pytest.mark.parametrize(
        "counts",
        [
            {"worker": 1},
            {"chief": 1},
            {"chief": 1, "worker": 0, "ps": 0},
            {"worker": 2, "ps": 1},
            {"chief": 1, "ps": 1},
            {"chief": 1, "evaluator": 3},
            {"chief": 1, "worker": 2, "ps": 2, "evaluator": 1},
        ],
    )
    def test_accepted(self, counts: dict[str, int]) -> None:
        """
        Anything beside a chief or a worker will do, several evaluators too; no replicas means no such group.
        """
        job = Job("tensorflow", **counts)
        assert {group.role: group.replicas for group in job.groups} == {role: n for role, n in counts.items() if n}

    def test_service_roles(self) -> None:
        """
        Only parameter servers never end by themselves.
        """
        assert [role.name for role in get_backend("tensorflow").roles if role.service] == ["ps"]


def test_fork_safety_is_asked_without_importing() -> None:
    """
    Asking whether a process may be forked imports no TensorFlow; a second Python thread forbids it.
    """
    program = """
import sys, threading
from distrib.backends.tensorflow import TensorFlowBackend
backend = TensorFlowBackend()
print(backend.fork_safe(), "tensorflow" in sys.modules)
done = threading.Event()
threading.Thread(target=done.wait).start()
print(backend.fork_safe())
done.set()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False", "False"]


def test_environment_is_json_that_tensorflow_reads() -> None:
    """
    The keys are those of TensorFlow's own resolver.
    """
    cluster = mnist(worker=2)
    data = json.loads(BACKEND.environment(cluster.replicas[0], cluster)["TF_CONFIG"])
    assert data["cluster"] == {"worker": list(cluster["worker"])}
    assert data["task"] == {"type": "worker", "index": 0}
