"""
The custom resource of the framework's own operator: TFJob, PyTorchJob and the like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...._model import RestartPolicy
from ....errors import UnsupportedError
from ....manifests import restart_policy
from .._kinds import Kind
from ._base import Setting, Workload
from ._jobs import restartable
from ._pods import dressed

if TYPE_CHECKING:
    from ...._job import Job
    from ....backend import Backend, Operator
    from .._options import KubernetesOptions


class OperatorWorkload(Workload):
    """
    What the framework's backend says, with our pods in it.
    """

    name = "operator"
    index_field = "metadata.labels['training.kubeflow.org/replica-index']"

    def kind(self, backend: Backend) -> Kind:
        """
        What the backend says.
        """
        operator = _operator(backend)
        return Kind(operator.api_version, operator.plural, operator.kind)

    def container(self, backend: Backend) -> str:
        """
        What the operator wants it to be called.
        """
        return _operator(backend).container

    def label(self, backend: Backend, role: str) -> str:
        """
        The operator's own word, in lower case.
        """
        return _operator(backend).types[role].lower()

    def hosts(self, setting: Setting, role: str, count: int) -> list[str]:
        """
        The names of the pods' own Services.
        """
        backend = setting.job.backend
        host, label, namespace = _operator(backend).host, self.label(backend, role), setting.options.namespace
        return [host.format(job=setting.name, type=label, index=index, namespace=namespace) for index in range(count)]

    def objects(self, setting: Setting) -> tuple[dict[str, Any], ...]:
        """
        The custom resource.
        """
        backend = setting.job.backend
        operator, spec = _operator(backend), backend.manifest(setting.job)["spec"]
        for group in setting.job.groups:
            replicas = spec[operator.replica_specs][operator.types[group.role]]
            _set_port(replicas["template"], operator, setting.port)
            replicas["template"] = dressed(setting, group.role, replicas["template"])
            if setting.job.world_size > 1:
                _check_probe(replicas["template"], operator.container)
        return (setting.top(self.kind(backend), spec),)

    def check(self, job: Job, options: KubernetesOptions) -> None:  # noqa: ARG002  # it has no say here
        """
        Refuse what the operator accepts and does not do.
        """
        limit = job.run_policy.backoff_limit
        for role in restartable(job):
            policy = restart_policy(job, role)
            if policy is RestartPolicy.ALWAYS and not job.backend.role(role).service:
                raise UnsupportedError(
                    f"{role}.restart_policy='Always': the operator would start replicas again that have succeeded, and never finish. "
                    "Write 'OnFailure'.",
                    field=f"{role}.restart_policy",
                )
            if policy is RestartPolicy.EXIT_CODE and limit is not None:
                raise UnsupportedError(
                    f"run_policy.backoff_limit={limit}: the operator does not count restarts under restart_policy='ExitCode', which {role} "
                    "has. Leave the limit out, write 'OnFailure', or run plain Jobs: kubernetes={'workload': 'job'}.",
                    field="run_policy.backoff_limit",
                )


def _operator(backend: Backend) -> Operator:
    if backend.operator is None:
        raise UnsupportedError(
            f"kubernetes.workload='operator': there is no Kubernetes operator for {backend.name}. Leave it out, or write 'job'.",
            field="kubernetes.workload",
        )
    return backend.operator


def _check_probe(template: dict[str, Any], trains: str) -> None:
    # Those of other containers, a proxy's say, wait for nobody.
    for container in template["spec"]["containers"]:
        if container["name"] == trains and "readinessProbe" in container:
            field = f"kubernetes.pod_patch.spec.containers[{trains!r}].readinessProbe"
            raise UnsupportedError(
                f"{field}: the operator's Services know no pod that is not ready, and replicas look for each other before they are. "
                "Leave it out, or run plain Jobs: kubernetes={'workload': 'job'}.",
                field=field,
            )


def _set_port(template: dict[str, Any], operator: Operator, port: int) -> None:
    for container in template["spec"]["containers"]:
        for each in container.get("ports", []):
            if each.get("name") == operator.port_name:
                each["containerPort"] = port
