"""
Threads and CUDA devices: who gets how many, and which.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fates
import pytest
from hypothesis import given
from hypothesis import strategies as st
from watching import QUIET, task

from distrib import UnsupportedError
from distrib._processors import cpu_count
from distrib.engines.local import _devices, _plan

THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A machine of eight processors and four CUDA devices, where the user has set nothing.
    """
    for variable in THREADS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setattr(_devices, "cpu_count", lambda: 8)


def environments(**keywords: Any) -> dict[str, dict[str, str]]:
    """
    The whole environment of each replica, as planned.
    """
    plan = task(fates.add, **keywords).plan(1)
    assert isinstance(plan, _plan.LocalPlan)
    return {process.replica.name: {**plan.shared, **process.own, **process.environment} for process in plan.processes}


def fresh(**keywords: Any) -> set[str]:
    """
    The replicas that have to start an interpreter of their own.
    """
    plan = task(fates.add, **keywords).plan(1)
    assert isinstance(plan, _plan.LocalPlan)
    return {process.replica.name for process in plan.processes if process.own}


class TestThreads:
    @pytest.mark.parametrize(("replicas", "share"), [(1, "8"), (2, "4"), (3, "2"), (8, "1"), (50, "1")])
    def test_are_divided_among_the_replicas(self, replicas: int, share: str) -> None:
        """
        Each replica gets an equal share of the processors, at least one, and can still be forked.
        """
        for environment in environments(worker=replicas).values():
            assert [environment[name] for name in THREADS] == [share, share]
        assert fresh(worker=replicas) == set()

    @pytest.mark.parametrize("name", THREADS)
    def test_are_left_as_the_user_set_them(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A variable of the user's environment stays as it is, whatever the job requests; the others are still set.
        """
        monkeypatch.setenv(name, "3")
        (other,) = set(THREADS) - {name}
        for environment in environments(worker={"replicas": 2, "requests": {"cpu": 2}}).values():
            assert name not in environment
            assert environment[other] == "2"

    def test_are_what_the_job_says(self) -> None:
        """
        The job's own variables win over the shares, and a group's over those.
        """
        given = {"env": {"OMP_NUM_THREADS": "5"}, "chief": {"env": {"OMP_NUM_THREADS": "6"}}, "worker": 1}
        found = environments(**given)
        assert {name: environment["OMP_NUM_THREADS"] for name, environment in found.items()} == {"chief-0": "6", "worker-0": "5"}
        assert found["worker-0"]["TF_NUM_INTRAOP_THREADS"] == "4"

    @pytest.mark.parametrize(("cpu", "count"), [(2, "2"), ("1500m", "2"), ("100m", "1"), (16, "16")])
    def test_follow_what_is_requested(self, cpu: Any, count: str) -> None:
        """
        A group that requests processors gets as many threads, rounded up; the rest keep their share.
        """
        found = environments(chief={"requests": {"cpu": cpu}}, worker=1)
        assert found["chief-0"]["OMP_NUM_THREADS"] == count
        assert found["worker-0"]["OMP_NUM_THREADS"] == "4"

    @pytest.mark.parametrize("where", ["requests", "limits"])
    def test_requested_by_all_alike_leave_them_forked(self, where: str) -> None:
        """
        Where all groups request the same, nobody needs an interpreter of its own for it; a limit stands for a request.
        """
        given = {where: {"cpu": 2}, "chief": 1, "worker": 2}
        assert {environment["OMP_NUM_THREADS"] for environment in environments(**given).values()} == {"2"}
        assert fresh(**given) == set()

    def test_arrive(self) -> None:
        """
        A replica finds its threads in its environment.
        """

        def seen() -> str | None:
            return os.environ.get("OMP_NUM_THREADS")

        run = task(seen, chief={"requests": {"cpu": 3}}, worker=1, local=QUIET).submit()
        assert dict(run.results().items()) == {"chief-0": "3", "worker-0": "4"}

    def test_count_of_processors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        No more processors are counted than this process may use.
        """
        monkeypatch.undo()
        assert 1 <= _devices.cpu_count() <= len(os.sched_getaffinity(0))

    @pytest.mark.parametrize(
        ("told", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None), (None, None)]
    )
    def test_quota_of_processors(self, tmp_path: Path, told: str | None, expected: int | None) -> None:
        """
        A control group's quota counts where there is one; a part of a processor is one.
        """
        if told is not None:
            (tmp_path / "cpu.max").write_text(told)
        assert cpu_count(str(tmp_path / "cpu.max")) == (expected or len(os.sched_getaffinity(0)))


def dealt(**keywords: Any) -> dict[str, str | None]:
    """
    The devices of each replica.
    """
    return {name: environment.get("CUDA_VISIBLE_DEVICES") for name, environment in environments(**keywords).items()}


class TestDevices:
    def test_nobody_asks(self) -> None:
        """
        Where nobody asks for devices, nothing is said: each replica sees what the launcher sees.
        """
        assert dealt(worker=2) == {"worker-0": None, "worker-1": None}

    def test_each_has_its_own(self) -> None:
        """
        Devices are dealt out in the order of the ranks.
        """
        assert dealt(worker={"replicas": 2, "requests": {"gpu": 2}}) == {"worker-0": "0,1", "worker-1": "2,3"}

    def test_groups_that_ask_for_none_get_none(self) -> None:
        """
        A group without devices does not see those of the others.
        """
        given = {"worker": {"replicas": 2, "limits": {"gpu": 1}}, "ps": 1, "evaluator": {"requests": {"gpu": 0}}}
        assert dealt(**given) == {"worker-0": "0", "worker-1": "1", "ps-0": "-1", "evaluator-0": "-1"}

    def test_the_job_may_ask_for_all(self) -> None:
        """
        What the job requests holds for every group that says nothing else.
        """
        assert dealt(requests={"gpu": 1}, chief=1, worker=2, ps={"requests": {"gpu": 0}}) == {
            "chief-0": "0",
            "worker-0": "1",
            "worker-1": "2",
            "ps-0": "-1",
        }

    @pytest.mark.parametrize(
        ("given", "names"),
        [
            ("GPU-8f, GPU-9a", ["GPU-8f", "GPU-9a"]),
            ("MIG-1/2/3", ["MIG-1/2/3"]),
            ("2,-1,3", ["2"]),
            ("", []),
            ("-1", []),
            ("1,,2", ["1"]),
        ],
    )
    def test_names_are_kept(self, given: str, names: list[str]) -> None:
        """
        Devices are called what the variable calls them, and those that CUDA would not see are not dealt.
        """
        assert _devices.cuda_devices({"CUDA_VISIBLE_DEVICES": given}) == names

    @pytest.mark.parametrize("visible", ["5", "", "-1"])
    def test_too_few_are_refused(self, visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A job that asks for more than there are is refused before anything starts, with both numbers.
        """
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        decorated = task(fates.add, worker={"replicas": 2, "requests": {"gpu": 1}})
        for attempt in (decorated.plan, decorated.submit):
            with pytest.raises(UnsupportedError, match="asks for 2 CUDA devices and this machine offers") as caught:
                attempt(1)
            assert caught.value.field == "requests.gpu"

    def test_the_jobs_own_choice_is_dealt(self) -> None:
        """
        Devices that the job names are those that are dealt.
        """
        given = {"env": {"CUDA_VISIBLE_DEVICES": "6,7"}, "worker": {"replicas": 2, "requests": {"gpu": 1}}}
        assert dealt(**given) == {"worker-0": "6", "worker-1": "7"}

    def test_a_groups_own_choice_stays(self) -> None:
        """
        A group that names its devices itself keeps them, whoever else is dealt some.
        """
        given = {"chief": {"env": {"CUDA_VISIBLE_DEVICES": "3"}}, "worker": {"replicas": 2, "requests": {"gpu": 1}}}
        assert dealt(**given) == {"chief-0": "3", "worker-0": "0", "worker-1": "1"}

    def test_arrive(self) -> None:
        """
        Each replica finds its own in its environment.
        """

        def seen() -> str | None:
            return os.environ.get("CUDA_VISIBLE_DEVICES")

        run = task(seen, worker={"replicas": 2, "requests": {"gpu": 1}}, ps=0, local=QUIET).submit()
        assert list(run.results()) == ["0", "1"]

    def test_as_the_driver_has_them(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Where nothing is said, the driver is asked, which has a folder for each; a machine without one has no devices.
        """
        monkeypatch.setattr(_devices, "_DRIVER", str(tmp_path))
        for address in ("0000:01:00.0", "0000:41:00.0", "0000:81:00.0"):
            (tmp_path / address).mkdir()
        assert _devices.cuda_devices({}) == ["0", "1", "2"]
        monkeypatch.setattr(_devices, "_DRIVER", str(tmp_path / "none"))
        assert _devices.cuda_devices({}) == []

    @given(wanted=st.lists(st.integers(0, 3), max_size=6), there=st.integers(0, 8))
    def test_nobody_shares(self, wanted: list[int], there: int) -> None:
        """
        Everybody gets as many as asked for, no device goes to two, and too few is an error.
        """
        names = [f"GPU-{index}" for index in range(there)]
        asked = [(f"worker-{index}", count) for index, count in enumerate(wanted)]
        if sum(wanted) > there:
            with pytest.raises(UnsupportedError):
                _devices.deal_devices(asked, names)
            return
        given = _devices.deal_devices(asked, names)
        if not sum(wanted):
            assert given == {}
            return
        hands = {name: [] if value == "-1" else value.split(",") for name, value in given.items()}
        assert {name: len(hand) for name, hand in hands.items()} == dict(asked)
        all_dealt = [device for hand in hands.values() for device in hand]
        assert len(set(all_dealt)) == len(all_dealt) == sum(wanted)
        assert set(all_dealt) <= set(names)
