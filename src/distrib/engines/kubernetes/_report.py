"""
What became of a replica, as its container's termination message tells it.

The kubelet keeps 4,096 bytes of it. What is large is compressed inside, and what is still too large is in the run's storage.
"""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

#: The mark, and the format, of a message of ours.
MARK = 1
#: The most that the kubelet keeps.
LIMIT = 4096
# Pieces of a traceback that still tell something, from much to little.
_TRACEBACKS = (20_000, 8_000, 3_000, 1_500, 600, 0)
_FRAMES = (50, 12, 4, 1)
_TEXTS = (1_000, 400, 120)


@attrs.frozen(kw_only=True)
class Report:
    """
    How a replica ended.

    Args:
        replica: E.g. ``"worker-1"``.

        kind: ``returned``: the function returned. ``raised``: it raised. ``ended``: its process ended without a word.
            ``stopped``: it was told to stop, because the run was over, had failed elsewhere, or the kubelet wanted it.
            ``refused``: the function was not called, because something is missing in the pod.

        code: The exit code of the container; 0 only where that is no failure.

        signal: The number of the signal that ended the function's process; None if none did.

        text: Why, for people: of ``ended``, ``stopped`` and ``refused``.

        cause: The replica whose failure stopped this one; an empty string if there is none, or it is not known.

        time: When the function ended, in seconds since the epoch.

        value: The pickled value; None if there is none, or it is in *stored*.

        error: ``type``, ``text``, ``traceback``, ``frames`` and ``rank`` of the exception, shortened to fit; None if there is none.
            ``ended`` says how a process of the function's own ended, if that one is at fault.

        exception: The pickled exception; None if there is none, it cannot be pickled, is too large, or is in *stored*.

        stored: The URL of the whole report, if it is in the run's storage: what :func:`load` takes.

        oom: Whether the kernel has killed a process of the container for want of memory.
    """

    replica: str
    kind: str
    code: int
    signal: int | None = None
    text: str = ""
    cause: str = ""
    time: float = 0.0
    value: bytes | None = attrs.field(default=None, repr=False)
    error: Mapping[str, Any] | None = None
    exception: bytes | None = attrs.field(default=None, repr=False)
    stored: str = ""
    oom: bool = False


#: What travels compressed; the rest is readable in ``kubectl describe pod``.
_PACKED = ("value", "error", "exception")


def encode(report: Report, limit: int = LIMIT) -> str | None:
    """
    The termination message, at most *limit* bytes of ASCII. What tells least is left out first, but never the value.

    Returns:
        None if it is too large, because of the value.
    """
    for smaller in _smaller(report):
        text = _encode(smaller)
        if len(text) <= limit:
            return text
    return None


def decode(text: str | None) -> Report | None:
    """
    The inverse of :func:`encode`; None if the text is no message of ours: the end of a log, for instance.
    """
    try:
        given = json.loads(text or "")
        if not isinstance(given, dict) or given.pop("distrib", None) != MARK:
            return None
        packed = given.pop("packed", None)
        if packed is not None:
            given.update(_unpack(packed))
        return Report(**given)
    except (ValueError, TypeError, KeyError, zlib.error):  # cut short, or written by somebody else
        return None


def dump(report: Report) -> bytes:
    """
    The whole report, for the run's storage.
    """
    return pickle.dumps(attrs.asdict(report), protocol=5)


def load(data: bytes) -> Report:
    """
    The inverse of :func:`dump`.
    """
    return Report(**pickle.loads(data))  # noqa: S301  # unpickles only what its own processes wrote


def _smaller(report: Report) -> Iterator[Report]:
    yield report
    if report.error is None:
        for length in _TEXTS:
            yield attrs.evolve(report, text=report.text[:length])
        return
    # A short traceback may leave room for the exception itself.
    for length in _TRACEBACKS[:3]:
        yield _shortened(report, traceback=length, frames=_FRAMES[0], text=_TEXTS[0])
    bare = attrs.evolve(report, exception=None)
    for text in _TEXTS:
        for frames in _FRAMES:
            for length in _TRACEBACKS:
                yield _shortened(bare, traceback=length, frames=frames, text=text)


def _shortened(report: Report, *, traceback: int, frames: int, text: int) -> Report:
    error = dict(report.error or {})
    whole = error.get("traceback", "")
    if len(whole) > traceback:
        # What was raised stands at the end.
        error["traceback"] = f"…{whole[-traceback:]}" if traceback else ""
    error["frames"] = [[part[:200] if isinstance(part, str) else part for part in frame] for frame in error.get("frames", ())[-frames:]]
    error["text"] = error.get("text", "")[:text]
    return attrs.evolve(report, error=error, text=report.text[:text])


def _encode(report: Report) -> str:
    given: dict[str, Any] = {"distrib": MARK}
    for field in attrs.fields(Report):
        value = getattr(report, field.name)
        if field.name not in _PACKED and value != field.default:
            given[field.name] = value
    packed = {name: value for name in _PACKED if (value := getattr(report, name)) is not None}
    if packed:
        given["packed"] = base64.b64encode(zlib.compress(pickle.dumps(packed, protocol=5), 9)).decode()
    return json.dumps(given, separators=(",", ":"))


def _unpack(packed: str) -> dict[str, Any]:
    return dict(pickle.loads(zlib.decompress(base64.b64decode(packed))))  # noqa: S301  # unpickles only what its own processes wrote
