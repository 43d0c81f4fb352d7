"""
Replicas that play a part: one script for all, in which each finds its own lines for each of its attempts.

A module of its own, for replicas import it and should do so quickly.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import fates

from distrib import RetryableError, _report, replica

#: Replica, or role, -> what it does in its first, second, … attempt; the last one is repeated.
Script = Mapping[str, Sequence[str]]
#: The codes of replicas that a signal has ended, as a shell gives them.
SIGNALLED = (128 + signal.SIGKILL, 128 + signal.SIGSEGV, 128 + signal.SIGTERM)


def attempt_of(folder: str) -> int:
    """
    Count the attempts of this replica, from 0.
    """
    path = Path(folder, f"attempts of {replica().name}")
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len(path.read_text().splitlines()) - 1


def act(folder: str, script: Script) -> tuple[str, int]:
    """
    Do what the script says, one word after the other; return my name and the number of the attempt.
    """
    me = replica()
    attempt = attempt_of(folder)
    parts = script.get(me.name, script.get(me.role, [""]))
    for word in parts[min(attempt, len(parts) - 1)].split():
        verb, _, rest = word.partition(":")
        _do(folder, verb, rest)
    return me.name, attempt


def _do(folder: str, verb: str, rest: str) -> None:
    if verb == "sign":
        fates.sign(folder, rest or None)
    elif verb == "await":
        fates.await_sign(folder, rest)
    elif verb == "sleep":
        fates.sleep_for_ever()
    elif verb == "serve":
        _report.serving()
    elif verb == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif verb == "raise":
        raise ValueError("bad batch")
    elif verb == "retry":
        raise RetryableError("lost the data server")
    elif verb == "exit":
        sys.exit(int(rest))
    else:
        os.kill(os.getpid(), signal.Signals[verb])


def obey(folder: str) -> tuple[str, int]:
    """
    Wait for an order to this attempt of this replica, the code to end with, and follow it.
    """
    me = replica().name
    attempt = attempt_of(folder)
    order = Path(folder, f"{me}.{attempt}")
    while not order.exists():
        time.sleep(0.005)
    code = int(order.read_text())
    if code == 1:
        raise ValueError("bad batch")
    if code == 138:
        raise RetryableError("lost the data server")
    if code in SIGNALLED:
        os.kill(os.getpid(), code - 128)
    if code:
        sys.exit(code)
    return me, attempt
