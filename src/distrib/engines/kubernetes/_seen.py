"""
What is seen of a run's objects: the few facts of pods, workloads and events that decide anything, taken from plain dicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs

from ._bootstrap import ROLE_VARIABLE
from ._labels import ROLE_LABEL
from ._report import Report, decode

_INDEX = "batch.kubernetes.io/job-completion-index"
_INDEX_LABELS = ("training.kubeflow.org/replica-index", _INDEX)


@attrs.frozen(kw_only=True)
class End:
    """
    One end of a container.

    Args:
        code: The exit code that the kubelet saw.

        reason: Kubernetes' word for it, e.g. ``"OOMKilled"``.

        message: The end of the log, or why it could not be started; empty where there is a report.

        time: When, in seconds since the epoch: to the second, unless the replica has told it.

        report: What the replica itself has told.
    """

    code: int
    reason: str = ""
    message: str = ""
    time: float = 0.0
    report: Report | None = None

    @property
    def is_value(self) -> bool:
        """
        Whether the function has returned.
        """
        return self.report is not None and self.report.kind == "returned" and self.code == 0

    @property
    def is_stop(self) -> bool:
        """
        Whether it was told to end, by the run or by the kubelet.
        """
        return self.report is not None and self.report.kind == "stopped"


@attrs.frozen(kw_only=True)
class Pod:
    """
    One pod.

    Args:
        uid: Its identity.

        name: Its name, which another one may have had before.

        replica: Which replica it is, e.g. ``"worker-1"``; an empty string for one that is none.

        container: The name of the container that runs the function.

        created: When, as Kubernetes writes it.

        phase: ``Pending``, ``Running``, ``Succeeded``, ``Failed`` or ``Unknown``.

        reason: Why the pod as a whole has failed, e.g. ``"Evicted"``.

        message: The same, for people.

        deleted: When it was asked to go, in seconds since the epoch; None if it was not.

        state: Of the container: ``waiting``, ``running`` or ``terminated``.

        started: When the container that runs, or ran last, was started, in seconds since the epoch; 0 if none was.

        why: Why it waits: Kubernetes' word.

        what: The same, for people.

        restarts: How often the container was started again.

        ends: Number of the restart -> how the container ended.

        order: Larger in the later one of two versions of a pod.

        memory: The limit of the container, as it was written; an empty string if there is none.
    """

    uid: str
    name: str
    replica: str = ""
    container: str = ""
    created: str = ""
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    deleted: float | None = None
    state: str = "waiting"
    started: float = 0.0
    why: str = ""
    what: str = ""
    restarts: int = 0
    ends: Mapping[int, End] = attrs.field(factory=dict)
    order: int = 0
    memory: str = ""

    @property
    def is_over(self) -> bool:
        """
        Whether nothing of it runs, or will run any more.
        """
        return self.phase in ("Succeeded", "Failed")

    @property
    def starts(self) -> int:
        """
        How often the container was started.
        """
        return max([self.restarts + (self.state != "waiting"), *(number + 1 for number in self.ends)])


@attrs.frozen(kw_only=True)
class Top:
    """
    A workload: the operator's object, a Job, a JobSet or a TrainJob.

    Args:
        name: Its name.

        uid: Its identity.

        created: When, as Kubernetes writes it.

        conditions: Type -> (whether it is true, reason, message).

        started: When its deadline began to run, in seconds since the epoch; None if it has not.
    """

    name: str
    uid: str = ""
    created: str = ""
    conditions: Mapping[str, tuple[bool, str, str]] = attrs.field(factory=dict)
    started: float | None = None

    def has(self, *types: str) -> bool:
        """
        Whether a condition of one of these types is true.
        """
        return any(self.conditions.get(kind, (False, "", ""))[0] for kind in types)


@attrs.frozen(kw_only=True)
class Note:
    """
    An event of Kubernetes.

    Args:
        uid: Its own identity.

        about: The name of the object that it is about.

        kind: The kind of that object.

        reason: Kubernetes' word.

        message: For people.

        time: When it was last seen, in seconds since the epoch.
    """

    uid: str
    about: str
    kind: str = ""
    reason: str = ""
    message: str = ""
    time: float = 0.0


def seconds_of(text: Any) -> float:
    """
    A time as Kubernetes writes it, in seconds since the epoch; 0 if there is none.
    """
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def pod_of(data: Mapping[str, Any]) -> Pod:
    """
    What a pod's object says.
    """
    meta, spec, status = data.get("metadata") or {}, data.get("spec") or {}, data.get("status") or {}
    spec_of_it = _container(spec)
    container = str(spec_of_it.get("name") or "")
    found = _statuses(status, "containerStatuses").get(container, {})
    state, why, what = _state(found)
    if state == "waiting":
        why, what = _why_waiting(status, why, what)
    deleted = meta.get("deletionTimestamp")
    asked = None if deleted is None else seconds_of(deleted) - float(meta.get("deletionGracePeriodSeconds") or 0)
    return Pod(
        uid=str(meta.get("uid") or meta.get("name")),
        name=str(meta.get("name")),
        replica=_replica(meta),
        container=container,
        created=str(meta.get("creationTimestamp") or ""),
        phase=str(status.get("phase") or "Pending"),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        deleted=asked,
        state=state,
        started=_started(found),
        why=why,
        what=" ".join(what.split()),
        restarts=int(found.get("restartCount") or 0),
        ends=dict(_ends(found)),
        order=_order(meta),
        memory=str(((spec_of_it.get("resources") or {}).get("limits") or {}).get("memory") or ""),
    )


def top_of(data: Mapping[str, Any]) -> Top:
    """
    What a workload's object says. Its counts of replicas are left out: after a success the operator makes some of them up.
    """
    meta, status = data.get("metadata") or {}, data.get("status") or {}
    conditions = {
        str(one.get("type")): (one.get("status") == "True", str(one.get("reason") or ""), str(one.get("message") or ""))
        for one in status.get("conditions") or ()
    }
    return Top(
        name=str(meta.get("name")),
        uid=str(meta.get("uid") or ""),
        created=str(meta.get("creationTimestamp") or ""),
        conditions=conditions,
        started=seconds_of(status["startTime"]) if status.get("startTime") else None,
    )


def note_of(data: Mapping[str, Any]) -> Note:
    """
    What an event's object says.
    """
    about = data.get("involvedObject") or {}
    meta = data.get("metadata") or {}
    times = (data.get("lastTimestamp"), data.get("eventTime"), data.get("firstTimestamp"), meta.get("creationTimestamp"))
    return Note(
        uid=str(meta.get("uid") or meta.get("name")),
        about=str(about.get("name") or ""),
        kind=str(about.get("kind") or ""),
        reason=str(data.get("reason") or ""),
        message=" ".join(str(data.get("message") or "").split()),
        time=next((seconds_of(time) for time in times if time), 0.0),
    )


def _replica(meta: Mapping[str, Any]) -> str:
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    role = labels.get(ROLE_LABEL)
    index = next((labels[name] for name in _INDEX_LABELS if name in labels), annotations.get(_INDEX))
    return f"{role}-{index}" if role and index is not None else ""


def _container(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = spec.get("containers") or [{}]
    for one in containers:
        if any(variable.get("name") == ROLE_VARIABLE for variable in one.get("env") or ()):
            return one  # type: ignore[no-any-return]
    return containers[0]  # type: ignore[no-any-return]


def _statuses(status: Mapping[str, Any], field: str) -> dict[str, Mapping[str, Any]]:
    return {str(one.get("name")): one for one in status.get(field) or ()}


def _state(found: Mapping[str, Any]) -> tuple[str, str, str]:
    for state, details in (found.get("state") or {}).items():
        if details is not None:
            return state, str(details.get("reason") or ""), str(details.get("message") or "")
    return "waiting", "", ""


def _started(found: Mapping[str, Any]) -> float:
    states = [*(found.get("state") or {}).values(), *(found.get("lastState") or {}).values()]
    return max((seconds_of(one.get("startedAt")) for one in states if one), default=0.0)


def _why_waiting(status: Mapping[str, Any], why: str, what: str) -> tuple[str, str]:
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return str(one.get("reason") or "Unschedulable"), str(one.get("message") or "")
    # Before the container there may be others that do not start.
    for one in _statuses(status, "initContainerStatuses").values():
        state, reason, message = _state(one)
        if state == "waiting" and reason not in ("", "PodInitializing"):
            return reason, f"{one.get('name')}: {message}"
    return why, what


def _ends(found: Mapping[str, Any]) -> Iterator[tuple[int, End]]:
    restarts = int(found.get("restartCount") or 0)
    now = (found.get("state") or {}).get("terminated")
    before = (found.get("lastState") or {}).get("terminated")
    if now is not None:
        yield restarts, _end(now)
    if before is not None and restarts > 0:
        yield restarts - 1, _end(before)


def _end(data: Mapping[str, Any]) -> End:
    report = decode(data.get("message"))
    time = report.time if report is not None and report.time else seconds_of(data.get("finishedAt"))
    return End(
        code=int(data.get("exitCode") or 0),
        reason=str(data.get("reason") or ""),
        message="" if report is not None else str(data.get("message") or ""),
        time=time,
        report=report,
    )


def _order(meta: Mapping[str, Any]) -> int:
    version = str(meta.get("resourceVersion") or "0")
    return int(version) if version.isdigit() else 0
