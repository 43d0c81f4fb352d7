"""
How an engine plans.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from ..._converter import job_from_data, job_to_data
from ..._job import Job
from ...engine import Call, Plan
from ...errors import InvalidJobError, SubmitError, UnsupportedError
from .. import _calls
from .._law import for_all, law
from ..strategies import jobs
from .subject import EngineSubject

_LOOKS, _SECONDS = 20, 0.05


class PlanLaws(EngineSubject):
    """
    Pure, printable, and for any job.
    """

    @law
    def test_planning_starts_nothing(self) -> None:
        """
        A plan is made without a trace: nothing is called, started, opened, set or remembered.
        """
        _calls.counted.clear()
        self._subject.plan(self.job(), Call(_calls.name))  # the first one may load what it needs
        before = self._settled_traces()
        plan = self._subject.plan(self.job(), Call(_calls.count))
        str(plan)
        after = self.traces()
        assert not _calls.counted, "the function was called"
        for kind, found in after.items():
            new = Counter(found) - Counter(before[kind])
            assert not new, f"{kind}: {', '.join(map(str, new))} came with it"

    @law
    def test_equal_jobs_have_equal_plans(self) -> None:
        """
        Any job is planned or refused with a reason; a plan shows the function, every role and any job's equal alike.
        """
        call = Call(_calls.echo, (1,), {"two": 2})

        @for_all(jobs(self._backend))
        def holds(job: Job) -> None:
            try:
                plan = self._subject.plan(job, call)
            except (UnsupportedError, InvalidJobError) as error:
                assert str(error), f"{job} is refused without a reason"
                return
            assert plan.job == job, f"it is the plan of {plan.job}"
            assert plan.call == call, f"it is the plan of {plan.call}"
            text = str(plan)
            for word in ("echo", *(group.role for group in job.groups)):
                assert word in text, f"the plan does not show {word!r}:\n{text}"
            assert text == str(self._subject.plan(job_from_data(job_to_data(job)), call)), "planned again, it is another"

        holds()

    @law
    def test_only_its_own_plans_are_submitted(self) -> None:
        """
        Another engine's plan is refused with a SubmitError.
        """
        foreign = _Foreign(self.job(), Call(_calls.name))
        self._raised(SubmitError, "submit() of a foreign plan", lambda: self._submit(foreign))

    @law
    def test_a_plan_can_be_submitted_again(self) -> None:
        """
        Each submission of a plan is a run of its own.
        """
        plan = self._subject.plan(self.job(), Call(_calls.name))
        one, other = self._submit(plan), self._submit(plan)
        assert one.id != other.id, f"both are called {one.id}"
        for run in (one, other):
            assert self._result(run) == f"{self.worker}-0"

    def _settled_traces(self) -> dict[str, Collection[Any]]:
        # What ran before may not have put everything away yet.
        before, now = None, self.traces()
        for _ in range(_LOOKS):
            if before == now:
                break
            time.sleep(_SECONDS)
            before, now = now, self.traces()
        return now


class _Foreign(Plan[Any]):
    """
    The plan of an engine that nobody has.
    """

    def __init__(self, job: Job, call: Call[Any]) -> None:
        self.job = job
        self.call = call

    def __str__(self) -> str:
        return "nothing"
