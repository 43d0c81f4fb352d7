"""
What Flyte's Kubeflow plug-in is told of a job: the JSON of its protobufs, as plain data.

The messages are those of ``flyteidl.plugins.kubeflow``. Their fields of 0, ``Never`` and ``None`` are not on the wire, so that what
differs from them only there cannot be said, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs

from ._model import CleanPodPolicy, ReplicaGroup, Resources, RestartPolicy, RunPolicy, SuccessPolicy
from ._quantity import nano
from .errors import UnsupportedError

if TYPE_CHECKING:
    from ._job import Job

__all__ = ["check", "check_alone", "group", "run_policy"]

#: What of a group, a run policy or the resources reaches Flyte; of the rest, :func:`check` refuses all but the default.
GROUP_FIELDS = ("role", "replicas", "image", "requests", "limits", "restart_policy")
RUN_POLICY_FIELDS = ("clean_pod_policy", "ttl_seconds_after_finished", "active_deadline_seconds", "backoff_limit")
#: Our field -> the name that Flyte has for it. ``shared_memory`` is the task's own, the same for all groups.
RESOURCES: Mapping[str, str] = {"cpu": "CPU", "memory": "MEMORY", "gpu": "GPU", "ephemeral_storage": "EPHEMERAL_STORAGE"}

_RESTART: Mapping[RestartPolicy, str | None] = {
    RestartPolicy.NEVER: None,
    RestartPolicy.ON_FAILURE: "RESTART_POLICY_ON_FAILURE",
    RestartPolicy.ALWAYS: "RESTART_POLICY_ALWAYS",
}
_CLEAN: Mapping[CleanPodPolicy, str | None] = {
    CleanPodPolicy.NONE: None,
    CleanPodPolicy.RUNNING: "CLEANPOD_POLICY_RUNNING",
    CleanPodPolicy.ALL: "CLEANPOD_POLICY_ALL",
}
#: The field of ours -> the field on the wire, for numbers that have to be 1 or more there.
_NUMBERS = {
    "ttl_seconds_after_finished": "ttlSecondsAfterFinished",
    "active_deadline_seconds": "activeDeadlineSeconds",
    "backoff_limit": "backoffLimit",
}

#: What to write instead of a field that Flyte has no place for.
_REMEDIES: Mapping[str, str] = {
    "env": "Write env= of the job, which all replicas have.",
    "labels": "Write flyte={'labels': ...} for the job's, or flyte={'pod_template': ...} for those of all pods.",
    "annotations": "Write flyte={'annotations': ...} for the job's, or flyte={'pod_template': ...} for those of all pods.",
}
_TEMPLATE = "Write it into flyte={'pod_template': ...}, for all replicas alike."
#: Likewise of the run policy.
_RUN_POLICY_REMEDIES: Mapping[str, str] = {
    "suspend": "Flyte starts what it is given. Write flyte={'labels': ...} for a queue to hold it.",
    "restart_scope": "Write flyte={'retries': ...}: Flyte then starts all again.",
    "success_policy": "There, the chief decides, or without one worker 0. Leave the policy out, and have worker 0 return last.",
    "scheduling_policy": "Write flyte={'pod_template': ...} with a scheduler's name.",
}
#: What Flyte does when it is told nothing, where that is not our default alone.
_UNTOLD: Mapping[str, tuple[object, ...]] = {"success_policy": (None, SuccessPolicy.DEFAULT)}
#: What to write instead where there is no operator.
_ALONE: Mapping[str, str] = {
    "ttl_seconds_after_finished": "Flyte takes the pod away itself: leave it out.",
    "active_deadline_seconds": "Write flyte={'timeout': ...}.",
    "backoff_limit": "Write flyte={'retries': ...}.",
}


def check(job: Job) -> None:
    """
    Refuse what Flyte cannot be told.

    Raises:
        UnsupportedError: Names the field and what to write instead.
    """
    for each in job.groups:
        _check_group(each)
    _check_run_policy(job.run_policy)


def check_alone(job: Job) -> None:
    """
    Refuse what an ordinary task of Flyte's, which no operator looks after, cannot be told.

    Raises:
        UnsupportedError: Names the field and what to write instead.
    """
    for name, remedy in _ALONE.items():
        if getattr(job.run_policy, name) is not None:
            raise _refusal(f"run_policy.{name}", getattr(job.run_policy, name), f"It is an ordinary task there. {remedy}")
    for each in job.groups:
        policy = job.restart_policy(each.role)
        if policy is not RestartPolicy.NEVER:
            remedy = "It is an ordinary task there. Write flyte={'retries': ...}, or max_restarts= of elastic."
            raise _refusal(f"{each.role}.restart_policy", policy.value, remedy)


def _check_run_policy(policy: RunPolicy) -> None:
    for field in attrs.fields(RunPolicy):
        value = getattr(policy, field.name)
        if field.name not in RUN_POLICY_FIELDS and value not in _UNTOLD.get(field.name, (field.default,)):
            raise _refusal(f"run_policy.{field.name}", _plain(value), _RUN_POLICY_REMEDIES.get(field.name, "Leave it out."))
    for name in _NUMBERS:
        if getattr(policy, name) == 0:
            raise _refusal(f"run_policy.{name}", 0, "0 means there that nothing is said. Write 1 or more, or leave it out.")


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _check_group(of_role: ReplicaGroup) -> None:
    for field in attrs.fields(ReplicaGroup):
        value = getattr(of_role, field.name)
        if field.name not in GROUP_FIELDS and value != field.default:
            raise _refusal(f"{of_role.role}.{field.name}", value, _REMEDIES.get(field.name, _TEMPLATE))
    if of_role.restart_policy is RestartPolicy.EXIT_CODE:
        raise _refusal(f"{of_role.role}.restart_policy", "ExitCode", "Write 'OnFailure', or flyte={'retries': ...}.")


def _refusal(field: str, value: object, remedy: str) -> UnsupportedError:
    return UnsupportedError(f"{field}={value!r}: Flyte has no word for it. {remedy}", field=field)


def group(job: Job, role: str, replicas: int | None = None) -> dict[str, Any]:
    """
    The replica spec of a role.

    It is said twice: under ``common``, which Flyte 1.13 and newer read, and as the fields from before, which older ones do. Resources are
    complete, because Flyte fills what is missing with what its platform has for tasks.

    Args:
        job: The job.

        role: One of its roles.

        replicas: How many; those of the group unless it is given.
    """
    given: dict[str, Any] = {
        "replicas": job.group(role).replicas if replicas is None else replicas,
        # A group without an image has the task's, which is the job's.
        "image": job.group(role).image,
        "resources": _resources(job, role),
        "restartPolicy": _RESTART[job.restart_policy(role)],
    }
    spec = {key: value for key, value in given.items() if value}
    return {**spec, "common": deepcopy(spec)}


def run_policy(policy: RunPolicy) -> dict[str, Any]:
    """
    The run policy. It is always there: without one, Flyte would not say ``cleanPodPolicy`` to the operator.
    """
    numbers = {wire: value for ours, wire in _NUMBERS.items() if (value := getattr(policy, ours)) is not None}
    clean = _CLEAN[policy.clean_pod_policy]
    return {**({} if clean is None else {"cleanPodPolicy": clean}), **numbers}


def _resources(job: Job, role: str) -> dict[str, Any]:
    found = {
        "requests": _entries(f"{role}.requests", job.resources_requests(role)),
        "limits": _entries(f"{role}.limits", job.resources_limits(role)),
    }
    return {key: entries for key, entries in found.items() if entries}


def _entries(field: str, resources: Resources | None) -> list[dict[str, str]]:
    if resources is None:
        return []
    for name in resources.extended:
        raise _refusal(f"{field}.extended", name, _TEMPLATE)
    for name in RESOURCES:
        # Without GPUs is what nothing said means too; of anything else Flyte then gives what its platform has for tasks.
        if name != "gpu" and getattr(resources, name) is not None and nano(getattr(resources, name)) == 0:
            raise _refusal(f"{field}.{name}", "0", "0 means there that nothing is said. Write more, or leave it out.")
    return [{"name": wire, "value": str(value)} for ours, wire in RESOURCES.items() if (value := getattr(resources, ours)) is not None]
