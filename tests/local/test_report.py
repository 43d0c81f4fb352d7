"""
What a user reads: of a start that takes long, of a run's end, and of what went wrong.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fates
import pytest
from watching import PATIENCE, QUIET, Launcher, task

import distrib
from distrib import ReplicaFailedError, RunFailedError, RunTimeoutError

#: No report is longer, with all that Python adds to it.
LONGEST = 15


def report_of(function: Any, *args: Any, **keywords: Any) -> ReplicaFailedError:
    """
    The error of a run of one replica.
    """
    error = task(function, **{"worker": 1, **keywords}).submit(*args).exception(PATIENCE)
    assert isinstance(error, ReplicaFailedError)
    assert len(str(error).splitlines()) < LONGEST
    assert max(map(len, str(error).splitlines())) < 400
    return error


class TestOnTheTerminal:
    PROGRAM = """
        def inner(value):
            if value == 0:
                raise ValueError("bad batch")
            inner(value - 1)

        @distributed("tensorflow", worker=3)
        def train():
            if replica().index == 1:
                inner(DEPTH)
            time.sleep(1000)

        CALL
    """

    @pytest.mark.parametrize("depth", [0, 1, 30])
    @pytest.mark.parametrize("call", ["train()", "value = train()", "train.submit().result()", "train.submit().results()"])
    def test_at_most_fifteen_lines(self, launcher: Launcher, call: str, depth: int) -> None:
        """
        A failing replica takes at most fifteen lines, traceback included, which say who, how, where and what became of the others.
        """
        done = launcher.run(self.PROGRAM.replace("DEPTH", str(depth)).replace("CALL", call))
        lines = done.stderr.splitlines()
        assert done.returncode == 1
        assert len(lines) <= LONGEST, done.stderr
        assert re.match(r"distrib: train-\S+ failed in \d+\.\d s \(3 replicas\); logs: /", lines[0])
        assert lines[1] == "ValueError: bad batch"
        told = done.stderr[done.stderr.index("distrib.errors.ReplicaFailedError") :].splitlines()
        assert told[0] == "distrib.errors.ReplicaFailedError: worker-1 failed with ValueError: bad batch (exit code 1)"
        assert re.search(r'program\.py:\d+ in inner: raise ValueError\("bad batch"\)$', told[-2])
        assert re.match(r"2 others were stopped\. Logs: /\S+/logs$", told[-1])
        assert any(line.startswith(f"  … {depth} more, then ") for line in told) == (depth > 0)
        assert done.stderr.count("/distrib/") == 1

    @pytest.mark.parametrize(
        "fate",
        ["raise", "exit 3", "exit text", "_exit 5", "_exit 0", "SIGKILL", "SIGSEGV", "SIGTERM", "SIGINT"],
    )
    def test_exit_code(self, launcher: Launcher, fate: str) -> None:
        """
        A program whose run failed never ends with 0, whatever the replica ended with, and its report is short.
        """
        done = launcher.run(f"""
            import fates

            @distributed("tensorflow", worker=2)
            def train():
                fates.fail_as({fate!r})

            train()
        """)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) <= LONGEST, done.stderr

    @pytest.mark.parametrize("switches", [["-X", "dev"], ["-W", "error"], ["-X", "dev", "-W", "error"]])
    @pytest.mark.parametrize("ending", ["", "raise ValueError('bad batch')"])
    def test_no_warnings(self, launcher: Launcher, switches: list[str], ending: str) -> None:
        """
        With all warnings on there are none: everything that was opened is closed.
        """
        path = launcher.write(f"""
            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                {ending or "pass"}

            try:
                train()
                train.submit().wait()
                list(train.submit().logs(follow=True))
                distrib.runs()[0].status()
                print(train.plan())
            except distrib.ReplicaFailedError as error:
                pass
            train.submit().exception()
        """)
        command = [sys.executable, *switches, str(path), str(launcher.meeting), str(Path(fates.__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (done.stderr, done.returncode) == ("", 0)
        for log in Path(os.environ["DISTRIB_STATE_DIR"]).rglob("*.log"):
            assert log.read_text() == ""

    def test_summary(self, launcher: Launcher) -> None:
        """
        The last line says how it ended, after how long, of how many replicas, after how many restarts, and where the logs are.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker={"replicas": 1, "restart_policy": "OnFailure"}, local={"restart_delay": 0}, name="my-job")
            def train():
                if not (MEETING / "tried").exists():
                    sign("tried")
                    os._exit(3)

            train()
        """)
        first, last = done.stderr.splitlines()
        assert first == "distrib: worker-0 ended with exit code 3; it restarts after 0 s (restart 1)"
        assert re.fullmatch(r"distrib: my-job-\S+ succeeded in \d+\.\d s \(1 replica, 1 restart\); logs: (\S+)", last)
        assert Path(last.rpartition(" ")[2], "worker-0.log").exists()

    def test_cancelled(self, launcher: Launcher) -> None:
        """
        A run that was cancelled says so, by its summary and by its error.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker=2)
            def train():
                sign()
                time.sleep(1000)

            run = train.submit()
            for name in ("worker-0", "worker-1"):
                await_sign(name)
            run.cancel()
            run.result()
        """)
        assert done.returncode == 1
        assert " cancelled in " in done.stderr
        assert "distrib.errors.RunCancelledError: the run was cancelled: cancel() was called. Logs: " in done.stderr
        assert len(done.stderr.splitlines()) <= LONGEST

    def test_long_start(self, launcher: Launcher) -> None:
        """
        A step of the start that takes long is told about when it turns out to be, and when it is done.
        """
        (launcher.folder / "slow_module.py").write_text("import time\ntime.sleep(1.5)\n")
        (launcher.folder / "quick_module.py").touch()
        done = launcher.run("""
            from distrib._report import progress

            @distributed("tensorflow", worker=2, local={"preload": ("quick_module", "slow_module")})
            def train():
                assert "slow_module" in sys.modules
                if replica().index == 1:
                    progress("waiting for the cluster of 2")

            train()
        """)
        first, second, third, _ = done.stderr.splitlines()
        assert first == "distrib: importing slow_module once for all replicas …"
        assert re.fullmatch(r"distrib: imported slow_module in \d\.\d s", second)
        assert third == "distrib: worker-1: waiting for the cluster of 2"

    def test_import_that_fails(self, launcher: Launcher) -> None:
        """
        A module that cannot be imported for all is told about in one line, and the replicas try it themselves.
        """
        (launcher.folder / "bad_module.py").write_text("raise OSError('no such library')")
        done = launcher.run("""
            @distributed("tensorflow", worker=2, local={"preload": ("bad_module",)})
            def train():
                import bad_module

            train()
        """)
        assert done.stderr.startswith("distrib: each replica imports for itself: importing bad_module failed: OSError: no such library\n")
        assert re.search(r"bad_module\.py:1 in <module>: raise OSError\('no such library'\)\n", done.stderr)
        assert len(done.stderr.splitlines()) <= LONGEST + 1


class TestWho:
    @pytest.mark.parametrize(
        ("fate", "exit_code", "number", "said"),
        [
            ("raise", 1, None, "worker-0 failed with ValueError: bad batch (exit code 1)"),
            ("exit 3", 3, None, "worker-0 failed with SystemExit: 3 (exit code 3)"),
            ("exit text", 1, None, "worker-0 failed with SystemExit: no data (exit code 1)"),
            ("_exit 5", 5, None, "worker-0 ended with exit code 5"),
            ("_exit 0", 0, None, "worker-0 ended with exit code 0: the process ended before the function returned"),
            ("SIGKILL", None, 9, "worker-0 was ended by signal 9 (SIGKILL): killed from outside: usually it was out of memory"),
            ("SIGSEGV", None, 11, "worker-0 was ended by signal 11 (SIGSEGV): crashed in native code"),
            ("SIGBUS", None, 7, "worker-0 was ended by signal 7 (SIGBUS): usually /dev/shm or the disk is full"),
            ("SIGUSR1", None, 10, "worker-0 was ended by signal 10 (SIGUSR1)"),
        ],
    )
    def test_how_it_ended(self, fate: str, exit_code: int | None, number: int | None, said: str) -> None:
        """
        The error says which replica, by which code or signal, and what that usually means; its attributes have it as data.
        """
        error = report_of(fates.fail_as, fate)
        assert str(error).startswith(said)
        assert (error.replica, error.exit_code, error.signal) == ("worker-0", exit_code, number)
        if error.hint:
            assert error.hint in str(error)

    def test_code_of_a_shell(self) -> None:
        """
        A code by which a shell tells of a signal is explained as that signal.
        """
        assert "out of memory" in str(report_of(os._exit, 128 + signal.SIGKILL))
        assert str(report_of(os._exit, 77)).startswith("worker-0 ended with exit code 77\n")

    def test_real_time_signal(self) -> None:
        """
        A signal without a name is told by its number.
        """
        assert str(report_of(_kill_myself, signal.SIGRTMIN + 3)).startswith(f"worker-0 was ended by signal {signal.SIGRTMIN + 3} (")

    def test_last_lines_of_the_log(self) -> None:
        """
        Without an exception the last lines of its log may tell; those that are long are cut.
        """

        def crash() -> None:
            for number in range(100):
                print("line", number)
            print("x" * 10_000)
            os._exit(5)

        error = report_of(crash)
        assert str(error).splitlines()[1:4] == ["  | line 98", "  | line 99", f"  | {'x' * 199}…"]
        assert error.log_tail.splitlines()[-2] == "line 99"

    def test_crash_that_python_tells_of(self) -> None:
        """
        Of the frames that ``faulthandler`` writes, the user's are shown, not ours around them.
        """

        def crash() -> None:
            faulthandler.enable()
            _kill_myself(signal.SIGSEGV)

        error = report_of(crash)
        assert "in crash\n" in str(error)
        assert "_supervisor.py" not in str(error)
        assert "_supervisor.py" in error.log_tail

    def test_several(self, meeting: Path) -> None:
        """
        The first failure is the cause; those that came after it, and those that were stopped, are one line.
        """

        def train() -> None:
            me = distrib.replica().index
            fates.sign(str(meeting), f"ready-{me}")
            for index in range(6):
                fates.await_sign(str(meeting), f"ready-{index}")
            if me == 3:
                raise ValueError("bad batch")
            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
            fates.sleep_for_ever()

        error = task(train, worker=6).submit().exception(PATIENCE)
        assert str(error).startswith("worker-3 failed with ValueError: bad batch")
        assert str(error).splitlines()[-1].startswith("5 others were stopped. Logs: ")
        assert isinstance(error, ReplicaFailedError)
        assert isinstance(error.__cause__, ValueError)

    def test_many_that_failed_after_it(self, launcher: Launcher) -> None:
        """
        Of many that failed too, only some are named.
        """
        statuses = {f"worker-{index}": distrib.ReplicaStatus(state="Failed" if index else "Stopped") for index in range(8)}
        from distrib.engines._told import others

        assert others(statuses, "worker-1") == ["1 other was stopped.", "worker-2, worker-3, worker-4 and 3 more failed after it."]


def _kill_myself(number: int) -> None:
    os.kill(os.getpid(), number)
    fates.sleep_for_ever()


class TestWhere:
    def test_of_a_module(self) -> None:
        """
        The frames are those of the user's code: file, line, function and source, the innermost last.
        """
        lines = str(report_of(fates.fail_as, "raise")).splitlines()
        assert len(lines) == 3
        assert re.search(r'fates\.py:\d+ in fail_as: raise ValueError\("bad batch"\)$', lines[1])

    def test_through_a_library(self) -> None:
        """
        Frames of libraries are left out between the user's own.
        """

        def bad_hook(_: Any) -> None:
            raise ValueError("bad batch")

        def train() -> None:
            import json

            json.loads("{}", object_hook=bad_hook)

        _, first, second, _ = str(report_of(train)).splitlines()
        assert " in train: json.loads(" in first
        assert " in bad_hook: raise ValueError(" in second

    def test_only_in_a_library(self) -> None:
        """
        A library's own function that fails is shown where it failed.
        """
        import json

        _, where, _ = str(report_of(json.loads, "{")).splitlines()
        assert re.search(r"json/\w+\.py:\d+ in ", where)

    def test_native_function(self) -> None:
        """
        A function without any frame has none.
        """
        assert len(str(report_of(int, "x")).splitlines()) == 2

    def test_cell(self) -> None:
        """
        Code that is in no file, as that of a notebook's cell, is shown with its source where this process has it.
        """
        text = "def cell():\n    raise ValueError('bad batch')\n"
        linecache.cache["<cell 5>"] = (len(text), None, text.splitlines(keepends=True), "<cell 5>")
        space: dict[str, Any] = {}
        exec(compile(text, "<cell 5>", "exec"), space)
        try:
            assert str(report_of(space["cell"])).splitlines()[1].endswith("<cell 5>:2 in cell: raise ValueError('bad batch')")
        finally:
            del linecache.cache["<cell 5>"]

    def test_without_source(self) -> None:
        """
        Where nobody has the source there is none.
        """
        space: dict[str, Any] = {}
        exec(compile("def cell():\n    raise ValueError('bad batch')\n", "<lost>", "exec"), space)
        assert str(report_of(space["cell"])).splitlines()[1].endswith("<lost>:2 in cell")

    def test_deep_recursion(self) -> None:
        """
        Of a recursion that never ends, the innermost frames are shown, and how many more there are.
        """

        def deeper() -> None:
            deeper()

        first, more, last, _ = str(report_of(deeper)).splitlines()
        assert first.startswith("worker-0 failed with RecursionError: maximum recursion depth exceeded")
        assert re.match(r"  … \d{3,} more, then \S+test_report\.py:\d+ in deeper: deeper\(\)", more)
        assert re.match(r"  \S+test_report\.py:\d+ in deeper: deeper\(\)", last)

    def test_long_source_lines(self) -> None:
        """
        A source line that is very long is cut.
        """
        space: dict[str, Any] = {}
        text = f"def cell():\n    raise ValueError({'1 + ' * 1000} 1)\n"
        linecache.cache["<long>"] = (len(text), None, text.splitlines(keepends=True), "<long>")
        exec(compile(text, "<long>", "exec"), space)
        try:
            report_of(space["cell"])
        finally:
            del linecache.cache["<long>"]


class TestWhat:
    def test_cause(self) -> None:
        """
        The original exception is the cause, of the same class with the same arguments.
        """

        def fail() -> None:
            raise FileNotFoundError(2, "No such file", "/data")

        error = report_of(fail)
        assert isinstance(error.__cause__, FileNotFoundError)
        assert error.__cause__.filename == "/data"
        assert "FileNotFoundError: [Errno 2] No such file: '/data'" in error.traceback

    def test_long_message(self, launcher: Launcher) -> None:
        """
        A message that is long is cut in the report, which then has one line of it; the cause has all of it.
        """

        def fail() -> None:
            raise ValueError("\n".join("x" * 10_000 for _ in range(1000)))

        error = report_of(fail)
        assert len(str(error).splitlines()) == 3
        assert len(str(error.__cause__)) > 10_000_000

    def test_long_message_without_a_cause(self, launcher: Launcher) -> None:
        """
        Where the exception cannot be rebuilt the report has the first lines of its text.
        """
        (launcher.folder / "only_here.py").write_text("class Odd(Exception): pass")
        launcher.run("""
            import only_here

            @distributed("tensorflow", worker=1, local=QUIET)
            def fail():
                raise only_here.Odd("\\n\\n".join(f"line {number} " + "x" * 1000 for number in range(100)))

            fail()
        """)
        (run,) = distrib.runs()
        lines = str(run.exception()).splitlines()
        assert len(lines) < 8
        assert lines[0].startswith("worker-0 failed with only_here.Odd: line 0 xxx")
        assert max(map(len, lines)) < 400

    def test_is_the_same_each_time(self) -> None:
        """
        Asked for again, also by another thread, the error is the same, and does not grow.
        """
        run = task(fates.fail_as, worker=1).submit("raise")
        reports = set()
        for _ in range(3):
            with pytest.raises(ReplicaFailedError) as caught:
                run.result(PATIENCE)
            reports.add((str(caught.value), len(caught.traceback)))
            assert run.exception() is caught.value
        assert len(reports) == 1

    def test_can_be_sent_on(self) -> None:
        """
        The error can be pickled, as a test runner or a queue does it.
        """
        import pickle

        error = report_of(fates.fail_as, "exit 3")
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.replica, again.exit_code, again.hint) == (str(error), "worker-0", 3, error.hint)


class TestLimits:
    def test_backoff(self) -> None:
        """
        A run that has used up its restarts says so beside its last failure.
        """
        worker = {"replicas": 1, "restart_policy": "OnFailure"}
        error = report_of(fates.fail_as, "raise", worker=worker, run_policy={"backoff_limit": 2}, local={**QUIET, "restart_delay": 0})
        assert str(error).splitlines()[-1].startswith("BackoffLimitExceeded: 2 restarts. Logs: ")
        assert isinstance(error.__cause__, ValueError)

    def test_deadline(self) -> None:
        """
        A run that outlived its deadline is told apart from a wait that ran out.
        """
        run = task(fates.sleep_for_ever, run_policy={"active_deadline_seconds": 1}).submit()
        error = run.exception(PATIENCE)
        assert isinstance(error, RunTimeoutError)
        assert isinstance(error, TimeoutError)
        assert str(error).startswith("the run was stopped: DeadlineExceeded: it ran for longer than active_deadline_seconds=1. Logs: ")
        assert run.status().state is distrib.RunState.FAILED
        assert {status.state for status in run.status().replicas.values()} == {"Stopped"}

    def test_every_failure_is_an_engine_error(self) -> None:
        """
        Whoever catches the failure of a run need not know its kind.
        """
        for fate in ("raise", "_exit 5", "SIGKILL"):
            with pytest.raises(RunFailedError):
                task(fates.fail_as, worker=1)(fate)
