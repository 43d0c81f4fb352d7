"""
What is shown while a run goes on, and what is kept of it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import fates
import pytest
from watching import PATIENCE, QUIET, Launcher, eventually, task

import distrib
from distrib import InvalidJobError

HELLO = """
    @distributed("tensorflow", worker=2)
    def train():
        print("hello from", replica().name)

    train()
"""


def on_terminal(launcher: Launcher, text: str, **environment: str) -> bytes:
    """
    What a program shows on a terminal of its own, as its only output.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 500, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    process = launcher.start(text, stdout=theirs, stderr=subprocess.PIPE, env={**variables, "TERM": "xterm", **environment})
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of a terminal is an error
        while data := os.read(ours, 1 << 16):
            shown += data
    os.close(ours)
    assert launcher.finish(process).returncode == 0
    return shown.replace(b"\r\n", b"\n")


def log_of(run: distrib.Run[Any]) -> Path:
    """
    The file of the first worker's log.
    """
    return Path(os.environ["DISTRIB_STATE_DIR"], "runs", run.id, "logs", "worker-0.log")


def lines_of(text: str, name: str) -> list[str]:
    """
    What the terminal showed of one replica.
    """
    start = f"[{name}] "
    return [line.removeprefix(start) for line in text.split("\n") if line.startswith(start)]


class TestTerminal:
    def test_prefixes_when_piped(self, launcher: Launcher) -> None:
        """
        Each line has its replica's name in front; without a terminal there are no colours.
        """
        done = launcher.run(HELLO)
        assert sorted(done.stdout.splitlines()) == ["[worker-0] hello from worker-0", "[worker-1] hello from worker-1"]
        assert "\x1b" not in done.stderr
        assert re.fullmatch(r"distrib: train-\S+ succeeded in \d+\.\d s \(2 replicas\); logs: \S+\n", done.stderr)

    def test_names_are_aligned(self, launcher: Launcher) -> None:
        """
        Names of different lengths take the same room.
        """
        done = launcher.run(HELLO.replace("worker=2", "chief=1, worker=1"))
        assert sorted(done.stdout.splitlines()) == ["[chief-0]  hello from chief-0", "[worker-0] hello from worker-0"]

    def test_colours_on_a_terminal(self, launcher: Launcher) -> None:
        """
        On a terminal the prefixes have colours, another one for each replica, which end before the line's own text.
        """
        shown = on_terminal(launcher, HELLO)
        found = re.findall(rb"(?m)^\x1b\[(\d+)m\[(worker-\d)\]\x1b\[0m hello from worker-\d$", shown)
        assert {name for _, name in found} == {b"worker-0", b"worker-1"}
        assert len({colour for colour, _ in found}) == 2

    @pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_no_colours(self, launcher: Launcher, environment: dict[str, str]) -> None:
        """
        ``NO_COLOR``, and a terminal that has none, are obeyed.
        """
        shown = on_terminal(launcher, HELLO, **environment)
        assert sorted(shown.splitlines()) == [b"[worker-0] hello from worker-0", b"[worker-1] hello from worker-1"]

    def test_an_empty_no_color_says_nothing(self, launcher: Launcher) -> None:
        """
        An empty ``NO_COLOR`` leaves colours on, as https://no-color.org has it.
        """
        assert b"\x1b[" in on_terminal(launcher, HELLO, NO_COLOR="")

    def test_what_would_upset_a_terminal(self, launcher: Launcher) -> None:
        """
        A terminal gets text and its colours only: no other bytes and sequences. The log has them all.
        """
        written = (
            rb"bell\x07 back\x08 nul\0 shift\x0e clear\x1b[2J\x1b[H title\x1b]0;gone\x07 "
            rb"charset\x1b(0 reset\x1bc screen\x1b[?1049h half\x1b["
        )
        program = f"""
            @distributed("tensorflow", worker=1)
            def train():
                os.write(1, b"{written.decode()}\\n")
                os.write(1, b"\\x1b[31mred\\x1b[0m tab\\there\\n")
                os.write(1, bytes(set(range(256)) - {{10, 13, 27}}) + b"\\n")

            train()
        """
        first, second, third, *_ = on_terminal(launcher, program, NO_COLOR="1").split(b"\n")
        assert first == b"[worker-0] bell back nul shift clear title charset reset screen half"
        assert second == b"[worker-0] \x1b[31mred\x1b[0m tab\there"
        assert third == b"[worker-0] \t" + bytes(range(32, 127)) + bytes(range(128, 256))
        (run,) = distrib.runs()
        kept = b"\x07\x08\0\x0e"
        assert all(byte in log_of(run).read_bytes() for byte in kept)

    def test_progress_bars_keep_their_prefix(self, launcher: Launcher) -> None:
        """
        A line that is written over again by a carriage return has its prefix each time.
        """
        program = r"""
            @distributed("tensorflow", worker=1)
            def train():
                print("10%\r\x1b[2K20%\rall", end="\r\n")

            train()
        """
        shown = on_terminal(launcher, program, NO_COLOR="1")
        assert shown.startswith(b"[worker-0] 10%\r[worker-0] \x1b[2K20%\r[worker-0] all\n")

    def test_quiet(self, launcher: Launcher) -> None:
        """
        With ``echo=False`` nothing is shown, neither of the replicas nor of the run.
        """
        done = launcher.run(HELLO.replace("worker=2", "worker=2, local=QUIET"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        (run,) = distrib.runs()
        assert sorted(run.logs()) == ["[worker-0] hello from worker-0", "[worker-1] hello from worker-1"]

    def test_is_live(self, launcher: Launcher) -> None:
        """
        What a replica writes is shown while it runs.
        """
        process = launcher.start("""
            @distributed("tensorflow", worker=1)
            def train():
                print("early")
                await_sign("seen")

            train()
        """)
        assert process.stdout is not None
        assert process.stdout.readline() == "[worker-0] early\n"
        launcher.sign("seen")
        assert launcher.finish(process).returncode == 0

    @pytest.mark.parametrize(
        "how", ["sys.stdout = sys.stderr = None", "sys.stdout.close(); sys.stderr.close()", "os.close(1); os.close(2)"]
    )
    def test_without_standard_output(self, launcher: Launcher, how: str) -> None:
        """
        A program that has closed its standard streams, or has none, runs all the same.
        """
        done = launcher.run(f"""
            @distributed("tensorflow", worker=1)
            def train():
                print("hello")
                return 5

            {how}
            os._exit(7 if train() == 5 else 1)
        """)
        assert done.returncode == 7


class TestOrder:
    def test_within_a_replica(self, launcher: Launcher) -> None:
        """
        Lines of a replica come in its own order, both streams and its children's included, whatever others write in between.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker=2)
            def train():
                for number in range(300):
                    print(number, file=sys.stdout if number % 2 else sys.stderr)
                    if number % 100 == 50:
                        subprocess.run(["echo", "child"])

            train()
        """)
        expected = [line for number in range(300) for line in [str(number), *(["child"] if number % 100 == 50 else [])]]
        assert lines_of(done.stdout, "worker-0") == lines_of(done.stdout, "worker-1") == expected

    def test_partial_lines_are_not_mixed(self, launcher: Launcher) -> None:
        """
        A line that is written in pieces is shown whole, also while another replica writes; one without an end, at the end.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker=2)
            def train():
                for part in range(100):
                    os.write(1, b"part %d, " % part)
                os.write(1, "ü".encode()[:1])
                os.write(1, "ü".encode()[1:])
                os.write(1, b"done\\nlast")

            train()
        """)
        whole = "".join(f"part {part}, " for part in range(100)) + "üdone"
        for name in ("worker-0", "worker-1"):
            assert lines_of(done.stdout, name) == [whole, "last"]
        assert done.stdout.endswith("\n")

    def test_one_that_never_stops_keeps_nobody_from_the_others(self, launcher: Launcher) -> None:
        """
        A replica that writes faster than anyone reads does not hide the others, nor how they end.
        """
        process = launcher.start("""
            @distributed("tensorflow", worker=2, local={"grace_period": 1})
            def train():
                if replica().index == 0:
                    sign("floods")
                    while True:
                        os.write(1, b"x" * 99 + b"\\n")
                await_sign("floods")
                print("I am here")
                await_sign("seen")
                sys.exit(3)

            train()
        """)
        assert process.stdout is not None
        for line in process.stdout:
            if line == "[worker-1] I am here\n":
                break
        launcher.sign("seen")
        done = launcher.finish(process)
        assert done.returncode == 1
        assert "worker-1 ended with exit code 3" in done.stderr or "worker-1 failed with SystemExit: 3" in done.stderr

    @pytest.mark.parametrize("fate", ["_exit 5", "_exit 0", "SIGKILL", "SIGABRT"])
    def test_last_words(self, fate: str) -> None:
        """
        What is written in the last moment before ``os._exit`` or a signal is kept.
        """

        def die() -> None:
            print("last words")
            sys.stdout.write("without an end")
            sys.stdout.flush()
            fates.fail_as(fate)

        run = task(die, worker=1).submit()
        run.wait(PATIENCE)
        assert list(run.logs("worker-0"))[:2] == ["last words", "without an end"]


class TestFloods:
    def test_a_line_of_a_hundred_megabytes(self, launcher: Launcher) -> None:
        """
        A line of 100 MB is shown and kept whole, byte for byte, and the launcher does not hold it in memory.
        """
        with (launcher.folder / "shown").open("wb") as shown:
            done = launcher.run(
                """
                import resource

                @distributed("tensorflow", worker=1)
                def train():
                    for _ in range(100):
                        os.write(1, b"x" * 1_000_000)
                    print()

                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                run = train.submit()
                run.wait()
                lines = 0
                for line in run.logs("worker-0"):
                    lines += len(line)
                assert lines == 100_000_000, lines
                print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, file=sys.stderr)
                """,
                stdout=shown,
            )
        assert done.returncode == 0, done.stderr
        assert int(done.stderr.splitlines()[-1]) < 40
        assert (launcher.folder / "shown").stat().st_size == len("[worker-0] ") + 100_000_000 + 1
        (run,) = distrib.runs()
        assert log_of(run).stat().st_size == 100_000_001

    def test_a_million_lines(self, launcher: Launcher) -> None:
        """
        A million lines of four replicas are all shown, each replica's in order, in little memory.
        """
        with (launcher.folder / "shown").open("wb") as shown:
            done = launcher.run(
                """
                import resource

                @distributed("tensorflow", worker=4)
                def train():
                    for start in range(0, 250_000, 1000):
                        os.write(1, b"".join(b"line %d\\n" % number for number in range(start, start + 1000)))

                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                train()
                print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, file=sys.stderr)
                """,
                stdout=shown,
            )
        assert done.returncode == 0, done.stderr
        assert int(done.stderr.splitlines()[-1]) < 40
        expected = b"".join(b"line %d\n" % number for number in range(250_000))
        lines = (launcher.folder / "shown").read_bytes().splitlines(keepends=True)
        for index in range(4):
            prefix = b"[worker-%d] " % index
            assert b"".join(line.removeprefix(prefix) for line in lines if line.startswith(prefix)) == expected


class TestReaders:
    def test_one_that_goes_away(self, launcher: Launcher) -> None:
        """
        ``program | head -1`` lets the run go on to its good end.
        """
        process = launcher.start("""
            @distributed("tensorflow", worker=2)
            def train():
                print("first")
                await_sign("gone")
                for number in range(10_000):
                    print("more", number)
                return 5

            assert train() == 5
        """)
        assert process.stdout is not None
        assert process.stdout.readline().endswith("first\n")
        process.stdout.close()
        launcher.sign("gone")
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(PATIENCE) == 0, told
        assert re.fullmatch(r"distrib: train-\S+ succeeded in .*\n", told)

    def test_one_that_does_not_read(self, launcher: Launcher) -> None:
        """
        A terminal that is not read stops no replica: all of them finish, and the history says so.
        """
        ours, theirs = pty.openpty()
        process = launcher.start(
            """
            @distributed("tensorflow", worker=2)
            def train():
                for number in range(20_000):
                    print("line", number)

            train()
            """,
            stdout=theirs,
        )
        os.close(theirs)
        (run,) = eventually(distrib.runs, "the run")
        assert run.wait(PATIENCE).state is distrib.RunState.SUCCEEDED
        assert process.poll() is None
        shown = b""
        with suppress(OSError):
            while data := os.read(ours, 1 << 16):
                shown += data
        os.close(ours)
        assert shown.count(b"line 19999\r\n") == 2
        assert process.wait(PATIENCE) == 0

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_one_that_does_not_read_keeps_nobody_from_stopping(self, launcher: Launcher, number: signal.Signals, unbuffered: str) -> None:
        """
        One Ctrl-C, or SIGTERM, is enough also when what the program writes to, ``less`` say, does not read.
        """
        process = launcher.start(
            """
            @distributed("tensorflow", worker=1)
            def train():
                for number in range(100_000):
                    print("line", number)
                sign("written")
                time.sleep(1000)

            train()
            """,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        launcher.await_sign("written")
        process.send_signal(number)
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(PATIENCE) == -number, told
        (run,) = distrib.runs()
        assert run.status().state is distrib.RunState.CANCELLED

    def test_followers_do_not_wait_for_the_terminal(self, launcher: Launcher) -> None:
        """
        Who follows the logs in the program itself gets them to their end, also when the terminal is not read.
        """
        ours, theirs = pty.openpty()
        process = launcher.start(
            """
            @distributed("tensorflow", worker=1)
            def train():
                for number in range(20_000):
                    print("line", number)

            run = train.submit()
            assert len(list(run.logs("worker-0", follow=True))) == 20_000
            sign("followed")
            run.wait()
            """,
            stdout=theirs,
        )
        os.close(theirs)
        launcher.await_sign("followed")
        with suppress(OSError):
            while os.read(ours, 1 << 16):
                pass
        os.close(ours)
        assert process.wait(PATIENCE) == 0


class TestLogs:
    def test_of_one_and_of_all(self) -> None:
        """
        The lines of one replica come as it wrote them; those of all have its name in front.
        """

        def speak() -> None:
            print(distrib.replica().name)
            print("twice\n\nand more", end="")

        run = task(speak).submit()
        run.wait(PATIENCE)
        assert list(run.logs("worker-1")) == ["worker-1", "twice", "", "and more"]
        assert sorted(run.logs())[:3] == ["[worker-0] ", "[worker-0] and more", "[worker-0] twice"]
        assert list(distrib.get_run(run.id).logs("worker-1")) == list(run.logs("worker-1"))

    def test_unknown_replica(self) -> None:
        """
        A name that no replica has is refused at once, the nearest named.
        """
        run = task(fates.name).submit()
        with pytest.raises(InvalidJobError, match=r"no replica is called 'wroker-1'. Did you mean 'worker-1'\? Legal: worker-0, worker-1."):
            run.logs("wroker-1")
        with pytest.raises(InvalidJobError, match=r"no replica is called 1. Legal: worker-0, worker-1."):
            run.logs(1)  # type: ignore[arg-type]
        run.wait(PATIENCE)

    def test_followed_from_a_thread(self, meeting: Path) -> None:
        """
        A thread that follows gets each line as it is written, and ends with the run.
        """

        def speak() -> None:
            print("early")
            fates.await_sign(str(meeting), "heard")
            print("late")

        run = task(speak).submit()
        heard: list[str] = []

        def listen() -> None:
            for line in run.logs("worker-0", follow=True):
                heard.append(line)
                (meeting / "heard").touch()

        listener = threading.Thread(target=listen)
        listener.start()
        listener.join(PATIENCE)
        assert heard == ["early", "late"]
        run.wait(PATIENCE)
        assert list(run.logs("worker-0", follow=True)) == heard

    def test_followed_from_another_process(self, meeting: Path) -> None:
        """
        So does another process.
        """

        def speak() -> None:
            print("early")
            fates.await_sign(str(meeting), "heard")
            print("late")

        run = task(speak).submit()
        text = "import distrib, sys\nfor line in distrib.get_run(sys.argv[1]).logs(follow=True): print(line, flush=True)"
        with subprocess.Popen([sys.executable, "-c", text, run.id], stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            early = {other.stdout.readline(), other.stdout.readline()}
            (meeting / "heard").touch()
            late = set(other.stdout)
        assert early == {"[worker-0] early\n", "[worker-1] early\n"}
        assert late == {"[worker-0] late\n", "[worker-1] late\n"}
        assert other.returncode == 0
        run.wait(PATIENCE)

    def test_given_up_half_way(self, meeting: Path) -> None:
        """
        Who stops following leaves nothing open, and the run as it is.
        """

        def speak() -> None:
            print("early")
            fates.await_sign(str(meeting), "go")

        run = task(speak).submit()
        lines = run.logs(follow=True)
        assert next(lines).endswith("early")
        lines.close()  # type: ignore[attr-defined]
        (meeting / "go").touch()
        assert run.wait(PATIENCE).state is distrib.RunState.SUCCEEDED

    def test_across_restarts(self, meeting: Path) -> None:
        """
        A replica's log goes on when it is started again.
        """

        def try_twice() -> None:
            first = not (meeting / "tried").exists()
            print("first" if first else "second")
            if first:
                fates.sign(str(meeting), "tried")
                fates.fail_as("_exit 5")

        worker = {"replicas": 1, "restart_policy": "OnFailure"}
        run = task(try_twice, worker=worker, local={**QUIET, "restart_delay": 0}).submit()
        assert run.wait(PATIENCE).restarts == 1
        assert list(run.logs("worker-0")) == ["first", "second"]

    def test_removed_at_the_users_wish(self) -> None:
        """
        ``clean_pod_policy="All"`` removes the logs at the end; there is then nothing to read.
        """
        run = task(lambda: print("hello"), run_policy={"clean_pod_policy": "All"}).submit()
        run.wait(PATIENCE)
        assert list(run.logs()) == []

    def test_what_is_no_text(self) -> None:
        """
        Bytes that are no text are made visible in lines, and are themselves in the file.
        """
        run = task(lambda: os.write(1, b"\xff\xfe ok\n") and None, worker=1).submit()
        run.wait(PATIENCE)
        assert list(run.logs("worker-0")) == ["\\xff\\xfe ok"]
        assert log_of(run).read_bytes() == b"\xff\xfe ok\n"


class TestStreams:
    def test_grandchildren(self) -> None:
        """
        What processes write that a replica starts is in its log; one that it leaves in a session of its own included.
        """

        def start() -> None:
            subprocess.run(["sh", "-c", "echo child; (echo grandchild)"], check=True)
            subprocess.run(["setsid", "sh", "-c", "echo other session >&2"], check=True)

        run = task(start, worker=1).submit()
        run.wait(PATIENCE)
        assert list(run.logs("worker-0")) == ["child", "grandchild", "other session"]

    @pytest.mark.parametrize("how", ["close", "os.close", "None", "redirect", "file"])
    def test_replaced(self, tmp_path: Path, how: str) -> None:
        """
        A replica may close or redirect its standard output and still return.
        """
        log = tmp_path / "own.log"

        def replace() -> int:
            print("before")
            if how == "close":
                sys.stdout.close()
                sys.stderr.close()
            elif how == "os.close":
                os.close(1)
                os.close(2)
            elif how == "None":
                sys.stdout = sys.stderr = None
            elif how == "redirect":
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 1)
                print("after")
            else:
                sys.stdout = log.open("w")
                print("after")
            return 5

        run = task(replace, worker=1).submit()
        assert run.result(PATIENCE) == 5
        assert list(run.logs("worker-0")) == ["before"]
        if how in ("redirect", "file"):
            assert log.read_text() == "after\n"

    def test_raising_without_standard_error(self) -> None:
        """
        Without any standard stream an exception still arrives.
        """

        def fail() -> None:
            os.closerange(0, 3)
            fates.fail_as("raise")

        with pytest.raises(distrib.ReplicaFailedError, match="bad batch"):
            task(fail, worker=1)()

    def test_odd_text(self) -> None:
        """
        Text that no encoding can hold is written somehow; printing never fails a replica.
        """
        run = task(lambda: print("lone \ud800 ü"), worker=1, env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}).submit()
        run.result(PATIENCE)
        assert list(run.logs("worker-0")) == ["lone \\ud800 ü"]

    def test_killed_while_writing(self) -> None:
        """
        A replica that is killed while it writes leaves whole what it had written before.
        """

        def write() -> None:
            for number in range(1000):
                print(number)
            os.kill(os.getpid(), signal.SIGKILL)

        run = task(write, worker=1).submit()
        run.wait(PATIENCE)
        assert list(run.logs("worker-0")) == [str(number) for number in range(1000)]
