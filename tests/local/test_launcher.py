"""
What happens when the program that started a run, or the process that supervises it, comes to an end.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import textwrap
from pathlib import Path
from typing import Any

import fates
import pytest
from watching import PATIENCE, Launcher, eventually, is_alive, marked, task

import distrib
from distrib import RunCancelledError, RunFailedError, RunState

#: What a shell shows for a program that one of these signals has ended.
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

TRAIN = """
    @distributed("tensorflow", worker=2, local={"echo": False, "grace_period": float(os.environ.get("GRACE", "1000"))})
    def train(how):
        def stop(*_):
            sign("asked-" + replica().name)
            if how == "tidy":
                sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        sign()
        while True:
            time.sleep(1000)
"""

SLOW = """
    import os, fates
    fates.sign(os.environ["MEETING"], "importing")
    fates.sleep_for_ever()
"""


def under_a_shell(launcher: Launcher, text: str, **environment: str) -> subprocess.Popen[str]:
    """
    Start a program whose exit code a shell writes down; the program's own process is what ``await_sign("launcher")`` tells.
    """
    path = launcher.write('sign("launcher")\n' + textwrap.dedent(text))
    arguments = [sys.executable, str(path), str(launcher.meeting), str(Path(__file__).parent)]
    # The shell itself must outlive the signals, and must not hand on that it ignores them.
    script = 'trap : INT TERM HUP; "$@"; echo $? > "$CODE"'
    environment = {**os.environ, **environment, "CODE": str(launcher.folder / "code"), "MEETING": str(launcher.meeting)}
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    launcher.started.append(process)
    return process


def code_of(launcher: Launcher, process: subprocess.Popen[str]) -> int:
    """
    The exit code as the shell has seen it.
    """
    _, err = process.communicate(timeout=PATIENCE)
    print(err)  # shown should the code be another
    return int((launcher.folder / "code").read_text())


def only_run() -> distrib.Run[Any]:
    """
    The run of a program, from the history.
    """
    (run,) = distrib.runs()
    return run


class TestSignals:
    @pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
    def test_replicas_may_tidy_up(self, launcher: Launcher, number: signal.Signals) -> None:
        """
        On Ctrl-C, SIGTERM or SIGHUP the replicas get SIGTERM and the time they need; then the program ends as the signal would
        have ended it.
        """
        process = under_a_shell(launcher, TRAIN + '\n    print("begin", end="")\n    train("tidy")\n')
        launcher.await_sign("worker-0")
        launcher.await_sign("worker-1")
        os.kill(launcher.await_sign("launcher"), number)
        out, err = process.communicate(timeout=PATIENCE)
        assert int((launcher.folder / "code").read_text()) == CODES[number]
        assert (launcher.meeting / "asked-worker-0").exists()
        assert (launcher.meeting / "asked-worker-1").exists()
        status = only_run().status()
        assert status.state is RunState.CANCELLED
        assert {replica.signal for replica in status.replicas.values()} == {None}, "nobody had to be killed"
        assert out == "begin"
        assert ("KeyboardInterrupt" in err) == (number == signal.SIGINT)

    @pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
    def test_the_grace_period_ends(self, launcher: Launcher, number: signal.Signals) -> None:
        """
        Replicas that do not end when they are asked to are killed after the grace period.
        """
        process = under_a_shell(launcher, TRAIN + '\n    train("stay")\n', GRACE="0.2")
        pids = [launcher.await_sign("worker-0"), launcher.await_sign("worker-1")]
        os.kill(launcher.await_sign("launcher"), number)
        assert code_of(launcher, process) == CODES[number]
        assert not any(map(is_alive, pids))
        assert {replica.signal for replica in only_run().status().replicas.values()} == {signal.SIGKILL}

    @pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
    def test_a_second_one_leaves_out_the_grace_period(self, launcher: Launcher, number: signal.Signals) -> None:
        """
        Whoever presses Ctrl-C again does not wait any longer, which is said where the end takes a while; the same for the other signals.
        """
        process = under_a_shell(launcher, TRAIN + '\n    train("stay")\n')
        pids = [launcher.await_sign("worker-0"), launcher.await_sign("worker-1")]
        pid = launcher.await_sign("launcher")
        os.kill(pid, number)
        launcher.await_sign("asked-worker-0")
        launcher.await_sign("asked-worker-1")
        key = "Ctrl-C" if number == signal.SIGINT else number.name
        assert process.stderr is not None
        assert next((line for line in process.stderr if "is being stopped" in line), "").endswith(f"; another {key} stops it at once\n")
        os.kill(pid, number)
        assert code_of(launcher, process) == CODES[number]
        assert not any(map(is_alive, pids))

    @pytest.mark.parametrize("wait", ["run.result()", "asyncio.run(until_over(run))"])
    def test_while_a_submitted_run_is_waited_for(self, launcher: Launcher, wait: str) -> None:
        """
        Ctrl-C ends a program that waits for a run by itself, and the run with it; pressed again, it leaves out the grace period.
        """
        process = under_a_shell(
            launcher,
            f"""{TRAIN}
    import asyncio

    async def until_over(run):
        await run

    run = train.submit("stay")
    {wait}
    """,
        )
        pids = [launcher.await_sign("worker-0"), launcher.await_sign("worker-1")]
        os.kill(launcher.await_sign("launcher"), signal.SIGINT)
        launcher.await_sign("asked-worker-0")
        os.kill(launcher.await_sign("launcher"), signal.SIGINT)
        assert code_of(launcher, process) == CODES[signal.SIGINT]
        assert not any(map(is_alive, pids))
        assert only_run().status().state is RunState.CANCELLED

    @pytest.mark.parametrize("number", [*CODES, signal.SIGKILL], ids=lambda number: number.name)
    def test_during_the_start(self, launcher: Launcher, number: signal.Signals, tmp_path: Path) -> None:
        """
        The same while the framework is being imported, before there is any replica.
        """
        (tmp_path / "slow_framework.py").write_text(textwrap.dedent(SLOW))
        text = """
            sys.path.append(str(MEETING.parent))
            distributed("tensorflow", worker=2, local={"echo": False, "preload": ("slow_framework",)})(os.getpid)()
        """
        process = under_a_shell(launcher, text)
        importing = launcher.await_sign("importing")
        os.kill(launcher.await_sign("launcher"), number)
        assert code_of(launcher, process) == CODES.get(number, 137)
        eventually(lambda: not is_alive(importing), "the import to end")
        run = only_run()
        assert run.wait(PATIENCE).state is RunState.CANCELLED
        assert {replica.state for replica in run.status().replicas.values()} == {"Stopped"}

    @pytest.mark.parametrize("number", [*CODES, signal.SIGKILL], ids=lambda number: number.name)
    def test_during_submit(self, launcher: Launcher, number: signal.Signals) -> None:
        """
        The same while the arguments are being pickled: the supervisor waits for its orders, and goes.
        """
        text = """
            class Slow:
                def __reduce__(self):
                    sign("pickling")
                    while True:
                        time.sleep(1000)

            @distributed("tensorflow", worker=2, local=QUIET)
            def train(value):
                pass

            train(Slow())
        """
        process = under_a_shell(launcher, text)
        launcher.await_sign("pickling")
        os.kill(launcher.await_sign("launcher"), number)
        assert code_of(launcher, process) == CODES.get(number, 137)
        if number is not signal.SIGKILL:
            assert distrib.runs() == []
        eventually(lambda: not marked(os.environ["DISTRIB_TEST_MARK"]), "the supervisor to end")

    @pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
    def test_whose_exception_is_lost(self, launcher: Launcher, number: signal.Signals) -> None:
        """
        A signal that comes where Python drops exceptions, as in callbacks of its own, ends the program all the same.
        """
        text = f"""
            import weakref

            class Odd:
                def __reduce__(self):
                    self.inner = set()
                    reference = weakref.ref(self.inner, lambda _: signal.raise_signal({int(number)}))
                    del self.inner  # and what the callback raises is printed and forgotten
                    return int, ()

            @distributed("tensorflow", worker=2, local=QUIET)
            def train(value):
                time.sleep(1000)

            train(Odd())
        """
        process = under_a_shell(launcher, text)
        assert code_of(launcher, process) == CODES[number]
        assert only_run().status().state is RunState.CANCELLED

    def test_handlers_of_the_program_are_left_alone(self, launcher: Launcher) -> None:
        """
        A program that handles SIGTERM itself goes on doing so; what it leaves behind is stopped at its end.
        """
        text = """
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
            train("tidy")
        """
        process = under_a_shell(launcher, textwrap.dedent(TRAIN) + textwrap.dedent(text))
        launcher.await_sign("worker-0")
        launcher.await_sign("worker-1")
        os.kill(launcher.await_sign("launcher"), signal.SIGTERM)
        assert code_of(launcher, process) == 7
        assert (launcher.meeting / "asked-worker-0").exists()
        assert only_run().status().state is RunState.CANCELLED

    def test_nohup(self, launcher: Launcher) -> None:
        """
        A program that ignores SIGHUP, as under ``nohup``, goes on.
        """
        text = """
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                sign()
                await_sign("go")
                return "done"

            print(train())
        """
        process = launcher.start(text)
        launcher.await_sign("worker-0")
        os.kill(process.pid, signal.SIGHUP)
        launcher.sign("go")
        assert launcher.finish(process).stdout == "done\n"

    def test_terminal_is_restored(self, launcher: Launcher) -> None:
        """
        After Ctrl-C at the keyboard the terminal is as it was: its settings, and its colours, in the middle of a line too.
        """
        ours, theirs = pty.openpty()
        before = termios.tcgetattr(theirs)
        path = launcher.write("""
            @distributed("tensorflow", worker=1)
            def train():
                print("\\x1b[31mred", flush=True)
                print("half a line", end="", flush=True)
                sign()
                time.sleep(1000)

            train()
        """)
        process = subprocess.Popen(
            [sys.executable, str(path), str(launcher.meeting), str(Path(__file__).parent)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # there are no threads beside
            env={**os.environ, "TERM": "xterm"},
        )
        launcher.started.append(process)  # type: ignore[arg-type]
        launcher.await_sign("worker-0")
        shown = b""
        pressed = False
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.05)[0]:
                shown += os.read(ours, 1 << 16)
            if b"red" in shown and not pressed:
                pressed = bool(os.write(ours, b"\x03"))
        assert process.returncode == -signal.SIGINT
        assert termios.tcgetattr(theirs) == before
        for descriptor in (ours, theirs):
            os.close(descriptor)
        assert b"half a line\x1b[0m\r\n" in shown
        assert b"\x1b[31m" not in shown.rpartition(b"\x1b[0m")[2]

    def test_keys_do_not_reach_the_replicas(self, launcher: Launcher) -> None:
        """
        Ctrl-C at the terminal goes to the program alone, as the replicas are in sessions of their own.
        """
        text = """
            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                return os.getsid(0), os.getpid()

            for session, pid in train.submit().results():
                assert session == pid
        """
        assert launcher.run(text).returncode == 0


#: What takes a second, on a machine that is busy: the grace period of the run is not waited for.
SOON = 15.0


class TestTheEndOfTheProgram:
    def test_killed(self, launcher: Launcher) -> None:
        """
        When the program is killed, the replicas and all their descendants are gone soon, daemons in sessions of their own
        included, and the history says what happened.
        """
        text = """
            import fates
            task = distributed("tensorflow", worker=2, local={"echo": False, "grace_period": 1000.0})(fates.leave_descendants)
            task(str(MEETING), "wait")
        """
        process = launcher.start(text)
        names = [f"worker-{index}{kind}" for index in (0, 1) for kind in ("", "-child", "-session", "-daemon")]
        launcher.await_sign("worker-0")
        launcher.await_sign("worker-1")
        pids = [launcher.await_sign(name) for name in names]
        assert all(map(is_alive, pids))
        process.kill()
        eventually(lambda: not any(map(is_alive, pids)), "the replicas and their descendants to end", SOON)
        run = only_run()
        status = run.wait(PATIENCE)
        assert (status.state, status.reason) == (RunState.CANCELLED, "the program that started the run is gone")
        assert "launcher-lost" in [event.kind for event in run.events()]
        with pytest.raises(RunCancelledError, match="the program that started the run is gone"):
            run.result()

    def test_killed_while_a_fork_of_it_lives(self, launcher: Launcher) -> None:
        """
        A child that the program has forked, and that holds all its pipes, does not keep the run alive.
        """
        text = """
            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                sign()
                time.sleep(1000)

            run = train.submit()
            if os.fork() == 0:
                sign("child")
                await_sign("go")
                os._exit(0)
            run.wait()
        """
        process = launcher.start(text, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pids = [launcher.await_sign("worker-0"), launcher.await_sign("worker-1")]
        child = launcher.await_sign("child")
        process.kill()
        eventually(lambda: not any(map(is_alive, pids)), "the replicas to end")
        assert is_alive(child)
        assert only_run().wait(PATIENCE).state is RunState.CANCELLED
        launcher.sign("go")

    @pytest.mark.parametrize("how", ["falls off its end", "raises", "exits"])
    def test_without_waiting(self, launcher: Launcher, how: str) -> None:
        """
        A program that ends without waiting for its run takes the run along, and says so.
        """
        endings = {"falls off its end": "pass", "raises": "raise ValueError('unrelated')", "exits": "sys.exit(0)"}
        done = launcher.run(
            TRAIN + f'\n    train.submit("tidy")\n    await_sign("worker-0")\n    await_sign("worker-1")\n    {endings[how]}\n'
        )
        assert done.returncode == (1 if how == "raises" else 0)
        assert "is stopped because the program ends; call wait() or result() to wait for it" in done.stderr
        assert (launcher.meeting / "asked-worker-0").exists()
        assert only_run().status().state is RunState.CANCELLED

    def test_stopped_for_a_while(self, launcher: Launcher) -> None:
        """
        A program that is stopped, as by Ctrl-Z, holds up no replica, and takes in the result when it goes on.
        """
        text = """
            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                sign()
                await_sign("go")
                for number in range(2000):
                    distrib._report.progress(f"step {number}")
                sign("done-" + replica().name)
                return "value"
            import distrib._report
            print(train())
        """
        process = launcher.start(text)
        launcher.await_sign("worker-0")
        launcher.await_sign("worker-1")
        process.send_signal(signal.SIGSTOP)
        launcher.sign("go")
        launcher.await_sign("done-worker-0")
        launcher.await_sign("done-worker-1")
        process.send_signal(signal.SIGCONT)
        assert launcher.finish(process).stdout == "value\n"


def supervisor_of(run: distrib.Run[Any]) -> int:
    """
    The number of the supervisor's process.
    """
    event = eventually(lambda: next((event for event in run.events() if event.kind == "supervising"), None), "the supervisor")
    return int(event.message.partition("pid=")[2])


class TestSupervisor:
    @pytest.mark.parametrize("start_method", ["fork", "spawn"])
    def test_killed(self, meeting: Path, start_method: str) -> None:
        """
        When the supervisor is killed, the caller gets an error, and the replicas and their descendants are gone or about to be.
        """
        local = {"echo": False, "start_method": start_method}
        run = task(leave_descendants_with_environment, local=local).submit(str(meeting))
        eventually(lambda: len(list(meeting.glob("worker-?"))) == 2, "both replicas")
        os.kill(supervisor_of(run), signal.SIGKILL)
        with pytest.raises(RunFailedError, match="the process that supervised the replicas is gone, killed from outside"):
            run.result(PATIENCE)
        eventually(lambda: not any(is_alive(int(path.read_text())) for path in meeting.iterdir()), "all to be gone")
        for seen in (run, distrib.get_run(run.id)):
            status = seen.status()
            assert (status.state, status.reason) == (RunState.FAILED, "SupervisorLost")
            assert {replica.state for replica in status.replicas.values()} == {"Stopped"}

    def test_asked_to_end(self, meeting: Path) -> None:
        """
        A supervisor that gets SIGTERM stops its run in good order.
        """
        run = task(fates.await_sign).submit(str(meeting), "never")
        os.kill(supervisor_of(run), signal.SIGTERM)
        with pytest.raises(RunCancelledError, match="the supervisor got SIGTERM"):
            run.result(PATIENCE)

    def test_cannot_be_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        An interpreter that is not there is told as such, and nothing is left of the run.
        """
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(distrib.SubmitError, match=r"/nowhere/python"):
            task(fates.name).submit()
        assert distrib.runs() == []

    def test_cannot_start_with_the_jobs_variables(self) -> None:
        """
        A variable of the job with which no interpreter starts is no mystery: its exit code is told, and what it said is on the terminal.
        """
        with pytest.raises((distrib.SubmitError, RunFailedError), match=r"supervis.* ended .*with code 1"):
            task(fates.name, env={"PYTHONHASHSEED": "none"})()


def leave_descendants_with_environment(meeting: str) -> None:
    """
    Leave a child that has run away from the replica's session, and a grandchild of it.
    """
    me = distrib.replica().name
    for kind in ("session", "daemon"):
        if os.fork() == 0:
            try:
                os.setsid()
                if kind == "session" or os.fork() == 0:
                    fates.sign(meeting, f"{me}-{kind}")
                    fates.sleep_for_ever()
            finally:
                os._exit(1)
        fates.await_sign(meeting, f"{me}-{kind}")
    fates.sign(meeting)
    fates.sleep_for_ever()
