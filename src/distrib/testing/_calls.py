"""
What replicas are told to do by the suites. They import this module, so it imports little.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from .._cluster import replica

if TYPE_CHECKING:
    from .._cluster import ClusterSpec, Replica
    from ..backend import Backend

#: Longer than any test is patient.
_EVER = 3600.0


def echo(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """
    Who this replica is, what it was called with, and its environment.
    """
    me = replica()
    return {
        "name": me.name,
        "rank": me.rank,
        "world_size": me.world_size,
        "is_coordinator": me.is_coordinator,
        "cluster": dict(me.cluster),
        "environment": dict(os.environ),
        "args": args,
        "kwargs": kwargs,
    }


def name() -> str:
    """
    Who this replica is.
    """
    return replica().name


#: How often :func:`count` was called in this process.
counted: list[int] = []


def count() -> None:
    """
    Count this call.
    """
    counted.append(1)


def call(function: Callable[[], Any]) -> Any:
    """
    What a function that was sent along returns.
    """
    return function()


def serve(service: str) -> str:
    """
    Return at once, unless the replica is of the role that never ends.
    """
    if replica().role == service:
        _sleep()
    return replica().name


def sleep() -> NoReturn:
    """
    Never end.
    """
    _sleep()


def fail(who: str, message: str) -> NoReturn:
    """
    Raise a ValueError in one replica; the others never end, and when they are stopped they fail in their own way.
    """
    if replica().name == who:
        raise ValueError(message)
    signal.signal(signal.SIGTERM, _raise_late)
    _sleep()


def end(who: str, code: int) -> NoReturn:
    """
    End one replica's process with an exit code and no word; the others never end.
    """
    if replica().name == who:
        os._exit(code)
    _sleep()


def be_killed(who: str) -> NoReturn:
    """
    Kill one replica's process; the others never end.
    """
    if replica().name == who:
        os.kill(os.getpid(), signal.SIGKILL)
    _sleep()


def refuse_to_stop() -> NoReturn:
    """
    Ignore SIGTERM, and never end.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"{replica().name} does not care")  # noqa: T201  # says that it is so far
    _sleep()


def write(lines: int) -> None:
    """
    Write numbered lines to the standard output, and one to the standard error.
    """
    for number in range(lines):
        print(f"{replica().name} says {number}")  # noqa: T201  # that is what it is for
    print(f"{replica().name} complains", file=sys.stderr)  # noqa: T201


def ask_for_another_try() -> NoReturn:
    """
    Raise what says that the replica may be started again.
    """
    from ..errors import RetryableError

    raise RetryableError("once more")


def leave_a_child(*, stay: bool = False) -> None:
    """
    Start a process that wants to outlive the run, in a session of its own; then return, or never end.
    """
    import subprocess

    code = f"import time; time.sleep({_EVER})"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    print(f"{replica().name} has started {child.pid}")  # noqa: T201  # says that it is there
    if stay:
        _sleep()


def _raise_late(number: int, _frame: object) -> NoReturn:
    raise RuntimeError(f"{replica().name} was stopped by signal {number}")


def _sleep() -> NoReturn:
    until = time.monotonic() + _EVER
    while time.monotonic() < until:
        time.sleep(until - time.monotonic())
    raise TimeoutError("nobody has stopped this replica")


def answer() -> None:
    """
    In another process: read a pickled backend and clusters, write what the backend makes of them, and what it has imported.
    """
    import json
    import pickle

    backend, clusters = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started this one
    environments = [[list(backend.environment(each, cluster).items()) for each in marked(backend, cluster)] for cluster in clusters]
    json.dump({"environments": environments, "modules": sorted(sys.modules)}, sys.stdout)


def marked(backend: Backend, cluster: ClusterSpec) -> list[Replica]:
    """
    The replicas of a cluster as an engine hands them out: one of them marked as the coordinator.
    """
    rank = backend.coordinator(cluster).rank
    return [attrs.evolve(each, is_coordinator=each.rank == rank) for each in cluster.replicas]
