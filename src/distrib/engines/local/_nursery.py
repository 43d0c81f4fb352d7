"""
The process that imports the framework once and forks every replica from itself.

It forks twice for each, so that the replica becomes a child of the supervisor, which adopts orphans: that way the
supervisor learns how every replica ends, whichever way it was started.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ... import _report
from ..._linux import die_with_parent
from ._replica import Settings, close_all_but, run_forked, variables

#: How many new objects the garbage collector waits for while modules are imported: by itself it would look through those of PyTorch
#: hundreds of times, for nothing, and take up to a tenth of the time.
_MANY_OBJECTS = 10_000


def run_nursery(settings: Settings, modules: list[str], framework: str, orders: int, supervisor: int) -> NoReturn:
    """
    Import *modules*, then fork a replica for each line read from the descriptor *orders*. Does not return.
    """
    try:
        die_with_parent(supervisor)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.dup2(2, 1)
        # What is imported may read the standard input: not the supervisor's, which brings its orders.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        close_all_but({0, 1, 2, orders, settings.payload, settings.channel})
        os.environ.update(variables(settings, "", {}))
        if _prepare(settings, modules, framework):
            _serve(settings, orders, supervisor)
    finally:
        os._exit(0)


def _prepare(settings: Settings, modules: list[str], framework: str) -> bool:
    sys.argv[:] = settings.argv
    for module in modules:
        started = time.monotonic()
        _report.send("importing", module=module)
        try:
            with _fewer_collections():
                __import__(module)
        except BaseException as error:  # the replicas meet it again, each on its own, and report it with its traceback
            _report.send("unforkable", text=f"importing {module} failed: {type(error).__name__}: {error}"[:500])
            return False
        _report.send("imported", module=module, seconds=round(time.monotonic() - started, 3))
    why_not = _why_not_fork(framework)
    if why_not:
        _report.send("unforkable", text=why_not)
        return False
    gc.collect()
    gc.freeze()
    _report.send("ready")
    return True


@contextmanager
def _fewer_collections() -> Iterator[None]:
    before = gc.get_threshold()
    during = (max(_MANY_OBJECTS, before[0]), *before[1:])
    if before[0]:  # else somebody has switched them off
        gc.set_threshold(*during)
    try:
        yield
    finally:
        if gc.get_threshold() == during:  # else the module has a wish of its own
            gc.set_threshold(*before)


def _why_not_fork(framework: str) -> str:
    from ..._registry import get_backend

    try:
        return "" if get_backend(framework).fork_safe() else "the framework's runtime is up already"
    except Exception as error:
        return f"the backend of {framework} cannot tell whether it may be forked: {type(error).__name__}: {error}"


def _serve(settings: Settings, orders: int, supervisor: int) -> None:
    with open(orders, "rb") as lines:
        for line in lines:
            order = json.loads(line)
            with warnings.catch_warnings():
                # From 3.12 on, forking beside native threads warns. Whether it is safe has been asked of the backend.
                warnings.simplefilter("ignore", DeprecationWarning)
                between = os.fork()
            if between == 0:
                _fork_replica(settings, order["name"], order["environment"], supervisor)
            code = os.waitstatus_to_exitcode(os.waitpid(between, 0)[1])
            if code:
                text = f"[Errno {code}] {os.strerror(code)}" if code > 0 else f"got signal {-code} while it was forked"
                _report.send("unforked", replica=order["name"], text=text)


def _fork_replica(settings: Settings, name: str, environment: dict[str, str], supervisor: int) -> NoReturn:
    code = 1
    try:
        pid = os.fork()
        if pid == 0:
            run_forked(settings, name, environment, supervisor)
        os.environ[_report.NAME_VARIABLE] = name
        # Sent before this process ends, hence before the replica can: the supervisor knows the pid when it reaps it.
        _report.send("forked", pid=pid)
        code = 0
    except OSError as error:
        code = error.errno or code
    finally:
        os._exit(code)
