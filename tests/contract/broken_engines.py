"""
Engines of which each breaks one promise. All of them are the local engine with something wrong.

Each names the law that it breaks (``law``) and what its author is told (``said``).
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, ClassVar

import attrs

from distrib import Event, Job, ReplicaFailedError, Results, Run, RunState, RunStatus, UnsupportedError
from distrib._cluster import REPLICA_VARIABLE, RUN_VARIABLE
from distrib.engine import Call, Plan
from distrib.engines.local import LocalEngine
from distrib.testing import EngineContract

_numbers = itertools.count()
#: What the tests have to clean up.
RUNS: list[Run[Any]] = []
PROCESSES: list[subprocess.Popen[bytes]] = []


class LocalContract(EngineContract):
    """
    The suite, for engines that are made of the local one.
    """

    options: ClassVar[dict[str, Any]] = {"echo": False, "restart_delay": 0, "grace_period": 1}


class Copied(Results[Any]):
    """
    Values that may be other than they were.
    """

    def __init__(self, values: dict[str, Any], coordinator: str) -> None:
        self.values = values
        self.coordinator = coordinator

    @property
    def value(self) -> Any:
        return self.values[self.coordinator]

    def __getitem__(self, role: str) -> Sequence[Any]:
        found = [value for name, value in self.values.items() if name.startswith(f"{role}-")]
        if not found:
            raise LookupError(role)
        return found

    def items(self) -> Iterator[tuple[str, Any]]:
        return iter(self.values.items())

    def by_rank(self) -> dict[int, Any]:
        return dict(enumerate(self.values.values()))

    def __len__(self) -> int:
        return len(self.values)


class Same(Run[Any]):
    """
    Another run, told on.
    """

    def __init__(self, run: Run[Any]) -> None:
        self.run = run

    @property
    def id(self) -> str:
        return self.run.id

    def status(self) -> RunStatus:
        return self.run.status()

    def wait(self, timeout: float | None = None) -> RunStatus:
        return self.run.wait(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self.run.exception(timeout)

    def results(self, timeout: float | None = None) -> Results[Any]:
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self.run.results(timeout)

    def cancel(self, *, at_once: bool = False) -> None:
        self.run.cancel(at_once=at_once)

    def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
        return self.run.logs(replica, follow=follow)

    def events(self) -> Sequence[Event]:
        return self.run.events()


class Sound(LocalEngine):
    """
    The local engine, its runs of another class.
    """

    law: ClassVar[str]
    said: ClassVar[str]
    #: Those that hang are not waited for long.
    patience: ClassVar[float] = 60.0
    Told: ClassVar[type[Same]] = Same
    #: Whether it is tested by its name, as one that a package brings.
    is_installed: ClassVar[bool] = False

    def start(self, job: Job, call: Call[Any]) -> Run[Any]:
        return self._kept(super().start(job, call))

    def submit(self, plan: Plan[Any]) -> Run[Any]:
        return self._kept(super().submit(plan))

    def get_run(self, id: str) -> Run[Any]:
        return self.Told(super().get_run(id))

    def _kept(self, run: Run[Any]) -> Run[Any]:
        RUNS.append(run)
        return self.Told(run)


# Declarations


class NotInstalled(Sound):
    law, said = "test_found_by_its_name", r'entry-points."distrib.engines"\]\s+elsewhere = "broken_engines:NotInstalled"'
    name = "elsewhere"


class NameIsAField(Sound):
    law, said = "test_its_name_is_a_keyword_of_jobs", "name='image' is a field of all jobs"
    name = "image"


@attrs.define(kw_only=True)
class Loose:
    """
    Options that anybody can change.
    """

    echo: bool = False


class OptionsNotFrozen(Sound):
    law, said = "test_options_are_frozen", "echo of .* can be set; write @attrs.frozen"
    options = Loose


class IgnoresOptions(Sound):
    law, said = "test_unknown_options_are_refused", r"\.on\(\) with an unknown option has come back"

    def options_of(self, job: Job) -> Any:
        return self.options(echo=False)


class RaisesForOptions(Sound):
    law, said = "test_odd_options_are_refused", "TypeError: no such value"

    def options_of(self, job: Job) -> Any:
        try:
            return super().options_of(job)
        except ValueError as error:
            raise TypeError("no such value") from error


# Plans


class PlansByStarting(Sound):
    law, said = "test_planning_starts_nothing", "processes: [0-9]+ came with it"

    def plan(self, job: Job, call: Call[Any]) -> Any:
        PROCESSES.append(subprocess.Popen(["sleep", "60"]))
        return super().plan(job, call)


class PlansByCalling(Sound):
    law, said = "test_planning_starts_nothing", "the function was called"

    def plan(self, job: Job, call: Call[Any]) -> Any:
        call.function(*call.args, **call.kwargs)
        return super().plan(job, call)


class PlansBySetting(Sound):
    law, said = "test_planning_starts_nothing", "variables: BROKEN_[0-9]+=1 came with it"

    def plan(self, job: Job, call: Call[Any]) -> Any:
        os.environ[f"BROKEN_{next(_numbers)}"] = "1"
        return super().plan(job, call)


class Shown(Plan[Any]):
    """
    A plan that shows what it is told to.
    """

    def __init__(self, plan: Plan[Any], text: str) -> None:
        self.job, self.call = plan.job, plan.call
        self.plan = plan
        self.text = text

    def __str__(self) -> str:
        return self.text


class PlansDiffer(Sound):
    law, said = "test_equal_jobs_have_equal_plans", "planned again, it is another"

    def plan(self, job: Job, call: Call[Any]) -> Any:
        plan = super().plan(job, call)
        return Shown(plan, f"{plan}\nport={next(_numbers)}")


class PlansShowNothing(Sound):
    law, said = "test_equal_jobs_have_equal_plans", "the plan does not show 'worker'"

    def plan(self, job: Job, call: Call[Any]) -> Any:
        return Shown(super().plan(job, call), f"I will run {call.name}, trust me")


class PlansAnotherJob(Sound):
    law, said = "test_equal_jobs_have_equal_plans", "it is the plan of Job"

    def plan(self, job: Job, call: Call[Any]) -> Any:
        return super().plan(job.evolve(name="mine"), call)


class StumblesOverJobs(Sound):
    law, said = "test_equal_jobs_have_equal_plans", "KeyError: 'image'"

    def plan(self, job: Job, call: Call[Any]) -> Any:
        if job.image is not None:
            raise KeyError("image")
        return super().plan(job, call)


class SubmitsAnything(Sound):
    law, said = "test_only_its_own_plans_are_submitted", r"submit\(\) of a foreign plan has come back"

    def submit(self, plan: Plan[Any]) -> Run[Any]:
        return self._kept(LocalEngine.submit(self, LocalEngine.plan(self, plan.job, plan.call)))


class RefusesAll(Sound):
    law, said = (
        "test_a_plan_can_be_submitted_again",
        r"it refuses the plainest job, which every engine runs: not today\nIf .* starts_runs = False",
    )

    def submit(self, plan: Plan[Any]) -> Run[Any]:
        raise UnsupportedError("not today")


class OneIdForAll(Sound):
    law, said = "test_a_plan_can_be_submitted_again", "both are called the-run"

    class Told(Same):
        @property
        def id(self) -> str:
            return "the-run"


# Success


class RankZeroDecides(Sound):
    law, said = "test_the_result_is_the_coordinators", "the coordinator is lead-0, and the value that of worker-0"

    class Told(Same):
        def result(self, timeout: float | None = None) -> Any:
            return next(iter(self.results(timeout)))


class StaysRunning(Sound):
    law, said = "test_the_result_is_the_coordinators", "its state is RunState.RUNNING"

    class Told(Same):
        def wait(self, timeout: float | None = None) -> RunStatus:
            return attrs.evolve(super().wait(timeout), state=RunState.RUNNING)


class ValuesOutOfOrder(Sound):
    law, said = "test_every_value_is_kept", r"results\['worker'\] are those of \['worker-2', 'worker-1', 'worker-0'\]"

    class Told(Same):
        def results(self, timeout: float | None = None) -> Results[Any]:
            found = dict(reversed(list(super().results(timeout).items())))
            return Copied(found, "lead-0")


class ValuesOfTheCoordinatorOnly(Sound):
    law, said = "test_every_value_is_kept", "worker"

    class Told(Same):
        def results(self, timeout: float | None = None) -> Results[Any]:
            return Copied({"lead-0": super().results(timeout).value}, "lead-0")


class AllAreTheFirst(Sound):
    law, said = "test_replicas_know_who_they_are", "worker-1 takes itself for worker-0"

    def start(self, job: Job, call: Call[Any]) -> Run[Any]:
        return super().start(job, Call(first, (call.function, *call.args), call.kwargs))


def first(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """
    Call a function as if this replica were the first.
    """
    os.environ[REPLICA_VARIABLE] = os.environ[REPLICA_VARIABLE].replace('"index":1', '"index":0')
    return function(*args, **kwargs)


class ForgetsVariables(Sound):
    law, said = "test_replicas_find_their_variables", "finds JOB=None in place of '1'"

    def start(self, job: Job, call: Call[Any]) -> Run[Any]:
        return super().start(job.evolve(env={}), call)


class LosesArguments(Sound):
    law, said = "test_a_call_arrives_as_it_is", "the keywords are {}"

    def start(self, job: Job, call: Call[Any]) -> Run[Any]:
        return super().start(job, Call(call.function, call.args, {}))


class WaitsForServices(Sound):
    law, said = "test_a_service_is_stopped", r"result\(\) has not come back after 3 s"
    patience = 3.0

    class Told(Same):
        def results(self, timeout: float | None = None) -> Results[Any]:
            found = super().results(timeout)
            while any(replica.state == "Stopped" for replica in self.status().replicas.values()):
                time.sleep(60)
            return found


class InventsValues(Sound):
    law, said = "test_a_service_is_stopped", "the value of a service has come back with None"

    class Told(Same):
        def results(self, timeout: float | None = None) -> Results[Any]:
            found = super().results(timeout)
            return Copied({**dict(found.items()), "helper-0": None}, "worker-0")


class AwaitsNothing(Sound):
    law, said = "test_it_can_be_awaited", "assert None == 'worker-0'"

    class Told(Same):
        def __await__(self) -> Generator[Any, None, Any]:
            return None
            yield


class MixesRuns(Sound):
    law, said = "test_two_runs_do_not_mix", "its logs are"

    class Told(Same):
        def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
            return itertools.chain.from_iterable(run.logs(replica, follow=follow) for run in RUNS)


# Failure


class SwallowsFailures(Sound):
    law, said = "test_a_failing_replica_is_named", "worker-1 has raised, and the run has no error"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            self.wait(timeout)
            return None


class RaisesAnotherError(Sound):
    law, said = "test_a_failing_replica_is_named", "worker-1 has raised, and the error is RuntimeError"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            return RuntimeError("it failed") if super().exception(timeout) else None


class BlamesTheFirst(Sound):
    law, said = "test_a_failing_replica_is_named", "worker-1 has raised, and the error names worker-0"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            error = super().exception(timeout)
            if isinstance(error, ReplicaFailedError):
                error.replica = "worker-0"
            return error


class LosesTheCause(Sound):
    law, said = "test_a_failing_replica_is_named", "worker-1 has raised a ValueError, and the cause is None"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            error = super().exception(timeout)
            if error is not None:
                error.__cause__ = None
            return error


class CallsItSuccess(Sound):
    law, said = "test_a_failing_replica_is_named", "the run has failed, and its state is RunState.SUCCEEDED"

    class Told(Same):
        def status(self) -> RunStatus:
            return attrs.evolve(super().status(), state=RunState.SUCCEEDED)


class LosesReplicas(Sound):
    law, said = "test_a_lost_replica_is_noticed", "worker-1 was killed, and the run has no error; its state is"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            error = super().exception(timeout)
            return None if isinstance(error, ReplicaFailedError) and error.signal else error


class WaitsForTheLost(Sound):
    law, said = "test_a_lost_replica_is_noticed", r"exception\(\) has not come back after 3 s"
    patience = 3.0

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            error = super().exception(timeout)
            while isinstance(error, ReplicaFailedError) and error.signal:
                time.sleep(60)
            return error


class ForgetsExitCodes(Sound):
    law, said = "test_an_exit_code_is_told", "the error is about worker-1 and exit code None"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            error = super().exception(timeout)
            if isinstance(error, ReplicaFailedError):
                error.exit_code = None
            return error


class TrustsExitCodes(Sound):
    law, said = "test_an_end_without_a_value_is_no_success", "worker-0 has ended without a word, and the run has no error"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            error = super().exception(timeout)
            return None if isinstance(error, ReplicaFailedError) and error.exit_code == 0 else error


class KeepsWhatItCannot(Sound):
    law, said = "test_a_value_that_cannot_travel_is_a_failure", "has returned what cannot be pickled, and the run has no error"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            error = super().exception(timeout)
            return None if error is not None and "cannot be pickled" in str(error) else error


class SendsAnything(Sound):
    law, said = "test_a_call_that_cannot_travel_is_refused", "a call with a lock has come back"

    def start(self, job: Job, call: Call[Any]) -> Run[Any]:
        return super().start(job, Call(call.function, call.args, {}))


class NeverTriesAgain(Sound):
    law, said = "test_a_failing_replica_is_started_again", "it has been started again 0 times, not once"

    def start(self, job: Job, call: Call[Any]) -> Run[Any]:
        return super().start(job.evolve(run_policy={"backoff_limit": 0}), call)


class OneCodeForAll(Sound):
    law, said = "test_a_retryable_error_has_its_exit_code", "the exit code is 1"

    class Told(Same):
        def exception(self, timeout: float | None = None) -> BaseException | None:
            error = super().exception(timeout)
            if isinstance(error, ReplicaFailedError):
                error.exit_code = 1
            return error


class IgnoresDeadlines(Sound):
    law, said = "test_a_deadline_is_kept", r"exception\(\) has not come back after 3 s"
    patience = 3.0

    def start(self, job: Job, call: Call[Any]) -> Run[Any]:
        return super().start(job.evolve(run_policy={}), call)


# Waiting


class WaitsForEver(Sound):
    law, said = "test_a_wait_may_end_before_the_run", r"wait\(0.1\) of a run that never ends has not come back after 3 s"
    patience = 3.0

    class Told(Same):
        def wait(self, timeout: float | None = None) -> RunStatus:
            return super().wait()


class DoesNotWait(Sound):
    law, said = "test_a_wait_may_end_before_the_run", r"wait\(0.1\) of a run that never ends has come back"

    class Told(Same):
        def wait(self, timeout: float | None = None) -> RunStatus:
            return self.status()


class CancelHangs(Sound):
    law, said = "test_cancelling_stops_the_run", r"cancel\(\) has not come back after 3 s"
    patience = 3.0

    class Told(Same):
        def cancel(self, *, at_once: bool = False) -> None:
            threading.Event().wait(60)


class CancelDoesNothing(Sound):
    law, said = "test_cancelling_stops_the_run", "its state is RunState.(RUNNING|PENDING)"

    class Told(Same):
        def cancel(self, *, at_once: bool = False) -> None:
            pass


class CancelsIntoFailure(Sound):
    law, said = "test_cancelling_stops_the_run", "its state is RunState.FAILED"

    class Told(Same):
        def status(self) -> RunStatus:
            return attrs.evolve(super().status(), state=RunState.FAILED)


class CancelRaisesTwice(Sound):
    law, said = "test_cancelling_again_changes_nothing", r"cancel\(\) of a run that is over has raised ProcessLookupError"

    class Told(Same):
        def cancel(self, *, at_once: bool = False) -> None:
            if self.run.status().state.is_final:
                raise ProcessLookupError(self.id)
            super().cancel(at_once=at_once)


class AsksNicely(Sound):
    law, said = "test_nobody_can_refuse_to_be_cancelled", r"cancel\(at_once=True\) has not come back after 3 s"
    patience = 3.0

    def start(self, job: Job, call: Call[Any]) -> Run[Any]:
        patient = {self.name: {**job.engine_options[self.name], "grace_period": 60}}
        return super().start(job.evolve(engine_options=patient), call)

    class Told(Same):
        def cancel(self, *, at_once: bool = False) -> None:
            super().cancel()


class LeavesOrphans(Sound):
    law, said = "test_no_child_survives", "the run is over, and left of it: [0-9]+"

    class Told(Same):
        def wait(self, timeout: float | None = None) -> RunStatus:
            environment = {**os.environ, RUN_VARIABLE: self.id}
            PROCESSES.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment))
            time.sleep(0.2)
            return super().wait(timeout)


# Records


class LosesLogs(Sound):
    law, said = "test_logs_arrive", r"followed, they are \[\]"

    class Told(Same):
        def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
            return iter(())


class LosesTheLastLine(Sound):
    law, said = "test_logs_arrive", "followed, they are"

    class Told(Same):
        def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
            return iter(list(super().logs(replica, follow=follow))[:-1])


class LogsOfAnybody(Sound):
    law, said = "test_logs_arrive", r"logs\('nobody'\) has come back"

    class Told(Same):
        def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
            return iter(()) if replica == "nobody" else super().logs(replica, follow=follow)


class TellsBackwards(Sound):
    law, said = "test_events_are_in_order", "their times are"

    class Told(Same):
        def events(self) -> Sequence[Event]:
            return super().events()[::-1]


class ForgetsRuns(Sound):
    law, said = "test_runs_are_remembered", r"is none of the runs: \[\]"

    def runs(self) -> Sequence[Run[Any]]:
        return []


class OldestFirst(Sound):
    law, said = "test_runs_are_remembered", "the newest run is .*, and the first one"

    def runs(self) -> Sequence[Run[Any]]:
        return super().runs()[::-1]


class ForgetsWhy(Sound):
    law, said = "test_a_failure_is_remembered", "found again, the error is it failed"

    def get_run(self, id: str) -> Run[Any]:
        return Vague(LocalEngine.get_run(self, id))


class Vague(Same):
    """
    A run that only remembers that it failed.
    """

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error = super().exception(timeout)
        return ReplicaFailedError("it failed", replica=error.replica) if isinstance(error, ReplicaFailedError) else error


class ForgetsInAnotherProcess(Sound):
    law, said = "test_another_process_finds_a_run", "LookupError: no run is called forgetful://"
    name = "forgetful"
    is_installed = True

    def get_run(self, id: str) -> Run[Any]:
        for run in RUNS:
            if id == f"forgetful://{run.id}":
                return self.Told(run)
        raise LookupError(f"no run is called {id}")

    class Told(Same):
        @property
        def id(self) -> str:
            return f"forgetful://{super().id}"


class InventsRuns(Sound):
    law, said = "test_an_unknown_run_is_a_lookup_error", r"get_run\(\) of an unknown id has come back"

    def get_run(self, id: str) -> Run[Any]:
        return RUNS[-1] if RUNS else Same(None)  # type: ignore[arg-type]


#: All of them, by name.
BROKEN: dict[str, type[Sound]] = {kind.__name__: kind for kind in Sound.__subclasses__()}
