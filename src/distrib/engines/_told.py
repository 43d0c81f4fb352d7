"""
The words in which a failed replica is told, the same on every engine.
"""

from __future__ import annotations

import linecache
import os
import signal
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._outcome import NOT_STARTED, RETRYABLE_EXIT, SIGNALLED, signal_name
from ..engine import ReplicaStatus
from ..errors import ReplicaFailedError

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
    NOT_STARTED: "the process could not be started",
    127: "the process could not be started",
    RETRYABLE_EXIT: "the code that says: start me again",
}
_NAMED = 3
# With the summary, Python's own lines, marks under the code included, and an exception whose text is one line, these make fifteen.
_FRAMES = 2
_TEXT_LINES = 3
_TAIL_LINES = 3
_LINE = 200


_OURS = str(Path(__file__).absolute().parents[1]) + os.sep


def replica_failed(
    name: str, status: ReplicaStatus, details: Mapping[str, Any], *, original: BaseException | None, log_tail: str, end: str, hint: str = ""
) -> ReplicaFailedError:
    """
    The error of a run that failed because of one replica.

    Args:
        name: The replica.

        status: How it ended.

        details: What :func:`distrib._outcome.tell` said of its exception; ``returned`` if it did; empty if nothing is known.
            With ``ended``, what :func:`distrib._outcome.tell_end` said of a process of its own.

        original: The exception itself, if it could be rebuilt: it becomes the cause.

        log_tail: The last lines that the replica wrote.

        end: The last line of the report: what became of the others, and where the logs are.

        hint: What such an end means, where more is known than the exit code tells.
    """
    ended = details.get("ended")
    code, number = (status.exit_code, status.signal) if ended is None else (ended, -ended if ended < 0 else None)
    hint = hint or hint_of(code, number)
    raised = bool(details.get("type")) and ended is None
    # What Python prints of the cause has the whole text.
    details = {**details, "lines": 1 if original is not None else _TEXT_LINES}
    process = "" if details.get("rank") is None else f" (rank {details['rank']})"
    lines = [f"{name}{process} {_what_happened(details, code, number, hint, raised=raised)}"]
    lines += _frames(details.get("frames", []))
    if not raised:
        lines += [f"  | {_cut(line)}" for line in _theirs(log_tail)[-_TAIL_LINES:]]
    error = ReplicaFailedError(
        "\n".join([*lines, end]),
        replica=name,
        exit_code=status.exit_code,
        signal=number,
        hint=hint,
        traceback=details.get("traceback", ""),
        log_tail=log_tail,
    )
    error.__cause__ = original
    return error


def others(replicas: Mapping[str, ReplicaStatus], root: str) -> list[str]:
    """
    What became of the other replicas, in a sentence or two.
    """
    stopped = sum(status.state == "Stopped" for name, status in replicas.items() if name != root)
    failed = [name for name, status in replicas.items() if status.state == "Failed" and name != root]
    told = [f"{stopped} {'other was' if stopped == 1 else 'others were'} stopped."] if stopped else []
    if failed:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        told.append(f"{', '.join(failed[:_NAMED])}{more} failed after it.")
    return told


def _what_happened(details: Mapping[str, Any], code: int | None, number: int | None, hint: str, *, raised: bool) -> str:
    because = f": {hint}" if hint else ""
    if details.get("returned"):
        return "returned, and was to be started again: with restart_policy=Always only the other replicas can end the run"
    if raised:
        text = [_cut(line) for line in details["text"].splitlines() if line.strip()][: details["lines"]]
        said = "\n  ".join([": ".join([details["type"], *text[:1]]), *text[1:]])
        return f"failed with {said}{f' (exit code {code})' if code else ''}"
    if number is not None:
        return f"was ended by signal {number} ({signal_name(number)}){because}"
    return f"ended with exit code {code}{because}"


def _cut(line: str) -> str:
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"


def _theirs(log: str) -> list[str]:
    # What Python writes when it crashes ends with our own frames, the outermost.
    return [line for line in log.splitlines() if not line.startswith(f'  File "{_OURS}')]


def hint_of(code: int | None, number: int | None) -> str:
    """
    What an end with this exit code, or by this signal, usually means; an empty string if nothing is known.
    """
    if number is None and code is not None and code > SIGNALLED:
        number = code - SIGNALLED if code not in _CODE_HINTS else None
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
        shown.append(f"  {before}{_short(path)}:{line} in {function}{f': {_cut(text)}' if text else ''}")
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
