"""
From what is left of a run to the error that tells why it failed.
"""

from __future__ import annotations

import json
import linecache
import os
import pickle
import signal
import sysconfig
from collections.abc import Mapping
from typing import Any

from ...engine import RunState
from ...errors import EngineError, ReplicaFailedError, RunCancelledError, RunFailedError, RunTimeoutError
from ._history import SUPERVISOR_LOST, Progress, read_about
from ._logs import tail

#: What an end by this signal usually means.
HINTS = {
    signal.SIGKILL: "killed from outside: usually it was out of memory; use a smaller batch, fewer replicas or more memory",
    signal.SIGSEGV: "crashed in native code",
    signal.SIGABRT: "aborted by native code: the reason is at the end of its log",
    signal.SIGBUS: "usually /dev/shm or the disk is full",
    signal.SIGILL: "a library was built for another processor",
    signal.SIGFPE: "an arithmetic error in native code",
    signal.SIGTERM: "somebody asked it to end",
    signal.SIGXCPU: "its limit of CPU time was used up",
}
_CODE_HINTS = {
    0: "the process ended before the function returned: os._exit() was called",
    126: "the process could not be started",
    127: "the process could not be started",
    138: "the code that says: start me again",
}
#: A shell's way to say "ended by a signal": this plus its number.
_SIGNALLED = 128
_NAMED = 3
# With the summary, the exception itself and Python's own lines, marks under the code included, these make fifteen.
_FRAMES = 2
_TEXT_LINES = 3
_TAIL_LINES = 3
_LINE = 160


_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


def error_of(folder: str, progress: Progress) -> EngineError:
    """
    The error of a run that is over and has not succeeded, its cause attached.
    """
    if progress.reason == SUPERVISOR_LOST:
        return _supervisor_lost(folder)
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
    log_tail = tail(os.path.join(folder, "logs", f"{name}.log"), 20)
    hint = _hint(status.exit_code, status.signal)
    raised = bool(details.get("type"))
    original = _original(folder, name) if raised else None
    # What Python prints of the cause has the whole text.
    details = {**details, "lines": 1 if original is not None else _TEXT_LINES}
    process = "" if details.get("rank") is None else f" (rank {details['rank']})"
    lines = [f"{name}{process} {_what_happened(details, status.exit_code, status.signal, hint if not raised else '')}"]
    lines += _frames(details.get("frames", []))
    if not raised:
        lines += [f"  | {line[:_LINE]}" for line in log_tail.splitlines()[-_TAIL_LINES:]]
    lines.append(" ".join([*([f"{progress.reason}."] if progress.reason else []), *_others(progress), _where(folder)]))
    error = ReplicaFailedError(
        "\n".join(lines),
        replica=name,
        exit_code=status.exit_code,
        signal=status.signal,
        hint=hint,
        traceback=details.get("traceback", ""),
        log_tail=log_tail,
    )
    error.__cause__ = original
    return error


def _what_happened(details: Mapping[str, Any], code: int | None, number: int | None, hint: str) -> str:
    because = f": {hint}" if hint else ""
    if details.get("returned"):
        return "returned, and was to be started again: with restart_policy=Always only the other replicas can end the run"
    if details.get("type"):
        text = [line[:_LINE] for line in details["text"].splitlines() if line.strip()][: details["lines"]]
        said = "\n  ".join([": ".join([details["type"], *text[:1]]), *text[1:]])
        return f"failed with {said}{f' (exit code {code})' if code else ''}"
    if number is not None:
        return f"was ended by signal {number} ({_signal_name(number)}){because}"
    return f"ended with exit code {code}{because}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _hint(code: int | None, number: int | None) -> str:
    if number is None and code is not None and code > _SIGNALLED:
        number = code - _SIGNALLED if code not in _CODE_HINTS else None
    if number is not None:
        return HINTS.get(number, "")  # type: ignore[call-overload, no-any-return]  # Signals are ints
    return _CODE_HINTS.get(code, "") if code is not None else ""


def _frames(frames: list[list[Any]]) -> list[str]:
    """
    The user's own frames, the innermost last.
    """
    # The user's code may be installed as a library; where no other frame is left, the innermost that is not ours will do.
    own = [frame for frame in frames if _is_users(frame[0])] or [frame for frame in frames if not frame[0].startswith(_OURS)][-1:]
    left_out = max(0, len(own) - _FRAMES)
    shown: list[str] = []
    for path, line, function, source in own[left_out:]:
        text = source or linecache.getline(path, line).strip()
        before = f"… {left_out} more, then " if left_out and not shown else ""
        shown.append(f"  {before}{_short(path)}:{line} in {function}{f': {text[:_LINE]}' if text else ''}")
    return shown


def _is_users(path: str) -> bool:
    library = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not path.startswith((*(f"{folder}{os.sep}" for folder in library if folder), _OURS, "<frozen"))


def _short(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # the working directory is gone, or on another drive
        return path
    return relative if not relative.startswith("..") else path


def _others(progress: Progress) -> list[str]:
    stopped = sum(status.state == "Stopped" for name, status in progress.replicas.items() if name != progress.root)
    failed = [name for name, status in progress.replicas.items() if status.state == "Failed" and name != progress.root]
    told = [f"{stopped} {'other was' if stopped == 1 else 'others were'} stopped."] if stopped else []
    if failed:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        told.append(f"{', '.join(failed[:_NAMED])}{more} failed after it.")
    return told


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
            found = pickle.load(file)
    except BaseException:  # its class may be missing here, refuse its own arguments, or do anything else
        return None
    # A SystemExit or KeyboardInterrupt as the cause is fine: only raising it would end the program.
    return found if isinstance(found, BaseException) else None


def _supervisor_lost(folder: str) -> RunFailedError:
    """
    The error for a run whose supervisor ended without a word.
    """
    said = tail(os.path.join(folder, "logs", "supervisor.log"), 5)
    end = f"\n{said}" if said else ""
    hint = "the process that supervised the replicas is gone" + ("" if said else ", killed from outside (out of memory?)")
    return RunFailedError(f"the run failed: {hint}; its replicas were stopped. {_where(folder)}{end}")
