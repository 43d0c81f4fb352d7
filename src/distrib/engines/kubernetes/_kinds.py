"""
The kinds of objects that the engine knows: where they are, and what they are called.
"""

from __future__ import annotations

from urllib.parse import quote

import attrs


@attrs.frozen
class Kind:
    """
    A kind of object.

    Args:
        api_version: Group and version, e.g. ``"kubeflow.org/v1"``; ``"v1"`` for the core.

        plural: Its name in URLs, e.g. ``"tfjobs"``.

        kind: Its name in objects, e.g. ``"TFJob"``.
    """

    api_version: str
    plural: str
    kind: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """
        Where its objects in *namespace* are, or one of them.
        """
        root = "/apis/" if "/" in self.api_version else "/api/"
        parts = [self.api_version, "namespaces", namespace, self.plural, *([name] if name else []), *([subresource] if subresource else [])]
        return root + "/".join(quote(part, safe="/") for part in parts)

    @property
    def group(self) -> str:
        """
        The API group, as a Role has it.
        """
        return self.api_version.rpartition("/")[0]


PODS = Kind("v1", "pods", "Pod")
EVENTS = Kind("v1", "events", "Event")
SECRETS = Kind("v1", "secrets", "Secret")
SERVICES = Kind("v1", "services", "Service")
JOBS = Kind("batch/v1", "jobs", "Job")
JOB_SETS = Kind("jobset.x-k8s.io/v1alpha2", "jobsets", "JobSet")
TRAIN_JOBS = Kind("trainer.kubeflow.org/v1alpha1", "trainjobs", "TrainJob")
TRAINING_RUNTIMES = Kind("trainer.kubeflow.org/v1alpha1", "trainingruntimes", "TrainingRuntime")
