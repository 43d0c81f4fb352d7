"""
Waiting for runs: with and without an event loop, for some time, by several at once, or not at all.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fates
import pytest
from watching import PATIENCE, QUIET, Launcher, eventually, task

import distrib
from distrib import ReplicaFailedError, RunCancelledError, RunState, RunTimeoutError


async def result_of(run: distrib.Run[Any]) -> Any:
    """
    What awaiting a run gives.
    """
    return await run


def held_run(meeting: Path, name: str = "go") -> distrib.Run[Any]:
    """
    A run that ends when the test says so.
    """

    def train() -> str:
        fates.await_sign(str(meeting), name)
        return name

    return task(train).submit()


class TestAwait:
    def test_value(self) -> None:
        """
        ``await run`` is the coordinator's value; of a run that is over, again and again.
        """

        async def main() -> list[str]:
            run = task(fates.name).submit()
            return [await run, await run, await asyncio.wait_for(result_of(run), PATIENCE)]

        assert asyncio.run(main()) == ["worker-0"] * 3

    def test_several_at_once(self, meeting: Path) -> None:
        """
        Several runs are awaited at once: the loop goes on meanwhile, and lets the last one end first.
        """

        async def main() -> list[str]:
            runs = [held_run(meeting, name) for name in ("first", "second", "third")]
            tasks = [asyncio.ensure_future(result_of(run)) for run in runs]
            for at in (2, 1, 0):
                (meeting / ("first", "second", "third")[at]).touch()
                await tasks[at]
                assert [each.done() for each in tasks] == [place >= at for place in range(3)]
            return list(await asyncio.gather(*tasks))

        assert asyncio.run(main()) == ["first", "second", "third"]

    def test_one_fails(self, meeting: Path) -> None:
        """
        Of several, one that fails is told as :meth:`result` tells it, and the others go on.
        """

        async def main() -> list[Any]:
            good = held_run(meeting)
            bad = task(fates.fail_as, worker=1).submit("raise")
            with pytest.raises(ReplicaFailedError, match="bad batch"):
                await asyncio.gather(result_of(good), result_of(bad))
            assert not good.status().state.is_final
            (meeting / "go").touch()
            return list(await asyncio.gather(result_of(good), result_of(bad), return_exceptions=True))

        value, error = asyncio.run(main())
        assert value == "go"
        assert isinstance(error.__cause__, ValueError)

    def test_by_several(self, meeting: Path) -> None:
        """
        Several tasks may await the same run.
        """
        run = held_run(meeting)

        async def main() -> list[str]:
            tasks = [asyncio.ensure_future(result_of(run)) for _ in range(5)]
            await asyncio.sleep(0)
            (meeting / "go").touch()
            return list(await asyncio.gather(*tasks))

        assert asyncio.run(main()) == ["go"] * 5

    def test_cancelled_task(self, meeting: Path) -> None:
        """
        A task that is cancelled stops waiting; the run goes on, and can be awaited again.
        """
        run = held_run(meeting)

        async def main() -> str:
            waiting = asyncio.ensure_future(result_of(run))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not run.status().state.is_final
            (meeting / "go").touch()
            return str(await run)

        assert asyncio.run(main()) == "go"

    def test_loop_that_is_closed(self, meeting: Path) -> None:
        """
        A loop that is closed before the run is over is not waited for, and the run ends well.
        """
        run = held_run(meeting)

        async def main() -> None:
            waiting = asyncio.ensure_future(result_of(run))
            await asyncio.sleep(0)
            waiting.cancel()

        asyncio.run(main())
        (meeting / "go").touch()
        assert run.result(PATIENCE) == "go"

    def test_of_the_history(self, meeting: Path) -> None:
        """
        A run that was found again can be awaited too.
        """
        run = held_run(meeting)

        async def main() -> list[str]:
            waiting = asyncio.ensure_future(result_of(distrib.get_run(run.id)))
            await asyncio.sleep(0)
            (meeting / "go").touch()
            return [await waiting, await distrib.get_run(run.id)]

        assert asyncio.run(main()) == ["go", "go"]
        run.wait(PATIENCE)

    def test_cancelled_run(self, meeting: Path) -> None:
        """
        Who awaits a run that is cancelled gets its error, not that of a task.
        """
        run = held_run(meeting)

        async def main() -> None:
            waiting = asyncio.ensure_future(result_of(run))
            await asyncio.sleep(0)
            await asyncio.to_thread(run.cancel)
            with pytest.raises(RunCancelledError):
                await waiting

        asyncio.run(main())


class TestWaiting:
    def test_for_some_time(self, meeting: Path) -> None:
        """
        A wait that runs out is a :class:`RunTimeoutError` that says that the run goes on; it does.
        """
        run = held_run(meeting)
        for wait in (run.wait, run.result, run.exception, run.results, distrib.get_run(run.id).result):
            with pytest.raises(
                RunTimeoutError, match=rf"^{run.id} is still running after 0.01 s; it goes on. Wait again, or cancel\(\) it.$"
            ):
                wait(0.01)
            for none in (0, -1):
                with pytest.raises(TimeoutError):
                    wait(timeout=none)
            with pytest.raises(ValueError, match="timeout=nan: write seconds"):
                wait(float("nan"))
        assert run.status().state in (RunState.PENDING, RunState.RUNNING)
        (meeting / "go").touch()
        assert run.result(PATIENCE) == "go"
        assert run.result(0) == "go"

    def test_twice(self) -> None:
        """
        Waiting again gives the same at once.
        """
        run = task(fates.name).submit()
        first = run.wait(PATIENCE)
        assert first.state is RunState.SUCCEEDED
        assert run.wait() == run.wait(0) == first
        assert run.exception() is None
        assert run.exception(0) is None

    def test_does_not_raise_for_a_failure(self) -> None:
        """
        ``wait()`` and ``exception()`` return for a run that failed; ``result()`` and ``results()`` raise.
        """
        run = task(fates.fail_as, worker=1).submit("_exit 5")
        assert run.wait(PATIENCE).state is RunState.FAILED
        assert isinstance(run.exception(), ReplicaFailedError)
        for get in (run.result, run.results):
            with pytest.raises(ReplicaFailedError):
                get()

    def test_by_many_threads(self, meeting: Path) -> None:
        """
        Any number of threads may wait for a run, ask for it, and read its results.
        """
        run = held_run(meeting)
        found: list[Any] = []

        def look() -> None:
            found.append((run.status().state.is_final, run.result(), list(run.results()), len(run.events()) > 0))

        threads = [threading.Thread(target=look) for _ in range(10)]
        for thread in threads:
            thread.start()
        eventually(lambda: run.status().state is RunState.RUNNING, "the run")
        (meeting / "go").touch()
        for thread in threads:
            thread.join(PATIENCE)
        assert [each[1:] for each in found] == [("go", ["go", "go"], True)] * 10

    def test_cancelled_by_many_threads(self, meeting: Path) -> None:
        """
        Any number of threads may cancel a run; each returns when it is over.
        """
        run = held_run(meeting)
        finals: list[bool] = []

        def cancel(index: int) -> None:
            run.cancel(at_once=index % 2 == 0)
            finals.append(run.status().state is RunState.CANCELLED)

        threads = [threading.Thread(target=cancel, args=(index,)) for index in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert finals == [True] * 10

    def test_runs_from_many_threads(self) -> None:
        """
        Threads may submit runs at the same time; each gets its own values.
        """
        values: dict[int, list[int]] = {}

        def call(number: int) -> None:
            values[number] = list(task(fates.add).submit(number, b=number).results())

        threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert values == {number: [2 * number] * 2 for number in range(6)}

    def test_forgotten(self, meeting: Path) -> None:
        """
        A run that nobody holds goes on, and lets go of all it had when it is over.
        """
        run_id = held_run(meeting).id
        gc.collect()
        assert not distrib.get_run(run_id).status().state.is_final
        (meeting / "go").touch()
        assert distrib.get_run(run_id).wait(PATIENCE).state is RunState.SUCCEEDED


class TestResults:
    def test_of_several_roles(self) -> None:
        """
        Values by role and index, in the order of the ranks, named.
        """

        def rank() -> int:
            return distrib.replica().rank

        results = task(rank, chief=1, worker=3, evaluator=1).submit().results(PATIENCE)
        assert results.value == 0
        assert list(results) == [0, 1, 2, 3, 4]
        assert [name for name, _ in results.items()] == ["chief-0", "worker-0", "worker-1", "worker-2", "evaluator-0"]
        assert list(results["worker"]) == [1, 2, 3]
        assert (results["worker"][0], results["worker"][-1], results["worker"][1:], len(results["worker"])) == (1, 3, [2, 3], 3)
        assert 2 in results["worker"]
        assert results["chief"][0] == results.value
        assert len(results) == 5
        with pytest.raises(IndexError):
            results["worker"][3]
        with pytest.raises(LookupError, match=r"no replica has the role 'worke'. Did you mean 'worker'\? Legal: chief, worker, evaluator."):
            results["worke"]
        for odd in ("ps", 0):
            with pytest.raises(LookupError, match=r"no replica has the role .* Legal: chief, worker, evaluator."):
                results[odd]  # type: ignore[index]
        assert repr(results) == "<Results: chief-0, worker-0, worker-1, worker-2, evaluator-0>"

    def test_missing(self, meeting: Path) -> None:
        """
        A replica that was stopped has no value: iteration leaves it out, asking for it is a ``LookupError`` that says why.
        """

        def train() -> str:
            if distrib.replica().index == 1:
                fates.sign(str(meeting))
                fates.sleep_for_ever()
            fates.await_sign(str(meeting), "worker-1")
            return distrib.replica().name

        results = task(train, worker=3, run_policy={"success_policy": ""}, local={**QUIET, "grace_period": 0}).submit().results(PATIENCE)
        assert results.value == "worker-0"
        assert "worker-1" not in dict(results.items())
        assert len(results) == len(list(results)) == len(dict(results.items()))
        with pytest.raises(LookupError, match="worker-1 returned no value: it was stopped before its function returned"):
            results["worker"][1]
        with pytest.raises(LookupError):
            list(results["worker"])
        assert len(results["worker"]) == 3

    def test_none_is_a_value(self) -> None:
        """
        A function that returns nothing has returned None.
        """
        results = task(lambda: None).submit().results(PATIENCE)
        assert (results.value, list(results), len(results)) == (None, [None, None], 2)

    def test_are_loaded_once(self) -> None:
        """
        The same value is the same object each time.
        """
        results = task(lambda: [1]).submit().results(PATIENCE)
        assert results.value is results["worker"][0] is next(iter(results))
        assert results["worker"][0] is not results["worker"][1]


class TestProgramsEnd:
    def test_not_waited_for(self, launcher: Launcher) -> None:
        """
        A program that ends without waiting stops its run and says so: nothing goes on behind its back.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker=2)
            def train():
                sign()
                time.sleep(1000)

            run = train.submit()
            await_sign("worker-0")
            await_sign("worker-1")
        """)
        stopped, summary = done.stderr.splitlines()
        assert stopped.endswith(" is stopped because the program ends; call wait() or result() to wait for it")
        assert " cancelled in " in summary
        assert done.returncode == 0
        (run,) = distrib.runs()
        assert run.status().state is RunState.CANCELLED

    def test_at_once_after_submit(self, launcher: Launcher) -> None:
        """
        The same holds for one that ends at the moment it has submitted, several runs at a time, by an exception or ``sys.exit``.
        """
        for ending, code in (("", 0), ("raise ValueError", 1), ("sys.exit(7)", 7)):
            done = launcher.run(f"""
                @distributed("tensorflow", worker=2)
                def train():
                    time.sleep(1000)

                runs = [train.submit() for _ in range(3)]
                {ending}
            """)
            assert done.returncode == code
            assert done.stderr.count("is stopped because the program ends") == 3
            assert done.stderr.count(" cancelled in ") == 3
        assert {run.status().state for run in distrib.runs()} == {RunState.CANCELLED}

    def test_os_exit(self, launcher: Launcher) -> None:
        """
        One that ends without any clean-up takes its run along all the same.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                sign()
                time.sleep(1000)

            train.submit()
            await_sign("worker-0")
            os._exit(3)
        """)
        assert done.returncode == 3
        (run,) = distrib.runs()
        assert run.wait(PATIENCE).state is RunState.CANCELLED

    def test_awaited_when_the_loop_ends(self) -> None:
        """
        A program that leaves its event loop while it awaits a run ends, and stops the run.
        """
        text = """
import asyncio, time, distrib
run = distrib.distributed("tensorflow", worker=1, local={"echo": False})(time.sleep).submit(1000)
async def main():
    await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(wait())), 0.1)
async def wait():
    await run
asyncio.run(main())
"""
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 1
        assert "TimeoutError" in done.stderr
        eventually(lambda: distrib.runs()[0].status().state is RunState.CANCELLED, "the end of the run")

    def test_from_a_daemon_thread(self, launcher: Launcher) -> None:
        """
        A call in a daemon thread does not keep the program from ending, nor survives it.
        """
        done = launcher.run("""
            @distributed("tensorflow", worker=2, local=QUIET)
            def train():
                sign()
                time.sleep(1000)

            threading.Thread(target=train, daemon=True).start()
            await_sign("worker-0")
        """)
        assert done.returncode == 0
        (run,) = distrib.runs()
        assert run.wait(PATIENCE).state is RunState.CANCELLED


def test_clock_is_not_the_walls(monkeypatch: pytest.MonkeyPatch, meeting: Path) -> None:
    """
    A wall clock that is set back does not prolong a wait.
    """
    run = held_run(meeting)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(RunTimeoutError):
        distrib.get_run(run.id).wait(0.05)
    (meeting / "go").touch()
    run.wait(PATIENCE)
