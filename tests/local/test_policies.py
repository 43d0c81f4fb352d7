"""
What a run policy says, and what then happens to real processes.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
from acting import Script, act, obey
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from watching import PATIENCE, Launcher, eventually, is_alive, task

import distrib
from distrib import ReplicaFailedError, ReplicaStatus, Run, RunCancelledError, RunState, RunTimeoutError

#: Restarts come at once, so that nobody waits for them.
SWIFT: dict[str, Any] = {"echo": False, "restart_delay": 0}


def start(meeting: Path, script: Script, **keywords: Any) -> Run[tuple[str, int]]:
    """
    Submit a play.
    """
    local = {**SWIFT, **keywords.pop("local", {})}
    return task(act, local=local, **keywords).submit(str(meeting), script)


def group(policy: str, replicas: int = 1) -> dict[str, Any]:
    """
    Replicas with a restart policy.
    """
    return {"replicas": replicas, "restart_policy": policy}


def attempts(meeting: Path, name: str) -> int:
    """
    How often a replica has been on stage.
    """
    path = meeting / f"attempts of {name}"
    return len(path.read_text().splitlines()) if path.exists() else 0


def await_sign(meeting: Path, name: str) -> int:
    """
    Wait for a replica to leave its sign; the number of its process.
    """
    path = meeting / name
    eventually(path.exists, f"the sign {name}")
    return int(path.read_text())


def kinds(run: Run[Any]) -> Counter[str]:
    """
    How often each kind of event was written down.
    """
    return Counter(event.kind for event in run.events())


class TestRestartPolicies:
    @pytest.mark.parametrize(
        ("policy", "fate", "again"),
        [
            ("Never", "exit:3", False),
            ("Never", "retry", False),
            ("Never", "SIGKILL", False),
            ("OnFailure", "exit:3", True),
            ("OnFailure", "raise", True),
            ("OnFailure", "SIGSEGV", True),
            ("OnFailure", "", False),
            ("ExitCode", "exit:127", False),
            ("ExitCode", "raise", False),
            ("ExitCode", "exit:128", True),
            ("ExitCode", "retry", True),
            ("ExitCode", "SIGTERM", True),
            ("ExitCode", "SIGKILL", True),
        ],
    )
    def test_who_is_started_again(self, meeting: Path, policy: str, fate: str, again: bool) -> None:
        """
        Never, OnFailure and ExitCode mean what the operator means: of the exit codes, those from 128 on are retryable.
        """
        run = start(meeting, {"worker": [fate, ""]}, worker=group(policy))
        failed = fate != "" and not again
        if failed:
            assert isinstance(run.exception(PATIENCE), ReplicaFailedError)
        else:
            assert run.result(PATIENCE) == ("worker-0", int(again))
        assert run.status().restarts == int(again)
        assert attempts(meeting, "worker-0") == 1 + again

    def test_retryable_error_is_138(self, meeting: Path) -> None:
        """
        A replica that raises RetryableError ends with the code that the operator sets aside for it.
        """
        error = start(meeting, {"worker": ["retry"]}, worker=1).exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert error.exit_code == 138
        assert isinstance(error.__cause__, distrib.RetryableError)

    def test_always_also_after_a_good_end(self, meeting: Path) -> None:
        """
        Under Always a replica that has returned is started again, until the run is over.
        """
        script = {"chief": ["await:enough"], "worker": ["", "", "sign:enough sleep"]}
        run = start(meeting, script, chief=1, worker=group("Always"), local={"grace_period": 0.1})
        assert run.result(PATIENCE) == ("chief-0", 0)
        assert attempts(meeting, "worker-0") == 3
        assert run.status().restarts == 2
        assert dict(run.results().items()) == {"chief-0": ("chief-0", 0)}, "the last attempt returned nothing"

    def test_always_that_decides_ends_with_the_backoff_limit(self, meeting: Path) -> None:
        """
        A replica that decides and is always started again can only use up the restarts: the error says so, and blames no code.
        """
        run = start(meeting, {"worker": [""]}, worker=group("Always"), run_policy={"backoff_limit": 2})
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert "BackoffLimitExceeded: 2 restarts" in str(error)
        assert "os._exit" not in str(error)
        assert "Always" in str(error)
        assert attempts(meeting, "worker-0") == 3

    def test_others_go_on(self, meeting: Path) -> None:
        """
        The restart of one replica does not touch the others.
        """
        script = {"worker-0": ["await:back"], "worker-1": ["SIGKILL", "sign:back"]}
        run = start(meeting, script, worker=group("OnFailure", 2))
        assert list(run.results(PATIENCE)) == [("worker-0", 0), ("worker-1", 1)]

    def test_each_role_has_its_own(self, meeting: Path) -> None:
        """
        The policy of one role does not help another.
        """
        script = {"worker": ["SIGKILL", "sign:back sleep"], "chief": ["await:back exit:3"]}
        error = start(meeting, script, chief=1, worker=group("ExitCode")).exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert (error.replica, error.exit_code) == ("chief-0", 3)

    def test_service_is_started_again(self, meeting: Path) -> None:
        """
        A parameter server that is lost comes back, if its policy says so.
        """
        script = {"ps": ["SIGKILL", "sign:back sleep"], "worker": ["await:back"]}
        run = start(meeting, script, worker=1, ps=group("ExitCode"))
        assert run.result(PATIENCE) == ("worker-0", 0)
        assert run.status().replicas["ps-0"] == ReplicaStatus(state="Stopped", attempt=2, signal=15)


class TestBackoff:
    @pytest.mark.parametrize("limit", [0, 1, 3])
    def test_limit_is_the_number_of_restarts(self, meeting: Path, limit: int) -> None:
        """
        The failure after the last restart fails the run, and the reason says how many there were.
        """
        run = start(meeting, {"worker": ["exit:3"]}, worker=group("OnFailure"), run_policy={"backoff_limit": limit})
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert error.exit_code == 3
        assert ("BackoffLimitExceeded" in run.status().reason) == (limit > 0)
        told = f"BackoffLimitExceeded: {limit} restart{'' if limit == 1 else 's'}."
        assert (told in str(error)) == (limit > 0)
        assert attempts(meeting, "worker-0") == 1 + limit
        assert run.status().restarts == limit

    def test_limit_is_shared_by_all(self, meeting: Path) -> None:
        """
        The restarts of all replicas count together.
        """
        script = {"worker-0": ["exit:3", "sign:back sleep"], "worker-1": ["await:back exit:4"]}
        run = start(meeting, script, worker=group("OnFailure", 2), run_policy={"backoff_limit": 1})
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert (error.replica, error.exit_code) == ("worker-1", 4)
        assert (attempts(meeting, "worker-0"), attempts(meeting, "worker-1")) == (2, 1)

    def test_permanent_failure_is_not_blamed_on_the_limit(self, meeting: Path) -> None:
        """
        A code that is not retryable fails the run for itself.
        """
        script = {"worker": ["retry", "exit:3"]}
        error = start(meeting, script, worker=group("ExitCode"), run_policy={"backoff_limit": 1}).exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert "Backoff" not in str(error)

    def test_delays_grow(self, meeting: Path) -> None:
        """
        Each restart of a replica waits for twice as long as the one before, and its own history counts, not that of others.
        """
        script = {"worker-0": ["exit:3", "exit:3", "exit:3", ""], "worker-1": ["exit:3", ""]}
        run = start(meeting, script, worker=group("OnFailure", 2), local={"restart_delay": 0.1})
        run.results(PATIENCE)
        told = [(event.replica, event.message.partition(" s (")[0]) for event in run.events() if event.kind == "restarting"]
        text = "ended with exit code 3; it restarts after"
        assert [said for name, said in told if name == "worker-0"] == [f"{text} {delay}" for delay in ("0.1", "0.2", "0.4")]
        assert [said for name, said in told if name == "worker-1"] == [f"{text} 0.1"]
        ended, started = (
            [event.time for event in run.events() if (event.replica, event.kind) == ("worker-0", kind)]
            for kind in ("restarting", "started")
        )
        waited = [again - before for before, again in zip(ended, started[1:], strict=True)]
        # The times are those of whole milliseconds.
        assert all(seconds > least - 0.01 for seconds, least in zip(waited, (0.1, 0.2, 0.4), strict=True)), waited

    def test_restarts_are_told_while_it_runs(self, meeting: Path) -> None:
        """
        The status of a run that goes on counts its restarts, and says where a replica stands that waits for its own.
        """
        script = {"worker-0": ["exit:3", "sign sleep"], "worker-1": ["sleep"]}
        run = start(meeting, script, worker=group("OnFailure", 2))
        await_sign(meeting, "worker-0")
        eventually(lambda: run.status().replicas["worker-0"].attempt == 2, "the second attempt")
        assert (run.status().state, run.status().restarts) == (RunState.RUNNING, 1)
        run.cancel()

    def test_cancel_during_backoff(self, meeting: Path) -> None:
        """
        A run whose only replica waits for its restart can be cancelled: nothing is started any more.
        """
        run = start(meeting, {"worker": ["exit:3", ""]}, worker=group("OnFailure"), local={"restart_delay": 300})
        eventually(lambda: run.status().state is RunState.RESTARTING, "the back-off")
        assert run.status().replicas["worker-0"].state == "Waiting"
        assert run.status().restarts == 1
        run.cancel()
        assert isinstance(run.exception(PATIENCE), RunCancelledError)
        assert run.status().replicas["worker-0"].state == "Stopped"
        assert attempts(meeting, "worker-0") == 1

    def test_failure_during_the_backoff_of_another(self, meeting: Path) -> None:
        """
        A replica that waits for its restart does not hold up the failure of the run, and is not said to have failed after it.
        """
        script = {"chief": ["await:go exit:3"], "worker": ["exit:4"]}
        run = start(meeting, script, chief=1, worker=group("OnFailure"), local={"restart_delay": 300})
        eventually(lambda: run.status().state is RunState.RESTARTING, "the back-off")
        (meeting / "go").touch()
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert error.replica == "chief-0"
        assert "failed after it" not in str(error)
        assert attempts(meeting, "worker-0") == 1


class TestDeadline:
    def test_while_running(self, meeting: Path) -> None:
        """
        A run that outlives its deadline is stopped, and the error is a timeout that names the field.
        """
        run = start(meeting, {"worker": ["sleep"]}, run_policy={"active_deadline_seconds": 1})
        with pytest.raises(RunTimeoutError, match="active_deadline_seconds=1"):
            run.result(PATIENCE)
        assert run.status().state is RunState.FAILED
        assert {status.state for status in run.status().replicas.values()} == {"Stopped"}

    def test_while_starting_up(self, meeting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        It holds as well while the modules to preload are imported: no replica is started any more.
        """
        (tmp_path / "never_done.py").write_text("import time\ntime.sleep(1000)\n")
        monkeypatch.syspath_prepend(tmp_path)
        run = start(meeting, {"worker": [""]}, run_policy={"active_deadline_seconds": 1}, local={"preload": "never_done"})
        assert isinstance(run.exception(PATIENCE), RunTimeoutError)
        assert attempts(meeting, "worker-0") == 0

    def test_during_backoff(self, meeting: Path) -> None:
        """
        And while a replica waits for its restart.
        """
        policy = {"active_deadline_seconds": 1}
        run = start(meeting, {"worker": ["exit:3"]}, worker=group("OnFailure"), run_policy=policy, local={"restart_delay": 300})
        assert isinstance(run.exception(PATIENCE), RunTimeoutError)

    def test_may_be_years(self, meeting: Path) -> None:
        """
        It may be longer than the system waits in one go.
        """
        policy = {"active_deadline_seconds": 2**31 - 1}
        run = start(meeting, {"worker": [""]}, run_policy=policy, local={"grace_period": 1e300})
        assert run.result(PATIENCE) == ("worker-0", 0)

    def test_does_not_change_what_is_decided(self, meeting: Path) -> None:
        """
        A run that has succeeded stays so, though the others are still running when the deadline comes.
        """
        script = {"chief": ["await:worker-0"], "worker": ["deaf sign sleep"]}
        policy = {"active_deadline_seconds": 1}
        run = start(meeting, script, chief=1, worker=1, run_policy=policy, local={"grace_period": 0.7})
        assert run.result(PATIENCE) == ("chief-0", 0)
        assert run.status().state is RunState.SUCCEEDED


class TestSuccess:
    @pytest.mark.parametrize("policy", [None, "AllWorkers"])
    def test_all_workers(self, meeting: Path, policy: str | None) -> None:
        """
        Without a chief all workers decide: the run goes on when worker 0 is done, and fails if another does.
        """
        script = {"worker-0": [""], "worker-1": ["await:go exit:3"]}
        run = start(meeting, script, run_policy={"success_policy": policy})
        eventually(lambda: run.status().replicas["worker-0"].state == "Succeeded", "worker 0 to end")
        assert run.status().state is RunState.RUNNING
        (meeting / "go").touch()
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert error.replica == "worker-1"

    def test_worker_0_alone(self, meeting: Path) -> None:
        """
        With the default policy spelt out, worker 0 decides alone, and the others are stopped when their grace is over.
        """
        script = {"worker-0": ["await:worker-1"], "worker-1": ["sign sleep"]}
        run = start(meeting, script, run_policy={"success_policy": ""}, local={"grace_period": 0.1})
        assert run.result(PATIENCE) == ("worker-0", 0)
        assert run.status().replicas["worker-1"].state == "Stopped"
        with pytest.raises(LookupError, match="worker-1 returned no value"):
            _ = run.results()["worker"][1]

    @pytest.mark.parametrize("policy", [None, "", "AllWorkers"])
    def test_chief_decides(self, meeting: Path, policy: str | None) -> None:
        """
        With a chief it decides alone, whatever the policy: what becomes of a worker after that changes nothing.
        """
        script = {"chief": [""], "worker": ["await:go exit:3"]}
        run = start(meeting, script, chief=1, worker=1, run_policy={"success_policy": policy}, local={"grace_period": 60})
        eventually(lambda: run.status().replicas["chief-0"].state == "Succeeded", "the chief to end")
        (meeting / "go").touch()
        assert run.result(PATIENCE) == ("chief-0", 0)
        assert run.status().replicas["worker-0"].exit_code == 3

    def test_chief_is_waited_for(self, meeting: Path) -> None:
        """
        Workers that are done do not end the run before the chief.
        """
        script = {"chief": ["await:go"], "worker": [""]}
        run = start(meeting, script, chief=1, worker=2)
        eventually(lambda: run.status().replicas["worker-1"].state == "Succeeded", "a worker to end")
        assert run.status().state is RunState.RUNNING
        (meeting / "go").touch()
        assert len(run.results(PATIENCE)) == 3

    @pytest.mark.parametrize("role", ["worker", "ps", "evaluator"])
    def test_failure_of_any_before_that_fails_the_run(self, meeting: Path, role: str) -> None:
        """
        A replica that does not decide still fails the run, if it fails first.
        """
        script = {"chief": ["sleep"], "worker": ["sleep"]} | {role: ["exit:3"]}
        run = start(meeting, script, **({"chief": 1, "worker": 1} | {role: 1}))
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert error.replica == f"{role}-0"


class TestTheOthers:
    def test_services_are_stopped_when_the_rest_is_done(self, meeting: Path) -> None:
        """
        Parameter servers are not waited for: the run ends when all others have, and that is no failure of theirs.
        """
        script = {"ps": ["sign sleep"], "worker": ["await:ps-0 await:ps-1"]}
        run = start(meeting, script, worker=2, ps=2, local={"grace_period": 600})
        assert run.result(PATIENCE) == ("worker-0", 0)
        assert {name: status.state for name, status in run.status().replicas.items()} == {
            "worker-0": "Succeeded",
            "worker-1": "Succeeded",
            "ps-0": "Stopped",
            "ps-1": "Stopped",
        }

    def test_services_outlive_whoever_may_need_them(self, meeting: Path) -> None:
        """
        A worker that goes on after the chief keeps its parameter servers for as long as it runs.
        """
        script = {"ps": ["sign sleep"], "worker": ["await:go"], "chief": ["await:ps-0"]}
        run = start(meeting, script, chief=1, worker=1, ps=1, local={"grace_period": 600})
        eventually(lambda: run.status().replicas["chief-0"].state == "Succeeded", "the chief to end")
        assert run.status().replicas["ps-0"].state == "Running"
        (meeting / "go").touch()
        assert run.results(PATIENCE)["worker"][0] == ("worker-0", 0)

    def test_who_serves_is_not_waited_for(self, meeting: Path) -> None:
        """
        A worker that said it serves is stopped at once when the chief is done; no grace period is spent on it.
        """
        script = {"worker": ["serve sign sleep"], "chief": ["await:worker-0 await:worker-1"]}
        run = start(meeting, script, chief=1, worker=2, local={"grace_period": 600})
        assert run.result(PATIENCE) == ("chief-0", 0)
        assert kinds(run)["serving"] == 2
        assert {run.status().replicas[f"worker-{index}"].state for index in (0, 1)} == {"Stopped"}

    def test_who_served_need_not_do_so_again(self, meeting: Path) -> None:
        """
        What a replica said in an earlier attempt does not hold for the next.
        """
        script = {"chief": ["await:worker-0"], "worker": ["serve SIGKILL", "sign await:go"]}
        run = start(meeting, script, chief=1, worker=group("OnFailure"), local={"grace_period": 600})
        eventually(lambda: run.status().replicas["chief-0"].state == "Succeeded", "the chief to end")
        (meeting / "go").touch()
        assert run.results(PATIENCE)["worker"][0] == ("worker-0", 1)

    def test_others_have_the_grace_period(self, meeting: Path) -> None:
        """
        Who is about to finish when the run has succeeded may do so, and its value is kept.
        """
        script = {"chief": [""], "worker": ["await:go"], "evaluator": ["await:go"]}
        run = start(meeting, script, chief=1, worker=1, evaluator=1, local={"grace_period": 600})
        eventually(lambda: run.status().replicas["chief-0"].state == "Succeeded", "the chief to end")
        (meeting / "go").touch()
        assert len(run.results(PATIENCE)) == 3

    def test_after_it_they_are_stopped_and_then_killed(self, meeting: Path) -> None:
        """
        The others get SIGTERM when the grace period is over, and SIGKILL if that does not help.
        """
        script = {"worker-0": ["sign sleep"], "worker-1": ["deaf sign sleep"], "chief": ["await:worker-0 await:worker-1"]}
        run = start(meeting, script, chief=1, worker=2, local={"grace_period": 0.2})
        assert run.result(PATIENCE) == ("chief-0", 0)
        assert {name: status.signal for name, status in run.status().replicas.items()} == {"chief-0": None, "worker-0": 15, "worker-1": 9}

    def test_failure_stops_everybody_at_once(self, meeting: Path) -> None:
        """
        Others get no grace period before SIGTERM when the run has failed.
        """
        script = {"worker-0": ["sleep"], "worker-1": ["exit:3"], "ps": ["sleep"]}
        run = start(meeting, script, worker=2, ps=1, local={"grace_period": 600})
        error = run.exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert "2 others were stopped" in str(error)


class TestCleanUp:
    def script(self, policy: str, meeting: Path) -> Run[Any]:
        """
        The chief is done while a worker goes on.
        """
        play = {"chief": ["await:worker-0"], "worker": ["sign await:go"]}
        return start(meeting, play, chief=1, worker=1, run_policy={"clean_pod_policy": policy}, local={"grace_period": 0.1})

    @pytest.mark.parametrize("policy", ["Running", "All"])
    def test_running_and_all_stop_the_others(self, meeting: Path, policy: str) -> None:
        """
        Who still runs after the grace period is stopped; All takes the logs as well.
        """
        run = self.script(policy, meeting)
        run.result(PATIENCE)
        assert run.status().replicas["worker-0"].state == "Stopped"
        left = {path.name for path in Path(run.folder, "logs").iterdir()} - {"supervisor.log"}  # type: ignore[attr-defined]
        assert left == (set() if policy == "All" else {"chief-0.log", "worker-0.log"})

    def test_error_does_not_point_at_removed_logs(self, meeting: Path) -> None:
        """
        Where the logs are removed, the error keeps what it needs of them and says so.
        """

        def speak() -> None:
            print("the last words", flush=True)
            os._exit(3)

        error = task(speak, worker=1, run_policy={"clean_pod_policy": "All"}).submit().exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert "the last words" in str(error)
        assert "Its logs are removed: clean_pod_policy='All'." in str(error)

    def test_none_leaves_them_to_themselves(self, meeting: Path) -> None:
        """
        With None nobody is stopped: the run is over when the others are done by themselves.
        """
        run = self.script("None", meeting)
        eventually(lambda: run.status().replicas["chief-0"].state == "Succeeded", "the chief to end")
        with pytest.raises(RunTimeoutError):
            run.wait(0.3)
        (meeting / "go").touch()
        assert len(run.results(PATIENCE)) == 2

    def test_none_still_stops_services(self, meeting: Path) -> None:
        """
        A service would run for ever: it is stopped when nobody is left whom it could serve.
        """
        play = {"worker": ["await:ps-0"], "ps": ["sign sleep"]}
        run = start(meeting, play, worker=1, ps=1, run_policy={"clean_pod_policy": "None"})
        assert run.result(PATIENCE) == ("worker-0", 0)

    def test_time_to_live(self, meeting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A run that has outlived its time to live is no longer listed; its own program can still read its values.
        """
        kept = start(meeting, {}, worker=1, run_policy={"ttl_seconds_after_finished": 3600})
        kept.wait(PATIENCE)  # whoever comes second to the meeting is told so by its value
        expired = start(meeting, {}, worker=1, run_policy={"ttl_seconds_after_finished": 0})
        expired.wait(PATIENCE)
        eventually(lambda: [run.id for run in distrib.runs()] == [kept.id], "the time to live to be over")
        assert expired.result() == ("worker-0", 1)

    def test_expired_runs_are_removed(self, meeting: Path, state: Path, launcher: Launcher) -> None:
        """
        The folder of an expired run is removed once the program that submitted it is gone and the history is tidied up.
        """
        text = """
            @distributed("tensorflow", worker=1, run_policy={"ttl_seconds_after_finished": 0}, local=QUIET)
            def one(): return 1
            one()
        """
        assert launcher.run(text).returncode == 0
        (folder,) = (entry for entry in (state / "runs").iterdir() if entry.is_dir())
        assert distrib.runs() == []
        long_ago = time.time() - 7200
        os.utime(folder, (long_ago, long_ago))
        os.utime(state / "runs" / ".pruned", (long_ago, long_ago))
        start(meeting, {}, worker=1).result(PATIENCE)
        eventually(lambda: not folder.exists(), "the expired run to be removed")


class TestWholeJob:
    """
    ``restart_scope="Job"``.
    """

    def test_all_start_again_together(self, meeting: Path) -> None:
        """
        One failure stops everybody and starts everybody anew, those who were done included; it counts as one restart.
        """
        script = {"worker-0": ["", ""], "worker-1": ["sign sleep", ""], "worker-2": ["await:worker-1 await:go SIGKILL", ""]}
        policy = {"restart_scope": "Job", "backoff_limit": 1}
        run = start(meeting, script, worker=group("ExitCode", 3), run_policy=policy)
        eventually(lambda: run.status().replicas["worker-0"].state == "Succeeded", "worker 0 to end")
        (meeting / "go").touch()
        assert list(run.results(PATIENCE)) == [("worker-0", 1), ("worker-1", 1), ("worker-2", 1)]
        assert run.status().restarts == 1
        assert kinds(run)["restarting"] == 1

    def test_nobody_starts_before_all_are_down(self, meeting: Path) -> None:
        """
        A replica that takes its time to stop is waited for: of two attempts, no two replicas ever run side by side.
        """
        script = {"worker-0": ["deaf sign sleep", ""], "worker-1": ["await:worker-0 SIGKILL", ""]}
        run = start(meeting, script, worker=group("ExitCode", 2), run_policy={"restart_scope": "Job"}, local={"grace_period": 0.2})
        run.result(PATIENCE)
        events = [(event.kind, event.replica) for event in run.events() if event.kind in ("started", "exited")]
        assert [kind for kind, _ in events] == ["started"] * 2 + ["exited"] * 2 + ["started"] * 2 + ["exited"] * 2

    def test_failures_on_the_way_down_count_as_one(self, meeting: Path) -> None:
        """
        Whatever ends because the group is being restarted, and however, is no failure of its own.
        """
        together = "sign await:worker-0 await:worker-1 await:worker-2 await:worker-3"
        script = {"worker": [f"{together} raise", ""], "worker-0": [f"{together} exit:200", ""]}
        policy = {"restart_scope": "Job", "backoff_limit": 1}
        run = start(meeting, script, worker=group("OnFailure", 4), run_policy=policy)
        assert run.result(PATIENCE) == ("worker-0", 1)
        assert run.status().restarts == 1

    def test_only_the_last_attempt_counts(self, meeting: Path) -> None:
        """
        A value of an earlier attempt is not taken for one of the last.
        """
        script = {"chief": ["await:go SIGKILL", "await:worker-0"], "worker": ["", "sign sleep"]}
        run = start(meeting, script, chief=group("ExitCode"), worker=1, run_policy={"restart_scope": "Job"}, local={"grace_period": 0.1})
        eventually(lambda: run.status().replicas["worker-0"].state == "Succeeded", "the worker to end")
        (meeting / "go").touch()
        assert dict(run.results(PATIENCE).items()) == {"chief-0": ("chief-0", 1)}

    def test_limit_and_root_cause(self, meeting: Path) -> None:
        """
        The failure after the last restart is the one reported.
        """
        script = {"worker-0": ["await:worker-1 exit:3", "sleep"], "worker-1": ["sign sleep", "exit:4"]}
        policy = {"restart_scope": "Job", "backoff_limit": 1}
        error = start(meeting, script, worker=group("OnFailure", 2), run_policy=policy).exception(PATIENCE)
        assert isinstance(error, ReplicaFailedError)
        assert (error.replica, error.exit_code) == ("worker-1", 4)

    def test_cancel_during_backoff(self, meeting: Path) -> None:
        """
        Nothing is started any more once it is cancelled.
        """
        policy = {"restart_scope": "Job"}
        run = start(meeting, {"worker": ["exit:3"]}, worker=group("OnFailure", 2), run_policy=policy, local={"restart_delay": 300})
        eventually(lambda: run.status().state is RunState.RESTARTING, "the back-off")
        run.cancel()
        assert isinstance(run.exception(PATIENCE), RunCancelledError)
        assert attempts(meeting, "worker-0") + attempts(meeting, "worker-1") <= 2


class TestLeftovers:
    """
    What a replica leaves behind holds its ports and devices.
    """

    def daemon(self, meeting: Path, own_session: bool) -> Any:
        """
        A function that leaves a process behind, is lost, and looks for that process when it is back.
        """

        def leave() -> bool:
            found = meeting / "daemon"
            if found.exists():
                return Path("/proc", found.read_text()).exists()
            left = subprocess.Popen(["sleep", "1000"], start_new_session=own_session)
            found.write_text(str(left.pid))
            os.kill(os.getpid(), 9)
            return True

        return leave

    @pytest.mark.parametrize("scope", ["Replica", "Job"])
    @pytest.mark.parametrize("own_session", [False, True])
    def test_are_gone_before_the_restart(self, meeting: Path, own_session: bool, scope: str) -> None:
        """
        The processes of a replica are gone when its next attempt starts, those in a session of their own too.
        """
        function = self.daemon(meeting, own_session)
        run = task(function, worker=group("ExitCode"), local=SWIFT, run_policy={"restart_scope": scope}).submit()
        assert run.result(PATIENCE) is False

    def test_of_others_stay(self, meeting: Path) -> None:
        """
        The restart of one replica leaves the processes of the others alone.
        """

        def leave() -> bool:
            if distrib.replica().index == 0:
                # Nobody's child any more, like a server that went into the background.
                leave_alone = f"setsid sleep 1000 >/dev/null & echo $! > {meeting}/pid; mv {meeting}/pid {meeting}/daemon"
                subprocess.run(["sh", "-c", leave_alone], check=True)
                while not (meeting / "back").exists():
                    time.sleep(0.01)
                return is_alive(int((meeting / "daemon").read_text()))
            while not (meeting / "daemon").exists():
                time.sleep(0.01)
            if not (meeting / "lost").exists():
                (meeting / "lost").touch()
                os.kill(os.getpid(), 9)
            (meeting / "back").touch()
            return True

        run = task(leave, worker=group("ExitCode", 2), local=SWIFT).submit()
        assert list(run.results(PATIENCE)) == [True, True]


@attrs.define
class Stage:
    """
    What a run should be doing, written down from the documentation and not from the code: one event after the other.
    """

    policies: dict[str, str]
    deciders: set[str]
    limit: int | None
    whole_job: bool
    up: dict[str, int] = attrs.field(factory=dict)
    done: dict[str, int] = attrs.field(factory=dict)
    restarts: int = 0
    outcome: str = ""
    root: str = ""

    def __attrs_post_init__(self) -> None:
        self.up = dict.fromkeys(self.policies, 0)

    def wants_restart(self, name: str, code: int) -> bool:
        """
        What the restart policies mean, from Kubeflow's documentation.
        """
        wanted = {"Never": False, "OnFailure": code != 0, "Always": True, "ExitCode": code >= 128}
        return wanted[self.policies[name]]

    def ends(self, name: str, code: int) -> None:
        """
        A replica ends.
        """
        attempt = self.up.pop(name)
        wanted = self.wants_restart(name, code)
        if wanted and (self.limit is None or self.restarts < self.limit):
            self.restarts += 1
            before = {**self.up, **self.done, name: attempt}
            again = before if self.whole_job else {name: attempt}
            self.done = {} if self.whole_job else self.done
            self.up.update({each: number + 1 for each, number in again.items()})
        elif wanted or code != 0:
            self.outcome, self.root = "Failed", name
        else:
            self.done[name] = attempt
            if self.deciders <= self.done.keys():
                self.outcome = "Succeeded"


CODES = st.sampled_from((0, 0, 0, 1, 3, 127, 128, 137, 138, 139, 143, 255))


@st.composite
def stages(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], Stage]:
    """
    The groups of a job of two to four replicas, its policy, and what the two mean.
    """
    shapes: list[dict[str, int]] = [
        {"worker": 2},
        {"worker": 3},
        {"chief": 1, "worker": 1},
        {"chief": 1, "worker": 2},
        {"chief": 1, "worker": 1, "ps": 1, "evaluator": 1},
        {"worker": 2, "ps": 1},
        {"worker": 2, "evaluator": 1},
    ]
    shape = draw(st.sampled_from(shapes))
    policies = {role: draw(st.sampled_from(("Never", "OnFailure", "ExitCode", "ExitCode", "Always"))) for role in shape}
    success = draw(st.sampled_from((None, "", "AllWorkers")))
    limit = draw(st.none() | st.integers(0, 3))
    whole_job = draw(st.booleans())
    names = {f"{role}-{index}": policies[role] for role, count in shape.items() for index in range(count)}
    workers = {name for name in names if name.startswith("worker")}
    deciders = {"chief-0"} if "chief" in shape else {"worker-0"} if success == "" else workers
    groups = {role: group(policies[role], count) for role, count in shape.items()}
    policy = {"success_policy": success, "backoff_limit": limit, "restart_scope": "Job" if whole_job else "Replica"}
    return groups, policy, Stage(policies=names, deciders=deciders, limit=limit, whole_job=whole_job)


def give_orders(run: Run[Any], folder: Path, stage: Stage, data: st.DataObject) -> None:
    """
    Have one replica after the other end, until the run is decided or there is nothing more to do.
    """

    def settle() -> None:
        eventually(lambda: run.status().state.is_final or stands_as(run, folder, stage), f"the run to be as {stage}")

    settle()
    for _ in range(data.draw(st.integers(1, 5), label="steps")):
        name = data.draw(st.sampled_from(sorted(stage.up)), label="who")
        code = data.draw(CODES, label="code")
        hidden, order = folder / "order", folder / f"{name}.{stage.up[name]}"
        hidden.write_text(str(code))
        hidden.rename(order)
        stage.ends(name, code)
        if stage.outcome:
            return
        settle()


def stands_as(run: Run[Any], folder: Path, stage: Stage) -> bool:
    """
    Whether the run shows what it should be doing, and each replica that is up has counted its attempt.
    """
    now = run.status().replicas
    up = {name: status.attempt - 1 for name, status in now.items() if status.state == "Running"}
    done = {name for name, status in now.items() if status.state == "Succeeded"}
    counted = all(attempts(folder, name) == attempt + 1 for name, attempt in up.items())
    return up == stage.up and done == stage.done.keys() and counted


class TestRandomFates:
    def test_outcome_is_what_the_policies_say(self, tmp_path: Path) -> None:
        """
        Whatever ends in which order and with which code: the run does what the documentation says, with real processes.
        """

        # Each step of a run takes as long as it takes: nobody waits for the smallest failing one.
        @settings(max_examples=15, phases=(Phase.explicit, Phase.reuse, Phase.generate))
        @given(given_stage=stages(), end=st.sampled_from(("", "", "cancel", "at once")), data=st.data())
        def explore(given_stage: tuple[dict[str, Any], dict[str, Any], Stage], end: str, data: st.DataObject) -> None:
            groups, policy, stage = given_stage
            folder = tmp_path / os.urandom(6).hex()
            folder.mkdir()
            local = {"echo": False, "restart_delay": 0, "grace_period": 0.1}
            run = task(obey, **groups, run_policy=policy, local=local).submit(str(folder))
            try:
                give_orders(run, folder, stage, data)
                if not stage.outcome:
                    stage.outcome = "Cancelled"
                    run.cancel(at_once=end == "at once")
                run.wait(PATIENCE)
                note(f"{run.status()}\n{run.events()}")
                self.check(run, stage)
            finally:
                run.cancel(at_once=True)

        explore()

    def check(self, run: Run[Any], stage: Stage) -> None:
        """
        The end that was told, and the values that are there.
        """
        status = run.status()
        assert status.state.value == stage.outcome
        assert status.restarts == stage.restarts
        assert {each.state for each in status.replicas.values()} <= {"Succeeded", "Failed", "Stopped"}
        error = run.exception()
        if stage.outcome == "Failed":
            assert isinstance(error, ReplicaFailedError)
            assert error.replica == stage.root
            assert "failed after it" not in str(error)
        elif stage.outcome == "Cancelled":
            assert isinstance(error, RunCancelledError)
        else:
            assert dict(run.results().items()) == {name: (name, attempt) for name, attempt in stage.done.items()}
