"""
Runs that fail.
"""

from __future__ import annotations

import threading

import pytest

from ...errors import InvalidJobError, RunTimeoutError
from .. import _calls
from .._law import law
from .subject import EngineSubject

_SIGKILL = 9
_RETRYABLE = 138


class FailureLaws(EngineSubject):
    """
    No failure is swallowed, and each is told.
    """

    @law
    def test_a_failing_replica_is_named(self) -> None:
        """
        A replica that raises fails the run at once: a ReplicaFailedError names it, whatever the others do when they are stopped.
        """
        who = f"{self.worker}-1"
        run = self._start(_calls.fail, who, "out of luck")
        error = self._failure(run, f"{who} has raised")
        assert error.replica == who, f"{who} has raised, and the error names {error.replica}"
        assert isinstance(error.__cause__, ValueError), f"{who} has raised a ValueError, and the cause is {error.__cause__!r}"
        assert error.__cause__.args == ("out of luck",), f"the cause has become {error.__cause__!r}"
        assert error.exit_code == 1, f"the exit code is {error.exit_code}"
        for text in (error.traceback, str(error)):
            assert "ValueError: out of luck" in text, f"what was raised is not in {text!r}"
        self._check_failed(run)

    @law
    def test_a_lost_replica_is_noticed(self) -> None:
        """
        A replica whose process is killed fails the run: a ReplicaFailedError names it, and the signal.
        """
        who = f"{self.worker}-1"
        run = self._start(_calls.be_killed, who)
        error = self._failure(run, f"{who} was killed")
        assert error.replica == who, f"{who} was killed, and the error names {error.replica}"
        told = (error.signal, error.exit_code)
        assert told in ((_SIGKILL, None), (None, 128 + _SIGKILL)), f"signal {error.signal}, exit code {error.exit_code}"
        self._check_failed(run)

    @law
    def test_an_exit_code_is_told(self) -> None:
        """
        A replica that ends with another exit code than 0 fails the run, and its code is told.
        """
        who = f"{self.worker}-1"
        run = self._start(_calls.end, who, 3)
        error = self._failure(run, f"{who} has ended with exit code 3")
        assert (error.replica, error.exit_code) == (who, 3), f"the error is about {error.replica} and exit code {error.exit_code}"
        self._check_failed(run)

    @law
    def test_an_end_without_a_value_is_no_success(self) -> None:
        """
        A replica that ends with exit code 0 before its function has returned fails the run.
        """
        who = f"{self.worker}-0"
        run = self._start(_calls.end, who, 0)
        error = self._failure(run, f"{who} has ended without a word")
        assert error.replica == who, f"{who} has ended without a word, and the error names {error.replica}"
        self._check_failed(run)

    @law
    def test_a_value_that_cannot_travel_is_a_failure(self) -> None:
        """
        A replica whose value cannot be pickled fails the run.
        """
        run = self._start(_calls.call, threading.Lock)
        error = self._failure(run, f"{self.worker}-0 has returned what cannot be pickled")
        assert "pickle" in str(error), f"the message does not say so: {error}"

    @law
    def test_a_call_that_cannot_travel_is_refused(self) -> None:
        """
        An argument that cannot be pickled is refused by an InvalidJobError, and nothing is started.
        """
        before = self.traces()["runs"]
        lock = threading.Lock()
        error = self._raised(InvalidJobError, "a call with a lock", lambda: self._start(_calls.echo, lock=lock))
        assert "lock" in str(error), f"the message does not name the argument: {error}"
        assert set(self.traces()["runs"]) <= set(before), "there is a run nevertheless"

    @law
    def test_a_failing_replica_is_started_again(self) -> None:
        """
        With restart_policy="OnFailure" a replica is started again, as often as the backoff limit says.
        """
        keywords = {self.worker: {"replicas": 1, "restart_policy": "OnFailure"}, "run_policy": {"backoff_limit": 1}}
        run = self._start(_calls.fail, f"{self.worker}-0", "again", job=self.job(**keywords))
        self._failure(run, "its only replica has raised each time")
        assert run.status().restarts == 1, f"it has been started again {run.status().restarts} times, not once"

    @law
    def test_a_retryable_error_has_its_exit_code(self) -> None:
        """
        A replica that raises a RetryableError ends with the exit code that says "start me again": 138.
        """
        run = self._start(_calls.ask_for_another_try)
        error = self._failure(run, "the replicas have raised a RetryableError")
        assert error.exit_code == _RETRYABLE, f"the exit code is {error.exit_code}"

    @pytest.mark.slow
    @law
    def test_a_deadline_is_kept(self) -> None:
        """
        A run that outlives its active_deadline_seconds is stopped and has failed with a RunTimeoutError.
        """
        run = self._start(_calls.sleep, job=self.job(run_policy={"active_deadline_seconds": 1}))
        error = self._within("exception()", run.exception)
        assert isinstance(error, RunTimeoutError), f"the error is {error!r}"
        self._check_failed(run)
