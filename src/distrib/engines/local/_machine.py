"""
The state machine of a local run: what happens in, what is to be done out. Pure: no clock, no processes.

The supervisor tells it what became of each replica and which timers went off, and does what it answers. The words mean
what Kubeflow's training operator means by them:

- ``Never``: a replica that fails fails the run. ``OnFailure``: it is started again. ``Always``: also after it ended well,
  as the kubelet does. ``ExitCode``: it is started again if its exit code is 128 or more (a signal counts as 128 plus its
  number), and fails the run otherwise.
- ``backoff_limit`` is the number of restarts that a run may have in all; the failure after the last one fails the run.
- The run succeeds when all replicas that decide have ended well; whatever the others do after that changes nothing.
- A framework may need only some of its replicas: one that is lost, that is, gone without having raised, and not started again,
  then no longer counts as long as that many are left, and one of those that decide.

Plain classes, not attrs: the supervisor is started for every run, and importing attrs takes as long as all the rest of it.
"""

from __future__ import annotations

from enum import Enum

from ..._outcome import SIGNALLED, restarts_after, signal_name

#: A restart waits for ``restart_delay`` seconds, doubled with each one before it, and never longer than this.
LONGEST_DELAY = 300.0
#: A replica that ran for as long as this is taken to have recovered: its delays start from the shortest again.
RECOVERED_AFTER = 600.0
# How long a replica whose end matters no more may take for it.
_LAST_SECONDS = 1.0


class State(Enum):
    """
    Where a replica stands.
    """

    WAITING = "Waiting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    STOPPED = "Stopped"


class Verb(Enum):
    """
    What the supervisor is asked to do.
    """

    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"
    TIMER = "timer"
    NOTE = "note"
    RESTARTING = "restarting"
    FINISH = "finish"


class Action:
    """
    One thing to do: to the replica *name*, or with the timer *name* after *seconds*; *text* is for people.
    """

    __slots__ = ("name", "seconds", "text", "verb")

    def __init__(self, verb: Verb, name: str = "", seconds: float = 0.0, text: str = "") -> None:
        self.verb = verb
        self.name = name
        self.seconds = seconds
        self.text = text

    def __repr__(self) -> str:
        return f"Action({self.verb.name}, {self.name!r}, {self.seconds}, {self.text!r})"


class Member:
    """
    One replica as the machine sees it.

    Args:
        name: E.g. ``"worker-1"``.

        restart_policy: ``Never``, ``OnFailure``, ``Always`` or ``ExitCode``.

        decides: Whether the run is not done before this replica is.

        service: Whether it never ends by itself and is stopped when the rest is done.
    """

    __slots__ = ("attempt", "decides", "delays", "lost", "name", "reported", "restart_policy", "serves", "service", "state")

    def __init__(self, name: str, restart_policy: str = "Never", *, decides: bool = True, service: bool = False) -> None:
        self.name = name
        self.restart_policy = restart_policy
        self.decides = decides
        self.service = service
        self.serves = service
        self.state = State.WAITING
        self.attempt = 0
        self.delays = 0
        self.reported = False
        self.lost = False

    @property
    def is_up(self) -> bool:
        """
        Whether there is a process.
        """
        return self.state in (State.RUNNING, State.STOPPING)

    def may_restart(self, code: int, *, ok: bool) -> bool:
        """
        Whether its restart policy wants it started again after this end.
        """
        return self.restart_policy == "Always" if ok else restarts_after(self.restart_policy, code)


class Policy:
    """
    The rules of one run, in seconds and counts; None means without limit.
    """

    __slots__ = ("active_deadline", "backoff_limit", "grace_period", "needed", "restart_delay", "restart_job", "stop_others")

    def __init__(
        self,
        *,
        backoff_limit: int | None = None,
        active_deadline: float | None = None,
        restart_job: bool = False,
        stop_others: bool = True,
        grace_period: float = 10.0,
        restart_delay: float = 1.0,
        needed: int | None = None,
    ) -> None:
        self.needed = needed
        self.backoff_limit = backoff_limit
        self.active_deadline = active_deadline
        self.restart_job = restart_job
        self.stop_others = stop_others
        self.grace_period = grace_period
        self.restart_delay = restart_delay


class Machine:
    """
    The run. Each method takes one thing that happened and returns what is to be done, in order.
    """

    def __init__(self, members: list[Member], policy: Policy) -> None:
        self.members = {member.name: member for member in members}
        self.policy = policy
        self.restarts = 0
        self.outcome = ""
        self.reason = ""
        self.root = ""
        self.finished = False
        self._restarting_job = False
        self._job_delay = 0.0
        self._todo: list[Action] = []

    # What happened.

    def start(self) -> list[Action]:
        """
        The run begins.
        """
        if self.policy.active_deadline is not None:
            self._do(Verb.TIMER, "deadline", self.policy.active_deadline)
        for member in self.members.values():
            self._start(member)
        return self._answer()

    def returned(self, name: str) -> list[Action]:
        """
        A replica's function returned and its value is kept; the process is about to end.
        """
        self._is_leaving(self.members[name], self.policy.grace_period)
        return self._answer()

    def raised(self, name: str, code: int) -> list[Action]:
        """
        A replica's function raised; the process is about to end with *code*.
        """
        member = self.members[name]
        self._is_leaving(member, min(_LAST_SECONDS, self.policy.grace_period))
        if self._may_go_on(member) and not self._wants_restart(member, code, ok=False):
            self._fail(member, code)
        return self._answer()

    def serving(self, name: str) -> list[Action]:
        """
        A replica says that it serves and never ends by itself.
        """
        self.members[name].serves = True
        self._stop_idle_services()
        return self._answer()

    def exited(self, name: str, code: int, *, ok: bool, ran: float = 0.0) -> list[Action]:
        """
        A replica's process is gone.

        Args:
            name: The replica.

            code: Its exit code, or 128 plus the number of the signal.

            ok: Whether it ended well; with a function, whether its value is kept.

            ran: For how many seconds it had run.
        """
        member = self.members[name]
        may_go_on = self._may_go_on(member)
        was_stopping = member.state is State.STOPPING
        member.state = State.SUCCEEDED if ok else State.STOPPED if was_stopping else State.FAILED
        if may_go_on:
            self._ended(member, code, ok=ok, ran=ran)
        elif self._restarting_job and not self.outcome:
            self._restart_job_when_down()
        return self._answer()

    def timer(self, name: str) -> list[Action]:
        """
        A timer went off; one that has lost its meaning changes nothing.
        """
        kind, _, rest = name.partition(":")
        replica, _, attempt = rest.partition(":")
        member = self.members.get(replica)
        if kind == "deadline" and not self.outcome:
            self._decide("Failed", f"DeadlineExceeded: it ran for longer than active_deadline_seconds={self.policy.active_deadline:g}")
            self._stop_all()
        elif kind == "restart-job" and not self.outcome:
            self._restarting_job = False
            for each in self.members.values():
                self._start(each)
        elif kind == "grace" and self.outcome:
            self._stop_all()
        elif member is not None and str(member.attempt) == attempt:
            self._replica_timer(kind, member)
        return self._answer()

    def cancel(self, why: str, *, at_once: bool = False) -> list[Action]:
        """
        The user, or the loss of the launcher, ends the run; *at_once* leaves out the grace period.
        """
        if not self.outcome:
            self._decide("Cancelled", why)
        self._stop_all()
        if at_once:
            for member in self.members.values():
                if member.is_up:
                    self._do(Verb.KILL, member.name)
        return self._answer()

    # What follows from it.

    def _ended(self, member: Member, code: int, *, ok: bool, ran: float) -> None:
        if self._wants_restart(member, code, ok=ok):
            member.delays = 0 if ran >= RECOVERED_AFTER else member.delays
            self._restart(member, _how(member, code))
        elif not ok and self._can_do_without(member):
            member.lost = True
            self._do(Verb.NOTE, member.name, text="is lost; the run goes on without it")
            self._succeed_if_decided()
        elif member.may_restart(code, ok=ok) or not ok:
            self._fail(member, code)
        else:
            self._succeed_if_decided()

    def _can_do_without(self, member: Member) -> bool:
        left = [other for other in self.members.values() if other is not member and not other.lost]
        enough = self.policy.needed is not None and len(left) >= self.policy.needed
        return enough and not member.reported and any(other.decides for other in left)

    def _wants_restart(self, member: Member, code: int, *, ok: bool) -> bool:
        limit = self.policy.backoff_limit
        return member.may_restart(code, ok=ok) and (limit is None or self.restarts < limit)

    def _restart(self, member: Member, how: str) -> None:
        self.restarts += 1
        delay = min(self.policy.restart_delay * 2 ** min(member.delays, 40), LONGEST_DELAY)
        member.delays += 1
        limit = "" if self.policy.backoff_limit is None else f" of {self.policy.backoff_limit}"
        if self.policy.restart_job:
            self._restarting_job = True
            self._job_delay = delay
            self._do(Verb.RESTARTING, member.name, delay, f"{how}; all replicas restart after {delay:g} s (restart {self.restarts}{limit})")
            self._stop_all()
            self._restart_job_when_down()
        else:
            member.state = State.WAITING
            self._do(Verb.RESTARTING, member.name, delay, f"{how}; it restarts after {delay:g} s (restart {self.restarts}{limit})")
            self._do(Verb.TIMER, f"restart:{member.name}:{member.attempt}", delay)

    def _restart_job_when_down(self) -> None:
        if not any(member.is_up for member in self.members.values()):
            for member in self.members.values():
                member.state = State.WAITING
            self._do(Verb.TIMER, "restart-job", self._job_delay)

    def _fail(self, member: Member, code: int) -> None:
        limit = self.policy.backoff_limit
        spent = limit is not None and self.restarts >= limit > 0
        self.root = member.name
        count = f"{self.restarts} restart{'' if self.restarts == 1 else 's'}"
        self._decide("Failed", f"BackoffLimitExceeded: {count}" if spent and member.may_restart(code, ok=False) else "")
        self._stop_all()

    def _succeed_if_decided(self) -> None:
        if all(member.state is State.SUCCEEDED for member in self.members.values() if member.decides and not member.lost):
            self._decide("Succeeded", "")
            for member in self.members.values():
                if member.state is State.WAITING:
                    member.state = State.STOPPED
            self._stop_idle_services()
            if self.policy.stop_others and any(member.is_up for member in self.members.values()):
                self._do(Verb.TIMER, "grace", self.policy.grace_period)

    def _stop_idle_services(self) -> None:
        # Services are stopped once nobody is left whom they could serve.
        rest = [member for member in self.members.values() if not member.serves]
        if self.outcome and not any(member.is_up for member in rest):
            self._stop_all()

    def _decide(self, outcome: str, reason: str) -> None:
        self.outcome = outcome
        self.reason = reason

    def _replica_timer(self, kind: str, member: Member) -> None:
        if kind == "restart" and member.state is State.WAITING and not self.outcome:
            self._start(member)
        elif kind == "exit" and member.state is State.RUNNING:
            self._do(Verb.NOTE, member.name, text="is done but does not end; it is stopped")
            self._stop(member)
        elif kind == "kill" and member.state is State.STOPPING:
            self._do(Verb.KILL, member.name)

    def _is_leaving(self, member: Member, seconds: float) -> None:
        if member.state is State.RUNNING:
            member.reported = True
            self._do(Verb.TIMER, f"exit:{member.name}:{member.attempt}", seconds)

    def _may_go_on(self, member: Member) -> bool:
        # Once the run is decided, or all are being restarted, how one of them ends changes nothing.
        return not self.outcome and not self._restarting_job and member.is_up

    def _start(self, member: Member) -> None:
        member.state = State.RUNNING
        member.attempt += 1
        member.reported = False
        member.serves = member.service  # what it said in an earlier attempt holds no more
        member.lost = False
        self._do(Verb.START, member.name)

    def _stop_all(self) -> None:
        for member in self.members.values():
            if member.state is State.WAITING:
                member.state = State.STOPPED
            elif member.state is State.RUNNING and member.reported:
                # It is about to end, and may write its last lines; nobody waits long for it any more.
                self._do(Verb.TIMER, f"exit:{member.name}:{member.attempt}", min(_LAST_SECONDS, self.policy.grace_period))
            elif member.state is State.RUNNING:
                self._stop(member)

    def _stop(self, member: Member) -> None:
        member.state = State.STOPPING
        self._do(Verb.TERMINATE, member.name)
        self._do(Verb.TIMER, f"kill:{member.name}:{member.attempt}", self.policy.grace_period)

    def _do(self, verb: Verb, name: str = "", seconds: float = 0.0, text: str = "") -> None:
        self._todo.append(Action(verb, name, seconds, text))

    def _answer(self) -> list[Action]:
        if self.outcome and not self.finished:
            self._stop_idle_services()
            if not any(member.is_up for member in self.members.values()):
                self.finished = True
                self._do(Verb.FINISH)
        done, self._todo = self._todo, []
        return done


def _how(member: Member, code: int) -> str:
    # One that has told its own end, 138 for a retryable error say, was ended by no signal.
    if code <= SIGNALLED or member.reported:
        return f"ended with exit code {code}"
    return f"was ended by {signal_name(code - SIGNALLED)}"
