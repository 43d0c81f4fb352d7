"""
Objects of a cluster as a run's watches tell of them, in the order in which they became so.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import Any

from standin import now

from distrib._outcome import tell
from distrib.engines.kubernetes._kinds import EVENTS, JOBS, PODS, Kind
from distrib.engines.kubernetes._report import Report, encode
from distrib.engines.kubernetes._state import Shape, State
from distrib.engines.kubernetes._watch import News

#: When all of it happens.
START = 1_700_000_000.0


def shape(workers: int = 2, **fields: Any) -> Shape:
    """A run of some workers, the first of which decides."""
    return Shape(**{"run": "mine", "roles": {"worker": workers}, "coordinator": "worker-0", "deciders": ("worker-0",), **fields})


def returned(name: str, value: object = None, time: float = START + 9) -> str:
    """The message of a replica that has returned."""
    return str(encode(Report(replica=name, kind="returned", code=0, value=pickle.dumps(value), time=time)))


def raised(name: str, error: Exception | None = None, time: float = START + 9) -> str:
    """The message of a replica that has raised."""
    told = tell(error or ValueError(f"{name} is out of luck"))
    details = {key: told.get(key) for key in ("type", "text", "traceback", "frames", "ended")}
    return str(encode(Report(replica=name, kind="raised", code=1, error={**details, "rank": None}, exception=told["pickled"], time=time)))


def stopped(name: str, cause: str = "", code: int = 143, time: float = START + 10) -> str:
    """The message of a replica that was told to end."""
    return str(encode(Report(replica=name, kind="stopped", code=code, cause=cause, text="stopped", time=time)))


class Pod:
    """A pod, and what becomes of it: each method gives its next version."""

    versions = 0

    def __init__(self, name: str, *, uid: str | None = None, created: float = START, run: str = "mine") -> None:
        role, _, index = name.rpartition("-")
        labels = {"distrib.dev/run": run, "distrib.dev/role": role, "batch.kubernetes.io/job-completion-index": index}
        container = {"name": "node", "env": [{"name": "DISTRIB_ROLE", "value": role}]}
        self.restarts = 0
        self.last: dict[str, Any] | None = None
        meta = {"name": f"{run}-{name}-{uid or 'x'}", "uid": uid or f"uid-{name}", "labels": labels, "creationTimestamp": now(created)}
        self.data: dict[str, Any] = {
            "metadata": meta,
            "spec": {"containers": [{"name": "sidecar"}, container]},
            "status": {"phase": "Pending"},
        }

    def _next(self, meta: Mapping[str, Any] | None = None, **status: Any) -> dict[str, Any]:
        Pod.versions += 1
        meta = {**self.data["metadata"], **(meta or {}), "resourceVersion": str(Pod.versions)}
        self.data = {**self.data, "metadata": meta, "status": {**self.data["status"], **status}}
        return self.data

    def _container(self, state: str, details: Mapping[str, Any]) -> list[dict[str, Any]]:
        own = {"name": "node", "state": {state: dict(details)}, "restartCount": self.restarts}
        return [{"name": "sidecar", "state": {"running": {}}}, {**own, **({"lastState": {"terminated": self.last}} if self.last else {})}]

    def pending(self) -> dict[str, Any]:
        return self._next()

    def unschedulable(self, message: str) -> dict[str, Any]:
        return self._next(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}])

    def waiting(self, reason: str, message: str = "") -> dict[str, Any]:
        return self._next(containerStatuses=self._container("waiting", {"reason": reason, "message": message}))

    def running(self, at: float = START + 1) -> dict[str, Any]:
        return self._next(phase="Running", containerStatuses=self._container("running", {"startedAt": now(at)}))

    def ended(self, code: int, message: str = "", *, reason: str = "", at: float = START + 9, again: bool = False) -> dict[str, Any]:
        end = {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "message": message,
            "startedAt": now(START + 1),
            "finishedAt": now(at),
        }
        phase = "Running" if again else "Failed" if code else "Succeeded"
        made = self._next(phase=phase, containerStatuses=self._container("terminated", end))
        self.last = end
        return made

    def restarting(self) -> dict[str, Any]:
        self.restarts += 1
        return self._next(
            phase="Running", containerStatuses=self._container("waiting", {"reason": "CrashLoopBackOff", "message": "back-off"})
        )

    def failed(self, reason: str, message: str) -> dict[str, Any]:
        return self._next(phase="Failed", reason=reason, message=message)

    def deleted(self, at: float = START + 8, grace: int = 10) -> dict[str, Any]:
        return self._next({"deletionTimestamp": now(at + grace), "deletionGracePeriodSeconds": grace})


def top(*conditions: tuple[str, str, str], name: str = "mine-worker", started: float | None = START) -> dict[str, Any]:
    """A workload with conditions that are true."""
    status: dict[str, Any] = {
        "conditions": [{"type": kind, "status": "True", "reason": why, "message": what} for kind, why, what in conditions]
    }
    if started is not None:
        status["startTime"] = now(started)
    # As the operator makes it up after a success.
    status["replicaStatuses"] = {"Worker": {"succeeded": 99}}
    return {"metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": now(START)}, "status": status}


def event(about: str, reason: str, message: str, *, kind: str = "Job", at: float = START + 2) -> dict[str, Any]:
    """A warning of Kubernetes."""
    meta = {"name": f"{about}.{reason}", "uid": f"{about}.{reason}.{message}"}
    return {
        "metadata": meta,
        "involvedObject": {"name": about, "kind": kind},
        "reason": reason,
        "message": message,
        "lastTimestamp": now(at),
    }


def news(kind: Kind, change: str, *objects: Mapping[str, Any]) -> News:
    """One of them, told."""
    return News(kind, change, tuple(dict(each) for each in objects))


def pods(*versions: Mapping[str, Any], change: str = "MODIFIED") -> list[News]:
    """Versions of pods."""
    return [news(PODS, change, version) for version in versions]


def tops(*versions: Mapping[str, Any]) -> list[News]:
    """Versions of workloads."""
    return [news(JOBS, "MODIFIED", version) for version in versions]


def events(*versions: Mapping[str, Any]) -> list[News]:
    """Events."""
    return [news(EVENTS, "ADDED", version) for version in versions]


def state_after(told: Iterable[News], **fields: Any) -> State:
    """What is known after all that."""
    state = State(shape(**fields))
    for one in told:
        state.take(one)
    return state
