"""
From what is known of a run on Kubernetes to the error that tells why it failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..._outcome import load_exception
from ...engine import RunState
from ...errors import EngineError, ReplicaFailedError, RunCancelledError, RunFailedError, RunTimeoutError
from .._told import others, replica_failed
from ._report import Report
from ._results import whole
from ._seen import End, Pod
from ._state import State, Verdict, said_of

_OUT_OF_MEMORY = "out of memory: the container has reached its memory limit{}; ask for more memory, or use a smaller batch"
#: Kubernetes' word for an end -> what it means.
_HINTS = {
    "StartError": "the container could not be started",
    "ContainerCannotRun": "the container could not be started",
    "Evicted": "the node was short of memory or disk: ask for what the replica needs",
    "Preempted": "pods of a higher priority needed the place",
    "NodeLost": "its node is gone",
    "Shutdown": "its node was shut down",
    "Terminated": "its node was shut down",
    "UnexpectedAdmissionError": "the node did not take the pod",
}


def error_of(state: State, verdict: Verdict, *, namespace: str, tail: Callable[[Pod], str]) -> EngineError | None:
    """
    The error of a run that is over, its cause attached; None if it has succeeded.

    Args:
        state: What is known of the run.

        verdict: How it has ended.

        namespace: Where it ran.

        tail: Gives the last lines of a pod's log.
    """
    if verdict.state is RunState.SUCCEEDED:
        return None
    where = f"Its pods: kubectl get pods -n {namespace} -l distrib.dev/run={state.shape.run}"
    if verdict.state is RunState.CANCELLED:
        return RunCancelledError(f"the run was cancelled: {verdict.reason}.")
    if verdict.is_late:
        return RunTimeoutError(f"the run was stopped: {verdict.reason}. {where}")
    if not verdict.root:
        return RunFailedError(f"the run failed: {verdict.reason}.{'' if verdict.is_hopeless else f' {where}'}")
    return _replica_failed(state, verdict, namespace, tail)


def _replica_failed(state: State, verdict: Verdict, namespace: str, tail: Callable[[Pod], str]) -> ReplicaFailedError:
    name = verdict.root
    last = state.last_end(name)
    pod, end = last if last is not None else (Pod(uid="", name=name), End(code=1))
    status = state.status().replicas[name]
    report = _whole(end.report)
    details: Mapping[str, Any] = (report.error if report is not None else None) or {}
    words = [*([f"{verdict.reason}."] if verdict.reason else []), *others(state.status().replicas, name)]
    return replica_failed(
        name,
        status,
        details,
        original=load_exception(report.exception) if report is not None and details.get("type") else None,
        log_tail=tail(pod),
        end=" ".join([*words, f"Logs: kubectl logs -n {namespace} {pod.name}"]),
        hint=_hint(pod, end, report),
    )


def _hint(pod: Pod, end: End, report: Report | None) -> str:
    if end.reason == "OOMKilled" or (report is not None and report.oom):
        return _OUT_OF_MEMORY.format(f" of {pod.memory}" if pod.memory else "")
    if report is not None:
        return report.text
    known = _HINTS.get(end.reason, "")
    said = said_of(end)
    if known and said not in ("", end.reason):
        return f"{known} ({said})"
    return known or ("" if end.code > 0 or not said else said)


def _whole(report: Report | None) -> Report | None:
    try:
        return None if report is None else whole(report)
    except EngineError:  # what is in the message has to do
        return report
