"""
From the plugins' configurations to jobs: one table for those of :mod:`distrib.compat` and for the plugins' own.

Nothing of the plugins is imported: a configuration is known by its class and the module that this is from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Any

from distrib import _fields
from distrib._job import Job
from distrib._model import ReplicaGroup, RunPolicy
from distrib._refusal import refuse
from distrib.engines.flyte._resources import name_of_image
from distrib.errors import InvalidJobError

from ._resources import resources_of

__all__ = ["converted", "group_of", "is_config", "job_of", "lacks_workers", "run_policy_of"]

#: Role -> the field of TfJob that has held its number of replicas before.
TENSORFLOW_COUNTS = {"chief": "num_chief_replicas", "worker": "num_workers", "ps": "num_ps_replicas", "evaluator": "num_evaluator_replicas"}
PYTORCH_COUNTS = {"worker": "num_workers"}
#: What groups of all roles have, and what run policies have.
_OF_GROUPS = ("image", "requests", "limits", "restart_policy")
_OF_RUN_POLICIES = ("clean_pod_policy", "ttl_seconds_after_finished", "active_deadline_seconds", "backoff_limit")
#: What a plugin calls a restart policy -> what we do.
_RESTARTS = {"FAILURE": "ON_FAILURE"}


def is_config(value: object) -> bool:
    """
    Whether *value* is a configuration of one of the plugins, ours or theirs.
    """
    return _converter_of(type(value)) is not None


def job_of(config: object) -> Job:
    """
    The job that a configuration of one of the plugins describes.

    Raises:
        InvalidJobError: It is none, or something in it is wrong.
    """
    # A subclass of ours may have a word of its own in this.
    own = getattr(config, "to_job", None)
    return own() if is_config(config) and callable(own) else converted(config)


def converted(config: object) -> Job:
    """
    The same, whatever the configuration's own ``to_job`` does.
    """
    convert = _converter_of(type(config))
    if convert is None:
        known = ", ".join(name.rpartition(".")[2] for name in _CONVERTERS)
        raise refuse("config", config, f"write a task config of the Flyte plugins: {known}.")
    return convert(config)


def _converter_of(kind: type) -> Callable[[Any], Job] | None:
    for base in kind.__mro__:
        # The last two steps alone: they are the same for the plugin's own module and for ours.
        place = [*base.__module__.split(".")[-2:], base.__name__]
        if (convert := _CONVERTERS.get(".".join(place))) is not None:
            return convert
    return None


def _of_tensorflow(config: Any) -> Job:
    groups = {role: _counted(config, role, old) for role, old in TENSORFLOW_COUNTS.items()}
    shared = {new: _shared(config, groups, new) for new in ("requests", "limits")}
    return Job("tensorflow", groups=list(groups.values()), run_policy=run_policy_of(config.run_policy), **shared)


def _of_pytorch(config: Any) -> Job:
    master = group_of("master", config.master)
    worker = _counted(config, "worker", PYTORCH_COUNTS["worker"])
    return Job("pytorch", groups=[master, worker], run_policy=run_policy_of(config.run_policy))


def _of_elastic(config: Any) -> Job:
    least, most = _fields.attempt("nnodes", _fields.nodes, config.nnodes)
    elastic = {
        "min_nodes": least,
        "max_nodes": most,
        "nproc_per_node": config.nproc_per_node,
        "max_restarts": config.max_restarts,
        "monitor_interval": config.monitor_interval,
        "rdzv_backend": "c10d",
        "rdzv_configs": config.rdzv_configs,
        "start_method": config.start_method,
    }
    return Job("pytorch", elastic=elastic, run_policy=run_policy_of(config.run_policy))


#: The ends of the names of the classes, and what reads their objects.
_CONVERTERS: dict[str, Callable[[Any], Job]] = {
    "kftensorflow.task.TfJob": _of_tensorflow,
    "kfpytorch.task.PyTorch": _of_pytorch,
    "kfpytorch.task.Elastic": _of_elastic,
}


def group_of(role: str, given: Any) -> ReplicaGroup:
    """
    A group of a plugin: a dataclass of image, requests, limits, restart policy and, but for a master, replicas; None of those is 0.
    """
    return _fields.attempt(role, partial(_group, role), given)


def _group(role: str, given: Any) -> ReplicaGroup:
    if given is None:
        return ReplicaGroup(role=role, replicas=0)
    if not all(hasattr(given, name) for name in _OF_GROUPS):
        kind = role.upper() if role == "ps" else role.title()
        raise refuse("", given, f"write {kind}()." if role == "master" else f"write {kind}(replicas=1), or how many there are to be.")
    replicas = getattr(given, "replicas", 1)
    return ReplicaGroup(
        role=role,
        replicas=0 if replicas is None else replicas,
        image=_image(given.image),
        requests=_fields.attempt("requests", resources_of, given.requests),
        limits=_fields.attempt("limits", resources_of, given.limits),
        restart_policy=_restart(given.restart_policy),
    )


def _image(image: Any) -> str | None:
    return name_of_image(image) if callable(getattr(image, "image_name", None)) else image


def _restart(policy: Any) -> Any:
    # By its name: of the plugins' own members, any two are equal.
    return _RESTARTS.get(policy.name, policy.name) if isinstance(policy, Enum) else policy


def run_policy_of(given: Any) -> RunPolicy:
    """
    The run policy of a plugin, which may be None.
    """
    return RunPolicy() if given is None else _fields.attempt("run_policy", _run_policy, given)


def _run_policy(given: Any) -> RunPolicy:
    if not all(hasattr(given, name) for name in _OF_RUN_POLICIES):
        raise refuse("", given, "write RunPolicy(...), as in RunPolicy(backoff_limit=3).")
    clean = given.clean_pod_policy
    fields: dict[str, Any] = {
        "ttl_seconds_after_finished": given.ttl_seconds_after_finished,
        "active_deadline_seconds": given.active_deadline_seconds,
        "backoff_limit": given.backoff_limit,
    }
    if clean is not None:
        fields["clean_pod_policy"] = clean.name if isinstance(clean, Enum) else clean
    return RunPolicy(**fields)


def _counted(config: Any, role: str, old: str) -> ReplicaGroup:
    """
    The group of a role, whichever field has its number of replicas.
    """
    given, before = getattr(config, role), getattr(config, old)
    group, said = group_of(role, given), getattr(given, "replicas", None)
    if before is None:
        if role == "worker" and lacks_workers(config):
            raise InvalidJobError(
                f"{role}.replicas: nothing says how many workers there are; write worker=Worker(replicas=2).", field=f"{role}.replicas"
            )
        return group
    # An evaluator has 0 replicas where nothing is said.
    if said is not None and (said or before) and not (role == "evaluator" and not said):
        raise refuse(old, before, f"{role}.replicas={said} says it too; write it there alone, {old} is deprecated.")
    return _fields.attempt(old, lambda count: ReplicaGroup(**{**_fields_of(group), "replicas": count}), before)


def lacks_workers(config: Any) -> bool:
    """
    Whether nothing says how many workers there are, in a configuration that has them.
    """
    # What is no group at all is refused as that.
    said = getattr(config.worker, "replicas", config.worker) if hasattr(config, "worker") else 0
    return said is None and config.num_workers is None


def _fields_of(group: ReplicaGroup) -> Mapping[str, Any]:
    return {name: getattr(group, name) for name in ("role", "image", "requests", "limits", "restart_policy")}


def _shared(config: Any, groups: Mapping[str, ReplicaGroup], new: str) -> Any:
    """
    What the oldest plugin's ``per_replica_requests=`` and ``per_replica_limits=`` say for all groups.
    """
    old = f"per_replica_{new}"
    given = getattr(config, old, None)
    for role, group in groups.items():
        if given is not None and getattr(group, new) is not None:
            raise refuse(old, given, f"{role}.{new} says it too; write it there alone, {old} is deprecated.")
    return _fields.attempt(old, resources_of, given)
