"""
What is remembered of runs, by whom it can be asked for, and for how long.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fates
import pytest
from watching import PATIENCE, QUIET, Launcher, eventually, task

import distrib
from distrib import RunState, SubmitError
from distrib.engines.local import _history

OTHER = "import sys, distrib\nrun = distrib.get_run(sys.argv[1])\n"


def elsewhere(run_id: str, text: str) -> str:
    """
    What another process prints that has found the run by its id.
    """
    done = subprocess.run([sys.executable, "-c", OTHER + text, run_id], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def folder_of(run: distrib.Run[Any]) -> Path:
    """
    The folder of a run.
    """
    return Path(os.environ["DISTRIB_STATE_DIR"], "runs", run.id)


def make_run(state: Path, name: str, *, age: float = 0, **about: Any) -> Path:
    """
    The folder of a run that was over *age* seconds ago.
    """
    folder = state / "runs" / name
    (folder / "logs").mkdir(parents=True)
    when = time.time() - age
    told = {"replicas": ["worker-0"], "coordinator": "worker-0", "ttl": None, "launcher": 2**22 + 1, "clean_logs": False, **about}
    (folder / "run.json").write_text(json.dumps(told))
    (folder / "alive").touch()
    event = {"time": when, "kind": "finished", "state": "Succeeded", "reason": "", "replica": "", "restarts": 0}
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    for path in (folder / "events.jsonl", folder):
        os.utime(path, (when, when))
    return folder


def left(state: Path) -> set[str]:
    """
    The names in the folder of all runs.
    """
    return {path.name for path in (state / "runs").iterdir() if not path.name.startswith(".")}


class TestFinding:
    def test_newest_first(self) -> None:
        """
        ``runs()`` gives all of them, the newest first; before the first one there are none.
        """
        assert distrib.runs() == []
        made = []
        for _ in range(3):
            run = task(fates.name, worker=1).submit()
            run.wait(PATIENCE)
            made.append(run.id)
            eventually(lambda: time.time() > folder_of(run).stat().st_mtime + 0.01, "the clock")  # noqa: B023  # used at once
        assert [run.id for run in distrib.runs()] == made[::-1]
        assert repr(distrib.runs()[0]) == f"<Run {made[-1]}: Succeeded>"

    def test_unknown_id(self, state: Path) -> None:
        """
        An id that does not exist, or is none, is a ``LookupError`` that says where was looked.
        """
        make_run(state, "there")
        assert distrib.get_run("there").id == "there"
        for name in ("not-there", "", ".", "..", "../runs/there", str(state / "runs" / "there"), "there/", "a\0b", "ü" * 300):
            with pytest.raises(LookupError, match=r"distrib.runs\(\) lists them all"):
                distrib.get_run(name)
        for odd in (None, 3, b"there"):
            with pytest.raises(LookupError, match="no run is called"):
                distrib.get_run(odd)  # type: ignore[arg-type]
        with pytest.raises(distrib.UnknownEngineError):
            distrib.get_run("lokal://there")

    def test_same_process(self) -> None:
        """
        In the process that submitted it, a run found again tells the same.
        """
        run = task(fates.name).submit()
        run.wait(PATIENCE)
        again = distrib.get_run(run.id)
        assert again.status() == run.status()
        assert again.events() == run.events()
        assert again.result() == run.result() == "worker-0"
        assert dict(again.results().items()) == {"worker-0": "worker-0", "worker-1": "worker-1"}
        assert again.exception() is run.exception() is None

    def test_failure_found_again(self) -> None:
        """
        So does a run that failed: the same error with the same cause.
        """
        run = task(fates.fail_as, worker=1).submit("raise")
        first, again = run.exception(PATIENCE), distrib.get_run(run.id).exception()
        assert isinstance(first, distrib.ReplicaFailedError)
        assert isinstance(again, distrib.ReplicaFailedError)
        assert str(first) == str(again)
        assert isinstance(again.__cause__, ValueError)
        with pytest.raises(distrib.ReplicaFailedError, match="bad batch"):
            distrib.get_run(run.id).results()

    def test_from_another_process(self) -> None:
        """
        Another process gets status, results, events and errors of a run that is over.
        """
        run = task(fates.name).submit()
        run.wait(PATIENCE)
        told = elsewhere(run.id, "print(run.status().state.value, run.result(), run.results()['worker'][1], run.events()[-1].kind)")
        assert told == "Succeeded worker-0 worker-1 finished"
        failed = task(fates.fail_as, worker=1).submit("exit 3")
        failed.wait(PATIENCE)
        told = elsewhere(failed.id, "error = run.exception()\nprint(type(error).__name__, error.exit_code, run.status().state.value)")
        assert told == "ReplicaFailedError 3 Failed"

    def test_unpicklable_elsewhere(self, launcher: Launcher) -> None:
        """
        An exception whose class another process does not have arrives there as text.
        """
        (launcher.folder / "only_here.py").write_text("class Odd(Exception): pass")
        launcher.run("""
            import only_here

            @distributed("tensorflow", worker=1, local=QUIET)
            def fail():
                raise only_here.Odd("strange")

            try:
                fail()
            except distrib.ReplicaFailedError as error:
                assert type(error.__cause__) is only_here.Odd
        """)
        (run,) = distrib.runs()
        error = run.exception()
        assert isinstance(error, distrib.ReplicaFailedError)
        assert str(error).startswith("worker-0 failed with only_here.Odd: strange")
        assert 'raise only_here.Odd("strange")' in error.traceback
        assert error.__cause__ is None


class TestDuringTheRun:
    def test_status_and_wait(self, meeting: Path) -> None:
        """
        Another process sees a run go on, can wait for it for some time or to its end, and gets its result.
        """
        run = task(fates.await_sign).submit(str(meeting), "go")
        eventually(lambda: run.status().replicas["worker-1"].state == "Running", "the replicas to run")
        assert elsewhere(run.id, "print(run.status().state.value, run.status().replicas['worker-1'].state)") == "Running Running"
        text = "try: run.wait(0.01)\nexcept distrib.RunTimeoutError as error: print(error)"
        assert elsewhere(run.id, text).startswith(f"{run.id} is still running after 0.01 s; it goes on.")
        waiting = "print('waiting', flush=True)\nprint(run.wait().state.value, run.result())"
        with subprocess.Popen([sys.executable, "-c", OTHER + waiting, run.id], stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            other.stdout.readline()
            (meeting / "go").touch()
            assert other.stdout.read() == "Succeeded None\n"
        assert run.wait(PATIENCE).state is RunState.SUCCEEDED

    def test_cancelled_gracefully(self, meeting: Path) -> None:
        """
        Another process may cancel a run: the replicas get their grace period, and the launcher hears of it.
        """

        def train() -> None:
            def end(*_: object) -> None:
                fates.sign(str(meeting), f"ended-{distrib.replica().name}")
                os._exit(0)

            signal.signal(signal.SIGTERM, end)
            fates.sign(str(meeting))
            fates.sleep_for_ever()

        run = task(train, local={**QUIET, "grace_period": PATIENCE}).submit()
        for index in range(2):
            eventually((meeting / f"worker-{index}").exists, "the replicas")
        assert elsewhere(run.id, "run.cancel()\nrun.cancel()\nprint(run.status().state.value)") == "Cancelled"
        assert {path.name for path in meeting.iterdir()} >= {"ended-worker-0", "ended-worker-1"}
        assert run.wait(PATIENCE).state is RunState.CANCELLED
        with pytest.raises(distrib.RunCancelledError, match="the supervisor got SIGTERM"):
            run.result()

    @pytest.mark.parametrize("platform", [sys.platform, "somewhere without /proc"])
    def test_cancelled_at_once(self, meeting: Path, platform: str) -> None:
        """
        With ``at_once`` there is no grace period, on whatever system.
        """

        def train() -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            fates.sign(str(meeting))
            fates.sleep_for_ever()

        run = task(train, worker=1, local={**QUIET, "grace_period": 10 * PATIENCE}).submit()
        eventually((meeting / "worker-0").exists, "the replica")
        assert elsewhere(run.id, f"sys.platform = {platform!r}\nrun.cancel(at_once=True)\nprint(run.status().state.value)") == "Cancelled"
        assert run.wait(PATIENCE).state is RunState.CANCELLED
        assert run.status().replicas["worker-0"].signal == signal.SIGKILL

    def test_cancelled_when_over(self) -> None:
        """
        A run that is over stays as it is.
        """
        run = task(fates.name).submit()
        run.wait(PATIENCE)
        for each in (run, distrib.get_run(run.id)):
            each.cancel()
            each.cancel(at_once=True)
            assert each.status().state is RunState.SUCCEEDED

    def test_many_look_at_the_end(self) -> None:
        """
        Whoever looks at a run while it ends never sees anything but a run that goes on or has succeeded.
        """
        for _ in range(5):
            run = task(fates.name).submit()
            stored = distrib.get_run(run.id)
            seen = {stored.status().state}
            while not stored.status().state.is_final:
                seen.add(stored.status().state)
            seen.add(stored.status().state)
            assert seen <= {RunState.PENDING, RunState.RUNNING, RunState.SUCCEEDED}
            assert run.wait(PATIENCE).state is RunState.SUCCEEDED

    def test_restarts_are_counted(self, meeting: Path) -> None:
        """
        How often replicas were started again is known while the run goes on.
        """

        def try_twice() -> None:
            if not (meeting / "tried").exists():
                fates.sign(str(meeting), "tried")
                fates.fail_as("_exit 5")
            fates.await_sign(str(meeting), "go")

        worker = {"replicas": 1, "restart_policy": "OnFailure"}
        run = task(try_twice, worker=worker, local={**QUIET, "restart_delay": 0}).submit()
        eventually(lambda: run.status().restarts == 1, "the restart")
        assert distrib.get_run(run.id).status().restarts == 1
        (meeting / "go").touch()
        assert run.wait(PATIENCE).restarts == 1


class TestLauncherGone:
    def test_ended(self, launcher: Launcher) -> None:
        """
        When the program that submitted it has ended, its run can be read.
        """
        done = launcher.run("""
            class Own:
                pass

            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                print("trained")
                return replica().rank

            print(train.submit().wait().state.value)
        """)
        assert done.stdout == "Succeeded\n"
        (run,) = distrib.runs()
        assert list(run.results()) == [0, 1]
        assert list(run.logs("worker-0")) == ["trained"]

    def test_killed(self, launcher: Launcher) -> None:
        """
        When it was killed, the history says that it went away and that the run was stopped.
        """
        process = launcher.start("""
            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                sign()
                time.sleep(1000)

            train()
        """)
        launcher.await_sign("worker-0")
        process.kill()
        (run,) = distrib.runs()
        assert run.wait(PATIENCE).state is RunState.CANCELLED
        assert "the program that started the run is gone" in str(run.exception())
        assert "launcher-lost" in [event.kind for event in run.events()]
        with pytest.raises(distrib.RunCancelledError):
            run.result()

    def test_supervisor_killed(self, meeting: Path) -> None:
        """
        When the supervisor was killed, every process says so, and no replica is said to run.
        """

        def train() -> None:
            fates.sign(str(meeting))
            fates.sleep_for_ever()

        run = task(train).submit()
        for index in range(2):
            eventually((meeting / f"worker-{index}").exists, "the replicas")
        (pid,) = [int(event.message.removeprefix("pid=")) for event in run.events() if event.kind == "supervising"]
        os.kill(pid, signal.SIGKILL)
        status = run.wait(PATIENCE)
        assert (status.state, status.reason) == (RunState.FAILED, "SupervisorLost")
        assert distrib.get_run(run.id).status() == status
        assert {replica.state for replica in status.replicas.values()} == {"Stopped"}
        with pytest.raises(distrib.RunFailedError, match="the process that supervised the replicas is gone"):
            distrib.get_run(run.id).result()


class TestDamage:
    def test_torn_events(self) -> None:
        """
        Lines that a crash has cut short, and lines that are no events, are passed over.
        """
        run = task(fates.name).submit()
        run.wait(PATIENCE)
        path = folder_of(run) / "events.jsonl"
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        path.write_bytes(
            b"".join([*lines[:2], b'{"time": 1, "ki\n', b"[]\n", b"5\n", b"\xff\n", b"{}\n", *lines[2:], b'{"time": 2, "kind": "fini'])
        )
        again = distrib.get_run(run.id)
        assert again.status() == run.status()
        assert [event.kind for event in again.events()] == [json.loads(line)["kind"] for line in lines]
        path.write_bytes(whole[:-5])
        assert distrib.get_run(run.id).status().reason == "SupervisorLost"
        path.unlink()
        assert distrib.get_run(run.id).events() == []

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"replicas": 3}', '{"replicas": ["worker-0"]}', "\udcff"])
    def test_unreadable_run(self, state: Path, text: str) -> None:
        """
        A run that cannot be read is no run, and does not keep the others from being listed.
        """
        make_run(state, "good")
        (make_run(state, "bad") / "run.json").write_text(text, errors="surrogateescape")
        assert [run.id for run in distrib.runs()] == ["good"]
        with pytest.raises(LookupError, match="no run is called 'bad'"):
            distrib.get_run("bad")

    def test_other_things_beside_runs(self, state: Path) -> None:
        """
        Files, folders and links that are no runs are passed over.
        """
        make_run(state, "good")
        (state / "runs" / "file").touch()
        (state / "runs" / "folder").mkdir()
        (state / "runs" / "link").symlink_to(state / "nowhere")
        assert [run.id for run in distrib.runs()] == ["good"]

    def test_results_that_are_gone(self) -> None:
        """
        A value whose file is gone is a ``LookupError`` that names the replica; the others are there.
        """
        run = task(fates.name).submit()
        run.wait(PATIENCE)
        (folder_of(run) / "results" / "worker-0.pickle").unlink()
        results = distrib.get_run(run.id).results()
        assert list(results) == ["worker-1"]
        with pytest.raises(LookupError, match="worker-0 returned no value"):
            _ = results.value

    def test_folder_that_is_removed(self, state: Path, meeting: Path) -> None:
        """
        A run whose folder is removed under it still comes to its end.
        """
        import shutil

        run = task(fates.await_sign, worker=1).submit(str(meeting), "go")
        eventually(lambda: run.status().state is RunState.RUNNING, "the replica")
        shutil.rmtree(state)
        (meeting / "go").touch()
        assert run.wait(PATIENCE).state is RunState.FAILED
        assert distrib.runs() == []


class TestKeeping:
    def test_time_to_live(self, state: Path) -> None:
        """
        A run that has outlived its time to live is neither listed nor found; one without, or with time left, is both.
        """
        make_run(state, "for ever", age=1000)
        make_run(state, "expired", age=1000, ttl=900)
        make_run(state, "not yet", age=1000, ttl=2000)
        assert {run.id for run in distrib.runs()} == {"for ever", "not yet"}
        assert distrib.get_run("not yet").id == "not yet"
        with pytest.raises(LookupError, match="no run is called 'expired'"):
            distrib.get_run("expired")
        _history.remove(_history.outdated())
        assert left(state) == {"for ever", "not yet"}

    def test_expired_in_its_own_program(self, launcher: Launcher) -> None:
        """
        The program that submitted a run can read its results also when the run has expired at once.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker=2, local=QUIET, run_policy={"ttl_seconds_after_finished": 0})
            def train():
                print("trained")
                return 5

            run = train.submit()
            run.wait()
            time.sleep(0.01)
            assert distrib.runs() == []
            print(run.result(), *run.logs("worker-0"))
        """)
        assert (done.stdout, done.stderr) == ("5 trained\n", "")
        assert distrib.runs() == []

    def test_too_many(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The oldest are removed when there are too many.
        """
        monkeypatch.setattr(_history, "KEEP_RUNS", 3)
        for number in range(6):
            make_run(state, f"run-{number}", age=100 + number)
        _history.remove(_history.outdated())
        assert left(state) == {"run-0", "run-1", "run-2"}

    def test_too_old(self, state: Path) -> None:
        """
        Those that are too old are removed; an old one that something still happened to is not.
        """
        make_run(state, "old", age=_history.KEEP_SECONDS + 10)
        make_run(state, "young", age=_history.KEEP_SECONDS - 1000)
        (make_run(state, "long", age=_history.KEEP_SECONDS + 10) / "events.jsonl").touch()
        _history.remove(_history.outdated())
        assert left(state) == {"young", "long"}

    def test_never_a_living_one(self, state: Path) -> None:
        """
        A run that is alive is never removed, however old, nor one that is being started.
        """
        age = _history.KEEP_SECONDS + 10
        with (make_run(state, "alive", age=age) / "alive").open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            (make_run(state, "starting") / "run.json").unlink()
            (make_run(state, "crashed at its start", age=1000) / "run.json").unlink()
            os.utime(state / "runs" / "crashed at its start", (1, 1))
            _history.remove(_history.outdated())
        assert left(state) == {"alive", "starting"}

    def test_never_what_is_no_run(self, state: Path) -> None:
        """
        What somebody else keeps in a folder that is called "runs" is left alone.
        """
        foreign = state / "runs" / "tensorboard"
        foreign.mkdir(parents=True)
        (foreign / "run.json").write_text("{}")
        os.utime(foreign, (1, 1))
        make_run(state, "old", age=_history.KEEP_SECONDS + 10)
        _history.remove(_history.outdated())
        assert left(state) == {"tensorboard"}

    def test_looked_at_once_an_hour(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Not every run's end looks through all of them, unless there are far too many.
        """
        make_run(state, "first")
        _history.remove(_history.outdated())
        make_run(state, "expired", age=1000, ttl=1)
        _history.remove(_history.outdated())
        assert left(state) == {"first", "expired"}
        monkeypatch.setattr(_history, "KEEP_RUNS", 1)
        _history.remove(_history.outdated())
        assert left(state) == {"first"}

    def test_by_two_at_once(self, state: Path) -> None:
        """
        Two processes that prune at the same time do not disturb each other, nor a run that is submitted meanwhile.
        """
        for number in range(200):
            make_run(state, f"old-{number}", age=_history.KEEP_SECONDS + number)
        pruning = "_history.remove(_history.outdated())"
        text = f"import sys\nfrom distrib.engines.local import _history\n_history._PRUNE_SECONDS = -1\nsys.stdin.readline()\n{pruning}"
        processes = [
            subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        run = task(fates.name).submit()
        assert run.result(PATIENCE) == "worker-0"
        for process in processes:
            assert process.communicate(timeout=PATIENCE)[1] == ""
            assert process.returncode == 0
        assert left(state) == {run.id}

    def test_by_a_run_at_its_end(self, state: Path) -> None:
        """
        A run that ends removes those that are not to be kept.
        """
        make_run(state, "old", age=_history.KEEP_SECONDS + 10)
        run = task(fates.name, worker=1).submit()
        run.wait(PATIENCE)
        eventually(lambda: left(state) == {run.id}, "the old run to be removed")


class TestPlace:
    def where(self, **environment: str) -> Path:
        """
        Where a run's folder is that is submitted with these variables.
        """
        variables = {name: value for name, value in os.environ.items() if name not in ("DISTRIB_STATE_DIR", "XDG_STATE_HOME", "HOME")}
        text = """
            from distrib import distributed
            import os, distrib
            run = distributed("tensorflow", worker=1, local={"echo": False})(print).submit()
            os.chdir("/")
            run.result()
            assert run.id in [each.id for each in distrib.runs()]
            print(run.folder)
        """.replace("            ", "")
        given = {**variables, **environment}
        done = subprocess.run([sys.executable, "-c", text], env=given, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip()).parent

    def test_order(self, tmp_path: Path) -> None:
        """
        ``DISTRIB_STATE_DIR`` goes before ``XDG_STATE_HOME``, and that before the home directory.
        """
        own, state, home = str(tmp_path / "own"), str(tmp_path / "state home"), str(tmp_path / "home")
        assert self.where(DISTRIB_STATE_DIR=own, XDG_STATE_HOME=state, HOME=home) == Path(own, "runs")
        assert self.where(XDG_STATE_HOME=state, HOME=home) == Path(state, "distrib", "runs")
        assert self.where(HOME=home) == Path(home, ".local", "state", "distrib", "runs")
        assert self.where(DISTRIB_STATE_DIR="", XDG_STATE_HOME="", HOME=home) == Path(home, ".local", "state", "distrib", "runs")

    def test_relative(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A relative folder is meant from where the program was when it submitted the run.
        """
        monkeypatch.chdir(tmp_path)
        text = """
import os, distrib
run = distrib.distributed("tensorflow", worker=1, local={"echo": False})(int).submit()
os.chdir("/")
print(run.result())
"""
        for name in ("DISTRIB_STATE_DIR", "XDG_STATE_HOME"):
            monkeypatch.delenv("DISTRIB_STATE_DIR", raising=False)
            monkeypatch.setenv(name, f"relative-{name}")
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert (done.stdout, done.stderr) == ("0\n", "")
            assert (tmp_path / f"relative-{name}").is_dir()

    def test_private(self, state: Path) -> None:
        """
        Nobody else may look into a run's folder, since results are unpickled from it.
        """
        run = task(fates.name, worker=1).submit()
        run.wait(PATIENCE)
        assert (state / "runs" / run.id).stat().st_mode & 0o777 == 0o700

    def test_no_home(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """
        A user without a home directory is told which variable to set; no folder called ``~`` is made.
        """
        monkeypatch.delenv("DISTRIB_STATE_DIR")
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", _unknown_user)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SubmitError, match=r"there is no home directory .* Set DISTRIB_STATE_DIR"):
            task(fates.name).submit()
        assert distrib.runs() == []
        assert not (tmp_path / "~").exists()

    @pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path)], ids=["file", "loop"])
    def test_that_cannot_be(self, state: Path, make: Callable[[Path], None]) -> None:
        """
        A state folder that cannot be made is an error that names it and the variable to set.
        """
        make(state)
        with pytest.raises(SubmitError, match=r"the run's folder .*state/runs/name-.* cannot be written .* Set DISTRIB_STATE_DIR"):
            task(fates.name).submit()
        assert distrib.runs() == []


def _unknown_user(path: str) -> str:
    return path


def test_a_replica_stopped_before_it_said_that_it_started() -> None:
    """
    It was stopped, and did not fail, whichever of the two the supervisor hears of first.
    """
    progress = _history.Progress(["worker-0"])
    for event in (
        {"kind": "signalled", "replica": "worker-0", "signal": 15},
        {"kind": "started", "replica": "worker-0", "pid": 1, "attempt": 1},
        {"kind": "exited", "replica": "worker-0", "code": 0, "signal": 15, "returned": False},
    ):
        progress.take({"time": 0.0, **event})
    assert progress.replicas["worker-0"].state == "Stopped"
