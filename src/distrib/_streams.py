"""
The standard streams of a process, which may be closed, gone, or end on a full disk: none of that is a reason to fail.
"""

from __future__ import annotations

import sys

__all__ = ["flush", "say", "say_why"]


def flush() -> None:
    """
    Write out what has been printed.
    """
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105  # contextlib costs an import and a frame where milliseconds are counted
            stream.flush()
        except (OSError, ValueError, AttributeError):  # noqa: PERF203  # closed, replaced by None, or the disk is full
            pass


def say(text: str) -> None:
    """
    One line of our own, to the standard error.
    """
    _write(f"distrib: {text}\n")


def say_why(exit: SystemExit) -> None:
    """
    What the program says as it exits, as the interpreter would have: ``sys.exit("no data")`` prints its text.
    """
    if not isinstance(exit.code, int | None):
        try:
            text = str(exit.code)
        except Exception:  # noqa: BLE001  # its text may fail like anything of the user's
            text = "(its text cannot be had)"
        _write(f"{text}\n")


def _write(line: str) -> None:
    stream = sys.stderr
    try:
        stream.write(line)
        stream.flush()
    except (OSError, ValueError, AttributeError):  # closed, or there is none
        pass
