"""
How long somebody waits for a run: the same on every engine.
"""

from __future__ import annotations

import time

from ..errors import RunTimeoutError

#: A signal that comes at the very moment in which Python begins to wait is seen when it looks again: it looks this often.
AWAKE_SECONDS = 0.5


class Patience:
    """
    A wait that begins now.

    .. doctest::

        >>> patience = Patience(0.25)
        >>> patience.seconds() <= 0.25, Patience(None).seconds()
        (True, 0.5)
        >>> Patience(0).check("train-1")
        Traceback (most recent call last):
        ...
        distrib.errors.RunTimeoutError: train-1 is still running after 0 s; it goes on. Wait again, or cancel() it.

    Args:
        timeout: Seconds, or None for as long as it takes.

    Raises:
        ValueError: It is no number, and would never be over.
    """

    def __init__(self, timeout: float | None) -> None:
        if timeout != timeout:  # noqa: PLR0124  # true of nan alone
            raise ValueError("timeout=nan: write seconds, or None to wait for as long as it takes.")
        self._timeout = timeout
        self._ends = None if timeout is None else time.monotonic() + timeout

    def seconds(self) -> float:
        """
        How long to wait in one go.
        """
        return AWAKE_SECONDS if self._ends is None else max(0.0, min(AWAKE_SECONDS, self._ends - time.monotonic()))

    def check(self, id: str) -> None:
        """
        Go on, unless the time is over.

        Raises:
            RunTimeoutError: It is; the run *id* goes on.
        """
        if self._ends is not None and time.monotonic() >= self._ends:
            raise RunTimeoutError(f"{id} is still running after {self._timeout:g} s; it goes on. Wait again, or cancel() it.")
