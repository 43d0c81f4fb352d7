"""
What Kubernetes is told about a job: plain dictionaries, built of nothing but the job.

Everything here is pure and gives fresh data, so that whoever gets it may add to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ._fields import INT32
from ._frozen import thaw
from ._model import RestartPolicy, RestartScope
from .errors import UnsupportedError

if TYPE_CHECKING:
    from ._job import Job
    from ._model import Resources, SchedulingPolicy, Toleration, Volume
    from .backend import Operator

__all__ = ["escaped", "metadata", "operator_job", "pod_template", "resource_list", "restart_policy", "run_policy", "shared_memory"]

#: The name of the volume that is mounted as ``/dev/shm``.
SHARED_MEMORY = "shared-memory"
_GPU = "nvidia.com/gpu"
_NAMES = {"cpu": "cpu", "memory": "memory", "gpu": _GPU, "ephemeral_storage": "ephemeral-storage"}


def metadata(
    name: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """
    The metadata of an object, without what is empty.

    >>> metadata("train", labels={"team": "a"})
    {'name': 'train', 'labels': {'team': 'a'}}
    """
    return _filled(name=name, namespace=namespace, labels=dict(labels or {}), annotations=dict(annotations or {}))


def resource_list(resources: Resources | None) -> dict[str, str]:
    """
    Resources by the names that Kubernetes has for them; shared memory is none of them.

    >>> from distrib import Resources
    >>> resource_list(Resources(cpu=2, gpu=1, shared_memory="1Gi"))
    {'cpu': '2', 'nvidia.com/gpu': '1'}
    """
    if resources is None:
        return {}
    amounts = {wire: str(value) for field, wire in _NAMES.items() if (value := getattr(resources, field)) is not None}
    return {**amounts, **resources.extended}


def pod_template(job: Job, role: str, *, container: str, ports: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """
    The pods of a role, with everything that the model says about them.

    Args:
        job: The job.

        role: One of its roles.

        container: What the container is to be called.

        ports: Those of the container.

    .. doctest::

        >>> from distrib import Job
        >>> pod_template(Job("tensorflow", worker=1, image="train:1"), "worker", container="tensorflow")
        {'spec': {'containers': [{'name': 'tensorflow', 'image': 'train:1'}]}}
    """
    group = job.group(role)
    volumes, mounts = _volumes(job, role)
    main = _filled(
        name=container,
        image=job.image_of(role),
        ports=[dict(port) for port in ports],
        env=[{"name": name, "value": escaped(value)} for name, value in job.env_of(role).items()],
        resources=_requirements(job, role),
        volumeMounts=mounts,
    )
    spec = _filled(
        activeDeadlineSeconds=job.run_policy.active_deadline_seconds,
        nodeSelector=dict(group.node_selector),
        tolerations=[_toleration(each) for each in group.tolerations],
        affinity=thaw(group.affinity),
        serviceAccountName=group.service_account,
        imagePullSecrets=[{"name": name} for name in dict.fromkeys(group.pull_secrets)],
        priorityClassName=group.priority_class,
        containers=[main],
        volumes=volumes,
    )
    return _filled(metadata=_filled(labels=dict(group.labels), annotations=dict(group.annotations)), spec=spec)


def escaped(text: str) -> str:
    """
    Text that the kubelet hands on as it is: it replaces ``$(NAME)``, and takes ``$$`` for ``$``.

    >>> escaped("costs $5"), escaped("$(HOME)")
    ('costs $5', '$$(HOME)')
    """
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text


def restart_policy(job: Job, role: str) -> RestartPolicy:
    """
    When a pod of a role is started again: as the job says.

    Where the job says nothing and its framework goes on without some of the replicas, those that are lost are replaced, and
    those that fail by themselves are not.

    .. doctest::

        >>> from distrib import Job
        >>> restart_policy(Job("pytorch", worker=2), "worker").value
        'Never'
        >>> restart_policy(Job("pytorch", nnodes="1:4"), "worker").value
        'ExitCode'
    """
    if job.group(role).restart_policy is None and _can_lose_some(job):
        return RestartPolicy.EXIT_CODE
    return job.restart_policy(role)


def run_policy(job: Job) -> dict[str, Any]:
    """
    The run policy in the words of the Kubeflow training operator.

    Raises:
        UnsupportedError: The operator cannot honour a field of it.

    .. doctest::

        >>> from distrib import Job
        >>> run_policy(Job("jax", worker=2, run_policy={"active_deadline_seconds": 3600}))
        {'cleanPodPolicy': 'Running', 'activeDeadlineSeconds': 3600}
    """
    policy = job.run_policy
    if policy.restart_scope is RestartScope.JOB:
        raise UnsupportedError(
            "run_policy.restart_scope='Job': the training operator restarts replicas one by one. "
            "Leave it out, or run on JobSet: kubernetes={'workload': 'jobset'}.",
            field="run_policy.restart_scope",
        )
    return _filled(
        cleanPodPolicy=policy.clean_pod_policy.value,
        ttlSecondsAfterFinished=policy.ttl_seconds_after_finished,
        activeDeadlineSeconds=policy.active_deadline_seconds,
        backoffLimit=_backoff_limit(policy.backoff_limit),
        suspend=policy.suspend or None,
        schedulingPolicy=_scheduling_policy(policy.scheduling_policy),
    )


def operator_job(job: Job, operator: Operator | None, *, forgets: bool = False) -> dict[str, Any]:
    """
    The custom resource that a training operator runs a job from.

    Args:
        job: The job.

        operator: How the operator calls things: a backend's own.

        forgets: Whether the operator never removes a job that has failed under ``ExitCode``, whatever its time to live.

    Raises:
        UnsupportedError: The operator cannot honour a field of the job.

    .. doctest::

        >>> from distrib import Job
        >>> from distrib.backends.jax import JaxBackend
        >>> job = operator_job(Job("jax", worker=2, image="train:1", name="digits"), JaxBackend.operator)
        >>> job["kind"], job["metadata"]["name"], job["spec"]["jaxReplicaSpecs"]["Worker"]["replicas"]
        ('JAXJob', 'digits', 2)
    """
    if operator is None:
        raise UnsupportedError(f"framework={job.framework!r}: there is no Kubernetes operator for it.", field="framework")
    if forgets:
        _check_time_to_live(job, operator)
    ports = [{"name": operator.port_name, "containerPort": operator.port}]
    specs = {
        operator.types[group.role]: {
            "replicas": group.replicas,
            "restartPolicy": restart_policy(job, group.role).value,
            "template": pod_template(job, group.role, container=operator.container, ports=ports),
        }
        for group in job.groups
    }
    return {
        "apiVersion": operator.api_version,
        "kind": operator.kind,
        "metadata": metadata(job.name or job.framework),
        "spec": {"runPolicy": run_policy(job), operator.replica_specs: specs},
    }


def _filled(**fields: Any) -> dict[str, Any]:
    """
    The fields without those that hold nothing.
    """
    return {name: value for name, value in fields.items() if value is not None and value not in ({}, [])}


def _can_lose_some(job: Job) -> bool:
    needed = job.backend.needed(job)
    return needed is not None and needed < job.world_size


def _check_time_to_live(job: Job, operator: Operator) -> None:
    seconds = job.run_policy.ttl_seconds_after_finished
    for group in job.groups:
        if seconds is not None and restart_policy(job, group.role) is RestartPolicy.EXIT_CODE:
            raise UnsupportedError(
                f"run_policy.ttl_seconds_after_finished={seconds}: the operator never removes a {operator.kind} that has failed under "
                f"restart_policy='ExitCode', which {group.role} has. Leave it out, or write 'OnFailure'.",
                field="run_policy.ttl_seconds_after_finished",
            )


def _backoff_limit(limit: int | None) -> int | None:
    # The operator fails with the restart that reaches its limit, but for 0, which it takes for none at all.
    return limit if not limit else min(limit + 1, INT32)


def _scheduling_policy(policy: SchedulingPolicy | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    least = policy.min_resources
    if least is not None and least.shared_memory is not None:
        raise UnsupportedError(
            f"run_policy.scheduling_policy.min_resources.shared_memory={least.shared_memory!r}: no scheduler counts shared memory; "
            "it is part of memory. Leave it out.",
            field="run_policy.scheduling_policy.min_resources.shared_memory",
        )
    return _filled(
        minAvailable=policy.min_available,
        queue=policy.queue,
        minResources=resource_list(least),
        priorityClass=policy.priority_class,
        scheduleTimeoutSeconds=policy.schedule_timeout_seconds,
    )


def _requirements(job: Job, role: str) -> dict[str, Any]:
    requests, limits = resource_list(job.resources_requests(role)), resource_list(job.resources_limits(role))
    # Devices cannot be requested without the same limit, and a limit alone is a request as well.
    devices = {name: value for name, value in requests.items() if not _can_be_overcommitted(name)}
    return _filled(requests=requests, limits={**devices, **limits})


def _can_be_overcommitted(name: str) -> bool:
    return name in _NAMES.values() and name != _GPU


def shared_memory(job: Job, role: str) -> str | None:
    """
    The size of ``/dev/shm`` in the pods of a role; None for that of the container runtime.

    .. doctest::

        >>> from distrib import Job
        >>> shared_memory(Job("pytorch", worker=2, requests={"shared_memory": "8Gi"}), "worker")
        '8Gi'
    """
    for resources in (job.resources_limits(role), job.resources_requests(role)):
        if resources is not None and resources.shared_memory is not None:
            return resources.shared_memory
    return None


def _volumes(job: Job, role: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes, mounts = [], []
    for place, volume in enumerate(job.group(role).volumes):
        name = f"volume-{place}"
        volumes.append({"name": name, **_source(volume)})
        mounts.append(_filled(name=name, mountPath=volume.mount_path, subPath=volume.sub_path, readOnly=volume.read_only or None))
    size = shared_memory(job, role)
    if size is not None:
        volumes.append({"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory", "sizeLimit": size}})
        mounts.append({"name": SHARED_MEMORY, "mountPath": "/dev/shm"})  # noqa: S108  # the name of the device
    return volumes, mounts


def _source(volume: Volume) -> dict[str, Any]:
    return next(make(volume, value) for field, make in _SOURCES.items() if (value := getattr(volume, field)))


def _nfs(_volume: Volume, value: str) -> dict[str, Any]:
    server, _, path = value.partition(":")
    return {"nfs": {"server": server, "path": path}}


_SOURCES: Mapping[str, Callable[[Any, Any], dict[str, Any]]] = {
    "claim": lambda _, name: {"persistentVolumeClaim": {"claimName": name}},
    "nfs": _nfs,
    "config_map": lambda _, name: {"configMap": {"name": name}},
    "secret": lambda _, name: {"secret": {"secretName": name}},
    "empty_dir": lambda volume, _: {"emptyDir": _filled(sizeLimit=volume.size_limit)},
}


def _toleration(toleration: Toleration) -> dict[str, Any]:
    return _filled(
        key=toleration.key,
        operator=toleration.operator.value,
        value=toleration.value,
        effect=None if toleration.effect is None else toleration.effect.value,
        tolerationSeconds=toleration.toleration_seconds,
    )
