"""
The pods of a run as processes of this machine: the same command, Secret and termination message as in a container.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distrib import Job
from distrib._linux import kill_and_wait, processes_with
from distrib.engine import Call
from distrib.engines.kubernetes._bootstrap import command
from distrib.engines.kubernetes._orders import Orders
from distrib.engines.kubernetes._payload import pack
from distrib.engines.kubernetes._report import Report, decode

#: Seconds after which a pod that has not ended is taken for hung.
GUARD = 60


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, each another one."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class Pods:
    """The pods of one run."""

    def __init__(self, folder: Path, job: Job, function: Callable[..., Any], *args: Any, **orders: Any) -> None:
        self.folder = folder
        control_port, *ports = free_ports(1 + sum(group.replicas for group in job.groups))
        cluster = {group.role: tuple(f"localhost:{ports.pop()}" for _ in range(group.replicas)) for group in job.groups}
        first = next(iter(cluster))
        given: dict[str, Any] = {
            "run": "mine",
            "namespace": "here",
            "workload": "job",
            "cluster": cluster,
            "coordinator": f"{first}-0",
            "services": tuple(role.name for role in job.backend.roles if role.service and role.name in cluster),
            "deciders": tuple(f"{first}-{index}" for index in range(len(cluster[first]))),
            "needed": job.backend.needed(job),
            "grace_period": 1.0,
            "control_port": control_port,
            "peers_timeout": 20.0,
        }
        self.orders = Orders(**{**given, **orders})
        self.secret = folder / "secret"
        self.secret.mkdir()
        for key, data in pack(Call(function, args, {}), job, self.orders).items():
            (self.secret / key).write_bytes(data)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Pods:  # noqa: PYI034  # Self came with 3.11
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        # Of a pod that is killed nothing is left on a cluster; of a process that stands in for one, its children are.
        kill_and_wait(processes_with("DISTRIB_MOUNT", str(self.secret)), GUARD)

    def start(self, *names: str, environment: Mapping[str, str] | None = None) -> Pods:
        """Start these, or all."""
        for name in names or self.orders.names:
            role, _, index = name.rpartition("-")
            variables = {
                **os.environ,
                "DISTRIB_ROLE": role,
                "DISTRIB_INDEX": index,
                "DISTRIB_RUN_ID": "here/mine",
                "DISTRIB_MOUNT": str(self.secret),
                "DISTRIB_TERMINATION_LOG": str(self.folder / f"{name}.message"),
                **(environment or {}),
            }
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(command(sys.executable), env=variables, stdout=log, stderr=log)
        return self

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        """Send a pod a signal, as the kubelet does."""
        self.processes[name].send_signal(number)

    def code(self, name: str) -> int:
        """The exit code of a pod, once it has ended."""
        return self.processes[name].wait(GUARD)

    def report(self, name: str) -> Report:
        """What a pod has told, once it has ended."""
        self.code(name)
        report = decode((self.folder / f"{name}.message").read_text())
        assert report is not None, self.log(name)
        assert report.replica == name
        return report

    def kinds(self) -> dict[str, tuple[str, int]]:
        """How all of them have ended: kind and exit code."""
        return {name: (self.report(name).kind, self.code(name)) for name in self.processes}

    def log(self, name: str) -> str:
        """What a pod has written."""
        return (self.folder / f"{name}.log").read_text()
