"""
Exceptions that are hard to carry from one process to another.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from distrib import RetryableError


class NeedsKeywordError(Exception):
    """
    Cannot be rebuilt from its arguments, as pickle does it.
    """

    def __init__(self, *, size: int) -> None:
        super().__init__(f"too small: {size}")


class LockedError(Exception):
    """
    Cannot be pickled.
    """

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class BadTextError(Exception):
    """
    Has no text.
    """

    def __str__(self) -> str:
        raise RuntimeError("no text")


class EndingError(Exception):
    """
    Does something terrible when it is rebuilt.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return (sys.exit, (9,))


def raise_it(kind: str) -> None:
    """
    Raise one of the odd ones.
    """
    if kind == "local":

        class LocalError(Exception):
            pass

        raise LocalError("of a local class")
    make = {
        "keyword": lambda: NeedsKeywordError(size=3),
        "lock": LockedError,
        "no text": BadTextError,
        "terrible": lambda: EndingError("boo"),
        "long": lambda: ValueError("行" * 100_000),
        "lines": lambda: ValueError("first\n\nsecond\n" + "more\n" * 1000),
        "surrogate": lambda: ValueError("lone \ud800"),
        "interrupt": lambda: KeyboardInterrupt("pressed"),
        "group": lambda: ExceptionGroup("several", [ValueError("one")]),  # noqa: F821  # from 3.11 on
        "retryable": lambda: RetryableError("again"),
    }[kind]
    raise make()
