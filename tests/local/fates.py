"""
What replicas are made to do: a module that they can import as quickly as any user's.
"""

from __future__ import annotations

import os
import signal
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
    hidden = path.with_name(f".{path.name}")
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
