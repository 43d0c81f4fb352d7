"""
In a pod of Flyte's: be the replica that the pod was started as.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ..._cluster import REPLICA_VARIABLE, RUN_VARIABLE, ClusterSpec, Replica, encode_cluster, encode_replica
from ..._outcome import ByRank, StoppedError
from ...errors import DistribError
from ._errors import as_flytes
from ._members import Carrying, taken_over
from ._peers import Peers

if TYPE_CHECKING:
    from ..._job import Job
    from ...backend import Backend
    from ._task import DistributedFlyteTask

__all__ = ["run_in_pod", "whoami"]

#: What Flyte calls the execution, the task and the attempt, in every replica alike.
_NAMES = ("FLYTE_INTERNAL_EXECUTION_ID", "FLYTE_INTERNAL_TASK_NAME", "FLYTE_ATTEMPT_NUMBER")


def run_in_pod(task: DistributedFlyteTask, inputs: Mapping[str, Any]) -> Any:
    """
    Run the function as the replica that this pod is.

    Returns:
        Its value, if this is the coordinator.

    Raises:
        IgnoreOutputs: It is not, or another replica has failed before it and has told Flyte why, or this one was told to stop.

        DistribError: The pod was started as something else than a replica of the job.

        Exception: What the function has raised, as Flyte is to see it.
    """
    from flytekit.core.base_task import IgnoreOutputs

    job = task.job
    me = whoami(job, os.environ, task.task_type)
    _become(job.backend, me)
    peers = Peers.of_this_task(me, service=job.backend.role(me.role).service)
    function = job.backend.wrap(Carrying(task.function), job)
    with peers.watched():
        try:
            value = function(**inputs)
        except StoppedError as stop:  # its pod is moved, and the others may go on
            raise IgnoreOutputs(f"{me.name} was told to stop: {stop}") from stop
        except Exception as error:
            if peers.failed_before(error):
                raise IgnoreOutputs(f"{me.name} failed after another replica") from error
            told = as_flytes(error)
            raise told from told.__cause__
    if isinstance(value, ByRank):
        return _of_rank_zero(value)
    if not me.is_coordinator:
        raise IgnoreOutputs(f"{me.name} is not the coordinator; only that one's outputs are the task's")
    return taken_over(value)


def _of_rank_zero(values: ByRank) -> Any:
    from flytekit.core.base_task import IgnoreOutputs

    if 0 not in values.pickled:
        raise IgnoreOutputs("the process of rank 0 ran elsewhere; only its outputs are the task's")
    return taken_over(values.value(0))


def whoami(job: Job, environ: Mapping[str, str], plugin: str) -> Replica:
    """
    Which replica the environment says that this process is, its coordinator known.

    Raises:
        DistribError: The job has several, and the environment knows of no other: the message says which plug-in is missing.
    """
    backend = job.backend
    found = backend.discover(environ)
    if found is None:
        if job.world_size > 1:
            raise DistribError(_unaccompanied(job, plugin))
        found = ClusterSpec({job.groups[0].role: (f"localhost:{_free_port()}",)}).replicas[0]
    elif backend.needed(job) is not None:
        found = _by_number(found)
    return attrs.evolve(found, is_coordinator=backend.coordinator(found.cluster).name == found.name)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port: int = found.getsockname()[1]
        return port


def _by_number(me: Replica) -> Replica:
    """
    The same replica under the number of its own machine, which the others get to know from it: names take a while to be known.
    """
    try:
        number = socket.gethostbyname(socket.gethostname())
    except OSError:
        return me
    port = me.address.rpartition(":")[2]
    places = {role: [*addresses] for role, addresses in me.cluster.items()}
    places[me.role][me.index] = f"{number}:{port}"
    return attrs.evolve(me, cluster=ClusterSpec(places))


def _unaccompanied(job: Job, plugin: str) -> str:
    groups = ", ".join(f"{group.role}={group.replicas}" for group in job.groups)
    return (
        f"this pod was started alone, and the task is to run as {groups}: nothing in its environment says who it is. "
        f"Flyte runs tasks of the type {plugin!r} as one ordinary container where its plug-in for them is not enabled. "
        f"Add {plugin!r} to tasks.task-plugins.enabled-plugins and to default-for-task-types of flytepropeller, "
        "and install the Kubeflow training operator in the cluster."
    )


def _become(backend: Backend, me: Replica) -> None:
    """
    Set the environment of a replica: what the operator has set, made usable, and our own.
    """
    if me.cluster.world_size > 1 or backend.discover(os.environ) is not None:
        os.environ.update(backend.environment(me, me.cluster))
    os.environ[REPLICA_VARIABLE] = encode_replica(me, encode_cluster(me.cluster))
    os.environ[RUN_VARIABLE] = "-".join(filter(None, (os.environ.get(name, "") for name in _NAMES))) or "flyte"
