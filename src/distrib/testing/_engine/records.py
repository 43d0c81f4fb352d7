"""
What is told of a run.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import distrib

from ...engine import Engine, RunState
from ...errors import InvalidJobError
from .. import _calls
from .._law import law
from .subject import EngineSubject


class RecordLaws(EngineSubject):
    """
    Logs, events, and runs that are found again.
    """

    @law
    def test_logs_arrive(self) -> None:
        """
        What each replica writes can be read line by line, its own or everybody's with names, and all of it while or after it runs.
        """
        run = self._start(_calls.write, 3)
        wanted = {who: [*(f"{who} says {number}" for number in range(3)), f"{who} complains"] for who in self._names(self.job())}
        followed = self._within("logs(follow=True)", lambda: list(run.logs(follow=True)))
        everybody = sorted(f"[{who}] {line}" for who, lines in wanted.items() for line in lines)
        assert sorted(followed) == everybody, f"followed, they are {followed}"
        assert sorted(run.logs()) == everybody, f"afterwards, they are {list(run.logs())}"
        for who, lines in wanted.items():
            assert sorted(run.logs(who)) == sorted(lines), f"those of {who} are {list(run.logs(who))}"
        error = self._raised(InvalidJobError, "logs('nobody')", lambda: run.logs("nobody"))
        assert f"{self.worker}-0" in str(error), f"the message does not say whose logs there are: {error}"

    @law
    def test_events_are_in_order(self) -> None:
        """
        What has happened is told in order, and of every replica.
        """
        run = self._start(_calls.name)
        self._within("wait()", run.wait)
        events = run.events()
        times = [event.time for event in events]
        assert times == sorted(times), f"their times are {times}"
        missing = set(self._names(self.job())) - {event.replica for event in events}
        assert not missing, f"nothing is told of {', '.join(sorted(missing))}"

    @law
    def test_runs_are_remembered(self) -> None:
        """
        A run is found by its id, while it runs and afterwards, and is the newest of all runs.
        """
        run = self._start(_calls.write, 1)
        self._check_found(run)
        self._within("wait()", run.wait)
        self._check_found(run)
        again = distrib.get_run(run.id)
        assert again.status().state is RunState.SUCCEEDED, f"its state is {again.status().state}"
        assert sorted(again.logs()) == sorted(run.logs()), f"its logs are {list(again.logs())}"
        assert self._within("result()", again.result) is None

    @law
    def test_a_failure_is_remembered(self) -> None:
        """
        A run that is found by its id raises what it raised before.
        """
        run = self._start(_calls.fail, f"{self.worker}-1", "out of luck")
        error = self._failure(run, "a replica has raised")
        again = self._failure(distrib.get_run(run.id), "a replica had raised")
        assert (again.replica, str(again)) == (error.replica, str(error)), f"found again, the error is {again}"

    @law
    def test_an_unknown_run_is_a_lookup_error(self) -> None:
        """
        An id that no run has is a LookupError.
        """
        self._raised(LookupError, "get_run() of an unknown id", lambda: self._subject.get_run("no-such-run"))

    @pytest.mark.slow
    @law
    def test_another_process_finds_a_run(self) -> None:
        """
        A run is found by its id from another process too, with its value.
        """
        if isinstance(self.engine, Engine):
            pytest.skip("another process finds engines that are installed: write engine = its name")
        run = self._start(_calls.name)
        self._within("wait()", run.wait)
        code = f"import distrib, json; run = distrib.get_run({run.id!r}); print(json.dumps([run.status().state.value, run.result()]))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=self.patience)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == ["Succeeded", f"{self.worker}-0"], f"it finds {done.stdout}"
