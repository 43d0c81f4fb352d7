"""
From what is left of a run to the error that tells why it failed.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ..._outcome import load_exception
from ...engine import RunState
from ...errors import EngineError, ReplicaFailedError, RunCancelledError, RunFailedError, RunTimeoutError
from .._told import others, replica_failed
from ._history import SUPERVISOR_LOST, Progress, read_about
from ._logs import tail


def error_of(folder: str, progress: Progress) -> EngineError:
    """
    The error of a run that is over and has not succeeded, its cause attached.
    """
    if progress.reason == SUPERVISOR_LOST:
        return _supervisor_lost(folder, progress.code)
    if progress.state is RunState.CANCELLED:
        return RunCancelledError(f"the run was cancelled: {progress.reason}. {_where(folder)}")
    if progress.reason.startswith("DeadlineExceeded"):
        return RunTimeoutError(f"the run was stopped: {progress.reason}. {_where(folder)}")
    if not progress.root:
        return RunFailedError(f"the run failed: {progress.reason}. {_where(folder)}")
    return _replica_failed(folder, progress)


def _replica_failed(folder: str, progress: Progress) -> ReplicaFailedError:
    name = progress.root
    status = progress.replicas[name]
    details = _read_details(folder, name) or progress.raised.get(name) or {"returned": status.state == "Succeeded"}
    return replica_failed(
        name,
        status,
        details,
        original=_original(folder, name) if details.get("type") else None,
        log_tail=tail(os.path.join(folder, "logs", f"{name}.log"), 20),
        end=" ".join([*([f"{progress.reason}."] if progress.reason else []), *others(progress.replicas, name), _where(folder)]),
    )


def _where(folder: str) -> str:
    if read_about(folder).get("clean_logs"):
        return "Its logs are removed: clean_pod_policy='All'."
    return f"Logs: {os.path.join(folder, 'logs')}"


def _read_details(folder: str, name: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(folder, "results", f"{name}.error.json"), encoding="utf-8") as file:
            return json.load(file)  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None


def _original(folder: str, name: str) -> BaseException | None:
    """
    The replica's exception, if it can be rebuilt here.
    """
    try:
        with open(os.path.join(folder, "results", f"{name}.exception.pickle"), "rb") as file:
            return load_exception(file.read())
    except OSError:
        return None


def _supervisor_lost(folder: str, code: int | None) -> RunFailedError:
    """
    The error for a run whose supervisor ended without a word.
    """
    said = tail(os.path.join(folder, "logs", "supervisor.log"), 5)
    end = f"\n{said}" if said else ""
    by_itself = code is not None and code >= 0
    how = f"ended with code {code}" if by_itself else "is gone" if said else "is gone, killed from outside (out of memory?)"
    return RunFailedError(
        f"the run failed: the process that supervised the replicas {how}; its replicas were stopped. {_where(folder)}{end}"
    )
