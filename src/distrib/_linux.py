"""
What Linux offers and Python does not wrap. Elsewhere every function here does nothing and says so by its value.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from functools import lru_cache
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PF_EXITING = 0x4
_IN_MODIFY = 0x2
_IN_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC


@lru_cache(maxsize=1)
def _libc() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def is_linux() -> bool:
    """
    Whether this is Linux: with subreapers, parent-death signals and inotify.
    """
    return sys.platform == "linux"


def adopt_orphans() -> bool:
    """
    Make orphaned descendants children of this process, so that none of them can get away.
    """
    return is_linux() and _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def die_with_parent(parent: int) -> None:
    """
    Have the kernel kill this process when its parent ends; end it now if the parent *parent* is gone already.
    """
    if is_linux():
        _libc().prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def fork() -> int:
    """
    Fork a process that SIGTERM ends from its first moment on. It would lose the signal in a handler of this one's.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    pid = -1
    try:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    finally:
        if pid:  # also when there are too many processes for another one
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def watch_files(folder: str) -> int | None:
    """
    A descriptor that becomes readable when a file in *folder* grows; None where that cannot be had.
    """
    if not is_linux():
        return None
    number = int(_libc().inotify_init1(_IN_NONBLOCK_CLOEXEC))
    if number < 0:  # the user's limit on inotify instances, 128 by default, is used up
        return None
    if _libc().inotify_add_watch(number, os.fsencode(folder), _IN_MODIFY) < 0:
        os.close(number)
        return None
    return number


def watch_process(pid: int) -> int | None:
    """
    A descriptor that becomes readable when the process ends; None if it has ended, or where that cannot be had.
    """
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):  # it is gone, or this system has no such descriptors
        return None


def is_exiting(pid: int) -> bool:
    """
    Whether the kernel is taking the process down, or has done so: its peers may know before its parent is told.
    """
    fields = _stat(pid) if is_linux() else None
    # State, parent, group, session, terminal, the terminal's group, flags.
    return fields is not None and bool(int(fields[6]) & _PF_EXITING)


def _stat(pid: int | str) -> list[bytes] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command, in brackets, may hold anything, brackets too.
            return file.read().rpartition(b")")[2].split()
    except OSError:  # it has ended
        return None


def descendants(of: int | None = None) -> list[int]:
    """
    All living descendants of the process *of*, or of this one, itself not included.
    """
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc") if is_linux() else ():
        fields = _stat(entry) if entry.isdigit() else None
        if fields is not None:
            parents[int(entry)] = int(fields[1])
    found: list[int] = []
    fringe = {os.getpid() if of is None else of}
    while fringe := {child for child, parent in parents.items() if parent in fringe}:
        found += fringe
    return found


def kill_and_wait(pids: list[int], seconds: float) -> None:
    """
    Kill the processes and wait until they are gone, but no longer than *seconds*.
    """
    watched = [number for pid in pids if (number := _kill(pid)) is not None]
    poll = select.poll()
    for number in watched:
        poll.register(number, select.POLLIN)
    left = set(watched)
    until = time.monotonic() + seconds
    while left and (ready := poll.poll(1000 * max(0.0, until - time.monotonic()))):
        for number, _ in ready:
            poll.unregister(number)
            left.discard(number)
    for number in watched:
        os.close(number)


def _kill(pid: int) -> int | None:
    """
    Kill a process; a descriptor that tells of its end, or None if there is nothing to wait for.
    """
    number = watch_process(pid)
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:  # it is gone, or belongs to another user and will stay
        if number is not None:
            os.close(number)
        return None
    return number


def processes_with(variable: str, value: str) -> list[int]:
    """
    All processes of ours that were started with that environment variable at that value, wherever they have got to.
    """
    others = (int(entry) for entry in (os.listdir("/proc") if is_linux() else ()) if entry.isdigit() and int(entry) != os.getpid())
    return [pid for pid in others if has_variable(pid, variable, value)]


def has_variable(pid: int, variable: str, value: str) -> bool | None:
    """
    Whether the process is ours and was started with that environment variable at that value; None where that cannot be told.
    """
    if not is_linux():
        return None
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{variable}={value}".encode() in file.read().split(b"\0")
    except OSError:  # ended, or somebody else's
        return False
