"""
An engine that has the local one do all the work, under another name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from distrib import Engine, Event, Job, Plan, Results, Run, RunStatus, SubmitError
from distrib.engine import Call
from distrib.engines.local import LocalEngine

SCHEME = "relay://"


@attrs.frozen(kw_only=True)
class RelayOptions:
    """
    Plain validators of attrs: what they raise is put into the words of jobs.
    """

    grace_period: float = attrs.field(default=10.0, validator=attrs.validators.instance_of((int, float)))


class RelayPlan(Plan[Any]):
    """
    What the local engine would start.
    """

    def __init__(self, job: Job, call: Call[Any], local: Plan[Any]) -> None:
        self.job = job
        self.call = call
        self.local = local

    def __str__(self) -> str:
        return f"relayed: {self.local}"


class RelayRun(Run[Any]):
    """
    A local run under another id.
    """

    def __init__(self, local: Run[Any]) -> None:
        self.local = local

    @property
    def id(self) -> str:
        return f"{SCHEME}{self.local.id}"

    def status(self) -> RunStatus:
        return self.local.status()

    def wait(self, timeout: float | None = None) -> RunStatus:
        return self.local.wait(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self.local.exception(timeout)

    def results(self, timeout: float | None = None) -> Results[Any]:
        return self.local.results(timeout)

    def cancel(self, *, at_once: bool = False) -> None:
        self.local.cancel(at_once=at_once)

    def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
        return self.local.logs(replica, follow=follow)

    def events(self) -> Sequence[Event]:
        return self.local.events()


class RelayEngine(Engine):
    """
    Relays everything.
    """

    name = "relay"
    options = RelayOptions

    def __init__(self) -> None:
        self.local = LocalEngine()

    def plan(self, job: Job, call: Call[Any]) -> RelayPlan:
        grace_period = self.options_of(job).grace_period
        local = job.evolve(engine_options={"local": {"grace_period": grace_period, "restart_delay": 0, "echo": False}})
        return RelayPlan(job, call, self.local.plan(local, call))

    def submit(self, plan: Plan[Any]) -> RelayRun:
        if not isinstance(plan, RelayPlan):
            raise SubmitError(f"the relay engine submits its own plans, not a {type(plan).__name__}")
        return RelayRun(self.local.submit(plan.local))

    def runs(self) -> Sequence[Run[Any]]:
        return [RelayRun(run) for run in self.local.runs()]

    def get_run(self, id: str) -> RelayRun:
        return RelayRun(self.local.get_run(id.removeprefix(SCHEME)))
