"""
What a run says of itself: lines of JSON, into its history and to its launcher.
"""

from __future__ import annotations

import json
import os
import selectors
import time
from typing import Any

from ._outlet import Outlet


class Record:
    """
    The events of a run, in order.

    Args:
        path: The file of the history, which is begun or continued.

        launcher: The descriptor of the pipe to the launcher.

        selector: Where what has no room in that pipe is waited for.
    """

    def __init__(self, path: str, launcher: int, selector: selectors.BaseSelector) -> None:
        self._history = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._launcher = launcher
        self._pipe = Outlet(launcher, selector)
        self._torn = False

    def write(self, kind: str, **fields: Any) -> None:
        """
        Write one event into the history and tell the launcher; neither may stop the run.
        """
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}).encode() + b"\n"
        self._remember(line)
        self._pipe.send(line)

    def forget_launcher(self) -> None:
        """
        Tell it no more: somebody who inherited the pipe may keep it open, and never read from it.
        """
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._launcher)
        os.close(null)

    def flush(self) -> None:
        """
        Wait until the launcher has read all.
        """
        self._pipe.flush(wait=True)

    def _remember(self, line: bytes) -> None:
        # A line that was cut short must not take the next one along.
        line = b"\n" + line if self._torn else line
        try:
            self._torn = os.write(self._history, line) < len(line)
        except OSError:  # the disk is full: the run matters more than its history
            pass
