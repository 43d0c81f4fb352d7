"""
What every workload is: how a job is written as objects of Kubernetes, and how its pods are told apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from ...._cluster import ClusterSpec, Replica
from .._labels import ABOUT_ANNOTATION, QUEUE_LABEL, RUN_LABEL

if TYPE_CHECKING:
    from ...._job import Job
    from ....backend import Backend
    from .._kinds import Kind
    from .._options import KubernetesOptions

#: Where replicas find each other if neither the options nor an operator says so.
DEFAULT_PORT = 2222
#: What a label, a Service and a host name may have at most.
LONGEST_NAME = 63


@attrs.frozen(kw_only=True, slots=False)
class Setting:
    """
    What is rendered: a job under a name.

    Args:
        job: The job.

        options: The engine's.

        name: The run's name.

        about: The annotation of the object that owns the others.
    """

    job: Job
    options: KubernetesOptions
    name: str
    about: str = ""

    @cached_property
    def workload(self) -> Workload:
        """
        What the job becomes.
        """
        from . import workload_of

        return workload_of(self.job, self.options)

    @cached_property
    def port(self) -> int:
        """
        Where replicas find each other.
        """
        operator = self.job.backend.operator
        return self.options.port or (DEFAULT_PORT if operator is None else operator.port)

    @cached_property
    def cluster(self) -> ClusterSpec:
        """
        All replicas with their addresses.
        """
        domain = "" if self.options.cluster_domain is None else f".{self.options.cluster_domain}"
        hosts = {group.role: self.workload.hosts(self, group.role, group.replicas) for group in self.job.groups}
        return ClusterSpec({role: [f"{host}{domain}:{self.port}" for host in of_role] for role, of_role in hosts.items()})

    @cached_property
    def coordinator(self) -> Replica:
        """
        The replica whose value is the result.
        """
        return self.job.backend.coordinator(self.cluster)

    @property
    def labels(self) -> dict[str, str]:
        """
        Those of every object.
        """
        return {RUN_LABEL: self.name}

    def top(self, kind: Kind, spec: Mapping[str, Any]) -> dict[str, Any]:
        """
        The object that owns the others.
        """
        queue = {} if self.options.queue is None else {QUEUE_LABEL: self.options.queue}
        made = self.object(kind, self.name, spec)
        made["metadata"]["labels"] = {**self.labels, **queue}
        if self.about:
            made["metadata"]["annotations"] = {ABOUT_ANNOTATION: self.about}
        return made

    def object(self, kind: Kind, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """
        An object of the run.
        """
        metadata = {"name": name, "namespace": self.options.namespace, "labels": self.labels}
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": dict(spec)}


class Workload(ABC):
    """
    One way to write a job as objects of Kubernetes.
    """

    #: What users write as ``workload=``.
    name: ClassVar[str]
    #: Where a pod finds its index within its role.
    index_field: ClassVar[str] = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    #: The longest thing that is named after a role's replicas, ``{role}`` and ``{index}`` being the role's and its last replica's.
    suffix: ClassVar[str] = "-{role}-{index}"

    @abstractmethod
    def kind(self, backend: Backend) -> Kind:
        """
        The kind of the object that owns the others.
        """

    def container(self, backend: Backend) -> str:  # noqa: ARG002  # for those who override it
        """
        The name of the container that trains.
        """
        return "node"

    def label(self, backend: Backend, role: str) -> str:  # noqa: ARG002  # for those who override it
        """
        A role as it is in the names of pods.
        """
        return role

    def longest_name(self, job: Job) -> int:
        """
        How long the name of a run may be.
        """
        names = [self.suffix.format(role=self.label(job.backend, group.role), index=group.replicas - 1) for group in job.groups]
        return LONGEST_NAME - max(map(len, names))

    @abstractmethod
    def hosts(self, setting: Setting, role: str, count: int) -> list[str]:
        """
        Where the replicas of a role are found, without the domain of the cluster.
        """

    @abstractmethod
    def objects(self, setting: Setting) -> tuple[dict[str, Any], ...]:
        """
        The objects, in the order in which they are to be created; :meth:`owner` is one of them.
        """

    @abstractmethod
    def check(self, job: Job, options: KubernetesOptions) -> None:
        """
        Refuse what this workload cannot do.

        Raises:
            UnsupportedError: It cannot honour a field of the job.
        """

    def owner(self, objects: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        """
        The object that owns the others, and that goes last.
        """
        return objects[0]
