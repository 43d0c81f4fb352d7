"""
``distrib.tensorflow.strategy()`` on every topology, and what it says where it cannot help.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import in_replicas
import pytest
from in_replicas import progress_of

import distrib
from distrib import EngineError, InvalidJobError, distributed
from distrib import tensorflow as ours
from distrib._cluster import REPLICA_VARIABLE, ClusterSpec, encode_cluster, encode_replica
from distrib._processors import cpu_count

QUIET: dict[str, Any] = {"local": {"echo": False}}
needs_tensorflow = pytest.mark.tensorflow


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    No strategy made, no cluster set.
    """
    monkeypatch.setattr(ours, "_made", None)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    yield
    monkeypatch.undo()


def tf_config(cluster: dict[str, list[str]], role: str = "worker", index: int = 0) -> str:
    """
    As somebody else might write it.
    """
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})


class TestRefusals:
    """
    What is said before TensorFlow is imported.
    """

    def test_a_group_without_a_cluster(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        One of three replicas that finds no TF_CONFIG stops: it never trains alone in silence.
        """
        cluster = ClusterSpec({"worker": ["a:1", "b:1", "c:1"]})
        monkeypatch.setenv(REPLICA_VARIABLE, encode_replica(cluster.replicas[1], encode_cluster(cluster)))
        with pytest.raises(EngineError, match=r"worker-1 is one of 3 replicas, but TF_CONFIG is not set.*check that it is installed"):
            ours.strategy()

    @pytest.mark.parametrize(
        "text",
        [
            "{nope",
            "[]",
            "7",
            tf_config({"worker": ["a:1"]}, index=3),
            '{"cluster": {"worker": ["a:1", "b:1"]}}',
            '{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}',
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}',
        ],
    )
    def test_no_cluster_that_tensorflow_could_use(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A TF_CONFIG that makes no sense is quoted, with one that would.
        """
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(InvalidJobError, match="TF_CONFIG: not a cluster that TensorFlow could use") as caught:
            ours.strategy()
        assert caught.value.field == "TF_CONFIG"
        assert '{"cluster": {"worker": ["host:port"' in str(caught.value)

    def test_a_role_that_tensorflow_does_not_know(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The legal roles are named.
        """
        monkeypatch.setenv("TF_CONFIG", tf_config({"master": ["host-a:1"], "worker": ["host-b:1"]}, "master"))
        with pytest.raises(InvalidJobError, match=r"no role 'master'\..*Legal: chief, worker, ps, evaluator"):
            ours.strategy()

    @pytest.mark.parametrize(
        ("cluster", "missing"),
        [({"worker": ["host-a:1"], "ps": ["host-b:1"]}, "chief"), ({"chief": ["host-a:1"], "ps": ["host-b:1"]}, "worker")],
    )
    def test_parameter_servers_lack_somebody(self, cluster: dict[str, list[str]], missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Every replica says who is missing beside the parameter servers, and what to add.
        """
        for role in cluster:
            monkeypatch.setenv("TF_CONFIG", tf_config(cluster, role))
            with pytest.raises(InvalidJobError, match=rf"needs a {missing}, which .* Add {missing}=1, or leave out ps"):
                ours.strategy()


@needs_tensorflow
class TestLoneWorker:
    """
    One worker beside two evaluators.
    """

    @pytest.fixture(scope="class")
    @staticmethod
    def found() -> dict[str, Any]:
        """
        What each replica found.
        """
        run = distributed(framework="tensorflow", worker=1, evaluator=2, **QUIET)(in_replicas.lone_worker).submit()
        return dict(run.results(300).items())

    def test_plain_strategy(self, found: dict[str, Any]) -> None:
        """
        Worker and evaluators get the strategy of a program on its own, and it computes.
        """
        for name in ("worker-0", "evaluator-0"):
            assert (found[name]["strategy"], found[name]["replicas_in_sync"]) == ("_DefaultDistributionStrategy", 1)
            assert found[name]["value"] == 2.0

    def test_cluster_of_one(self, found: dict[str, Any]) -> None:
        """
        TensorFlow's own resolver finds the worker alone in its cluster.
        """
        assert found["worker-0"]["resolver"] == {"worker": [found["worker-0"]["address"]]}

    def test_each_evaluator_is_alone_with_the_trainers(self, found: dict[str, Any]) -> None:
        """
        An evaluator sees the worker and itself, as evaluator 0 of one.
        """
        for name in ("evaluator-0", "evaluator-1"):
            data = json.loads(found[name]["tf_config"])
            assert data["cluster"] == {"worker": [found["worker-0"]["address"]], "evaluator": [found[name]["address"]]}
            assert data["task"] == {"type": "evaluator", "index": 0}

    def test_a_port_taken(self, found: dict[str, Any]) -> None:
        """
        A port that somebody took since it was chosen is named.
        """
        said = "EngineError: worker-0 cannot listen on 127.0.0.1:PORT: another program has taken the port since."
        assert found["evaluator-1"]["port_taken"].startswith(said)


@needs_tensorflow
class TestParameterServers:
    """
    A chief, a worker and a parameter server.
    """

    def test_keras3_says_that_it_cannot(self) -> None:
        """
        Both fit and predict of Keras 3 name what to use instead; the chief says that it waits for the others, which serve, and are stopped.
        """
        task = distributed(framework="tensorflow", chief=1, worker=1, ps=1, env={"TF_NUM_INTEROP_THREADS": "1"}, **QUIET)
        run = task(in_replicas.keras3_with_parameter_servers).submit()
        found = run.result(300)
        assert found["fit"].startswith("UnsupportedError: fit: Keras 3 cannot train with parameter servers.")
        assert "ClusterCoordinator" in found["predict"]
        assert found["caught_more"] == []
        # With a single one they wait for ever; more than there are processors for this process serve nobody.
        assert found["threads"] == str(max(2, cpu_count()))
        assert dict(run.results().items()) == {"chief-0": found}
        assert progress_of(run) == {"chief-0": "waiting for the cluster of 3"}

    def test_legacy_keras_trains(self) -> None:
        """
        Legacy Keras trains with parameter servers.
        """
        task = distributed(framework="tensorflow", chief=1, worker=2, ps=1, env={"TF_USE_LEGACY_KERAS": "1"}, **QUIET)
        found = task(in_replicas.parameter_servers)()
        assert found["keras"].startswith("tf_keras")
        assert found["strategy"] == "ParameterServerStrategyV2"
        assert found["accuracy"][-1] > 0.85


@needs_tensorflow
@pytest.mark.parametrize(
    ("replicas", "kind", "in_sync", "returned"),
    [
        ({"worker": 1}, "_DefaultDistributionStrategy", 1, {"worker-0"}),
        ({"worker": 2}, "CollectiveAllReduceStrategy", 2, {"worker-0", "worker-1"}),
        ({"chief": 1, "worker": 1}, "CollectiveAllReduceStrategy", 2, {"chief-0", "worker-0"}),
        # With the evaluator in its cluster, as the operator has it, the chief would wait for ever (tensorflow#46169).
        ({"chief": 1, "worker": 2, "ps": 1, "evaluator": 1}, "ParameterServerStrategyV2", 1, {"chief-0", "evaluator-0"}),
    ],
    ids=["alone", "workers", "chief and worker", "parameter server and evaluator"],
)
def test_one_function_on_every_topology(replicas: dict[str, int], kind: str, in_sync: int, returned: set[str], tmp_path: Path) -> None:
    """
    The same function trains alone, in step, and with parameter servers and an evaluator, and finds the same line.
    """
    task = distributed(framework="tensorflow", **replicas, local={"echo": False, "grace_period": 60})(in_replicas.any_topology)
    found = dict(task.submit(str(tmp_path)).results(300).items())
    assert set(found) == returned
    evaluated = found.pop("evaluator-0", {"strategy": "_DefaultDistributionStrategy", "loss": 0.0})
    assert evaluated == {"strategy": "_DefaultDistributionStrategy", "loss": pytest.approx(0.0, abs=1e-6)}
    for each in found.values():
        assert each == {"strategy": kind, "in_sync": in_sync, "line": pytest.approx([2.0, 1.0], abs=1e-3)}


def test_sigterm_after_a_failed_join() -> None:
    """
    SIGTERM means what it meant before, also where the workers could not meet.
    """
    before = signal.getsignal(signal.SIGTERM)
    with suppress(EngineError), ours._sigterm_as_it_was():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise EngineError("somebody did not come")
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_of_a_run_there_is_no_cluster() -> None:
    """
    The launcher is the only replica of a world of one.
    """
    assert ours._find_place() is None
    assert distrib.replica().world_size == 1
