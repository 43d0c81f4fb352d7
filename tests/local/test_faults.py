"""
What happens when replicas end badly or behave oddly.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fates
import odd_errors
import pytest
from watching import PATIENCE, QUIET, Launcher, eventually, is_alive, task

import distrib
from distrib import ReplicaFailedError, Run, RunCancelledError, RunState

FATES = {
    "raise": (1, None),
    "exit 3": (3, None),
    "exit text": (1, None),
    "_exit 5": (5, None),
    "_exit 0": (0, None),
    "SIGSEGV": (None, signal.SIGSEGV),
    "SIGKILL": (None, signal.SIGKILL),
    "SIGABRT": (None, signal.SIGABRT),
    "SIGTERM": (None, signal.SIGTERM),
}


def signals_sent(run: Run[Any]) -> set[int]:
    """
    With which signals the supervisor has stopped replicas.
    """
    return {int(event.message.partition("=")[2]) for event in run.events() if event.kind == "signalled"}


class TestReplicaFails:
    @pytest.mark.parametrize("others", ["sleep", "native"])
    @pytest.mark.parametrize("fate", FATES)
    def test_the_run_fails_at_once(self, meeting: Path, fate: str, others: str) -> None:
        """
        However one replica fails, and whatever the others do: the run fails without waiting for any timer, and says who failed.
        """
        run = task(fates.fail_one, worker=3, local={**QUIET, "grace_period": 1000.0}).submit(str(meeting), fate, others)
        with pytest.raises(ReplicaFailedError) as caught:
            run.result(PATIENCE)
        assert (caught.value.replica, caught.value.exit_code, caught.value.signal) == ("worker-1", *FATES[fate])
        status = run.status()
        assert status.state is RunState.FAILED
        assert status.replicas["worker-1"].state == "Failed"
        assert {status.replicas[f"worker-{index}"].state for index in (0, 2)} == {"Stopped"}
        # Being asked was enough: nobody had to be killed when a timer had run out.
        assert signals_sent(run) == {signal.SIGTERM}

    @pytest.mark.parametrize("attempt", range(3))
    @pytest.mark.parametrize("fate", ["SIGKILL", "_exit 5"])
    def test_the_first_failure_is_the_one_told(self, meeting: Path, fate: str, attempt: int) -> None:
        """
        Replicas that fail because they have lost a peer are not taken for the cause, however quickly they notice.
        """
        run = task(fates.lose_a_peer, worker=4).submit(str(meeting), fate)
        with pytest.raises(ReplicaFailedError) as caught:
            run.result(PATIENCE)
        assert (caught.value.replica, caught.value.exit_code, caught.value.signal) == ("worker-0", *FATES[fate])

    @pytest.mark.tensorflow
    @pytest.mark.slow
    def test_in_a_collective(self) -> None:
        """
        A worker that dies while the other one waits for it in TensorFlow's collective fails the run; no timeout has to run out.
        """

        def reduce() -> None:
            import tensorflow as tf

            from distrib.tensorflow import strategy

            together = strategy()
            if distrib.replica().index == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            together.run(tf.function(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.constant(1.0))))

        with pytest.raises(ReplicaFailedError) as caught:
            task(reduce, local={**QUIET, "grace_period": 1000.0}).submit().result(PATIENCE)
        assert (caught.value.replica, caught.value.signal) == ("worker-1", signal.SIGKILL)

    def test_failed_run_has_an_exit_code(self, launcher: Launcher) -> None:
        """
        A program whose run fails does not end with code 0.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker=2)
            def train():
                raise ValueError("bad batch")
            train()
        """)
        assert done.returncode == 1

    def test_descendants_of_a_failed_run(self, meeting: Path) -> None:
        """
        Children of replicas, and daemons that have left for a session of their own, are gone with the run.
        """
        run = task(fates.leave_descendants).submit(str(meeting), "fail")
        with pytest.raises(ReplicaFailedError):
            run.result(PATIENCE)
        assert not any(map(is_alive, pids_in(meeting)))

    def test_descendants_of_a_good_run(self, meeting: Path) -> None:
        """
        The same holds for a run that succeeds.
        """
        task(fates.leave_descendants).submit(str(meeting), "return").result(PATIENCE)
        assert not any(map(is_alive, pids_in(meeting)))


def pids_in(meeting: Path) -> list[int]:
    """
    The processes that have signed.
    """
    pids = [int(path.read_text()) for path in meeting.iterdir()]
    assert len(pids) == 8
    return pids


class TestOddReplicas:
    def test_ignores_sigterm(self, meeting: Path) -> None:
        """
        A replica that ignores SIGTERM is killed when the grace period is over.
        """

        def ignore() -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            fates.sign(str(meeting))
            fates.sleep_for_ever()

        run = task(ignore, local={**QUIET, "grace_period": 0.2}).submit()
        eventually(lambda: len(list(meeting.glob("worker-?"))) == 2, "both replicas")
        run.cancel()
        assert signals_sent(run) == {signal.SIGTERM, signal.SIGKILL}
        with pytest.raises(RunCancelledError):
            run.result()

    def test_uses_its_grace_period(self, meeting: Path) -> None:
        """
        A replica that is stopped may put its house in order first.
        """

        def tidy() -> None:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            fates.sign(str(meeting))
            try:
                fates.sleep_for_ever()
            finally:
                time.sleep(0.2)
                fates.sign(str(meeting), f"tidy-{distrib.replica().name}")

        run = task(tidy).submit()
        eventually(lambda: len(list(meeting.glob("worker-?"))) == 2, "both replicas")
        run.cancel()
        assert (meeting / "tidy-worker-0").exists()
        assert (meeting / "tidy-worker-1").exists()
        assert signals_sent(run) == {signal.SIGTERM}

    @pytest.mark.parametrize("where", ["thread", "atexit", "child"])
    def test_hangs_at_its_end(self, where: str) -> None:
        """
        A replica that has returned but does not end is stopped after the grace period; its value counts.
        """

        def hang() -> str:
            if where == "thread":
                threading.Thread(target=fates.sleep_for_ever).start()
            elif where == "atexit":
                import atexit

                atexit.register(fates.sleep_for_ever)
            else:
                import multiprocessing

                multiprocessing.get_context("fork").Process(target=fates.sleep_for_ever).start()
            return "value"

        run = task(hang, local={**QUIET, "grace_period": 0.2}).submit()
        assert run.result(PATIENCE) == "value"
        assert "is done but does not end; it is stopped" in " ".join(event.message for event in run.events())

    @pytest.mark.parametrize("what", ["descriptors", "streams", "None"])
    def test_closes_its_output(self, what: str) -> None:
        """
        A replica may close its standard streams; what it wrote before is kept, and its value arrives.
        """

        def close() -> int:
            print("before")
            if what == "descriptors":
                for number in (0, 1, 2):
                    os.close(number)
            elif what == "streams":
                sys.stdout.close()
                sys.stderr.close()
            else:
                sys.stdout = sys.stderr = None  # type: ignore[assignment]
            return 5

        run = task(close).submit()
        assert run.result(PATIENCE) == 5
        assert list(run.logs("worker-1")) == ["before"]

    def test_closes_all_descriptors(self) -> None:
        """
        A replica that closes everything, as daemons do, is still heard: its value, or its exception, arrives.
        """

        def close(fate: str) -> int:
            os.closerange(3, 1000)
            if fate == "raise":
                raise ValueError("bad batch")
            return 5

        assert task(close)("return") == 5
        with pytest.raises(ReplicaFailedError, match="failed with ValueError: bad batch"):
            task(close)("raise")

    def test_forks_a_copy_that_comes_back(self) -> None:
        """
        A child that a function forks, and that returns or raises as well, does not speak for the replica.
        """

        def fork(fate: str) -> str:
            child = os.fork()
            if child == 0:
                if fate == "raise":
                    raise ValueError("in the copy")
                return "copy"
            os.waitpid(child, 0)
            return "replica"

        assert list(task(fork).submit("return").results()) == ["replica", "replica"]
        run = task(fork).submit("raise")
        assert list(run.results()) == ["replica", "replica"]
        assert list(run.logs("worker-0"))[-1] == "ValueError: in the copy"

    def test_writes_binary(self, launcher: Launcher, state: Path, tmp_path: Path) -> None:
        """
        Bytes that are no text are kept as they are, and passed on as they are.
        """
        with (tmp_path / "shown").open("wb") as file:
            done = launcher.run(
                """
                @distributed("tensorflow", worker=1)
                def write():
                    for _ in range(100):
                        os.write(1, bytes(range(256)) + b"\\n")
                write()
                """,
                stdout=file,
            )
        assert done.returncode == 0, done.stderr
        (log,) = state.glob("runs/*/logs/worker-0.log")
        assert log.read_bytes() == (bytes(range(256)) + b"\n") * 100
        assert (tmp_path / "shown").read_bytes().replace(b"[worker-0] ", b"") == log.read_bytes()

    def test_writes_an_endless_line(self) -> None:
        """
        A line that is too long to be read at once is given out in pieces of whole characters.
        """

        def write() -> None:
            for _ in range(10):
                print("é" * 500_000, end="")

        run = task(write, worker=1).submit()
        run.wait(PATIENCE)
        pieces = list(run.logs("worker-0"))
        assert len(pieces) > 1
        assert "".join(pieces) == "é" * 5_000_000


class TestExceptions:
    @pytest.mark.parametrize(
        ("kind", "type_name", "text", "rebuilt"),
        [
            ("keyword", "odd_errors.NeedsKeywordError", "too small: 3", False),
            ("lock", "odd_errors.LockedError", "holds a lock", False),
            ("no text", "odd_errors.BadTextError", "(its text cannot be had)", True),
            ("terrible", "odd_errors.EndingError", "boo", False),
            ("local", "odd_errors.raise_it.<locals>.LocalError", "of a local class", True),
            ("long", "ValueError", "行行行", True),
            ("lines", "ValueError", "first", True),
            ("surrogate", "ValueError", "lone \\ud800", True),
            ("interrupt", "KeyboardInterrupt", "pressed", True),
            pytest.param(
                *("group", "ExceptionGroup", "several (1 sub-exception)", True),
                marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has groups from 3.11 on"),
            ),
            ("retryable", "distrib.errors.RetryableError", "again", True),
        ],
    )
    def test_type_and_text_arrive(self, kind: str, type_name: str, text: str, rebuilt: bool) -> None:
        """
        Of any exception the type, the text and the traceback arrive; the exception itself where it can be rebuilt.
        """
        with pytest.raises(ReplicaFailedError) as caught:
            task(odd_errors.raise_it, worker=1)(kind)
        error = caught.value
        assert f"failed with {type_name}: {text}" in str(error).encode(errors="backslashreplace").decode()
        assert error.exit_code == (138 if kind == "retryable" else 1)
        assert "in raise_it" in error.traceback
        assert "_replica.py" not in error.traceback
        assert len(str(error).splitlines()) <= 8
        assert (error.__cause__ is not None) == rebuilt
        if rebuilt:
            assert type(error.__cause__).__name__ == type_name.rpartition(".")[2]

    @pytest.mark.parametrize("kind", ["keyword", "lock", "no text", "terrible", "long", "lines", "surrogate", "local"])
    def test_python_prints_it(self, launcher: Launcher, kind: str) -> None:
        """
        A program that fails with any of them ends with code 1 and a report; nothing else goes wrong on the way.

        Python prints all lines of the exception itself; but for the thousand of one that says so much, there are fifteen at most.
        """
        done = launcher.run(f"""
            import odd_errors
            distributed("tensorflow", worker=2, local=QUIET)(odd_errors.raise_it)({kind!r})
        """)
        assert done.returncode == 1
        assert "distrib.errors.ReplicaFailedError: worker-" in done.stderr
        lines = done.stderr.splitlines()
        assert lines[-1].startswith("1 other was stopped. Logs: ") or "failed after it" in done.stderr
        assert len(lines) - lines.count("more") <= 15

    def test_notes_and_attributes(self) -> None:
        """
        What an exception carries comes along.
        """

        def fail() -> None:
            error = OSError(28, "No space left on device", "/data")
            error.step = 7  # type: ignore[attr-defined]
            raise error

        with pytest.raises(ReplicaFailedError) as caught:
            task(fail)()
        cause: Any = caught.value.__cause__
        assert (type(cause), cause.errno, cause.filename, cause.step) == (OSError, 28, "/data", 7)
