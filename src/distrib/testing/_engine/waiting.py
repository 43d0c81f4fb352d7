"""
Waiting and cancelling.
"""

from __future__ import annotations

from functools import partial

from ...engine import RunState
from ...errors import RunCancelledError, RunTimeoutError
from .. import _calls
from .._law import law
from .subject import EngineSubject


class WaitingLaws(EngineSubject):
    """
    A run can be left, and can be stopped.
    """

    @law
    def test_a_wait_may_end_before_the_run(self) -> None:
        """
        A wait that runs out raises a RunTimeoutError, and the run goes on.
        """
        run = self._start(_calls.sleep)
        self._raised(RunTimeoutError, "wait(0.1) of a run that never ends", partial(run.wait, 0.1))
        self._raised(RunTimeoutError, "result(0.1) of a run that never ends", partial(run.result, 0.1))
        status = run.status()
        assert not status.state.is_final, f"its state is {status.state}"
        assert set(status.replicas) == set(self._names(self.job())), f"its replicas are {', '.join(status.replicas)}"

    @law
    def test_cancelling_stops_the_run(self) -> None:
        """
        A run that is cancelled is over when ``cancel()`` comes back, and its result is a RunCancelledError.
        """
        run = self._start(_calls.sleep)
        self._within("cancel()", run.cancel)
        state = run.status().state
        assert state is RunState.CANCELLED, f"its state is {state}"
        self._check_nothing_left(run)
        self._raised(RunCancelledError, "result() of a run that was cancelled", run.result)
        self._raised(RunCancelledError, "results() of a run that was cancelled", run.results)

    @law
    def test_cancelling_again_changes_nothing(self) -> None:
        """
        Cancelling a run that is over, cancelled or not, does nothing.
        """
        cancelled, done = self._start(_calls.sleep), self._start(_calls.name)
        self._within("wait()", done.wait)
        self._within("cancel()", cancelled.cancel)
        for run, state in ((cancelled, RunState.CANCELLED), (done, RunState.SUCCEEDED)):
            for at_once in (False, True):
                self._within("cancel() of a run that is over", partial(run.cancel, at_once=at_once))
            assert run.status().state is state, f"{state} has become {run.status().state}"
        assert done.result() == f"{self.worker}-0"

    @law
    def test_nobody_can_refuse_to_be_cancelled(self) -> None:
        """
        Replicas that ignore SIGTERM are killed: ``cancel(at_once=True)`` leaves nothing, without a grace period.
        """
        run = self._start(_calls.refuse_to_stop)
        self._await_lines(run)
        self._within("cancel(at_once=True)", partial(run.cancel, at_once=True))
        assert run.status().state is RunState.CANCELLED, f"its state is {run.status().state}"
        self._check_nothing_left(run)

    @law
    def test_no_child_survives(self) -> None:
        """
        What replicas have started ends with the run, in whatever session it is.
        """
        done, cancelled = self._start(_calls.leave_a_child), self._start(_calls.leave_a_child, stay=True)
        self._within("wait()", done.wait)
        self._check_nothing_left(done)
        self._await_lines(cancelled)
        self._within("cancel()", cancelled.cancel)
        self._check_nothing_left(cancelled)
