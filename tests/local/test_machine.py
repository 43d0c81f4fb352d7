"""
The state machine of a local run: the stated semantics, explored.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from distrib.engines.local._machine import Action, Machine, Member, Policy, Verb

POLICIES = ("Never", "OnFailure", "Always", "ExitCode")


def wants_restart(policy: str, code: int) -> bool:
    """
    What the restart policies mean, written down a second time: from Kubeflow's documentation, not from the code.
    """
    return {"Never": False, "OnFailure": code != 0, "Always": True, "ExitCode": code >= 128}[policy]


class RunModel(RuleBasedStateMachine):
    """
    A run whose replicas meet random fates, held against the stated semantics after each step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.up: dict[str, int] = {}
        self.attempts: dict[str, int] = {}
        self.asked: set[str] = set()
        self.killed: set[str] = set()
        self.reported: set[str] = set()
        self.timers: dict[str, float] = {}
        self.finished = False
        self.last_exit: dict[str, int] = {}
        self.lost: set[str] = set()
        #: Whether all replicas are being stopped to be started anew.
        self.restarting = False
        #: Whether all were asked to end, whatever they do.
        self.stopped = False

    @initialize(
        policies=st.lists(st.sampled_from(POLICIES), min_size=1, max_size=4),
        deciders=st.integers(1, 4),
        services=st.integers(0, 2),
        limit=st.none() | st.integers(0, 3),
        deadline=st.none() | st.just(60.0),
        job_scope=st.booleans(),
        stop_others=st.booleans(),
        needed=st.none() | st.integers(1, 6),
    )
    def begin(
        self,
        policies: list[str],
        deciders: int,
        services: int,
        limit: int | None,
        deadline: float | None,
        job_scope: bool,
        stop_others: bool,
        needed: int | None,
    ) -> None:
        self.needed = needed
        self.policy = {f"w-{at}": policy for at, policy in enumerate(policies)} | {f"ps-{at}": "Never" for at in range(services)}
        self.deciders = {f"w-{at}" for at in range(min(deciders, len(policies)))}
        self.services = {f"ps-{at}" for at in range(services)}
        self.serving = set(self.services)
        self.limit, self.job_scope, self.stop_others = limit, job_scope, stop_others
        self.machine = Machine(
            [Member(name, policy, decides=name in self.deciders, service=name in self.services) for name, policy in self.policy.items()],
            Policy(backoff_limit=limit, active_deadline=deadline, restart_job=job_scope, stop_others=stop_others, needed=needed),
        )
        self.do(self.machine.start())
        assert set(self.up) == set(self.policy), "all replicas start together"
        assert ("deadline" in self.timers) == (deadline is not None)

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            note(repr(action))
            assert not self.finished, "nothing happens after the end"
            if action.verb is Verb.START:
                assert action.name not in self.up, "a replica is never started twice at once"
                assert not self.machine.outcome, "a decided run starts nothing"
                self.up[action.name] = self.attempts[action.name] = self.attempts.get(action.name, 0) + 1
                for past in (self.lost, self.asked, self.killed, self.reported):
                    past.discard(action.name)
                if action.name not in self.services:
                    self.serving.discard(action.name)
            elif action.verb is Verb.TERMINATE:
                assert action.name in self.up
                assert action.name not in self.asked, "a replica is asked to stop once"
                self.asked.add(action.name)
            elif action.verb is Verb.KILL:
                assert action.name in self.up
                self.killed.add(action.name)
            elif action.verb is Verb.TIMER:
                self.timers[action.name] = action.seconds
            elif action.verb is Verb.FINISH:
                self.finished = True

    def are_stopped(self, names: Iterable[str]) -> bool:
        """
        Whether each of these was asked to end, or is about to: it has reported, and has a moment left for that.
        """
        return all(name in self.asked or f"exit:{name}:{self.up[name]}" in self.timers for name in names)

    @precondition(lambda self: self.up and not self.finished)
    @rule(data=st.data(), code=st.sampled_from((0, 0, 1, 3, 127, 128, 137, 138, 143, 255)))
    def replica_ends(self, data: st.DataObject, code: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.up)))
        before = self.machine.outcome
        restarts = self.machine.restarts
        self.ends(name, code)
        if before or self.restarting:
            assert (self.machine.outcome, self.machine.restarts) == (before, restarts), "a decided run does not change its mind"
        elif self.may_restart(name, code, restarts):
            self.is_restarted(name, restarts)
        elif code != 0 and name not in self.reported and self.can_do_without(name):
            self.lost.add(name)
            assert self.machine.outcome in ("", "Succeeded"), "a replica that is not needed may be lost"
        elif code != 0 or wants_restart(self.policy[name], code):
            self.has_failed(name)
        else:
            done = all(self.last_exit.get(each) == 0 and each not in self.up for each in self.deciders - self.lost)
            waiting = any(timer.split(":")[0] == "restart" and timer.split(":")[1] in self.deciders for timer in self.timers)
            if not waiting:
                assert (self.machine.outcome == "Succeeded") == done, "the run succeeds when all that decide have"
        if not before and self.machine.outcome == "Succeeded":
            self.has_succeeded()

    @precondition(lambda self: self.up.keys() - self.reported and not self.finished)
    @rule(data=st.data(), code=st.sampled_from((1, 138)))
    def replica_raises(self, data: st.DataObject, code: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.up.keys() - self.reported)))
        before = self.machine.outcome
        restarts = self.machine.restarts
        self.reported.add(name)
        self.do(self.machine.raised(name, code))
        if not before and not self.restarting and not self.may_restart(name, code, restarts):
            self.has_failed(name)  # nobody waits for its process to end
        self.ends(name, code)
        if before or self.restarting:
            assert (self.machine.outcome, self.machine.restarts) == (before, restarts)
        elif self.may_restart(name, code, restarts):
            self.is_restarted(name, restarts)
        else:
            self.has_failed(name)

    def ends(self, name: str, code: int) -> None:
        del self.up[name]
        self.last_exit[name] = code
        self.do(self.machine.exited(name, code, ok=code == 0))

    def may_restart(self, name: str, code: int, restarts: int) -> bool:
        """
        Whether the policy of the replica and what is left of the backoff limit let it be started again.
        """
        return wants_restart(self.policy[name], code) and (self.limit is None or restarts < self.limit)

    def is_restarted(self, name: str, restarts: int) -> None:
        assert (self.machine.outcome, self.machine.restarts) == ("", restarts + 1), "a restart of all counts once, too"
        self.restarting = self.job_scope
        if self.job_scope:
            assert self.are_stopped(self.up), "all others are stopped with it"
        else:
            assert f"restart:{name}:{self.attempts[name]}" in self.timers

    def has_failed(self, name: str) -> None:
        assert (self.machine.outcome, self.machine.root) == ("Failed", name), "the first failure is the root cause"
        assert self.are_stopped(self.up), "everybody else is asked to stop at once"
        self.stopped = True

    def has_succeeded(self) -> None:
        # Those that still compute have the grace period, or all the time that they take.
        assert ("grace" in self.timers) == (self.stop_others and bool(self.up))

    def can_do_without(self, name: str) -> bool:
        """
        Whether enough are left without that one, and one of those that decide.
        """
        left = self.policy.keys() - self.lost - {name}
        return self.needed is not None and len(left) >= self.needed and bool(left & self.deciders)

    @precondition(lambda self: self.timers and not self.finished)
    @rule(data=st.data())
    def timer_goes_off(self, data: st.DataObject) -> None:
        timer = data.draw(st.sampled_from(sorted(self.timers)))
        del self.timers[timer]
        before = self.machine.outcome
        kind, _, of = timer.partition(":")
        name, _, attempt = of.partition(":")
        is_its_own = name in self.up and str(self.up[name]) == attempt
        was_asked = name in self.asked
        self.do(self.machine.timer(timer))
        if kind == "deadline" and not before:
            assert self.machine.outcome == "Failed"
            assert "DeadlineExceeded" in self.machine.reason
            self.stopped = True
        elif kind == "grace":
            self.stopped = True
        elif kind == "exit" and is_its_own:
            assert name in self.asked, "it has had its moment"
        elif kind == "kill" and is_its_own and was_asked:
            assert name in self.killed, "it has had its grace period"
        elif kind == "restart" and not before:
            assert name in self.up
        elif kind == "restart-job" and not before:
            assert set(self.up) == set(self.policy), "all are started again together"
            self.restarting = False

    @precondition(lambda self: self.up and not self.finished)
    @rule(data=st.data())
    def replica_reports(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.up)))
        self.reported.add(name)
        self.do(self.machine.returned(name))

    @precondition(lambda self: self.up and not self.finished)
    @rule(data=st.data())
    def replica_serves(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.up)))
        self.serving.add(name)
        self.do(self.machine.serving(name))

    @rule(at_once=st.booleans())
    def cancelled(self, at_once: bool) -> None:
        before = self.machine.outcome
        self.do(self.machine.cancel("why not", at_once=at_once))
        assert self.machine.outcome == (before or "Cancelled")
        self.stopped = True
        if at_once:
            assert self.up.keys() <= self.killed, "at once means at once"

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "machine"):
            return
        if self.limit is not None:
            assert self.machine.restarts <= self.limit
        if self.finished:
            assert not self.up, "nothing is left running"
        if not self.up and not self.finished:
            assert any(name.startswith("restart") for name in self.timers), "somebody runs, or a restart is due"
        if self.restarting and not self.machine.outcome:
            assert ("restart-job" in self.timers) == (not self.up), "all start again when none is left"
            assert self.are_stopped(self.up)

    @invariant()
    def only_whom_it_concerns_is_stopped(self) -> None:
        if not hasattr(self, "machine"):
            return
        served = self.up.keys() - self.serving
        if self.stopped or (self.machine.outcome and not served):
            assert self.are_stopped(self.up), "when the run is over, services are stopped as soon as nobody is left to be served"
        elif not self.restarting:
            assert self.up.keys() & self.asked <= self.reported, "whoever still computes, or serves one that does, is left alone"

    def teardown(self) -> None:
        """
        From wherever it stands, a cancelled run comes to its end: all timers go off, whoever is killed dies.
        """
        if not hasattr(self, "machine"):
            return
        if not self.finished:
            self.do(self.machine.cancel("over"))
        for _ in range(20):
            for name in sorted(self.timers):
                if not self.finished:
                    del self.timers[name]
                    self.do(self.machine.timer(name))
            for name in sorted(self.killed & self.up.keys()):
                del self.up[name]
                self.do(self.machine.exited(name, 137, ok=False))
        assert self.finished, "every run ends"


TestRunModel = RunModel.TestCase
TestRunModel.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def verbs(actions: list[Action]) -> list[tuple[str, str]]:
    """
    What is done to whom, without timers and notes.
    """
    return [(action.verb.value, action.name) for action in actions if action.verb in (Verb.START, Verb.TERMINATE, Verb.KILL, Verb.FINISH)]


class TestExamples:
    """
    The few cases that a reader wants to see.
    """

    def test_delays_double_and_recover(self) -> None:
        """
        A replica that keeps failing waits twice as long each time, up to five minutes, and anew once it ran long enough.
        """
        machine = Machine([Member("w-0", "OnFailure")], Policy(restart_delay=1.0))
        machine.start()
        delays = []
        for ran in [0.0] * 11 + [601.0]:
            timers = [action for action in machine.exited("w-0", 1, ok=False, ran=ran) if action.verb is Verb.TIMER]
            delays.append(timers[-1].seconds)
            machine.timer(timers[-1].name)
        assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 1]

    def test_chief_decides(self) -> None:
        """
        When the chief is done, a parameter server is stopped once the workers are, and these have the grace period.
        """
        machine = Machine([Member("chief-0"), Member("worker-0", decides=False), Member("ps-0", decides=False, service=True)], Policy())
        machine.start()
        assert verbs(machine.exited("chief-0", 0, ok=True)) == []
        assert verbs(machine.exited("worker-0", 0, ok=True)) == [("terminate", "ps-0")]
        assert verbs(machine.exited("ps-0", 143, ok=False)) == [("finish", "")]
        assert machine.outcome == "Succeeded"

    def test_servers_do_not_hold_up_the_end(self) -> None:
        """
        A worker that says it serves is stopped at once when the chief is done.
        """
        machine = Machine([Member("chief-0"), Member("worker-0", decides=False)], Policy())
        machine.start()
        machine.serving("worker-0")
        assert verbs(machine.exited("chief-0", 0, ok=True)) == [("terminate", "worker-0")]

    def test_who_served_may_compute_when_started_again(self) -> None:
        """
        What a replica said in an earlier attempt holds no more: it has the grace period.
        """
        machine = Machine([Member("chief-0"), Member("worker-0", "OnFailure", decides=False)], Policy())
        machine.start()
        machine.serving("worker-0")
        (_, timer) = machine.exited("worker-0", 1, ok=False)
        machine.timer(timer.name)
        assert verbs(machine.exited("chief-0", 0, ok=True)) == []

    def test_whole_job_restarts(self) -> None:
        """
        With the job's scope, one retryable failure stops all the others and starts everybody anew, as one restart.
        """
        machine = Machine([Member("w-0", "ExitCode"), Member("w-1", "ExitCode")], Policy(restart_job=True, backoff_limit=1))
        machine.start()
        assert verbs(machine.exited("w-1", 137, ok=False)) == [("terminate", "w-0")]
        machine.exited("w-0", 1, ok=False)  # a consequence, and no failure of its own
        assert verbs(machine.timer("restart-job")) == [("start", "w-0"), ("start", "w-1")]
        machine.exited("w-1", 137, ok=False)
        assert (machine.outcome, machine.reason) == ("Failed", "BackoffLimitExceeded: 1 restart")

    def test_a_restart_says_what_it_is_for(self) -> None:
        """
        A signal is called by its name; an exit code that the replica has told of itself is none.
        """
        machine = Machine([Member("w-0", "ExitCode"), Member("w-1", "ExitCode")], Policy(restart_delay=1))
        machine.start()
        killed = machine.exited("w-0", 137, ok=False)
        machine.raised("w-1", 138)
        raised = machine.exited("w-1", 138, ok=False)
        told = [action.text for action in (*killed, *raised) if action.verb.value == "restarting"]
        assert told == [
            "was ended by SIGKILL; it restarts after 1 s (restart 1)",
            "ended with exit code 138; it restarts after 1 s (restart 2)",
        ]

    @pytest.mark.parametrize(("code", "outcome"), [(127, "Failed"), (128, ""), (138, "")])
    def test_exit_code_policy(self, code: int, outcome: str) -> None:
        """
        Under ExitCode, 128 and more is retryable, less is permanent.
        """
        machine = Machine([Member("w-0", "ExitCode")], Policy())
        machine.start()
        machine.exited("w-0", code, ok=False)
        assert machine.outcome == outcome

    def test_one_that_is_not_needed_may_be_lost(self) -> None:
        """
        Of two replicas of which one is needed, one may be killed; the other's end is then the run's.
        """
        machine = Machine([Member("w-0"), Member("w-1")], Policy(needed=1))
        machine.start()
        assert verbs(machine.exited("w-0", 137, ok=False)) == []
        assert verbs(machine.exited("w-1", 0, ok=True)) == [("finish", "")]
        assert machine.outcome == "Succeeded"

    def test_the_last_that_is_needed_may_not_be_lost(self) -> None:
        """
        When fewer than needed would be left, the run fails.
        """
        machine = Machine([Member("w-0"), Member("w-1")], Policy(needed=1))
        machine.start()
        machine.exited("w-0", 137, ok=False)
        machine.exited("w-1", 137, ok=False)
        assert (machine.outcome, machine.root) == ("Failed", "w-1")

    def test_one_that_raises_is_not_lost(self) -> None:
        """
        An exception is a failure of the training, however many replicas are left.
        """
        machine = Machine([Member("w-0"), Member("w-1")], Policy(needed=1))
        machine.start()
        assert verbs(machine.raised("w-0", 1)) == [("terminate", "w-1")]
        assert (machine.outcome, machine.root) == ("Failed", "w-0")

    def test_a_lost_one_is_started_again_if_it_may_be(self) -> None:
        """
        Its restart policy comes first.
        """
        machine = Machine([Member("w-0", "OnFailure"), Member("w-1")], Policy(needed=1, backoff_limit=1))
        machine.start()
        (_, timer) = machine.exited("w-0", 137, ok=False)
        assert verbs(machine.timer(timer.name)) == [("start", "w-0")]

    def test_a_replica_that_returned_but_does_not_end_is_stopped(self) -> None:
        """
        Its value is there, so the run succeeds when the process is gone.
        """
        machine = Machine([Member("w-0")], Policy(grace_period=3))
        machine.start()
        (timer,) = machine.returned("w-0")
        assert timer.seconds == 3
        assert verbs(machine.timer(timer.name)) == [("terminate", "w-0")]
        machine.exited("w-0", 137, ok=True)
        assert machine.outcome == "Succeeded"
