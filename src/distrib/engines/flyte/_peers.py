"""
The other replicas of a task, as seen through the one thing that all pods share: the folder that Flyte reads the outputs from.

A replica that raises leaves its error there, and its pod succeeds, for otherwise Flyte would never read the error. So the others
have to look for it: they would wait for the one that is gone, and the error would not be told until they give up.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from ..._cluster import Replica
from ..._linux import descendants
from ..._outcome import may_be_a_consequence
from ..._streams import flush, say

__all__ = ["Peers"]

#: Seconds between two looks: a fraction of the time since the start, within bounds. Most mistakes show at once, and looks cost.
_FRACTION = 0.05
_SHORTEST, _LONGEST = 0.5, 5.0
#: How long a replica that was failed by another one waits for that one's own word.
_PATIENCE = 2 * _LONGEST


class Peers:
    """
    What the others have left in the folder.

    Args:
        me: This replica.

        names: Lists the folder; empty if there is none yet.

        service: Whether this replica ends when the others have.
    """

    def __init__(self, me: Replica, names: Callable[[], list[str]], *, service: bool) -> None:
        self.me = me
        self.names = names
        self.service = service
        self.is_alone = me.cluster.world_size == 1
        self.over = threading.Event()

    @classmethod
    def of_this_task(cls, me: Replica, *, service: bool) -> Peers:
        """
        Those of the task that this process executes.
        """
        from flytekit.core.context_manager import FlyteContextManager

        context = FlyteContextManager.current_context()
        parameters = context.user_space_params
        prefix = None if parameters is None else parameters.output_metadata_prefix

        def names() -> list[str]:
            return _listed(context.file_access, prefix) if prefix else []

        return cls(me, names, service=service)

    def has_failed(self) -> bool:
        """
        Whether any replica has told Flyte that it failed.
        """
        return any(name.startswith("error") and name.endswith(".pb") for name in self.names())

    def has_succeeded(self) -> bool:
        """
        Whether the coordinator's outputs are there.
        """
        return "outputs.pb" in self.names()

    def failed_before(self, error: BaseException) -> bool:
        """
        Whether another replica has failed before this one did with *error*, which may be nothing but the consequence.
        """
        self.over.set()
        if self.is_alone:
            return False
        limit = time.monotonic() + (_PATIENCE if may_be_a_consequence(_text(error)) else 0)
        while not self.has_failed():
            if time.monotonic() >= limit:
                return False
            time.sleep(_SHORTEST)
        say(f"{self.me.name} failed after another replica, whose error Flyte is told: {_text(error)}")
        return True

    @contextmanager
    def watched(self) -> Iterator[None]:
        """
        While the block runs, end this process once there is nothing left to do for it: another replica has failed, or, where it
        only serves the others, they are done.
        """
        if not self.is_alone:
            threading.Thread(target=self._watch, name="distrib: the other replicas", daemon=True).start()
        try:
            yield
        finally:
            self.over.set()

    def _watch(self) -> None:
        began = time.monotonic()
        while not self.over.wait(min(max(_SHORTEST, (time.monotonic() - began) * _FRACTION), _LONGEST)):
            with suppress(Exception):  # storage may be away for a while
                if self.has_failed():
                    self._end("another replica has failed")
                if self.service and self.has_succeeded():
                    self._end("the others are done")

    def _end(self, reason: str) -> None:
        if self.over.is_set():
            return
        say(f"{self.me.name} ends: {reason}")
        _end()


def _end() -> NoReturn:
    """
    End this process and all that it has started, as one that has nothing to tell: with another code Flyte would never read the error.
    """
    import signal

    flush()
    for pid in descendants():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _listed(files: Any, prefix: str) -> list[str]:
    system = files.get_filesystem_for_path(prefix)
    with suppress(Exception):  # some keep what they have once listed
        system.invalidate_cache()
    try:
        return [os.path.basename(str(name).rstrip("/")) for name in system.ls(prefix, detail=False)]  # noqa: PTH119  # URLs
    except FileNotFoundError:
        return []


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  # its text may fail like anything of the user's
        return type(error).__name__
