"""
A JobSet: one Indexed Job for each role, looked after together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...._fields import INT32
from ...._model import CleanPodPolicy, RestartPolicy, RestartScope
from ....errors import UnsupportedError
from ....manifests import restart_policy
from .._kinds import JOB_SETS, Kind
from ._base import Setting, Workload
from ._jobs import check_jobs, job_spec, restartable

if TYPE_CHECKING:
    from ...._job import Job
    from ....backend import Backend
    from .._options import KubernetesOptions


class JobSetWorkload(Workload):
    """
    For clusters with the JobSet controller, and for runs that are to be restarted as a whole.
    """

    name = "jobset"
    suffix = "-{role}-0-{index}-xxxxx"

    def kind(self, backend: Backend) -> Kind:  # noqa: ARG002  # the same for all
        """
        A JobSet.
        """
        return JOB_SETS

    def hosts(self, setting: Setting, role: str, count: int) -> list[str]:
        """
        The pods' host names under the JobSet's own Service.
        """
        return [f"{setting.name}-{role}-0-{index}.{setting.name}.{setting.options.namespace}.svc" for index in range(count)]

    def objects(self, setting: Setting) -> tuple[dict[str, Any], ...]:
        """
        The JobSet.
        """
        policy = setting.job.run_policy
        spec = job_set_spec(setting)
        if policy.suspend:
            spec["suspend"] = True
        return (setting.top(JOB_SETS, spec),)

    def check(self, job: Job, options: KubernetesOptions) -> None:  # noqa: ARG002  # it has no say here
        """
        Refuse what Jobs cannot do, and what the JobSet controller does whatever it is told.
        """
        check_jobs(job, f"kubernetes.workload={self.name!r}")
        if job.run_policy.clean_pod_policy is CleanPodPolicy.NONE:
            raise UnsupportedError(
                "run_policy.clean_pod_policy='None': a JobSet that fails deletes the pods that still run. "
                "Leave it out, or run plain Jobs: kubernetes={'workload': 'job'}.",
                field="run_policy.clean_pod_policy",
            )


def job_set_spec(setting: Setting) -> dict[str, Any]:
    """
    The spec of a JobSet: also what a TrainingRuntime is made of.
    """
    job = setting.job
    spec: dict[str, Any] = {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": setting.name},
        # The coordinator leaves last, and with it all of its role.
        "successPolicy": {"operator": "All", "targetReplicatedJobs": [setting.coordinator.role]},
        "failurePolicy": _failure_policy(job),
        "replicatedJobs": [
            {"name": group.role, "replicas": 1, "template": {"spec": job_spec(setting, group.role)}} for group in job.groups
        ],
    }
    if job.run_policy.ttl_seconds_after_finished is not None:
        spec["ttlSecondsAfterFinished"] = job.run_policy.ttl_seconds_after_finished
    return spec


def _failure_policy(job: Job) -> dict[str, Any]:
    """
    Which failed Jobs have all of them started again.
    """
    policy = job.run_policy
    if policy.restart_scope is RestartScope.REPLICA:
        return {"maxRestarts": 0}
    again = restartable(job)
    never = [group.role for group in job.groups if group.role not in again]
    by_code = [role for role in again if restart_policy(job, role) is RestartPolicy.EXIT_CODE]
    rules = []
    if never:
        rules.append({"name": "never", "action": "FailJobSet", "targetReplicatedJobs": never})
    if by_code:
        reasons = ["PodFailurePolicy"]
        rules.append({"name": "exitCode", "action": "FailJobSet", "targetReplicatedJobs": by_code, "onJobFailureReasons": reasons})
    if policy.active_deadline_seconds is not None:
        rules.append({"name": "deadline", "action": "FailJobSet", "onJobFailureReasons": ["DeadlineExceeded"]})
    limit = policy.backoff_limit
    return {"maxRestarts": INT32 if limit is None else limit, **({"rules": rules} if rules else {})}
