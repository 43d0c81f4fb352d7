"""
The process between the launcher and the replicas: starts them, learns how they end, leaves nothing behind.

It runs in a session of its own, so that no key pressed at the terminal reaches it or its replicas; it ends when the
launcher does, and takes every descendant along. It reads orders, lines of JSON, from its standard input and writes events,
lines of JSON too, to its standard output and to the run's history. It waits on descriptors and timers only.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from ... import _report
from ._linux import adopt_orphans, descendants, is_exiting, kill_and_wait, processes_with
from ._machine import Action, Machine, Member, Policy, State, Verb
from ._nursery import run_nursery
from ._outlet import Outlet
from ._replica import Settings, run_forked, run_program

#: The launcher is gone, maybe killed: nobody waits for a graceful end, but a short one is cheap.
_ORPHANED_GRACE = 0.5
# How long a process that is being taken down may take for it before what its peers say is heard.
_DYING_SECONDS = 1.0
_CHUNK = 1 << 16
#: How long a restart waits for what the last attempt left behind; it has been killed.
_LEFTOVER_SECONDS = 1.0
#: Messages without consequence for the run; told before the end of whoever sent them, or a short life is told backwards.
_AT_ONCE = ("forked", "started", "progress")
#: Process id, exit code, signal: of code and signal one is zero.
_Dead = tuple[int, int, int]


class Supervisor:
    """
    One run, from the first order to the last event.
    """

    def __init__(self, first: bytes, rest: bytes, *, control: int, channel: tuple[int, int], wakeup: int) -> None:
        orders = json.loads(first)
        self.channel = channel[0]
        self.settings = Settings(**orders["settings"], channel=channel[1], supervisor=os.getpid())
        self.orders = orders
        os.environ.update(orders["shared"])
        self._open_folder()
        self.machine = Machine([Member(**member) for member in orders["members"]], Policy(**orders["policy"]))
        self.history = os.open(self.settings.path("", "events.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.control = control
        self.selector = selectors.DefaultSelector()
        self.launcher_pipe = Outlet(1, self.selector)
        self.todo: deque[Action] = deque()
        self.timers: list[tuple[float, int, str]] = []
        self.pids: dict[int, str] = {}
        self.since: dict[str, float] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.nursery: Outlet | None = None
        self.nursery_pid = 0
        self.waiting_for_nursery: list[str] | None = None
        self.ordered: set[str] = set()
        self.partial = b""
        self.half_order = rest
        self.torn = False
        self.held: list[dict[str, Any]] = []
        self.held_until: float | None = None
        self.unburied: list[_Dead] = []
        self._watch(control, self._read_control)
        self._watch(self.channel, lambda: None)  # read whenever anything happens, after the dead are collected
        self._watch(wakeup, lambda: self._read_signals(wakeup))
        self.launcher = self._watch_launcher()

    def run(self) -> None:
        """
        Go on until the run is finished and nothing of it is left.
        """
        self.event("supervising", pid=os.getpid())
        self._start_nursery()
        self._do(self.machine.start())
        self._obey(b"")  # an order that came together with the first one
        while not self.machine.finished:
            for key, _ in self.selector.select(self._patience()):
                key.data()
            self._collect()
            self._ring()
        self._close()

    def _open_folder(self) -> None:
        # Shared with the launcher, which held it before this process could; held for as long as this process lives.
        fcntl.flock(os.open(self.settings.path("", "alive"), os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
        log = os.open(self.settings.path("logs", "supervisor.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.dup2(log, 2)
        os.close(log)

    # Input.

    def _read_control(self) -> None:
        data = os.read(self.control, _CHUNK)
        if not data:
            self._launcher_lost()
        self._obey(data)

    def _obey(self, data: bytes) -> None:
        *lines, self.half_order = (self.half_order + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            self._do(self.machine.cancel(order["why"], at_once=order["at_once"]))

    def _launcher_lost(self) -> None:
        watched = self.selector.get_map()
        if self.control not in watched:
            return  # the pipe and the process have both told
        for number in (self.control, self.launcher):
            if number is not None and number in watched:
                self.selector.unregister(number)
        self.event("launcher-lost")
        # Somebody who inherited the pipe may keep it open, and never read from it.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        self.machine.policy.grace_period = min(self.machine.policy.grace_period, _ORPHANED_GRACE)
        self._do(self.machine.cancel("the program that started the run is gone"))
        self._set_timer("abandon", _ORPHANED_GRACE)

    def _read_signals(self, wakeup: int) -> None:
        received = os.read(wakeup, _CHUNK)
        for number in (signal.SIGTERM, signal.SIGQUIT):
            if number in received:
                self._do(self.machine.cancel(f"the supervisor got {number.name}", at_once=number is signal.SIGQUIT))

    def _watch_launcher(self) -> int | None:
        # The pipe tells when the launcher is gone, unless a child that the launcher forked still holds its end.
        try:
            launcher = os.pidfd_open(self.orders["launcher"])
        except (OSError, AttributeError):  # gone already, or this system has no such descriptors
            return None
        self._watch(launcher, self._launcher_lost)
        return launcher

    def _read_channel(self) -> list[dict[str, Any]]:
        data = self.partial
        while True:
            try:
                chunk = os.read(self.channel, _CHUNK)
            except BlockingIOError:
                break
            if not chunk:
                break
            data += chunk
        *lines, self.partial = data.split(b"\n")
        messages = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:  # somebody else's bytes: the user's code found the descriptor and wrote to it
                continue
            if isinstance(message, dict) and message.get("kind") in _AT_ONCE:
                self._take(message)
            elif isinstance(message, dict):
                messages.append(message)
        return messages

    # What became of whom.

    def _collect(self) -> None:
        """
        Take in all that happened, the earliest cause first.

        The dead are collected before the messages are read: a message is sent before its sender ends, so none is missed.
        A replica that ended without a word goes first: what its peers have to say may well be its consequence.
        """
        dead = [*self.unburied, *self._reap()]
        messages = [*self.held, *self._read_channel()]
        self.unburied, self.held = [], []
        spoken = {
            str(message.get("replica")) for message in messages if message.get("kind") in ("returned", "raised")
        } | self.reports.keys()
        if any(message.get("kind") == "raised" for message in messages) and self._is_anyone_dying(spoken):
            self.unburied, self.held = dead, messages
            return
        self.held_until = None
        silent = [one for one in dead if self.pids.get(one[0], "") not in spoken | {""}]
        # Nobody kills itself, but many abort when they have lost a peer.
        for one in sorted(silent, key=lambda one: one[2] != signal.SIGKILL):
            self._exited(*one)
        for message in messages:
            self._take(message)
        for one in dead:
            if one not in silent:
                self._exited(*one)

    def _is_anyone_dying(self, spoken: AbstractSet[str]) -> bool:
        """
        Whether some other replica is about to be reported dead.

        The sockets of a process that was killed are closed, and its peers may fail of that, before its parent is told.
        """
        if not any(name not in spoken and is_exiting(pid) for pid, name in self.pids.items()):
            return False
        if self.held_until is None:
            self.held_until = time.monotonic() + _DYING_SECONDS
            self._set_timer("held", _DYING_SECONDS)
        return time.monotonic() < self.held_until

    def _reap(self) -> list[_Dead]:
        dead: list[_Dead] = []
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return dead
            if seen is None:
                return dead
            pid = seen.si_pid
            _kill_group(pid)  # what a replica leaves behind holds its ports and devices; its number is not free before the wait
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            dead.append((pid, max(code, 0), max(-code, 0)))

    def _forked(self, pid: int, name: str) -> None:
        self.ordered.discard(name)
        self.pids[pid] = name
        if self.machine.members[name].state is State.STOPPING:
            _signal(pid, signal.SIGTERM)  # it was to be stopped before its process was known

    def _take(self, message: dict[str, Any]) -> None:
        kind, name = message.get("kind"), message.get("replica", "")
        if kind in ("ready", "unforkable"):
            self._nursery_done(kind, message)
        elif kind in ("importing", "imported"):
            self.event(kind, **{key: value for key, value in message.items() if key not in ("kind", "replica")})
        elif name not in self.machine.members:
            return
        elif kind == "forked":
            self._forked(message["pid"], name)
        elif kind == "started":
            self.event("started", replica=name, pid=message["pid"], attempt=self.machine.members[name].attempt)
        elif kind == "progress":
            self.event("progress", replica=name, text=message["text"])
        elif kind == "serving":
            self.event("serving", replica=name)
            self._do(self.machine.serving(name))
        elif kind in ("returned", "raised"):
            self.reports[name] = message
            self.event(**message)
            self._do(self.machine.returned(name) if kind == "returned" else self.machine.raised(name, message["code"]))

    def _exited(self, pid: int, code: int, number: int) -> None:
        name = self.pids.pop(pid, None)
        if name is None:
            if pid == self.nursery_pid:
                self._nursery_lost(code, number)
            return
        report = self.reports.pop(name, {})
        # A replica that has closed all its descriptors, or became a program, cannot say that it returned, but has left its value.
        silent = not report and code == number == 0
        ok = report.get("kind") == "returned" or (silent and os.path.exists(self.settings.path("results", f"{name}.pickle")))
        _remove(self.settings.path("results", f"{name}.partial"))
        self.event("exited", replica=name, code=code, signal=number, returned=ok)
        ran = time.monotonic() - self.since[name]
        self._do(self.machine.exited(name, report.get("code", 128 + number if number else code), ok=ok, ran=ran))

    # Doing.

    def _do(self, actions: list[Action]) -> None:
        """
        Do it all, in order, and then what doing it has led to.
        """
        busy = bool(self.todo)
        self.todo += actions
        while self.todo and not busy:
            action = self.todo[0]
            if action.verb is Verb.START:
                self._start(action.name)
            elif action.verb is Verb.TERMINATE:
                self._signal_replica(action.name, signal.SIGTERM)
            elif action.verb is Verb.KILL:
                self._signal_replica(action.name, signal.SIGKILL)
            elif action.verb is Verb.TIMER:
                self._set_timer(action.name, action.seconds)
            elif action.verb in (Verb.NOTE, Verb.RESTARTING):
                self.event(action.verb.value, replica=action.name, text=action.text)
            self.todo.popleft()

    def _signal_replica(self, name: str, number: signal.Signals) -> None:
        self.event("signalled", replica=name, signal=int(number))
        if self.waiting_for_nursery and name in self.waiting_for_nursery:
            self.waiting_for_nursery.remove(name)
            self._never_started(name)
            return
        for pid, owner in self.pids.items():
            if owner == name:
                _signal(pid, number)

    def _never_started(self, name: str) -> None:
        self._do(self.machine.exited(name, 128 + signal.SIGTERM, ok=False))

    def _start(self, name: str) -> None:
        self.since[name] = time.monotonic()
        if self.machine.members[name].state is not State.RUNNING:  # the failure of another one came in between
            self._never_started(name)
            return
        if self.machine.members[name].attempt > 1:
            self._end_leftovers(name)
        for ending in ("pickle", "error.json", "exception.pickle"):
            _remove(self.settings.path("results", f"{name}.{ending}"))
        if self.waiting_for_nursery is not None and not self.orders["environments"][name]["fresh"]:
            self.waiting_for_nursery.append(name)
            return
        try:
            self._start_now(name)
        except OSError as error:
            self.event("raised", replica=name, code=126, type="OSError", text=f"the process could not be started: {error}")
            self._do(self.machine.exited(name, 126, ok=False))

    def _end_leftovers(self, name: str) -> None:
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

    def _start_now(self, name: str) -> None:
        member = self.orders["environments"][name]
        if member["fresh"] or self.orders["start_method"] == "spawn":
            self.pids[self._spawn(name, member["environment"], member["own"])] = name
        elif self.nursery is not None:
            order = json.dumps({"name": name, "environment": member["environment"]}) + "\n"
            self.ordered.add(name)
            self.nursery.send(order.encode())
        else:
            pid = _fork()
            if pid == 0:
                run_forked(self.settings, name, member["environment"], os.getppid())
            self.pids[pid] = name

    def _spawn(self, name: str, environment: dict[str, str], own: dict[str, str]) -> int:
        given = json.dumps({"settings": vars(self.settings), "name": name})
        code = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from distrib.engines.local._replica import run_fresh; run_fresh()"
        first, *rest = self.settings.sys_path or [""]
        path = [first, *filter(None, own.get("PYTHONPATH", "").split(os.pathsep)), *rest]  # where Python puts them too
        argv = [sys.executable, *self.orders["flags"], "-c", code, given, "\n".join(path)]
        pid = _fork()
        if pid == 0:
            run_program(self.settings, name, {**own, **environment}, argv)
        return pid

    def _start_nursery(self) -> None:
        modules = self.orders["preload"]
        if not modules or self.orders["start_method"] == "spawn":
            return
        reading, writing = os.pipe()
        self.nursery = Outlet(writing, self.selector)
        self.waiting_for_nursery = []
        supervisor = os.getpid()
        self.nursery_pid = os.fork()
        if self.nursery_pid == 0:
            run_nursery(self.settings, modules, self.orders["framework"], reading, supervisor)
        os.close(reading)

    def _nursery_done(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "unforkable":
            self.event("unforkable", text=message["text"])
            self.orders["start_method"] = "spawn"
        waiting, self.waiting_for_nursery = self.waiting_for_nursery or [], None
        for name in waiting:
            self._start(name)

    def _nursery_lost(self, code: int, number: int) -> None:
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None
        if self.orders["start_method"] == "spawn":
            return  # it has said why, and ended by itself
        how = f"got signal {number}" if number else f"ended with code {code}"
        self._nursery_done("unforkable", {"text": f"the process that imports the framework {how}"})
        while self.ordered:
            self._start(self.ordered.pop())

    def _close(self) -> None:
        if self.nursery is not None:
            self.nursery.close()
        _end_descendants()
        machine = self.machine
        self.event("finished", state=machine.outcome, reason=machine.reason, replica=machine.root, restarts=machine.restarts)
        self.launcher_pipe.flush(wait=True)

    # Timers and events.

    def _set_timer(self, name: str, seconds: float) -> None:
        heapq.heappush(self.timers, (time.monotonic() + seconds, len(self.timers), name))

    def _patience(self) -> float | None:
        return max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None

    def _ring(self) -> None:
        while self.timers and self.timers[0][0] <= time.monotonic():
            name = heapq.heappop(self.timers)[2]
            if name == "abandon":
                self._do(self.machine.cancel("", at_once=True))
            else:
                self._do(self.machine.timer(name))

    def event(self, kind: str, **fields: Any) -> None:
        """
        Write one event into the history and tell the launcher; neither may stop the run.
        """
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}).encode() + b"\n"
        self._remember(line)
        self.launcher_pipe.send(line)

    def _remember(self, line: bytes) -> None:
        # A line that was cut short must not take the next one along.
        line = b"\n" + line if self.torn else line
        try:
            self.torn = os.write(self.history, line) < len(line)
        except OSError:  # the disk is full: the run matters more than its history
            pass

    def _watch(self, number: int, ready: Callable[[], None]) -> None:
        self.selector.register(number, selectors.EVENT_READ, ready)


def _end_descendants() -> None:
    # Being their adopter, this process has none left only when all are gone: a fork in the last moment included.
    waiting = os.WNOHANG
    while True:
        try:
            os.waitpid(-1, waiting)
        except ChildProcessError:
            return
        waiting = 0
        found = descendants()
        if not [pid for pid in found if _signal(pid, signal.SIGKILL)] and found:
            return  # what is left belongs to another user, and cannot be ended from here


def _fork() -> int:
    # A replica that is stopped before it has put our handlers aside would lose the signal in them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid:  # also when there are too many processes for another one
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except OSError:  # it led none, or all of it is gone
        pass


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except OSError:  # it is gone, or has become another user's by running a program of theirs
        return False
    return True


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def main() -> None:
    """
    Be the supervisor of the run that the first line of the standard input describes.
    """
    adopt_orphans()
    _open_standard_descriptors()
    # The thread that started this process may have blocked signals, as worker threads do.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    waking, woken = os.pipe()
    os.set_blocking(waking, False)
    os.set_blocking(woken, False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    _import_while_waiting()
    data = bytearray()
    while b"\n" not in data:
        chunk = os.read(0, _CHUNK)
        if not chunk:  # the launcher thought better of it
            return
        data += chunk
    first, _, rest = bytes(data).partition(b"\n")
    try:
        Supervisor(first, rest, control=0, channel=(reading, writing), wakeup=waking).run()
    except BaseException:
        _end_descendants()  # a mistake of ours must not leave anything behind either
        raise
    os._exit(0)  # there is nothing to tear down


def _import_while_waiting() -> None:
    # The launcher takes a while to say what to run, and most calls are pickled by it.
    import cloudpickle  # noqa: F401


def _open_standard_descriptors() -> None:
    # A launcher without a standard error hands none on, and the next file opened would take its number.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004  # 0, 1 and 2 are taken now
        pass
    os.close(number)
