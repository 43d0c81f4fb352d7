"""
Shows what becomes of a run, while it is followed.
"""

from __future__ import annotations

import sys
import time

from ..._streams import say
from ...engine import RunState
from .._echo import Echo
from ._about import About
from ._state import State, Verdict
from ._watch import News

#: A replica that waits is told about when it has done so for this long, so that a quick start tells nothing.
_LONG_SECONDS = 3.0


class Show:
    """
    Logs on the standard output, and in a line each on the standard error what else there is to know.
    """

    def __init__(self, about: About) -> None:
        self._about = about
        self._echo = Echo(about.shape.names, sys.stdout)
        self._told: dict[str, str] = {}
        self._begun = time.monotonic()
        self._is_lost = False

    def logs(self, name: str, data: bytes) -> None:
        """
        Show what a replica has written.
        """
        self._echo.show(name, data)

    def hurry(self) -> None:
        """
        Do not wait any more for a reader that does not read.
        """
        self._echo.hurry()

    def news(self, news: News) -> None:
        """
        Tell that the server cannot be asked.
        """
        if news.change == "LOST" and not self._is_lost:  # several watches meet with the same
            self._is_lost = True
            say(f"{news.error}; trying again")
        elif news.change == "BACK" and self._is_lost:
            self._is_lost = False
            say("the API server answers again")
        elif news.change == "REFUSED":
            say(f"{news.error}; going on without")

    def status(self, state: State) -> None:
        """
        Tell why replicas wait: once for each reason.
        """
        if time.monotonic() - self._begun < _LONG_SECONDS:
            return
        reasons: dict[str, list[str]] = {}
        for name, one in state.replicas().items():
            if one.state == "Waiting" and one.message and one.message != self._told.get(name):
                self._told[name] = one.message
                reasons.setdefault(one.message, []).append(name)
        for reason, names in reasons.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            say(f"{names[0]}{more}: {reason}")

    def end(self, state: State, verdict: Verdict) -> None:
        """
        The last line.
        """
        self._echo.end()
        if verdict.state is RunState.SUCCEEDED:
            restarts = state.status().restarts
            again = f", {restarts} {'restart' if restarts == 1 else 'restarts'}" if restarts else ""
            say(f"{self._about.shape.run} succeeded after {time.monotonic() - self._begun:.1f} s{again}")
