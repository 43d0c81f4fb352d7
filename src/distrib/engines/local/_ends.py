"""
Ending processes of which nobody can say that they are still there.
"""

from __future__ import annotations

import os
import signal

from ..._linux import descendants


def end(pid: int, number: int) -> bool:
    """
    Send a process a signal; whether there was one to send it to.
    """
    try:
        os.kill(pid, number)
    except OSError:  # it is gone, or has become another user's by running a program of theirs
        return False
    return True


def kill_group(leader: int) -> None:
    """
    Kill all that is left of a process group.
    """
    try:
        os.killpg(leader, signal.SIGKILL)
    except OSError:  # it led none, or all of it is gone
        pass


def end_descendants() -> None:
    """
    Kill whatever has come from this process, and wait until nothing of it is left.

    Being their adopter, it has none left only when all are gone: a fork in the last moment included.
    """
    waiting = os.WNOHANG
    while True:
        try:
            os.waitpid(-1, waiting)
        except ChildProcessError:
            return
        waiting = 0
        found = descendants()
        if not [pid for pid in found if end(pid, signal.SIGKILL)] and found:
            return  # what is left belongs to another user, and cannot be ended from here
