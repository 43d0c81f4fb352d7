"""
The local engine: plans become processes of this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..._cluster import REPLICA_VARIABLE, RUN_VARIABLE
from ...engine import Call, Engine
from ...errors import SubmitError
from . import _history
from ._options import LocalOptions
from ._payload import dump_call, open_payload
from ._plan import LocalPlan, cluster_at, make_plan, with_cluster
from ._run import LocalRun, StoredRun

if TYPE_CHECKING:
    import socket

    from ..._job import Job
    from ...engine import Plan, Run

R = TypeVar("R")

_HOST = "127.0.0.1"
#: More ports than this are chosen but not held until the run is over: each one held is an open file.
_HELD_PORTS = 256
_BOOT = "import sys; sys.path[:] = sys.argv.pop().split('\\n'); from distrib.engines.local._supervisor import main; main()"


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
        return make_plan(job, call, LocalOptions(**job.engine_options.get(self.name, {})))

    def submit(self, plan: Plan[R]) -> LocalRun[R]:
        """
        Start the processes of *plan*.
        """
        if not isinstance(plan, LocalPlan):
            raise SubmitError(f"the local engine submits its own plans, not a {type(plan).__name__}")
        _refuse_nesting(plan)
        plan.job.backend.check_installed()
        id = _new_id(plan)
        folder = _history.create(id, _about(plan))
        return _Launch(plan, id, folder).start()

    def runs(self) -> Sequence[Run[Any]]:
        """
        All runs that the history has kept, the newest first.
        """
        return [StoredRun(folder) for folder in _history.folders()]

    def get_run(self, id: str) -> Run[Any]:
        """
        The run of that id, from the history.
        """
        folder = os.path.join(_history.runs_folder(), id)
        if os.path.basename(folder) != id or not _history.read_about(folder):
            raise LookupError(f"no run is called {id!r} in {_history.runs_folder()}; distrib.runs() lists them all")
        return StoredRun(folder)


class _Launch:
    """
    The steps from a plan to a run, and back if one fails.
    """

    def __init__(self, plan: LocalPlan[R], id: str, folder: str) -> None:
        self.plan = plan
        self.id = id
        self.folder = folder
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.ports: list[socket.socket] = []
        self.open: list[int] = []

    def start(self) -> LocalRun[Any]:
        try:
            payload = self._hold(open_payload())
            alive = self._hold(_history.lock_alive(self.folder))
            # First, so that its interpreter starts up while this one pickles.
            self.supervisor = self._start_supervisor(payload, alive)
            layout = dump_call(self.plan.call, payload)
            orders = self._orders(payload, layout)
            self._send(orders)
        except BaseException:
            self._take_back()
            raise
        finally:
            for number in self.open:
                os.close(number)
        return LocalRun(self.folder, self.supervisor, echo=self.plan.options.echo, keep=self.ports)

    def _hold(self, number: int) -> int:
        self.open.append(number)
        return number

    def _start_supervisor(self, payload: int, alive: int) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name not in self.plan.job.backend.reserved}
        environment |= {**self.plan.shared, RUN_VARIABLE: self.id}
        log = self._hold(os.open(os.path.join(self.folder, "logs", "supervisor.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
        try:
            return subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, *_flags(), "-c", _BOOT, "\n".join(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                pass_fds=(payload, alive),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise SubmitError(f"the supervisor could not be started with {sys.executable}: {error}") from error

    def _orders(self, payload: int, layout: list[list[int]]) -> dict[str, Any]:
        addresses = self._take_ports(len(self.plan.processes))
        plan = with_cluster(self.plan, cluster_at(self.plan.job, addresses))
        settings = {
            "run": self.id,
            "folder": self.folder,
            "payload": payload,
            "layout": layout,
            "argv": sys.argv,
            "sys_path": sys.path,
        }
        return {
            "settings": settings,
            "launcher": os.getpid(),
            "flags": _flags(),
            "framework": plan.job.framework,
            "preload": plan.preload,
            "start_method": _start_method(plan),
            "policy": _policy(plan),
            "members": _members(plan),
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

        for _ in range(count):
            port = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.ports.append(port)
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port.bind((_HOST, 0))
        addresses = [f"{_HOST}:{port.getsockname()[1]}" for port in self.ports]
        for port in self.ports[_HELD_PORTS:]:
            port.close()
        del self.ports[_HELD_PORTS:]
        return addresses

    def _send(self, orders: dict[str, Any]) -> None:
        assert self.supervisor is not None
        assert self.supervisor.stdin is not None
        line = memoryview(json.dumps(orders).encode() + b"\n")
        try:
            while line:
                line = line[self.supervisor.stdin.write(line) :]
        except BrokenPipeError:
            self.supervisor.wait()
            raise SubmitError(f"the supervisor ended at once: {self._supervisor_said()}") from None

    def _supervisor_said(self) -> str:
        with open(os.path.join(self.folder, "logs", "supervisor.log"), encoding="utf-8", errors="backslashreplace") as file:
            return file.read().strip()[-2000:] or "it left no message"

    def _take_back(self) -> None:
        import shutil

        for port in self.ports:
            port.close()
        if self.supervisor is not None:
            assert self.supervisor.stdin is not None
            assert self.supervisor.stdout is not None
            self.supervisor.stdin.close()
            self.supervisor.stdout.close()
            self.supervisor.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _refuse_nesting(plan: LocalPlan[Any]) -> None:
    if REPLICA_VARIABLE in os.environ:
        me = os.environ.get("DISTRIB_REPLICA_NAME", "a replica")
        raise SubmitError(
            f"{plan.call.name}() was called within {me} of a run: a replica cannot start a run of its own. "
            f"To run the plain function there, call {plan.call.name}.function(...)."
        )


def _new_id(plan: LocalPlan[Any]) -> str:
    name = plan.job.name or "".join(letter if letter.isalnum() else "-" for letter in plan.call.name.lower() if letter.isascii()).strip("-")
    return f"{(name or 'run')[:40]}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


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


def _flags() -> list[str]:
    # The interpreter's own switches, such as -X dev, go on to the processes it starts, as multiprocessing does it.
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined, no-any-return]


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
    }


def _members(plan: LocalPlan[Any]) -> list[Mapping[str, Any]]:
    job = plan.job
    coordinator = plan.coordinator
    only_coordinator = job.run_policy.success_policy == ""
    members = []
    for process in plan.processes:
        replica = process.replica
        decides = replica.is_coordinator if only_coordinator else replica.role == coordinator.role
        members.append(
            {
                "name": replica.name,
                "restart_policy": job.restart_policy(replica.role).value,
                "decides": decides,
                "service": job.backend.role(replica.role).service,
            }
        )
    return members
