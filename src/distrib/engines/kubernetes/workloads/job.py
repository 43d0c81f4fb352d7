"""
Plain Kubernetes: one Indexed Job for each role, and a Service that gives their pods names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....errors import UnsupportedError
from .._kinds import JOBS, SERVICES, Kind
from ._base import Setting, Workload
from ._jobs import check_jobs, check_scope, job_spec
from ._pods import CONTROL_PORT

if TYPE_CHECKING:
    from ...._job import Job
    from ....backend import Backend
    from .._options import KubernetesOptions


class JobWorkload(Workload):
    """
    Needs nothing that is not in every cluster. The Job of the coordinator's role owns the others.
    """

    name = "job"

    def kind(self, backend: Backend) -> Kind:  # noqa: ARG002  # the same for all
        """
        A Job.
        """
        return JOBS

    def hosts(self, setting: Setting, role: str, count: int) -> list[str]:
        """
        The pods' host names under the run's Service.
        """
        return [f"{setting.name}-{role}-{index}.{setting.name}.{setting.options.namespace}.svc" for index in range(count)]

    def objects(self, setting: Setting) -> tuple[dict[str, Any], ...]:
        """
        The Job of the coordinator's role, the Service, and the Jobs of the other roles.
        """
        first = setting.coordinator.role
        others = [group.role for group in setting.job.groups if group.role != first]
        top = setting.top(JOBS, self._spec(setting, first))
        top["metadata"]["name"] = f"{setting.name}-{first}"
        if setting.job.run_policy.ttl_seconds_after_finished is not None:
            # All of the run goes with it.
            top["spec"]["ttlSecondsAfterFinished"] = setting.job.run_policy.ttl_seconds_after_finished
        jobs = [setting.object(JOBS, f"{setting.name}-{role}", self._spec(setting, role)) for role in others]
        return (top, self._service(setting), *jobs)

    def check(self, job: Job, options: KubernetesOptions) -> None:
        """
        Refuse what nobody does for Jobs that know nothing of each other.
        """
        who = "kubernetes.workload='job'"
        check_jobs(job, who)
        check_scope(job, who)
        if options.queue is not None and len(job.groups) > 1:
            raise UnsupportedError(
                f"kubernetes.queue={options.queue!r}: Kueue would admit the Jobs of the {len(job.groups)} roles one by one, and one could "
                "wait for the others for ever. Write workload='jobset' or 'operator'.",
                field="kubernetes.queue",
            )

    def _spec(self, setting: Setting, role: str) -> dict[str, Any]:
        spec = job_spec(setting, role)
        spec["template"]["spec"]["subdomain"] = setting.name
        return {**spec, "suspend": True} if setting.job.run_policy.suspend else spec

    def _service(self, setting: Setting) -> dict[str, Any]:
        ports = [{"name": "replicas", "port": setting.port}, {"name": CONTROL_PORT, "port": setting.options.control_port}]
        # Replicas look for each other before they are ready for anybody else.
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": setting.labels, "ports": ports}
        return setting.object(SERVICES, setting.name, spec)
