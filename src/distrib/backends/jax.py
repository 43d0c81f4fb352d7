"""
JAX: workers, told about each other by ``JAX_COORDINATOR_ADDRESS`` and its companions.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distrib._cluster import ClusterSpec, Replica
from distrib._command import Command
from distrib.backend import Backend, Operator, Role
from distrib.manifests import operator_job

if TYPE_CHECKING:
    from distrib._job import Job

__all__ = ["JaxBackend"]

_COORDINATOR, _PROCESSES, _PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
#: Whether JAX takes SIGTERM for a notice of preemption. Nothing ends then that is told to stop: neither a run that is cancelled, nor
#: the others of a process that has failed.
_NOTICES = "JAX_ENABLE_PREEMPTION_SERVICE"


class JaxBackend(Backend):
    """
    Runs JAX on several processes: in each one ``jax.distributed.initialize()`` needs no arguments.

    Process 0 is the coordinator, ours and JAX's. A program has to pass on ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``
    itself: of these variables, JAX reads only the address.

    .. doctest::

        >>> from distrib import ClusterSpec
        >>> from distrib.backends.jax import JaxBackend
        >>> cluster = ClusterSpec({"worker": ["10.0.0.1:6666", "10.0.0.2:6666"]})
        >>> JaxBackend().environment(cluster.replicas[1], cluster)
        {'JAX_COORDINATOR_ADDRESS': '10.0.0.1:6666', 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '1'}
    """

    name = "jax"
    roles = (Role("worker", at_least=1),)
    preload = ("jax",)
    requires = {"jax": "distrib[jax]"}
    reserved = (_COORDINATOR, _PROCESSES, _PROCESS)
    operator = Operator(
        kind="JAXJob",
        plural="jaxjobs",
        replica_specs="jaxReplicaSpecs",
        types={"worker": "Worker"},
        container="jax",
        port_name="jaxjob-port",
        port=6666,
    )

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        """
        What ``jax.distributed.initialize()`` reads.
        """
        return {
            _COORDINATOR: cluster.replicas[0].address,
            _PROCESSES: str(cluster.world_size),
            _PROCESS: str(replica.rank),
        }

    def discover(self, environ: Mapping[str, str]) -> Replica | None:
        """
        Who the operator says that this is; it calls the same things by other names than JAX.
        """
        if "PROCESS_ID" not in environ:
            return None
        job, _, _ = environ["COORDINATOR_ADDRESS"].rpartition("-worker-")
        hosts = [f"{job}-worker-{index}:{environ['COORDINATOR_PORT']}" for index in range(int(environ["NUM_PROCESSES"]))]
        return ClusterSpec({"worker": hosts}).replicas[int(environ["PROCESS_ID"])]

    def manifest(self, job: Job) -> dict[str, Any]:
        """
        The JAXJob.
        """
        return operator_job(job, self.operator, forgets=True)

    def wrap(self, function: Callable[..., Any], job: Job) -> Callable[..., Any]:
        """
        The function, called with JAX told how to find the processes, and to leave SIGTERM alone; a program is told the latter.
        """
        return function.with_defaults({_NOTICES: "false"}) if isinstance(function, Command) else _Detected(function)

    def fork_safe(self) -> bool:
        """
        Whether JAX has not looked for its devices in this process, and no Python thread could be cut off by a fork.
        """
        # Asked of a module that is already loaded, or not at all: importing it here would start what is being looked for.
        bridge = sys.modules.get("jax._src.xla_bridge")
        return threading.active_count() == 1 and not getattr(bridge, "_backends", None)


class _Detected:
    """
    A function in whose process JAX detects the processes, as it does under Slurm or Open MPI.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        import jax
        from jax._src.clusters import ClusterEnv

        if _NOTICES not in os.environ:  # which JAX has read by now
            with suppress(AttributeError):  # older ones know no such setting
                jax.config.update(_NOTICES.lower(), False)
        # JAX asks every subclass there is, which is how it wants to be taught a new kind of cluster.
        type("Variables", (ClusterEnv,), {"name": "distrib", **{name: staticmethod(answer) for name, answer in _ANSWERS.items()}})
        # It asks them in their order, and the one for Kubernetes fails in pods without a token.
        known = ClusterEnv._cluster_types  # noqa: SLF001  # has no other name
        known.insert(0, known.pop())
        return self.function(*args, **kwargs)


_ANSWERS: Mapping[str, Callable[..., Any]] = {
    "is_env_present": lambda: _PROCESSES in os.environ,
    "get_coordinator_address": lambda **_: os.environ[_COORDINATOR],
    "get_process_count": lambda: int(os.environ[_PROCESSES]),
    "get_process_id": lambda: int(os.environ[_PROCESS]),
}
