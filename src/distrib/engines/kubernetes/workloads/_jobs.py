"""
Indexed Jobs of Kubernetes: what all workloads but the operator's are made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...._fields import INT32
from ...._model import CleanPodPolicy, RestartPolicy, RestartScope
from ...._outcome import FIRST_RETRYABLE
from ....errors import UnsupportedError
from ....manifests import restart_policy
from ._pods import template_of

if TYPE_CHECKING:
    from ...._job import Job
    from ._base import Setting


def job_spec(setting: Setting, role: str) -> dict[str, Any]:
    """
    The Job of a role: a pod for each replica, which knows its index.
    """
    job = setting.job
    count = job.group(role).replicas
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": count,
        "parallelism": count,
        "backoffLimit": _backoff_limit(job, role),
    }
    if job.run_policy.active_deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = job.run_policy.active_deadline_seconds
    if restart_policy(job, role) is RestartPolicy.EXIT_CODE:
        spec["podFailurePolicy"] = {"rules": [_fatal(setting)]}
    return {**spec, "template": template_of(setting, role)}


def _fatal(setting: Setting) -> dict[str, Any]:
    container = setting.workload.container(setting.job.backend)
    codes = {"containerName": container, "operator": "In", "values": list(range(1, FIRST_RETRYABLE))}
    return {"action": "FailJob", "onExitCodes": codes}


def restartable(job: Job) -> list[str]:
    """
    The roles whose replicas are started again.
    """
    return [group.role for group in job.groups if restart_policy(job, group.role) is not RestartPolicy.NEVER]


def _backoff_limit(job: Job, role: str) -> int:
    if role not in restartable(job) or job.run_policy.restart_scope is RestartScope.JOB:
        return 0
    limit = job.run_policy.backoff_limit
    return INT32 if limit is None else limit


def check_jobs(job: Job, who: str) -> None:
    """
    Refuse what Jobs cannot do.

    Raises:
        UnsupportedError: It names the field, and what can do it.
    """
    policy = job.run_policy
    if policy.scheduling_policy is not None:
        raise UnsupportedError(
            f"run_policy.scheduling_policy: {who} hands nothing to a gang scheduler; leave it out, name a queue of Kueue with "
            "kubernetes={'queue': …}, or run on the training operator: kubernetes={'workload': 'operator'}.",
            field="run_policy.scheduling_policy",
        )
    if policy.clean_pod_policy is CleanPodPolicy.ALL:
        raise UnsupportedError(
            f"run_policy.clean_pod_policy='All': {who} keeps the pods that have ended. Leave it out; "
            "ttl_seconds_after_finished=0 removes all of the run where the workload has it.",
            field="run_policy.clean_pod_policy",
        )
    for group in job.groups:
        if restart_policy(job, group.role) is RestartPolicy.ALWAYS:
            raise UnsupportedError(
                f"{group.role}.restart_policy='Always': {who} starts nothing again that has succeeded. Write 'OnFailure'.",
                field=f"{group.role}.restart_policy",
            )
    roles = restartable(job)
    if policy.backoff_limit is not None and len(roles) > 1 and policy.restart_scope is RestartScope.REPLICA:
        raise UnsupportedError(
            f"run_policy.backoff_limit={policy.backoff_limit}: {who} counts the restarts of each role by itself, not those of "
            f"{' and '.join(roles)} together. Leave it out, or let one role alone restart.",
            field="run_policy.backoff_limit",
        )


def check_scope(job: Job, who: str) -> None:
    """
    Refuse to restart all together where nobody does that.

    Raises:
        UnsupportedError: The job asks for it.
    """
    if job.run_policy.restart_scope is RestartScope.JOB:
        raise UnsupportedError(
            f"run_policy.restart_scope='Job': {who} restarts replicas one by one. "
            "Leave it out, or run on JobSet: kubernetes={'workload': 'jobset'}.",
            field="run_policy.restart_scope",
        )
