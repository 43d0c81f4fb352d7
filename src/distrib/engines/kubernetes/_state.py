"""
From what is seen of a run's objects to where it stands: pure, and the same in whatever order it was seen.

What is seen only ever adds up: the latest version of each pod and workload, each end of each container, each event. Status and
verdict are read off the sum. A verdict is made final once nothing of the run is left that could change it, see
:meth:`State.conclude`; from then on nothing does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import attrs

from ...engine import ReplicaStatus, RunState, RunStatus
from ._kinds import EVENTS, PODS
from ._seen import End, Note, Pod, Top, note_of, pod_of, seconds_of, top_of
from ._trouble import hopeless_note, hopeless_pod
from ._watch import News

#: Of events, only so many of the latest are kept: a run that has trouble for days does not fill the memory.
MOST_NOTES = 1_000
#: What workloads call their end. JobSet and TrainJob say Completed or Complete, the operator Succeeded.
_SUCCEEDED = ("Succeeded", "Complete", "Completed")
_SUSPENDED = "Suspended"
_DEADLINE = "DeadlineExceeded"


@attrs.frozen(kw_only=True, slots=False)
class Shape:
    """
    What a run consists of, as it was submitted.

    Args:
        run: Its name.

        roles: Role -> how many replicas, in the order of the ranks.

        coordinator: The replica whose value is the result.

        deciders: The replicas that must return for the run to succeed.

        restarts: Role -> restart policy; ``Never`` for a role that is not named.

        gang: Whether all replicas are started again when one fails.

        needed: With how many replicas the framework goes on when others are lost; None if it needs them all.

        deadline: After how many seconds the run is stopped; None for never.
    """

    run: str
    roles: Mapping[str, int]
    coordinator: str
    deciders: tuple[str, ...] = ()
    restarts: Mapping[str, str] = attrs.field(factory=dict)
    gang: bool = False
    needed: int | None = None
    deadline: float | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """
        The names of all replicas, in the order of their ranks.
        """
        return tuple(f"{role}-{index}" for role, count in self.roles.items() for index in range(count))

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        """
        Name of a replica -> its rank.
        """
        return {name: rank for rank, name in enumerate(self.names)}

    def never_restarts(self, name: str) -> bool:
        """
        Whether a failure of that replica is for good, whatever the workload makes of it.
        """
        return not self.gang and self.needed is None and self.restarts.get(name.rpartition("-")[0], "Never") == "Never"


@attrs.frozen(kw_only=True)
class Verdict:
    """
    How a run ends.

    Args:
        state: One of the final ones.

        reason: Why, for people.

        root: The replica whose failure it is; an empty string if it is none's.

        is_late: Whether it has outlived its deadline.

        is_hopeless: Whether it would not end by itself, and has to be taken away.
    """

    state: RunState
    reason: str = ""
    root: str = ""
    is_late: bool = False
    is_hopeless: bool = False


class State:
    """
    What is known of a run.

    Args:
        shape: What it consists of.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        #: By uid; the latest version of each.
        self.pods: dict[str, Pod] = {}
        self._by_replica: dict[str, set[str]] = {}
        self.gone: set[str] = set()
        self.ends: dict[tuple[str, int], End] = {}
        self.tops: dict[str, Top] = {}
        self.gone_tops: set[str] = set()
        self._is_absent = False
        self.notes: dict[str, Note] = {}
        #: The verdict that nothing changes any more.
        self.final: Verdict | None = None

    # What is seen

    def take(self, news: News) -> None:
        """
        Add what a watch tells.
        """
        if news.kind == EVENTS:
            for data in news.objects:
                self._take_note(note_of(data))
            return
        if news.kind == PODS:
            self._take_pods(news.change, [pod_of(data) for data in news.objects])
        else:
            self._take_tops(news.change, [top_of(data) for data in news.objects])

    def _take_pods(self, change: str, pods: Iterable[Pod]) -> None:
        listed = set()
        for pod in pods:
            listed.add(pod.uid)
            known = self.pods.get(pod.uid)
            if known is None or known.order <= pod.order:
                self.pods[pod.uid] = pod
                self._by_replica.setdefault(pod.replica, set()).add(pod.uid)
            for number, end in pod.ends.items():
                # The same end may be seen with less: a message that was cut off when it became the last one but one.
                if (pod.uid, number) not in self.ends or end.report is not None:
                    self.ends[pod.uid, number] = end
        if change == "DELETED":
            self.gone |= listed
        elif change == "LISTED":
            self.gone |= set(self.pods) - listed

    def _take_tops(self, change: str, tops: Iterable[Top]) -> None:
        listed = set()
        for top in tops:
            listed.add(top.name)
            self.tops[top.name] = top
        # It was there before anybody followed it.
        self._is_absent |= change == "LISTED" and not self.tops
        if change == "DELETED":
            self.gone_tops |= listed
        elif change == "LISTED":
            self.gone_tops |= set(self.tops) - listed

    def _take_note(self, note: Note) -> None:
        if note.about != self.shape.run and not note.about.startswith(f"{self.shape.run}-"):
            return
        self.notes[note.uid] = note
        if len(self.notes) > MOST_NOTES:
            del self.notes[min(self.notes, key=lambda uid: self.notes[uid].time)]

    # What follows from it

    def pods_of(self, name: str) -> list[Pod]:
        """
        The pods that a replica has had, the present one last.
        """
        return sorted(
            (self.pods[uid] for uid in self._by_replica.get(name, ())),
            key=lambda pod: (pod.uid not in self.gone, pod.created, not pod.is_over, pod.order, pod.uid),
        )

    def last_end(self, name: str) -> tuple[Pod, End] | None:
        """
        How the replica has ended, if it is not running, waiting or about to be started again.
        """
        pods = self.pods_of(name)
        if not pods:
            return None
        pod = pods[-1]
        if pod.state == "running" and pod.uid not in self.gone and not pod.is_over:
            return None
        end = self.ends.get((pod.uid, pod.starts - 1)) if pod.starts else None
        if pod.phase == "Failed" and end is None:  # the pod as a whole: evicted, or too late
            return pod, End(code=-1, reason=pod.reason, message=pod.message, time=pod.deleted or 0.0)
        waits = pod.state == "waiting" and pod.uid not in self.gone
        return None if end is None or (waits and not pod.is_over) else (pod, end)

    def values(self) -> dict[str, End]:
        """
        The ends of all replicas that have returned.
        """
        found = {name: last[1] for name in self.shape.names if (last := self.last_end(name)) is not None}
        return {name: end for name, end in found.items() if end.is_value}

    def failures(self) -> list[tuple[str, End]]:
        """
        The replicas that have failed by themselves and are not being started again, the earliest first.
        """
        found = []
        for name in self.shape.names:
            last = self.last_end(name)
            if last is not None and not last[1].is_value and not _was_stopped(*last):
                found.append((name, last[1]))
        # What was not told by the replica itself is known to the second only, and happened within it.
        return sorted(found, key=lambda one: (one[1].time, self.shape.ranks[one[0]]))

    def verdict(self) -> Verdict | None:
        """
        How the run ends, by what is known now; None while it goes on.
        """
        if self.final is not None:
            return self.final
        coordinator = self.last_end(self.shape.coordinator)
        failed = self.failures()
        if coordinator is not None and coordinator[1].is_value and not self._has_failed_decider(failed):
            # The coordinator leaves last. Whatever workloads or other replicas say, it has seen all that count return.
            return Verdict(state=RunState.SUCCEEDED)
        late = self._late(failed)
        if late:
            return Verdict(state=RunState.FAILED, reason=late, is_late=True)
        refused = self._condition("Failed")
        if refused or any(self.shape.never_restarts(name) for name, _ in failed):
            return self._failed(failed, refused)
        if self._condition(*_SUCCEEDED):
            return self._succeeded(failed)
        return self._hopeless() or self._taken_away()

    def conclude(self, *, anyway: bool = False) -> Verdict | None:
        """
        Make the verdict final, if there is one and nothing is left that could change it.

        Args:
            anyway: Do not wait for pods that have not ended yet.
        """
        if self.final is None:
            verdict = self.verdict()
            if verdict is not None and (anyway or verdict.is_hopeless or self.is_quiet):
                self.final = verdict
        return self.final

    def end_with(self, verdict: Verdict) -> Verdict:
        """
        Make *verdict* final, unless another one is.
        """
        self.final = self.final or verdict
        return self.final

    @property
    def is_quiet(self) -> bool:
        """
        Whether nothing runs in any pod.
        """
        # The kubelet takes another second to call a pod over whose container has ended.
        return all(uid in self.gone or pod.is_over or pod.state == "terminated" for uid, pod in self.pods.items())

    @property
    def left(self) -> list[str]:
        """
        The names of the pods that are still there.
        """
        return [pod.name for uid, pod in self.pods.items() if uid not in self.gone]

    @property
    def is_suspended(self) -> bool:
        """
        Whether the run waits to be admitted.
        """
        return any(top.has(_SUSPENDED) for top in self.tops.values())

    @property
    def started(self) -> float | None:
        """
        When the deadline began to run, by the server's clock; None while it does not.
        """
        if self.is_suspended:
            return None
        return min((top.started for top in self.tops.values() if top.started is not None), default=None)

    def _has_failed_decider(self, failed: list[tuple[str, End]]) -> bool:
        return self.shape.needed is None and any(name in self.shape.deciders for name, _ in failed)

    def _late(self, failed: list[tuple[str, End]]) -> str:
        said = next(self._words_of_lateness(failed), None)
        if said is None:
            return ""
        seconds = "" if self.shape.deadline is None else f"active_deadline_seconds={self.shape.deadline:g}"
        return ": ".join(part for part in (_DEADLINE, seconds, said) if part)

    def _words_of_lateness(self, failed: list[tuple[str, End]]) -> Iterator[str]:
        for top in self.tops.values():
            is_so, reason, message = top.conditions.get("Failed", (False, "", ""))
            if is_so and (reason == _DEADLINE or "deadline" in message.lower()):
                yield message
        if failed and failed[0][1].reason == _DEADLINE:
            yield failed[0][1].message
        # A replica that was told to end in time does not know why; its pod does.
        yield from (pod.message for name in self.shape.names for pod in self.pods_of(name)[-1:] if pod.reason == _DEADLINE)

    def _condition(self, *types: str) -> str:
        for name in sorted(self.tops):
            for kind in types:
                is_so, reason, message = self.tops[name].conditions.get(kind, (False, "", ""))
                if is_so:
                    return ": ".join(part for part in (reason, message) if part) or kind
        return ""

    def _failed(self, failed: list[tuple[str, End]], said: str) -> Verdict:
        root = self._root(failed)
        if root is None:
            return Verdict(state=RunState.FAILED, reason=said)
        # The workload's own words say no more than that a replica has failed, unless it has started it again before.
        counted = "backoff" in said.lower() or "maxrestarts" in said.lower()
        again = sum(status.attempt - 1 for status in self.replicas().values() if status.attempt > 1)
        reason = f"BackoffLimitExceeded: {again} {'restart' if again == 1 else 'restarts'}" if counted and again else ""
        return Verdict(state=RunState.FAILED, reason=reason, root=root)

    def _root(self, failed: list[tuple[str, End]]) -> str | None:
        if self.shape.needed is not None:
            raised = [name for name, end in failed if end.report is not None and end.report.kind == "raised"]
            if raised:
                return raised[0]
            # Those that were lost first could be done without.
            spare = len(self.shape.names) - self.shape.needed
            failed = failed[spare:] or failed[-1:]
        return failed[0][0] if failed else None

    def _succeeded(self, failed: list[tuple[str, End]]) -> Verdict | None:
        known = self.last_end(self.shape.coordinator)
        if known is not None and not known[1].is_value and self.shape.needed is None:
            # It has ended well for the workload, but the function has not returned.
            return self._failed(failed or [(self.shape.coordinator, known[1])], "")
        if known is None and not self.is_quiet and self.pods_of(self.shape.coordinator):
            return None  # the end of its pod is about to be seen
        return Verdict(state=RunState.SUCCEEDED)

    def _hopeless(self) -> Verdict | None:
        reasons = self._unstartable()
        refused = self._why_refused()
        if refused:
            reasons |= dict.fromkeys((name for name in self.shape.names if self._lacks_a_pod(name)), refused)
        if not reasons or self._suffice({name for name in self.shape.names if name not in reasons}):
            return None
        return Verdict(state=RunState.FAILED, reason=next(iter(reasons.values())), is_hopeless=True)

    def _unstartable(self) -> dict[str, str]:
        """
        The replicas whose pods will never start, and why.
        """
        last = {name: pod for name in self.shape.names for pod in self.pods_of(name)[-1:] if pod.uid not in self.gone and not pod.is_over}
        return {name: f"{name} cannot start: {reason}" for name, pod in last.items() if (reason := hopeless_pod(pod))}

    def _why_refused(self) -> str:
        """
        Why no more pods can be made; an empty string if they can, or could since it was said otherwise.
        """
        latest = max((seconds_of(pod.created) for pod in self.pods.values()), default=0.0)
        notes = sorted((note for note in self.notes.values() if note.time >= latest), key=lambda note: (note.time, note.uid))
        return next(filter(None, map(hopeless_note, notes)), "")

    def _lacks_a_pod(self, name: str) -> bool:
        pods = self.pods_of(name)
        last = self.last_end(name)
        return (not pods or pods[-1].uid in self.gone) and (last is None or not last[1].is_value)

    def _suffice(self, names: set[str]) -> bool:
        """
        Whether the framework can train with these replicas alone. The coordinator is where all of them meet.
        """
        needed = self.shape.needed
        return len(names) >= (len(self.shape.names) if needed is None else needed) and self.shape.coordinator in names

    def _taken_away(self) -> Verdict | None:
        if self._is_absent or (self.tops and set(self.tops) <= self.gone_tops):
            return Verdict(state=RunState.CANCELLED, reason=f"somebody has deleted {', '.join(sorted(self.tops)) or self.shape.run}")
        return None

    # For people

    def replicas(self) -> dict[str, ReplicaStatus]:
        """
        Where each replica stands.
        """
        return {name: self._status(name) for name in self.shape.names}

    def _status(self, name: str) -> ReplicaStatus:
        pods = self.pods_of(name)
        if not pods:
            return ReplicaStatus(
                message=self._why_absent() if self.final is None else "", state="Waiting" if self.final is None else "Stopped"
            )
        pod = pods[-1]
        attempt = sum(each.starts for each in pods)
        last = self.last_end(name)
        if last is not None:
            return _ended(attempt, *last)
        if pod.uid in self.gone:
            return ReplicaStatus(state="Stopped" if self.verdict() else "Waiting", attempt=attempt, message="its pod is gone")
        if pod.state == "running":
            return ReplicaStatus(state="Running" if pod.deleted is None else "Stopping", attempt=attempt)
        return ReplicaStatus(state="Waiting", attempt=attempt, message=self._why_waiting(pod))

    def _why_absent(self) -> str:
        if self.is_suspended:
            return "suspended: nobody has admitted it yet"
        notes = [note for note in self.notes.values() if note.kind != "Pod"]
        return _latest(notes) or "its pod is not created yet"

    def _why_waiting(self, pod: Pod) -> str:
        said = ": ".join(part for part in (pod.why, pod.what) if part)
        if pod.what:
            return said
        own = _latest(note for note in self.notes.values() if note.about == pod.name)
        return own or said

    def status(self) -> RunStatus:
        """
        Where the run stands, and each of its replicas.
        """
        replicas = self.replicas()
        restarts = sum(max(0, status.attempt - 1) for status in replicas.values())
        if self.final is not None:
            replicas = {
                name: attrs.evolve(one, state="Stopped") if one.state in ("Waiting", "Running", "Stopping") else one
                for name, one in replicas.items()
            }
            return RunStatus(state=self.final.state, reason=self.final.reason, replicas=replicas, restarts=restarts)
        states = {one.state for one in replicas.values()}
        again = any(one.state == "Waiting" and one.attempt for one in replicas.values())
        begun = any(one.attempt for one in replicas.values())
        state = RunState.RESTARTING if again else RunState.RUNNING if begun or "Running" in states else RunState.PENDING
        return RunStatus(state=state, reason=self._why(replicas), replicas=replicas, restarts=restarts)

    def _why(self, replicas: Mapping[str, ReplicaStatus]) -> str:
        if self.is_suspended:
            return "Suspended: nobody has admitted the run yet"
        waiting = [(name, one.message) for name, one in replicas.items() if one.state == "Waiting" and one.message]
        return f"{waiting[0][0]}: {waiting[0][1]}" if waiting else ""

    def stuck(self) -> tuple[Any, ...]:
        """
        What has to change for the run to get on; equal for as long as nothing does, and empty if nothing is waited for.
        """
        if self.is_suspended or self.verdict() is not None:
            return ()
        statuses = self.replicas()
        running = {name for name, one in statuses.items() if one.state in ("Running", "Succeeded")}
        if all(one.state != "Waiting" for one in statuses.values()) or self._suffice(running):
            return ()
        return tuple((name, one.state, one.attempt) for name, one in statuses.items())


def _latest(notes: Iterable[Note]) -> str:
    last = max(notes, key=lambda note: (note.time, note.uid), default=None)
    return "" if last is None else f"{last.reason}: {last.message}"


def _was_stopped(pod: Pod, end: End) -> bool:
    if end.is_stop:
        return True
    if end.report is not None or pod.deleted is None or end.reason == "OOMKilled":
        return False
    # It has told nothing: was it asked to go before it ended?
    return end.time >= pod.deleted


def _ended(attempt: int, pod: Pod, end: End) -> ReplicaStatus:
    report = end.report
    number = report.signal if report is not None else None
    code = None if number is not None or end.code < 0 else end.code
    state = "Succeeded" if end.is_value else "Stopped" if _was_stopped(pod, end) else "Failed"
    return ReplicaStatus(state=state, attempt=attempt, exit_code=code, signal=number, message=said_of(end))


def said_of(end: End) -> str:
    """
    Why a container ended, in a line.
    """
    report = end.report
    if report is not None and report.error is not None:
        return f"{report.error.get('type')}: {report.error.get('text')}"
    if report is not None:
        return report.text
    words = [] if end.reason in ("", "Error", "Completed") else [end.reason]
    return ": ".join([*words, *(line for line in end.message.strip().splitlines()[-1:] if end.code < 0 or words)])
