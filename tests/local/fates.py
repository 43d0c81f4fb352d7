"""
What replicas are made to do: a module that they can import as quickly as any user's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from distrib import distributed, replica

LOCK = __import__("threading").Lock()


def add(a: int, b: int = 1) -> int:
    """
    The sum.
    """
    return a + b


def echo(*args: Any, **kwargs: Any) -> Any:
    """
    What it was called with.
    """
    return args, kwargs


def name() -> str:
    """
    Who I am.
    """
    return replica().name


class Scale:
    """
    An object with methods.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def times(self, value: float) -> float:
        """
        A plain method that uses a global that cannot be pickled.
        """
        with LOCK:
            return self.factor * value

    @distributed("tensorflow", worker=2, local={"echo": False})
    def decorated(self, value: float) -> float:
        """
        A decorated one.
        """
        with LOCK:
            return self.factor * value

    @staticmethod
    @distributed("tensorflow", worker=2, local={"echo": False})
    def static(value: float) -> float:
        """
        A decorated one without an object.
        """
        return 2 * value

    @classmethod
    def of_class(cls, value: float) -> tuple[str, float]:
        """
        A method of the class.
        """
        return cls.__name__, value

    def __call__(self, value: float) -> float:
        return self.times(value)


def sleep_for_ever() -> None:
    """
    Until it is stopped.
    """
    while True:
        time.sleep(1000)


def sign(folder: str, what: str | None = None) -> None:
    """
    Leave a file for the test, whole at once: named as this replica, holding its process's number.
    """
    path = Path(folder, what or replica().name)
    hidden = path.with_name(f".{path.name}-{os.getpid()}")
    hidden.write_text(str(os.getpid()))
    hidden.rename(path)


def await_sign(folder: str, what: str) -> None:
    """
    Wait for such a file.
    """
    while not Path(folder, what).exists():
        time.sleep(0.01)


def fail_as(fate: str) -> None:
    """
    Come to an end in the way that *fate* says.
    """
    if fate == "raise":
        raise ValueError("bad batch")
    if fate == "exit 3":
        sys.exit(3)
    if fate == "exit text":
        sys.exit("no data")
    if fate == "_exit 5":
        os._exit(5)
    if fate == "_exit 0":
        os._exit(0)
    os.kill(os.getpid(), signal.Signals[fate])
    sleep_for_ever()


def sit(how: str) -> None:
    """
    Be busy with something that does not end by itself.
    """
    if how == "native":
        ctypes.PyDLL(None).pause()  # in C, and with the interpreter's lock held, as in a collective that never comes together
    sleep_for_ever()


def fail_one(meeting: str, fate: str, others: str) -> None:
    """
    Worker 1 meets its fate when all others are busy.
    """
    me = replica()
    if me.index != 1:
        sign(meeting)
        sit(others)
    for index in (0, 2):
        await_sign(meeting, f"worker-{index}")
    fail_as(fate)


def lose_a_peer(meeting: str, fate: str) -> None:
    """
    All others are connected to worker 0, which meets its fate; they fail as soon as they notice.
    """
    path = f"{meeting}/socket"
    peer = socket.socket(socket.AF_UNIX)
    if replica().index == 0:
        peer.bind(path)
        peer.listen()
        sign(meeting)
        peers = [peer.accept()[0] for _ in range(3)]
        assert len(peers) == 3
        fail_as(fate)
    await_sign(meeting, "worker-0")
    peer.connect(path)
    peer.recv(1)
    raise ConnectionError("lost worker-0")


def leave_descendants(meeting: str, then: str) -> None:
    """
    Leave a child, a child in its own session, and a daemon with an empty environment that ignores SIGTERM.
    """
    me = replica().name
    for kind in ("child", "session", "daemon"):
        if os.fork() == 0:
            try:
                be_a_descendant(kind, f"{meeting}/{me}-{kind}")
            finally:
                os._exit(1)
    while len([path for path in Path(meeting).glob(f"{me}-*") if path.read_text()]) < 3:
        time.sleep(0.01)
    sign(meeting)
    if then == "wait":
        sleep_for_ever()
    for index in (0, 1):
        await_sign(meeting, f"worker-{index}")
    if then == "fail":
        raise ValueError("bad batch")


def be_a_descendant(kind: str, sign: str) -> None:
    """
    Write the number of this process to *sign*, and stay.
    """
    if kind != "child":
        os.setsid()
    if kind == "daemon":
        if os.fork() != 0:
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stay = f"import os, time; open({sign!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    os.execve(sys.executable, [sys.executable, "-Sc", stay], {} if kind == "daemon" else os.environ)
