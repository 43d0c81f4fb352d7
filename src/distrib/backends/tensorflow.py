"""
TensorFlow: chief, workers, parameter servers and evaluators, told about each other by ``TF_CONFIG``.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from distrib import _flyte_wire
from distrib._cluster import ClusterSpec, Replica
from distrib._model import SuccessPolicy
from distrib._refusal import refuse
from distrib.backend import Backend, FlyteTask, Operator, Role
from distrib.errors import UnsupportedError
from distrib.manifests import operator_job

if TYPE_CHECKING:
    from distrib._job import Job

__all__ = ["TensorFlowBackend", "operator_tf_config", "parse_tf_config", "render_tf_config", "visible_cluster"]

#: The variable that TensorFlow reads.
TF_CONFIG = "TF_CONFIG"

#: In the order of the ranks; the coordinator is the first one.
_TRAINERS = ("chief", "worker")
_ROLES = ("chief", "worker", "ps", "evaluator")

#: What is missing beside a role that cannot be alone.
_NEEDS_TRAINER = {
    "ps": "parameter servers only hold the variables of others, and the job has neither a chief nor a worker; "
    "add them, e.g. chief=1, worker=2.",
    "evaluator": "an evaluator only follows the training of others, and the job has neither a chief nor a worker; add one, e.g. worker=2.",
}


class TensorFlowBackend(Backend):
    """
    Runs TensorFlow as the Kubeflow operator does: every replica finds the cluster and its own place in ``TF_CONFIG``.

    The chief, or worker 0 where there is none, is the coordinator. Parameter servers are stopped when the rest is done.
    Any package that brings the module ``tensorflow`` will do; ``tensorflow-cpu`` is one.

    .. doctest::

        >>> from distrib import ClusterSpec
        >>> from distrib.backends.tensorflow import TensorFlowBackend
        >>> cluster = ClusterSpec({"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]})
        >>> TensorFlowBackend().environment(cluster.replicas[1], cluster)["TF_CONFIG"]
        '{"cluster":{"worker":["10.0.0.1:2222","10.0.0.2:2222"]},"task":{"type":"worker","index":1},"environment":"cloud"}'
    """

    name = "tensorflow"
    roles = (Role("chief", at_most=1), Role("worker"), Role("ps", service=True), Role("evaluator"))
    preload = ("tensorflow", "keras")
    requires = {"tensorflow": "distrib[tensorflow]"}
    # Not TF_NUM_INTEROP_THREADS: its threads wait for each other, and with one of them parameter servers hang.
    thread_variables = ("TF_NUM_INTRAOP_THREADS",)
    reserved = (TF_CONFIG,)
    operator = Operator(
        kind="TFJob",
        plural="tfjobs",
        replica_specs="tfReplicaSpecs",
        types={"chief": "Chief", "worker": "Worker", "ps": "PS", "evaluator": "Evaluator"},
        container="tensorflow",
        port_name="tfjob-port",
        port=2222,
        host="{job}-{type}-{index}.{namespace}.svc",
    )

    def validate(self, job: Job) -> None:
        """
        Refuse a job that trains nothing.
        """
        counts = {group.role: group.replicas for group in job.groups}
        if not any(role in counts for role in _TRAINERS):
            role = next(role for role in _NEEDS_TRAINER if role in counts)
            raise refuse(role, counts[role], _NEEDS_TRAINER[role])

    def coordinator(self, cluster: ClusterSpec) -> Replica:
        """
        The chief, or worker 0 where there is none, whatever the order of the roles.
        """
        first = next(role for role in (*_TRAINERS, *cluster) if role in cluster)
        return next(replica for replica in cluster.replicas if replica.role == first)

    def environment(self, replica: Replica, cluster: ClusterSpec) -> Mapping[str, str]:
        """
        ``TF_CONFIG`` as this replica is to see it; nothing for the only replica of a run.
        """
        if cluster.world_size == 1:
            return {}
        role, index, seen = _seen_by(replica, cluster)
        return {TF_CONFIG: render_tf_config(role, index, seen)}

    def discover(self, environ: Mapping[str, str]) -> Replica | None:
        """
        Who the operator's ``TF_CONFIG`` says that this is.
        """
        if not environ.get(TF_CONFIG):
            return None
        role, index, cluster = parse_tf_config(environ[TF_CONFIG])
        return next((replica for replica in cluster.replicas if (replica.role, replica.index) == (role, index)), None)

    def manifest(self, job: Job) -> dict[str, Any]:
        """
        The TFJob. Without a chief all of its workers have to succeed, unless the job says that worker 0 is enough.
        """
        manifest = operator_job(job, self.operator)
        if job.groups[0].role != "chief" and job.run_policy.success_policy is not SuccessPolicy.DEFAULT:
            manifest["spec"]["successPolicy"] = SuccessPolicy.ALL_WORKERS.value
        return manifest

    def flyte_task(self, job: Job) -> FlyteTask:
        """
        The task of Flyte's TensorFlow plug-in, which asks for a worker: a chief that is alone is sent as one.

        Raises:
            UnsupportedError: Flyte cannot be told a field of the job, or there is a chief beside others and no worker.
        """
        _flyte_wire.check(job)
        roles = {group.role: group.role for group in job.groups}
        if "worker" not in roles:
            if job.world_size > 1:
                raise UnsupportedError(
                    f"worker: Flyte's TensorFlow plug-in needs at least one, and the job has {', '.join(roles)}. "
                    "Write worker=1 in place of the chief: without a chief, worker 0 is the coordinator.",
                    field="worker",
                )
            roles = {"worker": "chief"}
        groups = {f"{sent}Replicas": _flyte_wire.group(job, role) for sent, role in roles.items()}
        return FlyteTask(type="tensorflow", version=1, custom={**groups, "runPolicy": _flyte_wire.run_policy(job.run_policy)})

    def fork_safe(self) -> bool:
        """
        Whether the runtime has not been started in this process, and no Python thread could be cut off by a fork.
        """
        return threading.active_count() == 1 and not _runtime_started()


def operator_tf_config(replica: Replica, cluster: ClusterSpec) -> str | None:
    """
    ``TF_CONFIG`` byte for byte as the Kubeflow training operator writes it.

    Args:
        replica: Whose variable it is.

        cluster: All replicas of the job, evaluators included.

    Returns:
        Compact JSON with the roles in alphabetical order, or None where the operator sets none: for a single replica.

    .. doctest::

        >>> from distrib import ClusterSpec
        >>> from distrib.backends.tensorflow import operator_tf_config
        >>> cluster = ClusterSpec({"worker": ["w:1"], "evaluator": ["e:1"]})
        >>> operator_tf_config(cluster.replicas[0], cluster)
        '{"cluster":{"evaluator":["e:1"],"worker":["w:1"]},"task":{"type":"worker","index":0},"environment":"cloud"}'
    """
    return None if cluster.world_size == 1 else render_tf_config(replica.role, replica.index, cluster)


def visible_cluster(replica: Replica, cluster: ClusterSpec) -> tuple[str, int, ClusterSpec]:
    """
    The role, the index and the cluster that *replica* finds in its ``TF_CONFIG``.

    What the operator writes, made usable: no evaluator is in the cluster of anybody else, because the parameter-server
    strategy waits for ever for one that is (tensorflow#46169). An evaluator finds the training cluster and itself, as
    evaluator 0 even if there are several, because TensorFlow refuses a cluster with more than one.

    .. doctest::

        >>> from distrib import ClusterSpec
        >>> from distrib.backends.tensorflow import visible_cluster
        >>> cluster = ClusterSpec({"worker": ["w:1"], "evaluator": ["e:1", "f:1"]})
        >>> visible_cluster(cluster.replicas[0], cluster)
        ('worker', 0, ClusterSpec({'worker': ('w:1',)}))
        >>> visible_cluster(cluster.replicas[2], cluster)
        ('evaluator', 0, ClusterSpec({'worker': ('w:1',), 'evaluator': ('f:1',)}))
    """
    role, index, seen = _seen_by(replica, cluster)
    return role, index, ClusterSpec(seen)


def parse_tf_config(text: str) -> tuple[str, int, ClusterSpec]:
    """
    The role, the index and the cluster that a ``TF_CONFIG`` holds, with the roles in the order of the ranks.

    .. doctest::

        >>> from distrib.backends.tensorflow import parse_tf_config
        >>> parse_tf_config('{"cluster":{"ps":["p:1"],"worker":["w:1"]},"task":{"type":"ps","index":0}}')
        ('ps', 0, ClusterSpec({'worker': ('w:1',), 'ps': ('p:1',)}))
    """
    data = json.loads(text)
    addresses = data["cluster"]
    roles = [role for role in _ROLES if role in addresses]
    roles += [role for role in addresses if role not in _ROLES]
    return data["task"]["type"], data["task"]["index"], ClusterSpec({role: addresses[role] for role in roles})


def render_tf_config(role: str, index: int, cluster: Mapping[str, tuple[str, ...]]) -> str:
    """
    The inverse of :func:`parse_tf_config`: what both the operator's and the visible ``TF_CONFIG`` are written by.
    """
    roles = ",".join(f"{json.dumps(each)}:{_addresses_json(cluster[each])}" for each in sorted(cluster))
    return f'{{"cluster":{{{roles}}},"task":{{"type":{json.dumps(role)},"index":{index}}},"environment":"cloud"}}'


def _seen_by(replica: Replica, cluster: ClusterSpec) -> tuple[str, int, dict[str, tuple[str, ...]]]:
    seen = {role: addresses for role, addresses in cluster.items() if role != "evaluator"}
    if replica.role != "evaluator":
        return replica.role, replica.index, seen
    return "evaluator", 0, {**seen, "evaluator": (cluster["evaluator"][replica.index],)}


@lru_cache(maxsize=16)
def _addresses_json(addresses: tuple[str, ...]) -> str:
    # The same for thousands of replicas, so it is made once.
    return json.dumps(addresses, separators=(",", ":"))


def _runtime_started() -> bool:
    # Asked of a module that is already loaded, or not at all: importing it here would start what is being looked for.
    module: Any = sys.modules.get("tensorflow.python.eager.context")
    context = getattr(module, "_context", None)
    if context is None:
        return False
    devices = getattr(context, "_physical_devices", None) or ()
    # Looking for GPUs starts CUDA, and CUDA does not survive a fork.
    return bool(getattr(context, "_initialized", True)) or any(device.device_type != "CPU" for device in devices)
