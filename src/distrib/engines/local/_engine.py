"""
The local engine: plans become processes of this machine.

What a run needs is imported while its supervisor's interpreter starts up, on another processor: both take as long.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ...engine import Call, Engine
from ...errors import SubmitError
from .._rules import check_outside, deciders
from ._options import LocalOptions
from ._process import SupervisorProcess, check_variables, import_path, interpreter_flags

if TYPE_CHECKING:
    import socket

    from ..._job import Job
    from ...engine import Plan, Run
    from ._plan import LocalPlan
    from ._run import LocalRun

R = TypeVar("R")

_HOST = "127.0.0.1"
#: More ports than this are chosen but not held until the run is over: each one held is an open file.
_HELD_PORTS = 256


class LocalEngine(Engine):
    """
    Runs the replicas of a job as processes of this machine, and leaves nothing of them behind.
    """

    name: ClassVar[str] = "local"
    options: ClassVar[type] = LocalOptions

    def plan(self, job: Job, call: Call[R]) -> LocalPlan[R]:
        """
        The processes that *job* becomes, and their environments.
        """
        from ._plan import make_plan

        return make_plan(job, call, self.options_of(job))

    def submit(self, plan: Plan[R]) -> LocalRun[R]:
        """
        Start the processes of *plan*.
        """
        _check(plan.job, plan.call)
        with SupervisorProcess(plan.job, _new_id(plan.job, plan.call)) as supervisor:
            return self._submit(plan, supervisor)

    def start(self, job: Job, call: Call[R]) -> LocalRun[R]:
        """
        Plan and submit, the supervisor starting up meanwhile.
        """
        _check(job, call)
        with SupervisorProcess(job, _new_id(job, call)) as supervisor:
            return self._submit(self.plan(job, call), supervisor)

    def _submit(self, plan: Plan[R], supervisor: SupervisorProcess) -> LocalRun[R]:
        from ._plan import LocalPlan
        from ._run import LocalRun

        if not isinstance(plan, LocalPlan):
            raise SubmitError(f"the local engine submits its own plans, not a {type(plan).__name__}")
        launch = _Launch(plan, supervisor)
        launch.start()
        try:
            return LocalRun(launch.folder, supervisor.release(), echo=plan.options.echo, ports=launch.ports, lock=launch.lock)
        except SubmitError:
            launch.take_back()
            raise

    def runs(self) -> Sequence[Run[Any]]:
        """
        All runs that the history has kept, the newest first.
        """
        from . import _history
        from ._stored import StoredRun

        return [StoredRun(folder, about) for folder, about in _history.folders()]

    def get_run(self, id: str) -> Run[Any]:
        """
        The run of that id, from the history.
        """
        from . import _history
        from ._stored import StoredRun

        folder = os.path.join(_history.runs_folder(), id)
        about = _history.read_about(folder) if os.path.basename(folder) == id else {}
        if not about or _history.has_expired(folder, about):
            raise LookupError(f"no run is called {id!r} in {_history.runs_folder()}; distrib.runs() lists them all")
        return StoredRun(folder, about)


class _Launch:
    """
    The steps from a plan and a supervisor to a run, and back if one fails.
    """

    def __init__(self, plan: LocalPlan[R], supervisor: SupervisorProcess) -> None:
        from ._history import create

        self.plan = plan
        self.supervisor = supervisor
        self.folder, self.lock = create(supervisor.id, _about(plan))
        self.ports: list[socket.socket] = []

    def start(self) -> None:
        from ._payload import store

        try:
            function = self.plan.job.backend.wrap(self.plan.call.function, self.plan.job)
            table = store(self.plan.call, function, self.supervisor.payload)
            self.supervisor.send(json.dumps(self._orders(table)).encode() + b"\n")
        except BaseException:
            self.take_back()
            raise

    def _orders(self, table: tuple[int, int]) -> dict[str, Any]:
        from ._plan import cluster_at, with_cluster

        addresses = self._take_ports(len(self.plan.processes))
        plan = with_cluster(self.plan, cluster_at(self.plan.job, addresses))
        settings = {
            "folder": self.folder,
            "payload": self.supervisor.payload,
            "table": table,
            "argv": sys.argv,
            "sys_path": import_path(self.plan.job.env),
        }
        return {
            "settings": settings,
            "launcher": os.getpid(),
            "flags": interpreter_flags(),
            "framework": plan.job.framework,
            "preload": plan.preload,
            "start_method": _start_method(plan),
            "policy": _policy(plan),
            "members": _members(plan),
            "shared": dict(plan.shared),
            "environments": {
                process.replica.name: {
                    "environment": dict(process.environment),
                    "own": dict(process.own),
                    "fresh": bool(process.own),
                }
                for process in plan.processes
            },
        }

    def _take_ports(self, count: int) -> list[str]:
        """
        Addresses with free ports, held until the run is over.

        A socket that is bound and does not listen keeps everybody from the port who does not ask to share it, the kernel's
        own choices included, and servers, which do ask to reuse an address, can still listen there.
        """
        import socket

        numbers: dict[int, None] = {}
        try:
            # One that is not held may come twice; one that comes for ever is the last there is.
            for _ in range(2 * count + _HELD_PORTS):
                if len(numbers) == count:
                    break
                port = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                self.ports.append(port)
                port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if hasattr(socket, "SO_REUSEPORT"):
                    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port.bind((_HOST, 0))
                numbers[port.getsockname()[1]] = None
                if len(self.ports) > _HELD_PORTS:
                    self.ports.pop().close()
        except OSError as error:
            raise SubmitError(f"{count} free ports are needed, and number {len(numbers) + 1} cannot be had: {error.strerror}") from error
        if len(numbers) < count:
            raise SubmitError(f"{count} free ports are needed, and the system has only {len(numbers)}.")
        return [f"{_HOST}:{number}" for number in numbers]

    def take_back(self) -> None:
        """
        Leave nothing of it behind.
        """
        self.supervisor.end()
        os.close(self.lock)
        for port in self.ports:
            port.close()
        import shutil  # when there are descriptors again to read it with

        shutil.rmtree(self.folder, ignore_errors=True)


def _check(job: Job, call: Call[Any]) -> None:
    """
    What can be refused before any process starts.
    """
    check_outside(call)
    job.backend.check_installed()
    check_variables(job)


def _new_id(job: Job, call: Call[Any]) -> str:
    name = job.name or "".join(letter if letter.isalnum() else "-" for letter in call.name.lower() if letter.isascii()).strip("-")
    return f"{(name or 'run')[:40]}-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}"


def _about(plan: LocalPlan[Any]) -> dict[str, Any]:
    return {
        "call": plan.call.name,
        "framework": plan.job.framework,
        "submitted": time.time(),
        "launcher": os.getpid(),
        "argv": sys.argv,
        "replicas": [process.replica.name for process in plan.processes],
        "coordinator": plan.coordinator.name,
        "ttl": plan.job.run_policy.ttl_seconds_after_finished,
        "clean_logs": plan.job.run_policy.clean_pod_policy == "All",
    }


def _start_method(plan: LocalPlan[Any]) -> str:
    # Elsewhere orphans cannot be adopted, and system libraries are not safe to fork.
    forks = sys.platform == "linux" and plan.options.start_method != "spawn"
    return "fork" if forks else "spawn"


def _policy(plan: LocalPlan[Any]) -> dict[str, Any]:
    policy = plan.job.run_policy
    return {
        "backoff_limit": policy.backoff_limit,
        "active_deadline": policy.active_deadline_seconds,
        "restart_job": policy.restart_scope == "Job",
        "stop_others": policy.clean_pod_policy != "None",
        "grace_period": plan.options.grace_period,
        "restart_delay": plan.options.restart_delay,
        "needed": plan.job.backend.needed(plan.job),
    }


def _members(plan: LocalPlan[Any]) -> list[Mapping[str, Any]]:
    job = plan.job
    replicas = [process.replica for process in plan.processes]
    deciding = set(deciders(job, replicas, plan.coordinator))
    return [
        {
            "name": replica.name,
            "restart_policy": job.restart_policy(replica.role).value,
            "decides": replica.name in deciding,
            "service": job.backend.role(replica.role).service,
        }
        for replica in replicas
    ]
