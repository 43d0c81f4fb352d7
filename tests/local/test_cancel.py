"""
Cancelling a run at any moment of its start.
"""

from __future__ import annotations

import time

from distrib import Command, RunState, distributed


def test_a_replica_may_be_stopped_before_it_is_one() -> None:
    """
    The signal to a process that was forked this moment is not lost: nobody waits for the grace period to run out.
    """
    task = distributed("tensorflow", worker=3, local={"echo": False, "grace_period": 60})(Command(["sleep", "600"]))
    for moment in range(12):
        run = task.submit()
        time.sleep(moment / 100)
        before = time.monotonic()
        run.cancel()
        assert run.status().state is RunState.CANCELLED
        assert time.monotonic() - before < 30
