"""
Runs that are followed to their end.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from scenes import START, Pod, event, raised, top
from stage import EVENTS, JOBS, PODS, SECRETS, Stage, ours
from standin import RefusedError, StandIn, eventually, now

from distrib import Job, RunState
from distrib.engines.kubernetes import _follower, _watch
from distrib.engines.kubernetes._engine import KubernetesEngine
from distrib.errors import EngineError, InvalidJobError, ReplicaFailedError, RunCancelledError, RunFailedError, RunTimeoutError

PATIENCE = 10.0


def in_background(act: Callable[[], object]) -> threading.Thread:
    """Do something in another thread."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


class TestEnds:
    def test_success(self, stage: Stage) -> None:
        """
        A run whose replicas return has their values, by role, index and rank.
        """
        run = stage.submit(3)
        stage.succeed(run, 3)
        assert run.result(PATIENCE) == 0
        assert run.status().state is RunState.SUCCEEDED
        results = run.results()
        assert (list(results["worker"]), dict(results.by_rank()), len(results)) == ([0, 1, 2], {0: 0, 1: 1, 2: 2}, 3)
        with pytest.raises(LookupError, match="no replica has the role 'wroker'"):
            results["wroker"]
        assert run.exception() is None

    def test_a_value_that_is_lost(self, stage: Stage) -> None:
        """
        Where the workload has succeeded and the pods are gone, the value is too, and the error says so.
        """
        run = stage.submit()
        stage.standin.change(JOBS, f"{stage.name(run)}-worker", {"status": top(("Complete", "", ""))["status"]})
        assert run.wait(PATIENCE).state is RunState.SUCCEEDED
        with pytest.raises(LookupError, match="worker-0 returned no value, or its pod"):
            run.result()

    def test_failure(self, stage: Stage) -> None:
        """
        A replica that raises fails the run; its exception is the cause, and its log is told.
        """
        run = stage.submit()
        stage.start(run)
        stage.write("worker-1", b"one", b"two")
        stage.fail("worker-1", ValueError("out of luck"))
        stage.give("worker-0")
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert (error.replica, error.exit_code, error.log_tail) == ("worker-1", 1, "one\ntwo")
        assert isinstance(error.__cause__, ValueError)
        assert "ValueError: out of luck" in error.traceback
        with pytest.raises(ReplicaFailedError, match="out of luck"):
            run.result()

    def test_the_end_is_known_soon(self, stage: Stage) -> None:
        """
        The value is there half a second after the coordinator's pod has ended.
        """
        run = stage.submit(1)
        stage.start(run, 1)
        stage.followed()
        begun = time.monotonic()
        stage.give("worker-0", 7)
        assert run.result(PATIENCE) == 7
        assert time.monotonic() - begun < 0.5

    def test_awaiting(self, stage: Stage) -> None:
        """
        ``await run`` gives the value.
        """
        run = stage.submit(1)
        stage.succeed(run, 1)

        async def main() -> object:
            return await run

        assert asyncio.run(main()) == 0

    def test_a_pod_that_does_not_end(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Once it is decided how a run ends, another pod is not waited for without end.
        """
        monkeypatch.setattr(_follower, "SETTLE_SECONDS", 0.0)
        run = stage.submit(grace_period=0.2)
        stage.start(run)
        stage.give("worker-0", 1)
        assert run.result(PATIENCE) == 1
        assert run.status().replicas["worker-1"].state == "Stopped"

    @pytest.mark.parametrize("policy", ["Running", "None"])
    def test_what_has_not_started(self, stage: Stage, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
        """
        Once a run of Jobs has failed, a pod that waits for its place gets none: nobody would take it away from there again.
        """
        monkeypatch.setattr(_follower, "SETTLE_SECONDS", 0.0)
        options = stage.job(grace_period=0.1).engine_options
        run = stage.submit_job(Job("tensorflow", chief=1, worker=1, run_policy={"clean_pod_policy": policy}, engine_options=options))
        name = stage.name(run)
        chief, worker = (Pod(each, uid=f"{name}-{each}", run=name) for each in ("chief-0", "worker-0"))
        stage.standin.put(PODS, chief.unschedulable("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."))
        stage.standin.put(PODS, worker.ended(1, raised("worker-0")))
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert error.replica == "worker-0"
        suspended = {each: stage.standin.objects[JOBS, f"{name}-{each}"]["spec"].get("suspend", False) for each in ("chief", "worker")}
        assert suspended == {"chief": policy == "Running", "worker": False}


class TestTrouble:
    def test_the_deadline(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A run whose operator does not look at its deadline is taken away by us.
        """
        monkeypatch.setattr(_follower, "DEADLINE_MARGIN", 0.0)
        run = stage.submit(policy={"active_deadline_seconds": 1})
        stage.start(run)
        with pytest.raises(RunTimeoutError, match="DeadlineExceeded: active_deadline_seconds=1"):
            run.result(PATIENCE)
        assert run.status().state is RunState.FAILED
        assert stage.left() == []

    def test_a_suspended_run_has_no_deadline(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The deadline of a run that nobody has admitted does not run.
        """
        monkeypatch.setattr(_follower, "DEADLINE_MARGIN", 0.0)
        run = stage.submit(policy={"active_deadline_seconds": 1, "suspend": True})
        stage.standin.change(JOBS, f"{stage.name(run)}-worker", {"status": top(("Suspended", "", ""), started=None)["status"]})
        eventually(lambda: "Suspended" in run.status().reason)
        with pytest.raises(RunTimeoutError, match="still running"):
            run.wait(2)
        with pytest.raises(ValueError, match="timeout=nan: write seconds"):
            run.wait(float("nan"))
        run.cancel()

    def test_patience(self, stage: Stage) -> None:
        """
        A pod that is not scheduled is waited for as long as patience says, and told in the scheduler's words.
        """
        run = stage.submit(patience=0.5)
        stage.create(run)
        for pod in stage.pods.values():
            stage.standin.put(PODS, pod.unschedulable("0/1 nodes are available: 1 Insufficient cpu."))
        with pytest.raises(RunFailedError, match=r"worker-0 and 1 more did not start within 0\.5 s: Unschedulable: .*Insufficient cpu"):
            run.result(PATIENCE)
        assert stage.left() == []

    def test_what_can_be_done_without_is_not_waited_for(self, stage: Stage) -> None:
        """
        A run that trains with as many nodes as it needs goes on, however long the others wait for a place.
        """
        run = stage.submit_job(stage.elastic("1:4", patience=0.3))
        stage.create(run, 4)
        for name, pod in stage.pods.items():
            is_placed = name in ("worker-0", "worker-1")
            stage.standin.put(PODS, pod.running() if is_placed else pod.unschedulable("0/2 nodes are available: 2 Insufficient cpu."))
        stage.followed()
        with pytest.raises(RunTimeoutError, match="still running"):
            run.wait(1)
        assert run.status().state is RunState.RUNNING
        stage.give("worker-1", 1)
        stage.give("worker-0", 2)
        for name in ("worker-2", "worker-3"):
            stage.standin.remove(PODS, stage.pods[name].data["metadata"]["name"])
        assert run.result(PATIENCE) == 2

    def test_nobody_makes_the_pods(self, stage: Stage) -> None:
        """
        A controller that is not there is noticed too.
        """
        run = stage.submit(patience=0.3)
        with pytest.raises(RunFailedError, match="its pod is not created yet"):
            run.result(PATIENCE)

    def test_a_missing_image(self, stage: Stage) -> None:
        """
        An image that is not there ends the run at once, and nothing is left of it.
        """
        run = stage.submit()
        stage.create(run)
        stage.standin.put(PODS, stage.pods["worker-1"].waiting("ErrImagePull", 'failed to pull "train:1": not found'))
        with pytest.raises(RunFailedError, match=r"worker-1 cannot start: ErrImagePull: .*not found"):
            run.result(PATIENCE)
        assert stage.left() == []

    def test_a_quota(self, stage: Stage) -> None:
        """
        Pods that the quota does not allow end the run at once.
        """
        run = stage.submit()
        message = 'Error creating: pods "x" is forbidden: exceeded quota: small'
        stage.standin.put(EVENTS, {**event(f"{stage.name(run)}-worker", "FailedCreate", message), "type": "Warning"})
        with pytest.raises(RunFailedError, match="exceeded quota: small"):
            run.result(PATIENCE)
        assert [each for each in stage.left() if not each.startswith("events/")] == []

    def test_the_server_is_away(self, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """
        A run outlives the API server: what happened meanwhile is seen when it is back.
        """
        monkeypatch.setattr(_watch, "LONGEST_PAUSE", 0.2)
        monkeypatch.setattr(_watch, "_WORTH_TELLING", 1)
        run = stage.submit(echo=True)
        stage.start(run)
        stage.followed()
        stage.standin.is_down = True
        stage.standin.cut()
        told = ""

        def is_told() -> bool:
            nonlocal told
            told += capsys.readouterr().err
            return "cannot be reached" in told or "broke" in told

        eventually(is_told)
        stage.give("worker-1", 1)
        stage.give("worker-0", 2)
        stage.standin.is_down = False
        assert run.result(PATIENCE) == 2
        told += capsys.readouterr().err
        assert "trying again\ndistrib: the API server answers again\n" in told

    def test_who_may_not_look(self, stage: Stage) -> None:
        """
        Whoever may not watch is told what is missing; the run itself goes on.
        """
        stage.standin.refusals["list", "pods"] = [RefusedError(403, "Forbidden", 'User "me" cannot list resource "pods"')]
        run = stage.submit()
        with pytest.raises(RunFailedError, match=r'cannot list resource "pods".*a Role that may list and watch pods and jobs'):
            run.result(PATIENCE)
        assert any(each.startswith("jobs/") for each in stage.left())

    def test_events_only_explain(self, stage: Stage) -> None:
        """
        Who may not see events follows the run all the same.
        """
        stage.standin.refusals["list", "events"] = [RefusedError(403, "Forbidden", "cannot list")] * 3
        run = stage.submit()
        stage.succeed(run)
        assert run.result(PATIENCE) == 0


class TestCancelling:
    @pytest.mark.parametrize("at_once", [False, True])
    def test_nothing_is_left(self, stage: Stage, at_once: bool) -> None:
        """
        Cancelling deletes the workload and all it owns, and comes back when the pods are gone.
        """
        run = stage.submit()
        stage.start(run)
        run.cancel(at_once=at_once)
        assert stage.left() == []
        assert run.status().state is RunState.CANCELLED
        assert {one.state for one in run.status().replicas.values()} == {"Stopped"}
        with pytest.raises(RunCancelledError):
            run.result()
        run.cancel()

    def test_pods_that_linger(self, stage: Stage) -> None:
        """
        Pods that take their time are waited for; asked a second time, at once, they get none.
        """
        run = stage.submit()
        stage.start(run)
        for pod in stage.pods.values():
            del pod.data["metadata"]["ownerReferences"]
            stage.standin.put(PODS, pod.running())
        stage.standin.lingering = True
        first = in_background(run.cancel)
        eventually(lambda: stage.standin.asked()["deletecollection", "pods"] == 1)
        time.sleep(0.3)
        assert first.is_alive()
        run.cancel(at_once=True)
        first.join(PATIENCE)
        assert not first.is_alive()
        assert not [each for each in stage.left() if each.startswith("pods/")]

    def test_a_run_that_is_over(self, stage: Stage) -> None:
        """
        A run that is over stays as it is.
        """
        run = stage.submit()
        stage.succeed(run)
        run.wait(PATIENCE)
        run.cancel()
        run.cancel(at_once=True)
        assert run.status().state is RunState.SUCCEEDED
        assert any(each.startswith("pods/") for each in stage.left())

    def test_the_server_is_away(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What could not be taken away is told, not passed over; asked again when the server is back, all of it goes.
        """
        monkeypatch.setattr(_watch, "LONGEST_PAUSE", 0.02)
        run = stage.submit()
        stage.start(run)
        stage.followed()
        stage.standin.is_down = True
        with pytest.raises(EngineError, match="cancel it again"):
            run.cancel()
        with pytest.raises(EngineError, match="cancel it again"):
            run.wait(PATIENCE)
        stage.standin.is_down = False
        assert run.status().state is RunState.RUNNING
        run.cancel()
        assert run.status().state is RunState.CANCELLED
        assert stage.left() == []

    def test_looking_while_the_server_is_silent(self, stage: Stage) -> None:
        """
        Whoever looks at a run does not wait for a server that lets others wait.
        """
        run = stage.submit()
        stage.start(run)
        stage.followed()
        eventually(lambda: run.status().state is RunState.RUNNING)
        stage.standin.held.add(("delete", "jobs"))
        cancelling = in_background(run.cancel)
        eventually(lambda: stage.standin.asked()["delete", "jobs"] == 1)
        looking = in_background(lambda: (run.status(), run.events()))
        looking.join(PATIENCE)
        try:
            assert not looking.is_alive()
            assert run.status().state is RunState.CANCELLED
        finally:
            stage.standin.release()
        cancelling.join(PATIENCE)
        assert not cancelling.is_alive()

    def test_who_may_not(self, stage: Stage) -> None:
        """
        Whoever may not delete is told so.
        """
        run = stage.submit()
        stage.start(run)
        stage.followed()
        stage.standin.refusals["delete", "jobs"] = [RefusedError(403, "Forbidden", 'User "me" cannot delete resource "jobs"')]
        with pytest.raises(EngineError, match='cannot delete resource "jobs"'):
            run.cancel()
        assert "jobs/" in " ".join(stage.left())

    def test_one_that_could_not_be_followed(self, stage: Stage) -> None:
        """
        A run that nobody could follow is taken away all the same.
        """
        stage.standin.refusals["list", "pods"] = [RefusedError(403, "Forbidden", "not yet")]
        run = stage.submit()
        assert isinstance(run.exception(PATIENCE), RunFailedError)
        run.cancel()
        assert stage.left() == []

    def test_from_elsewhere(self, stage: Stage) -> None:
        """
        Who takes up a run that is over to cancel it leaves it, and its values, as they are.
        """
        run = stage.submit()
        stage.succeed(run)
        run.wait(PATIENCE)
        other = KubernetesEngine().get_run(run.id)
        other.cancel()
        assert other.status().state is RunState.SUCCEEDED
        assert other.result() == 0

    def test_somebody_else_deletes_it(self, stage: Stage) -> None:
        """
        A run whose workload is deleted with kubectl is cancelled.
        """
        run = stage.submit()
        stage.start(run)
        stage.standin.remove(JOBS, f"{stage.name(run)}-worker")
        with pytest.raises(RunCancelledError, match="somebody has deleted"):
            run.result(PATIENCE)


class TestFromElsewhere:
    def test_taken_up(self, stage: Stage) -> None:
        """
        Another machine that knows the id alone takes up the run, while it runs and afterwards, with its values.
        """
        run = stage.submit()
        stage.start(run)
        other = KubernetesEngine().get_run(run.id)
        assert other.status().state is RunState.RUNNING
        stage.give("worker-1", 1)
        stage.give("worker-0", 2)
        assert other.result(PATIENCE) == 2
        late = KubernetesEngine().get_run(run.id)
        assert late.status().state is RunState.SUCCEEDED
        assert list(late.results(PATIENCE)) == [2, 1]

    def test_a_failure(self, stage: Stage) -> None:
        """
        A failure is told in the same words.
        """
        run = stage.submit()
        stage.start(run)
        stage.give("worker-0")
        stage.fail("worker-1")
        assert str(KubernetesEngine().get_run(run.id).exception(PATIENCE)) == str(run.exception(PATIENCE))

    def test_all_runs(self, stage: Stage) -> None:
        """
        All runs are listed, the newest first; what is none of ours, or of another version, is left out.
        """
        runs = [stage.submit() for _ in range(3)]
        stage.standin.put(JOBS, {"metadata": {"name": "other", "namespace": "here", "labels": {"distrib.dev/run": "other"}}})
        stage.standin.put(JOBS, {"metadata": {"name": "mine", "namespace": "here", "labels": {}}})
        assert [each.id for each in stage.engine.runs()] == [run.id for run in reversed(runs)]

    def test_unknown(self, stage: Stage) -> None:
        """
        An id that no run has is a LookupError that says how ids look.
        """
        for id in ("nothing", "kubernetes://here", "kubernetes://here/nothing"):
            with pytest.raises(LookupError, match="no run is called"):
                stage.engine.get_run(id)


class TestLogs:
    def test_shown(self, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
        """
        With echo, what replicas write is shown with their names, all of it when the result is there.
        """
        run = stage.submit(echo=True)
        stage.start(run)
        stage.write("worker-1", b"hello")
        stage.write("worker-0", b"hello", b"again")
        stage.give("worker-1")
        stage.give("worker-0")
        run.result(PATIENCE)
        shown = capsys.readouterr()
        assert sorted(shown.out.splitlines()) == ["[worker-0] again", "[worker-0] hello", "[worker-1] hello"]
        assert f"{stage.name(run)} succeeded after" in shown.err

    def test_followed(self, stage: Stage) -> None:
        """
        Lines are had as they are written, of all or of one.
        """
        run = stage.submit()
        stage.start(run)
        stage.write("worker-1", b"one")
        stage.write("worker-0", b"two")
        lines = run.logs(follow=True)
        assert {next(lines), next(lines)} == {"[worker-1] one", "[worker-0] two"}
        own = run.logs("worker-0", follow=True)
        assert next(own) == "two"
        stage.write("worker-0", b"three")
        assert next(lines) == "[worker-0] three"
        stage.give("worker-1")
        stage.give("worker-0")
        assert (list(lines), list(own)) == ([], ["three"])

    def test_afterwards(self, stage: Stage) -> None:
        """
        What the cluster keeps is read afterwards; a replica that nobody knows is refused.
        """
        run = stage.submit()
        stage.start(run)
        stage.write("worker-0", b"one")
        stage.give("worker-1")
        stage.give("worker-0")
        run.wait(PATIENCE)
        assert (list(run.logs()), list(run.logs("worker-0"))) == (["[worker-0] one"], ["one"])
        with pytest.raises(InvalidJobError, match="Did you mean 'worker-0'"):
            run.logs("wroker-0")

    def test_one_who_stops_to_read(self, stage: Stage) -> None:
        """
        Whoever has enough leaves nothing behind that reads on.
        """
        run = stage.submit()
        stage.start(run)
        stage.write("worker-0", b"one")
        lines = run.logs(follow=True)
        next(lines)
        lines.close()  # type: ignore[attr-defined]
        eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("distrib reads")])
        run.cancel()


class TestRequests:
    @staticmethod
    def count(stage: Stage, workers: int, wait: float) -> dict[Any, int]:
        """How often a run of so many workers, that takes so long, asks for what."""
        stage.standin.requests.clear()
        run = stage.submit(workers)
        stage.start(run, workers)
        stage.followed()
        time.sleep(wait)
        for index in reversed(range(workers)):
            stage.give(f"worker-{index}")
        run.result(PATIENCE)
        return dict(stage.standin.asked())

    def test_neither_time_nor_replicas_count(self, stage: Stage) -> None:
        """
        A run asks as often with many replicas as with one, and as often when it takes long.
        """
        assert (
            self.count(stage, 1, 0)
            == self.count(stage, 20, 1)
            == {
                ("create", "secrets"): 1,
                ("create", "jobs"): 1,
                ("create", "services"): 1,
                ("patch", "secrets"): 1,
                ("list", "pods"): 1,
                ("list", "jobs"): 1,
                ("list", "events"): 1,
                ("watch", "pods"): 1,
                ("watch", "jobs"): 1,
                ("watch", "events"): 1,
            }
        )

    def test_nothing_goes_on_afterwards(self, stage: Stage) -> None:
        """
        When a run is over, no thread of it is left and nothing is asked any more.
        """
        run = stage.submit()
        stage.succeed(run)
        run.wait(PATIENCE)
        eventually(lambda: not ours())


def test_times_are_the_servers(stage: Stage) -> None:
    """
    The deadline is counted from when the workload says that it began.
    """
    run = stage.submit(policy={"active_deadline_seconds": 3600})
    stage.standin.change(JOBS, f"{stage.name(run)}-worker", {"status": {"startTime": now(START)}})
    with pytest.raises(RunTimeoutError, match="DeadlineExceeded"):
        run.result(PATIENCE)
    assert not [each for each in stage.left() if each.startswith(("jobs/", SECRETS))]


class TestClusters:
    """
    Two of them.
    """

    @pytest.fixture(name="other")
    def _other(self, stage: Stage) -> Iterator[StandIn]:  # the stage ends its runs before it is closed
        other = StandIn()
        yield other
        for run in stage.runs:
            run.cancel(at_once=True)
        other.close()

    def test_kubeconfigs(self, stage: Stage, standin: StandIn, other: StandIn, tmp_path: Path) -> None:
        """
        Each kubeconfig is asked for its own runs, those first that are known to have the namespace.
        """
        run = stage.submit(kubeconfig=other.kubeconfig(tmp_path / "other", namespace="here"))
        assert not [where for where, _ in standin.objects if where == JOBS]
        assert [each.id for each in stage.engine.runs()] == [run.id]
        standin.requests.clear()
        assert stage.engine.get_run(run.id).id == run.id
        assert standin.requests == []

    def test_contexts(self, stage: Stage, standin: StandIn, other: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A context leads to its own cluster, and who has submitted to several lists all of their runs.
        """
        monkeypatch.setenv("KUBECONFIG", standin.kubeconfig(tmp_path / "both", others={"there": other}))
        runs = [stage.submit(), stage.submit(context="there")]
        assert [[name for where, name in each.objects if where == JOBS] for each in (standin, other)] == [
            [f"{stage.name(run)}-worker"] for run in runs
        ]
        assert {each.id for each in stage.engine.runs()} == {run.id for run in runs}
        with pytest.raises(LookupError, match="no run is called"):
            KubernetesEngine().get_run(runs[1].id)

    def test_one_that_cannot_be_asked(
        self, stage: Stage, standin: StandIn, other: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        The runs of one cluster are found although the other has no credentials, or does not answer; why is told if there are none.
        """
        run = stage.submit(kubeconfig=other.kubeconfig(tmp_path / "other"))
        usual = os.environ["KUBECONFIG"]
        for is_down, config in ((False, str(tmp_path / "nothing")), (True, usual)):
            standin.is_down = is_down
            monkeypatch.setenv("KUBECONFIG", config)
            assert stage.engine.get_run(run.id).id == run.id
            assert [each.id for each in stage.engine.runs()] == [run.id]
            with pytest.raises(LookupError, match=r"no run is called 'none' .*Not asked: .*(no credentials|cannot be reached)"):
                stage.engine.get_run("kubernetes://here/none")
            with pytest.raises(EngineError, match=r"no credentials|cannot be reached"):
                KubernetesEngine().runs()
        standin.is_down = False

    def test_a_run_without_a_namespace(self, stage: Stage, standin: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        It is listed by another process too, whatever the namespace of the context.
        """
        monkeypatch.setenv("KUBECONFIG", standin.kubeconfig(tmp_path / "team", namespace="team-a"))
        options = {key: value for key, value in stage.job().engine_options["kubernetes"].items() if key != "namespace"}
        run = stage.submit_job(attrs.evolve(stage.job(), engine_options={"kubernetes": options}))
        assert run.id.startswith("kubernetes://default/")
        assert [each.id for each in KubernetesEngine().runs()] == [run.id]
