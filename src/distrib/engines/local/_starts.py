"""
How replicas come to be: forked by the nursery or by the supervisor, or as interpreters of their own.
"""

from __future__ import annotations

import json
import os
import selectors
import sys
from typing import Any

from ... import _report
from ..._linux import descendants, fork, kill_and_wait, processes_with
from ._nursery import run_nursery
from ._outlet import Outlet
from ._replica import Settings, run_forked, run_program

#: How long a restart waits for what the last attempt left behind; it has been killed.
_LEFTOVER_SECONDS = 1.0


class Starts:
    """
    Starts processes for the supervisor, and knows whose they are.

    Args:
        settings: What is the same for all replicas.

        orders: The run's: ``environments``, ``start_method``, ``preload``, ``framework`` and ``flags`` of the interpreter.

        selector: Where what has no room in a pipe is waited for.
    """

    def __init__(self, settings: Settings, orders: dict[str, Any], selector: selectors.BaseSelector) -> None:
        self.settings = settings
        self.orders = orders
        self.selector = selector
        #: The replica that each process is.
        self.pids: dict[int, str] = {}
        #: Those that the nursery is to fork, and of which it has not told yet.
        self.ordered: set[str] = set()
        self.forks = orders["start_method"] != "spawn"
        self.nursery_pid = 0
        self._nursery: Outlet | None = None
        self._waiting: list[str] | None = None

    def start_nursery(self) -> None:
        """
        Start the process that imports what replicas share, if there is anything; they wait for it.

        Raises:
            OSError: The system has no room for it.
        """
        modules = self.orders["preload"]
        if not modules or not self.forks:
            return
        reading, writing = os.pipe()
        supervisor = os.getpid()
        self.nursery_pid = fork()
        if self.nursery_pid == 0:
            run_nursery(self.settings, modules, self.orders["framework"], reading, supervisor)
        os.close(reading)
        self._nursery = Outlet(writing, self.selector)
        self._waiting = []

    def put_off(self, name: str) -> bool:
        """
        Whether the replica has to wait for the nursery; it is then among those that :meth:`nursery_done` gives.
        """
        if self._waiting is None or self.orders["environments"][name]["fresh"]:
            return False
        self._waiting.append(name)
        return True

    def call_off(self, name: str) -> bool:
        """
        Whether the replica was waiting, which it does no more.
        """
        if not self._waiting or name not in self._waiting:
            return False
        self._waiting.remove(name)
        return True

    def nursery_done(self, *, forks: bool) -> list[str]:
        """
        Learn that the nursery has imported all, and whether it can be forked; who has waited for that.
        """
        self.forks = self.forks and forks
        waiting, self._waiting = self._waiting or [], None
        return waiting

    def close_nursery(self) -> None:
        """
        Have nothing more forked by it.
        """
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def start(self, name: str) -> None:
        """
        Start the replica's process.

        Raises:
            OSError: The system has no room for it.
        """
        member = self.orders["environments"][name]
        if member["fresh"] or not self.forks:
            self.pids[self._spawn(name, member["environment"], member["own"])] = name
        elif self._nursery is not None:
            order = json.dumps({"name": name, "environment": member["environment"]}) + "\n"
            self.ordered.add(name)
            self._nursery.send(order.encode())
        else:
            pid = fork()
            if pid == 0:
                run_forked(self.settings, name, member["environment"], os.getppid())
            self.pids[pid] = name

    def forked(self, name: str, pid: int) -> None:
        """
        Learn which process the nursery has forked for the replica.
        """
        self.ordered.discard(name)
        self.pids[pid] = name

    def end_leftovers(self, name: str) -> None:
        """
        End what the last attempt of the replica has left behind in sessions of their own: it may hold ports and devices.

        A program is known by the name of its replica. A mere fork is not: it goes when nobody else is up, or at the end.
        """
        ours = {*self.pids}
        if self.nursery_pid:
            ours |= {self.nursery_pid, *descendants(self.nursery_pid)}  # what it imported may have started a helper for all
        found = [pid for pid in descendants() if pid not in ours]
        if found and (self.pids or self.ordered):
            named = set(processes_with(_report.NAME_VARIABLE, name))
            found = [pid for pid in found if pid in named]
        kill_and_wait(found, _LEFTOVER_SECONDS)

    def _spawn(self, name: str, environment: dict[str, str], own: dict[str, str]) -> int:
        given = json.dumps({"settings": vars(self.settings), "name": name})
        code = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from distrib.engines.local._replica import run_fresh; run_fresh()"
        first, *rest = self.settings.sys_path or [""]
        path = [first, *filter(None, own.get("PYTHONPATH", "").split(os.pathsep)), *rest]  # where Python puts them too
        argv = [sys.executable, *self.orders["flags"], "-c", code, given, "\n".join(path)]
        pid = fork()
        if pid == 0:
            run_program(self.settings, name, {**own, **environment}, argv)
        return pid
