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
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from ..._linux import adopt_orphans, is_exiting, watch_process
from ..._outcome import NOT_STARTED, SIGNALLED
from ._ends import end, end_descendants, kill_group
from ._machine import Action, Machine, Member, Policy, State, Verb
from ._record import Record
from ._replica import Settings
from ._starts import Starts

#: The launcher is gone, maybe killed: nobody waits for a graceful end, but a short one is cheap.
_ORPHANED_GRACE = 0.5
# How long a process that is being taken down may take for it before what its peers say is heard.
_DYING_SECONDS = 1.0
# What the system waits for at most is 25 days: a timer may be set to more.
_LONGEST_WAIT = 3600.0
_CHUNK = 1 << 16
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
        self.control = control
        self.selector = selectors.DefaultSelector()
        self.record = Record(self.settings.path("", "events.jsonl"), 1, self.selector)
        self.todo: deque[Action] = deque()
        self.timers: list[tuple[float, int, str]] = []
        self.starts = Starts(self.settings, orders, self.selector)
        self.since: dict[str, float] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.partial = b""
        self.half_order = rest
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
        self.record.write("supervising", pid=os.getpid())
        try:
            self.starts.start_nursery()
        except OSError as error:
            self._nursery_done("unforkable", {"text": f"the process that imports for all could not be started: {error}"})
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
        self.record.write("launcher-lost")
        self.record.forget_launcher()
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
        launcher = watch_process(self.orders["launcher"])
        if launcher is not None:
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
        silent = [one for one in dead if self.starts.pids.get(one[0], "") not in spoken | {""}]
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
        if not any(name not in spoken and is_exiting(pid) for pid, name in self.starts.pids.items()):
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
            kill_group(pid)  # what a replica leaves behind holds its ports and devices; its number is not free before the wait
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            dead.append((pid, max(code, 0), max(-code, 0)))

    def _forked(self, pid: int, name: str) -> None:
        self.starts.forked(name, pid)
        if self.machine.members[name].state is State.STOPPING:
            end(pid, signal.SIGTERM)  # it was to be stopped before its process was known

    def _take(self, message: dict[str, Any]) -> None:
        kind, name = message.get("kind"), message.get("replica", "")
        if kind in ("ready", "unforkable"):
            self._nursery_done(kind, message)
        elif kind in ("importing", "imported"):
            self.record.write(kind, **{key: value for key, value in message.items() if key not in ("kind", "replica")})
        elif name not in self.machine.members:
            return
        elif kind == "forked":
            self._forked(message["pid"], name)
        elif kind == "unforked" and name in self.starts.ordered:
            self.starts.ordered.discard(name)
            self._not_started(name, message["text"])
        elif kind == "started":
            self.record.write("started", replica=name, pid=message["pid"], attempt=self.machine.members[name].attempt)
        elif kind == "progress":
            self.record.write("progress", replica=name, text=message["text"])
        elif kind == "serving":
            self.record.write("serving", replica=name)
            self._do(self.machine.serving(name))
        elif kind in ("returned", "raised"):
            self.reports[name] = message
            self.record.write(**message)
            self._do(self.machine.returned(name) if kind == "returned" else self.machine.raised(name, message["code"]))

    def _exited(self, pid: int, code: int, number: int) -> None:
        name = self.starts.pids.pop(pid, None)
        if name is None:
            if pid == self.starts.nursery_pid:
                self._nursery_lost(code, number)
            return
        report = self.reports.pop(name, {})
        # A replica that has closed all its descriptors, or became a program, cannot say that it returned, but has left its value.
        silent = not report and code == number == 0
        ok = report.get("kind") == "returned" or (silent and os.path.exists(self.settings.path("results", f"{name}.pickle")))
        _remove(self.settings.path("results", f"{name}.partial"))
        self.record.write("exited", replica=name, code=code, signal=number, returned=ok)
        ran = time.monotonic() - self.since[name]
        self._do(self.machine.exited(name, report.get("code", SIGNALLED + number if number else code), ok=ok, ran=ran))

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
                self.record.write(action.verb.value, replica=action.name, text=action.text)
            self.todo.popleft()

    def _signal_replica(self, name: str, number: signal.Signals) -> None:
        self.record.write("signalled", replica=name, signal=int(number))
        if self.starts.call_off(name):
            self._never_started(name)
            return
        if name in self.starts.ordered and number is signal.SIGKILL:
            end(self.starts.nursery_pid, number)  # it has had its time to fork; maybe somebody has stopped it
        for pid, owner in self.starts.pids.items():
            if owner == name:
                end(pid, number)

    def _never_started(self, name: str) -> None:
        self._do(self.machine.exited(name, SIGNALLED + signal.SIGTERM, ok=False))

    def _start(self, name: str) -> None:
        self.since[name] = time.monotonic()
        if self.machine.members[name].state is not State.RUNNING:  # the failure of another one came in between
            self._never_started(name)
            return
        if self.machine.members[name].attempt > 1:
            self.starts.end_leftovers(name)
        for ending in ("pickle", "error.json", "exception.pickle"):
            _remove(self.settings.path("results", f"{name}.{ending}"))
        if self.starts.put_off(name):
            return
        try:
            self.starts.start(name)
        except OSError as error:
            self._not_started(name, str(error))

    def _not_started(self, name: str, why: str) -> None:
        self.record.write("raised", replica=name, code=NOT_STARTED, type="OSError", text=f"the process could not be started: {why}")
        self._do(self.machine.exited(name, NOT_STARTED, ok=False))

    def _nursery_done(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "unforkable":
            self.record.write("unforkable", text=message["text"])
        for name in self.starts.nursery_done(forks=kind == "ready"):
            self._start(name)

    def _nursery_lost(self, code: int, number: int) -> None:
        self.starts.close_nursery()
        if not self.starts.forks:
            return  # it has said why, and ended by itself
        how = f"got signal {number}" if number else f"ended with code {code}"
        self._nursery_done("unforkable", {"text": f"the process that imports the framework {how}"})
        while self.starts.ordered:
            self._start(self.starts.ordered.pop())

    def _close(self) -> None:
        self.starts.close_nursery()
        end_descendants()
        machine = self.machine
        self.record.write("finished", state=machine.outcome, reason=machine.reason, replica=machine.root, restarts=machine.restarts)
        self.record.flush()

    # Timers.

    def _set_timer(self, name: str, seconds: float) -> None:
        heapq.heappush(self.timers, (time.monotonic() + seconds, len(self.timers), name))

    def _patience(self) -> float | None:
        return max(0.0, min(self.timers[0][0] - time.monotonic(), _LONGEST_WAIT)) if self.timers else None

    def _ring(self) -> None:
        while self.timers and self.timers[0][0] <= time.monotonic():
            name = heapq.heappop(self.timers)[2]
            if name == "abandon":
                self._do(self.machine.cancel("", at_once=True))
            else:
                self._do(self.machine.timer(name))

    def _watch(self, number: int, ready: Callable[[], None]) -> None:
        self.selector.register(number, selectors.EVENT_READ, ready)


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
    # The launcher takes a while to say what to run, and most calls are pickled by it.
    import cloudpickle  # noqa: F401

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
        end_descendants()  # a mistake of ours must not leave anything behind either
        raise
    os._exit(0)  # there is nothing to tear down


def _open_standard_descriptors() -> None:
    # A launcher without a standard error hands none on, and the next file opened would take its number.
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004  # 0, 1 and 2 are taken now
        pass
    os.close(number)
