"""
What a plan shows, and that making one does nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fates
import pytest
from hypothesis import given, settings
from watching import PATIENCE, QUIET, descriptors, task

import distrib
from distrib import InvalidJobError, Job, UnsupportedError
from distrib.engine import Call
from distrib.engines._rules import LONGEST_VARIABLE
from distrib.engines.local import LocalEngine, LocalPlan, _devices
from distrib.testing import strategies


def planned(**keywords: Any) -> LocalPlan[int]:
    """
    The plan of a small function.
    """
    plan = task(fates.add, **keywords).plan(1, b=2)
    assert isinstance(plan, LocalPlan)
    return plan


def start_of(name: str) -> tuple[str | None, str | None, bytes]:
    """
    A variable as a replica finds it now, as its interpreter was started with it, and whether texts hash by chance.
    """
    entries = dict(entry.partition(b"=")[::2] for entry in Path("/proc/self/environ").read_bytes().split(b"\0"))
    found = entries.get(name.encode())
    return os.environ.get(name), None if found is None else found.decode(), str(hash("text")).encode()


class TestPurity:
    def test_nothing_is_started(self, state: Path) -> None:
        """
        A plan starts no process, writes no file and keeps none open.
        """
        children = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
        before, files = Path(children).read_text(), descriptors()
        str(planned(chief=1, worker=3, ps=2, evaluator=1))
        assert Path(children).read_text() == before
        assert descriptors() == files
        assert not state.exists()

    def test_equal_jobs_have_equal_plans(self) -> None:
        """
        Planning twice gives the same, to the byte.
        """
        first, second = (planned(chief=1, worker=2, env={"A": "1"}) for _ in range(2))
        assert first == second
        assert str(first) == str(second)

    def test_any_job(self) -> None:
        """
        Any job can be planned or is refused with the field that is at fault; each replica is there once, with a place of its own.
        """

        @settings(max_examples=30)
        @given(job=strategies.jobs("tensorflow"))
        def check(job: Job) -> None:
            refused = None
            try:
                plan = LocalEngine().plan(job, Call(fates.add, (1,)))
            except (UnsupportedError, InvalidJobError) as error:
                refused = error
            if refused is not None:
                assert refused.field
                return
            assert [process.replica.rank for process in plan.processes] == list(range(job.world_size))
            assert len({process.replica.address for process in plan.processes}) == job.world_size
            assert sum(process.replica.is_coordinator for process in plan.processes) == 1
            assert plan.coordinator.role == ("chief" if any(group.role == "chief" for group in job.groups) else "worker")
            assert str(plan)

        check()

    def test_a_plan_can_be_submitted_more_than_once(self) -> None:
        """
        A plan is a value: each submission takes free ports of its own, and the plan keeps its examples.
        """
        decorated = task(fates.name)
        plan = decorated.plan()
        shown = str(plan)
        engine = LocalEngine()
        runs = [engine.submit(plan) for _ in range(2)]
        assert [run.result(PATIENCE) for run in runs] == ["worker-0", "worker-0"]
        assert str(plan) == shown


class TestPrint:
    def test_small_plan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A small plan is shown whole: each replica with its variables, and who decides.
        """
        monkeypatch.setattr(_devices, "cpu_count", lambda: 8)
        for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
            monkeypatch.delenv(variable, raising=False)
        text = str(planned(chief={"env": {"ROLE": "boss"}}, worker=1, env={"DATA": "/data"}))
        lines = text.splitlines()
        assert lines[0] == "add: 2 replicas of tensorflow on this machine"
        assert "  DATA=/data" in lines
        assert "  OMP_NUM_THREADS=4" in lines
        assert lines[lines.index("chief-0 (coordinator)") + 1] == "  ROLE=boss"
        assert "worker-0" in lines
        assert '"task":{"type":"worker","index":0}' in text
        assert lines[-1] == "The ports are examples: free ones are taken at the start."

    def test_imports_are_shown(self) -> None:
        """
        What is imported once is shown.
        """
        assert "  imported once: json, csv" in str(planned(local={"preload": ("json", "csv")})).splitlines()

    def test_large_plan_is_shortened(self) -> None:
        """
        Of many replicas the first are shown, of long variables the two ends, and the text says where the rest is.
        """
        text = str(planned(worker=500))
        assert "… and 480 more, to worker-499; plan.processes has them all." in text
        assert "worker-19\n" in text
        assert "worker-20\n" not in text
        assert "characters)" in text
        assert len(text) < 150_000

    def test_fields_without_effect_are_told(self) -> None:
        """
        What only clusters have a use for is named, with its group, and stops nobody.
        """
        plan = planned(
            image="repo/train:1",
            worker={"replicas": 1, "node_selector": {"disk": "ssd"}, "labels": {"team": "a"}},
            run_policy={"scheduling_policy": {"queue": "night"}},
        )
        assert plan.unused == ("image", "worker.node_selector", "worker.labels", "run_policy.scheduling_policy")
        assert "Without effect on this machine: image, worker.node_selector" in str(plan)
        assert planned().unused == ()


class TestEnvironments:
    def test_each_has_its_place(self) -> None:
        """
        Each replica has the framework's variables and its own place; all agree on the cluster.
        """
        plan = planned(chief=1, worker=2, ps=1)
        places = {process.replica.name: json.loads(process.environment["TF_CONFIG"]) for process in plan.processes}
        assert {name: (place["task"]["type"], place["task"]["index"]) for name, place in places.items()} == {
            "chief-0": ("chief", 0),
            "worker-0": ("worker", 0),
            "worker-1": ("worker", 1),
            "ps-0": ("ps", 0),
        }
        assert len({json.dumps(place["cluster"]) for place in places.values()}) == 1
        mine = [json.loads(process.environment["DISTRIB_REPLICA"]) for process in plan.processes]
        assert [each["coordinator"] for each in mine] == [True, False, False, False]

    def test_coordinator_is_a_worker_without_a_chief(self) -> None:
        """
        Worker 0 is the coordinator where there is no chief.
        """
        assert planned(worker=2, evaluator=1).coordinator.name == "worker-0"
        assert planned(worker=2, chief=1).coordinator.name == "chief-0"

    def test_the_launchers_own_cluster_is_not_inherited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A TF_CONFIG that the launcher happens to have does not reach a run of one replica, which is to have none.
        """
        monkeypatch.setenv("TF_CONFIG", '{"cluster":{"worker":["elsewhere:1"]}}')
        assert task(start_of, worker=1).submit("TF_CONFIG").result(PATIENCE)[:2] == (None, None)

    @pytest.mark.parametrize("local", [{}, {"preload": ("json",)}, {"start_method": "spawn"}])
    def test_the_jobs_variables_are_there_from_the_start(self, local: dict[str, Any]) -> None:
        """
        The job's variables are in the environment that the interpreters start with, however replicas are started.
        """
        given_env = {"LD_SOMETHING": "early", "PYTHONHASHSEED": "7"}
        run = task(start_of, env=given_env, local={**QUIET, **local}).submit("LD_SOMETHING")
        hashed = subprocess.run(
            [sys.executable, "-c", "print(hash('text'))"], env={"PYTHONHASHSEED": "7"}, capture_output=True, timeout=PATIENCE, check=True
        )
        assert list(run.results(PATIENCE)) == [("early", "early", hashed.stdout.strip())] * 2

    @pytest.mark.parametrize("local", [{}, {"preload": ("json",)}])
    def test_a_groups_variables_are_there_from_the_start(self, local: dict[str, Any]) -> None:
        """
        A group with variables of its own starts interpreters with them; the others do not have them.
        """
        chief = {"env": {"LD_SOMETHING": "mine", "PYTHONHASHSEED": "7"}}
        given_env = {"LD_SOMETHING": "all", "PYTHONHASHSEED": "8"}
        run = task(start_of, chief=chief, worker=1, env=given_env, local={**QUIET, **local}).submit("LD_SOMETHING")
        (now, early, chiefs_hash), (others_now, others_early, others_hash) = run.results(PATIENCE)
        assert (now, early) == ("mine", "mine")
        assert (others_now, others_early) == ("all", "all")
        assert chiefs_hash != others_hash

    @pytest.mark.parametrize("local", [{}, {"preload": ("json",)}, {"start_method": "spawn"}])
    def test_python_path_is_followed(self, tmp_path: Path, local: dict[str, Any]) -> None:
        """
        Modules are found where PYTHONPATH in the job's or the group's variables says.
        """
        for name in ("of_job", "of_group"):
            (tmp_path / name).mkdir()
            (tmp_path / name / f"found_{name}.py").write_text("FOUND = True\n")

        def look() -> tuple[bool, bool]:
            from importlib.util import find_spec

            return find_spec("found_of_job") is not None, find_spec("found_of_group") is not None

        keywords: dict[str, Any] = {"env": {"PYTHONPATH": str(tmp_path / "of_job")}, "local": {**QUIET, **local}}
        chief = {"env": {"PYTHONPATH": os.pathsep.join(str(tmp_path / name) for name in ("of_job", "of_group"))}}
        assert list(task(look, chief=chief, worker=1, **keywords).submit().results(PATIENCE)) == [(True, True), (True, False)]

    def test_odd_values_arrive(self) -> None:
        """
        Whatever a variable can hold arrives.
        """
        odd = {"EMPTY": "", "LINES": "a\nb", "EQUALS": "a=b=c", "UMLAUT": "Grüße ✓", "LONG": "x" * 100_000}

        def seen(names: list[str]) -> dict[str, str | None]:
            return {name: os.environ.get(name) for name in names}

        run = task(seen, env=odd, chief={"env": {"MINE": "é\n"}}, worker=1).submit([*odd, "MINE"])
        chief, worker = run.results(PATIENCE)
        assert chief == {**odd, "MINE": "é\n"}
        assert worker == {**odd, "MINE": None}


class TestRefusals:
    """
    Said before anything starts.
    """

    def refused(self, kind: type[distrib.DistribError], **keywords: Any) -> Any:
        """
        Both planning and submitting refuse it; the error.
        """
        decorated = task(fates.add, **keywords)
        with pytest.raises(kind) as planned_error:
            decorated.plan(1)
        with pytest.raises(kind) as submitted_error:
            decorated.submit(1)
        assert str(planned_error.value) == str(submitted_error.value)
        assert distrib.runs() == []
        return planned_error.value

    def test_suspend(self) -> None:
        """
        There is no queue here that could release it.
        """
        assert self.refused(UnsupportedError, run_policy={"suspend": True}).field == "run_policy.suspend"

    @pytest.mark.parametrize("where", ["env", "worker.env"])
    def test_too_long_variable(self, where: str) -> None:
        """
        A variable that no process can be started with is named, with what to do instead.
        """
        env = {"FINE": "x" * (LONGEST_VARIABLE - len("FINE=") - 1), "HUGE": "ü" * (LONGEST_VARIABLE // 2)}
        keywords: dict[str, Any] = {"env": env} if where == "env" else {"worker": {"replicas": 2, "env": env}}
        error = self.refused(InvalidJobError, **keywords)
        assert error.field == f"{where}['HUGE']"
        assert "131,072" in str(error)
        assert "argument" in str(error)
        assert len(str(error)) < 500

    @pytest.mark.parametrize("own", [False, True])
    def test_longest_variable_is_taken(self, own: bool) -> None:
        """
        One byte less than too long works.
        """

        def length() -> int:
            return len(os.environ["FINE"])

        env = {"FINE": "x" * (LONGEST_VARIABLE - len("FINE=") - 1)}
        keywords: dict[str, Any] = {"worker": {"replicas": 1, "env": env}} if own else {"worker": 1, "env": env}
        assert task(length, **keywords).submit().result(PATIENCE) == len(env["FINE"])

    def test_cluster_that_is_too_large(self) -> None:
        """
        A cluster whose addresses fit into no variable is refused, with its size.
        """
        error = self.refused(InvalidJobError, worker=9_000)
        assert error.field in ("TF_CONFIG", "DISTRIB_REPLICA")
        assert "9,000 replicas" in str(error)

    def test_cluster_that_is_far_too_large(self) -> None:
        """
        One of which not even the addresses could be made is refused before they are.
        """
        error = self.refused(InvalidJobError, chief=1, worker=2**31 - 1)
        assert (error.field, error.value) == ("worker", 2**31)
        assert "worker: 2,147,483,648 replicas; each has a variable with the addresses of all" in str(error)

    @pytest.mark.parametrize("variable", ["TF_CONFIG", "DISTRIB_REPLICA", "DISTRIB_RUN_ID"])
    def test_reserved_variables(self, variable: str) -> None:
        """
        What tells a replica who it is cannot be set by a job or a group.
        """
        with pytest.raises(InvalidJobError, match=variable):
            task(fates.add, env={variable: "x"})
        with pytest.raises(InvalidJobError, match=variable):
            task(fates.add, worker={"replicas": 2, "env": {variable: "x"}})


class TestManyReplicas:
    def test_two_thousand(self) -> None:
        """
        Two thousand replicas can be planned, with all their environments.
        """
        began = time.monotonic()
        plan = planned(chief=1, worker=1_899, ps=100)
        assert time.monotonic() - began < 60, "a hang, on any machine"
        assert len(plan.processes) == 2_000
        assert len({process.replica.address for process in plan.processes}) == 2_000
        assert json.loads(plan.processes[-1].environment["TF_CONFIG"])["task"] == {"type": "ps", "index": 99}
