"""
A TrainJob of Kubeflow Trainer, with a TrainingRuntime of its own that says all there is to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....errors import UnsupportedError
from .._kinds import TRAIN_JOBS, TRAINING_RUNTIMES, Kind
from ._base import Setting
from .jobset import JobSetWorkload, job_set_spec

if TYPE_CHECKING:
    from ...._job import Job
    from ....backend import Backend
    from .._options import KubernetesOptions

#: Which of the Jobs the trainer counts the nodes of.
_TRAINS = {f"{TRAIN_JOBS.group}/trainjob-ancestor-step": "trainer"}


class TrainJobWorkload(JobSetWorkload):
    """
    For clusters where Kubeflow Trainer is what training goes through. Pods and their names are those of the JobSet that it makes.
    """

    name = "trainjob"

    def kind(self, backend: Backend) -> Kind:  # noqa: ARG002  # the same for all
        """
        A TrainJob.
        """
        return TRAIN_JOBS

    def objects(self, setting: Setting) -> tuple[dict[str, Any], ...]:
        """
        The runtime first: a TrainJob whose runtime is not there is refused.
        """
        job = setting.job
        trainer = setting.coordinator.role
        template = job_set_spec(setting)
        for each in template["replicatedJobs"]:
            if each["name"] == trainer:
                each["template"]["metadata"] = {"labels": dict(_TRAINS)}
        policy = {"numNodes": job.group(trainer).replicas}
        runtime = setting.object(TRAINING_RUNTIMES, setting.name, {"mlPolicy": policy, "template": {"spec": template}})
        spec: dict[str, Any] = {"runtimeRef": {"apiGroup": TRAINING_RUNTIMES.group, "kind": TRAINING_RUNTIMES.kind, "name": setting.name}}
        if job.run_policy.suspend:
            spec["suspend"] = True
        if job.run_policy.active_deadline_seconds is not None:
            spec["activeDeadlineSeconds"] = job.run_policy.active_deadline_seconds
        return (runtime, setting.top(TRAIN_JOBS, spec))

    def owner(self, objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        """
        The TrainJob.
        """
        return objects[1]

    def check(self, job: Job, options: KubernetesOptions) -> None:
        """
        Refuse what Jobs cannot do, and what the Trainer does not.
        """
        super().check(job, options)
        seconds = job.run_policy.ttl_seconds_after_finished
        if seconds is not None:
            raise UnsupportedError(
                f"run_policy.ttl_seconds_after_finished={seconds}: Kubeflow Trainer never removes a TrainJob. "
                "Leave it out, or run on JobSet: kubernetes={'workload': 'jobset'}.",
                field="run_policy.ttl_seconds_after_finished",
            )
