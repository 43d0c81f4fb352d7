"""
What a job is made of: frozen values that are legal as soon as they exist.

Whatever is refused raises :class:`~distrib.errors.InvalidJobError` with the field, the value and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

import attrs

from . import _fields
from ._frozen import EMPTY
from ._quantity import nano
from ._refusal import refuse

__all__ = [
    "CleanPodPolicy",
    "ReplicaGroup",
    "Resources",
    "RestartPolicy",
    "RestartScope",
    "RunPolicy",
    "SchedulingPolicy",
    "SuccessPolicy",
    "TaintEffect",
    "Toleration",
    "TolerationOperator",
    "Volume",
]


class RestartPolicy(str, Enum):
    """
    When a replica that has ended is started again.
    """

    NEVER = "Never"
    #: When it failed, whatever its exit code.
    ON_FAILURE = "OnFailure"
    ALWAYS = "Always"
    #: When it failed with an exit code of 128 or more: a signal, or 138 for :class:`~distrib.errors.RetryableError`.
    EXIT_CODE = "ExitCode"


class RestartScope(str, Enum):
    """
    Who is started again when one replica is.
    """

    REPLICA = "Replica"
    #: Everybody: in synchronous training one replica alone cannot join the others again.
    JOB = "Job"


class CleanPodPolicy(str, Enum):
    """
    What is removed once the run is over.
    """

    #: Replicas that still run; those that have ended are kept, with their logs.
    RUNNING = "Running"
    ALL = "All"
    NONE = "None"


class SuccessPolicy(str, Enum):
    """
    When a run without a chief has succeeded.
    """

    #: When worker 0 has.
    DEFAULT = ""
    ALL_WORKERS = "AllWorkers"


class TolerationOperator(str, Enum):
    """
    How a toleration matches a taint.
    """

    EQUAL = "Equal"
    EXISTS = "Exists"


class TaintEffect(str, Enum):
    """
    What a taint does to replicas that do not tolerate it.
    """

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


def _shows_what_is_set(self: Any) -> str:
    """
    The value as it would be written: without the fields that are at their defaults.
    """
    fields = [(field, getattr(self, field.name)) for field in attrs.fields(type(self))]
    shown = [f"{field.name}={_written(value)}" for field, value in fields if field.default is attrs.NOTHING or value != field.default]
    return f"{type(self).__name__}({', '.join(shown)})"


def _written(value: Any) -> str:
    return repr(value.value if isinstance(value, Enum) else value)


@attrs.frozen(kw_only=True, repr=False, field_transformer=_fields.named)
class Resources:
    """
    What one replica is given.

    Amounts are numbers or Kubernetes quantities, and are stored in Kubernetes' canonical form.

    Args:
        cpu: Cores, e.g. ``2`` or ``"500m"``; thousandths are the finest, and rounded up to.

        memory: Bytes, e.g. ``"4Gi"``.

        gpu: Whole GPUs; on Kubernetes ``nvidia.com/gpu``.

        ephemeral_storage: Bytes on the node's own disk.

        shared_memory: The size of ``/dev/shm`` in bytes.

        extended: Everything else by its full name, e.g. ``{"rdma/hca": 1}``.

    .. doctest::

        >>> from distrib import Resources
        >>> Resources(cpu=0.5, memory="2048Mi", gpu=1)
        Resources(cpu='500m', memory='2Gi', gpu=1)
    """

    cpu: str | None = attrs.field(default=None, converter=_fields.size)
    memory: str | None = attrs.field(default=None, converter=_fields.size)
    gpu: int | None = attrs.field(default=None, converter=_fields.devices)
    ephemeral_storage: str | None = attrs.field(default=None, converter=_fields.size)
    shared_memory: str | None = attrs.field(default=None, converter=_fields.size)
    extended: Mapping[str, str] = attrs.field(default=EMPTY, converter=_fields.sizes)

    __repr__ = _shows_what_is_set

    def __attrs_post_init__(self) -> None:
        if "nvidia.com/gpu" in self.extended:
            raise refuse("extended['nvidia.com/gpu']", self.extended["nvidia.com/gpu"], "write gpu= instead.")

    def amounts(self) -> Iterator[tuple[str, str, bool]]:
        """
        Each amount that is set: the field's path, the quantity, and whether it is of devices, which cannot be overcommitted.
        """
        for field in _AMOUNTS:
            value = getattr(self, field)
            if value is not None:
                yield field, str(value), field == "gpu"
        for key, value in self.extended.items():
            yield f"extended[{key!r}]", value, True

    def over(self, other: Resources | None) -> Resources:
        """
        These resources, with what they leave open taken from *other*.

        >>> Resources(cpu=1).over(Resources(cpu=8, memory="1Gi"))
        Resources(cpu='1', memory='1Gi')
        """
        if other is None:
            return self
        own = {field: value for field in _AMOUNTS if (value := getattr(self, field)) is not None}
        return attrs.evolve(other, **own, extended={**other.extended, **self.extended})


_AMOUNTS = ("cpu", "memory", "gpu", "ephemeral_storage", "shared_memory")


def check_requests(requests: Resources | None, limits: Resources | None) -> None:
    """
    Refuse requests beyond their limits, and requests of devices that differ from them, as Kubernetes does.
    """
    if requests is None or limits is None:
        return
    bounds = {field: limit for field, limit, _ in limits.amounts()}
    for field, request, devices in requests.amounts():
        limit = bounds.get(field)
        if limit is None:
            continue
        if nano(request) > nano(limit):
            raise refuse(f"requests.{field}", request, f"more than limits.{field}={limit!r}; raise the limit or lower the request.")
        if devices and nano(request) != nano(limit):
            raise refuse(f"requests.{field}", request, f"devices cannot be shared; write the same as limits.{field}={limit!r}.")


def optional_resources(value: Resources | Mapping[str, Any] | None) -> Resources | None:
    return None if value is None else _fields.build(Resources, value)


def _operator(value: TolerationOperator | str) -> TolerationOperator:
    return _fields.word(TolerationOperator, value)


def _effect(value: TaintEffect | str | None) -> TaintEffect | None:
    return None if value is None else _fields.word(TaintEffect, value)


@attrs.frozen(kw_only=True, repr=False, field_transformer=_fields.named)
class Toleration:
    """
    A taint of nodes that replicas put up with.

    Args:
        key: The taint's key; None, with the operator ``Exists``, for all.

        operator: ``Equal``: key and value match; ``Exists``: the key does.

        value: The taint's value.

        effect: ``NoSchedule``, ``PreferNoSchedule`` or ``NoExecute``; None for all.

        toleration_seconds: How long ``NoExecute`` is put up with; None for ever.

    .. doctest::

        >>> from distrib import Toleration
        >>> Toleration(key="nvidia.com/gpu", operator="exists", effect="NoSchedule")
        Toleration(key='nvidia.com/gpu', operator='Exists', effect='NoSchedule')
    """

    key: str | None = attrs.field(default=None, converter=_fields.label_key)
    operator: TolerationOperator = attrs.field(default=TolerationOperator.EQUAL, converter=_operator)
    value: str | None = attrs.field(default=None, converter=_fields.label_value)
    effect: TaintEffect | None = attrs.field(default=None, converter=_effect)
    toleration_seconds: int | None = attrs.field(default=None, converter=_fields.optional_count)

    __repr__ = _shows_what_is_set

    def __attrs_post_init__(self) -> None:
        if self.key is None and self.operator is not TolerationOperator.EXISTS:
            raise refuse("key", None, "name the taint's key, or write operator='Exists' to tolerate all.")
        if self.value and self.operator is TolerationOperator.EXISTS:
            raise refuse("value", self.value, "operator='Exists' looks at the key only; leave the value out.")
        if self.toleration_seconds is not None and self.effect is not TaintEffect.NO_EXECUTE:
            raise refuse("toleration_seconds", self.toleration_seconds, "only effect='NoExecute' takes a time.")


#: The fields of Volume that say what is mounted.
_SOURCES = ("claim", "nfs", "config_map", "secret", "empty_dir")


@attrs.frozen(kw_only=True, repr=False, field_transformer=_fields.named)
class Volume:
    """
    What is mounted, and where. Exactly one of *claim*, *nfs*, *config_map*, *secret* and *empty_dir* is given.

    Args:
        mount_path: Where the replica finds it.

        claim: The name of a persistent volume claim.

        nfs: ``"server:/exported/path"``.

        config_map: The name of a ConfigMap.

        secret: The name of a Secret.

        empty_dir: True for a folder that is empty at first and goes with the replica.

        size_limit: The most that an *empty_dir* may hold.

        sub_path: The part of the volume to mount; None for all of it.

        read_only: Whether replicas may not write to it.

    .. doctest::

        >>> from distrib import Volume
        >>> Volume(mount_path="/data", claim="datasets", read_only=True)
        Volume(mount_path='/data', claim='datasets', read_only=True)
    """

    mount_path: str = attrs.field(converter=_fields.mount_path)
    claim: str | None = attrs.field(default=None, converter=_fields.subdomain)
    nfs: str | None = attrs.field(default=None, converter=_fields.nfs)
    config_map: str | None = attrs.field(default=None, converter=_fields.subdomain)
    secret: str | None = attrs.field(default=None, converter=_fields.subdomain)
    empty_dir: bool = attrs.field(default=False, converter=_fields.flag)
    size_limit: str | None = attrs.field(default=None, converter=_fields.size)
    sub_path: str | None = attrs.field(default=None, converter=_fields.sub_path)
    read_only: bool = attrs.field(default=False, converter=_fields.flag)

    __repr__ = _shows_what_is_set

    def __attrs_post_init__(self) -> None:
        given = [source for source in _SOURCES if getattr(self, source)]
        if len(given) != 1:
            raise refuse("mount_path", self.mount_path, f"give exactly one of {', '.join(_SOURCES)}, not {' and '.join(given) or 'none'}.")
        if self.size_limit is not None and not self.empty_dir:
            raise refuse("size_limit", self.size_limit, f"only empty_dir takes a size, not {given[0]}.")


def _restart_policy(value: RestartPolicy | str | None) -> RestartPolicy | None:
    return None if value is None else _fields.word(RestartPolicy, value)


def _tolerations(value: Iterable[Toleration | Mapping[str, Any]]) -> tuple[Toleration, ...]:
    return _fields.sequence(lambda item: _fields.build(Toleration, item), value)


def _volumes(value: Iterable[Volume | Mapping[str, Any]]) -> tuple[Volume, ...]:
    volumes = _fields.sequence(lambda item: _fields.build(Volume, item), value)
    taken: set[str] = set()
    for place, volume in enumerate(volumes):
        if volume.mount_path in taken:
            raise refuse(f"[{place}].mount_path", volume.mount_path, "two volumes cannot be mounted at one place.")
        taken.add(volume.mount_path)
    return volumes


_AFFINITIES = ("nodeAffinity", "podAffinity", "podAntiAffinity")


def _affinity(value: Mapping[str, Any]) -> Mapping[str, Any]:
    affinity = _fields.plain(value)
    for key in affinity:
        if key not in _AFFINITIES:
            raise refuse(_fields.as_path(key), affinity[key], f"no kind of affinity.{_fields.nearest(key, _AFFINITIES)}")
    return affinity


def _role(value: str) -> str:
    return _fields.name("label", value) if value != "" else ""


@attrs.frozen(kw_only=True, repr=False, field_transformer=_fields.named)
class ReplicaGroup:
    """
    All replicas of one role, and what they need. What is left open is taken from the job.

    Args:
        role: E.g. ``"worker"``; may be left out where the group is given under its role's name, as in ``worker=ReplicaGroup(replicas=2)``.

        replicas: How many; 0 means that there is no such group.

        image: The container image.

        requests: What each replica is sure to be given.

        limits: What each replica may use at most.

        restart_policy: When a replica that has ended is started again; None: never; on Kubernetes ``ExitCode`` for elastic
            training that goes on with fewer nodes.

        env: Environment variables, over those of the job.

        node_selector: Labels that a node must have.

        tolerations: Taints of nodes that the replicas put up with.

        affinity: Kubernetes' own ``affinity``, in its own words.

        volumes: What is mounted.

        service_account: The Kubernetes service account.

        pull_secrets: The names of Secrets that the image is pulled with.

        priority_class: The Kubernetes priority class.

        labels: Labels of the pods.

        annotations: Annotations of the pods.

    .. doctest::

        >>> from distrib import ReplicaGroup
        >>> ReplicaGroup(role="worker", replicas=2, requests={"cpu": 4}, restart_policy="on_failure")
        ReplicaGroup(role='worker', replicas=2, requests=Resources(cpu='4'), restart_policy='OnFailure')
    """

    role: str = attrs.field(default="", converter=_role)
    replicas: int = attrs.field(default=1, converter=_fields.count)
    image: str | None = attrs.field(default=None, converter=_fields.image)
    requests: Resources | None = attrs.field(default=None, converter=optional_resources)
    limits: Resources | None = attrs.field(default=None, converter=optional_resources)
    restart_policy: RestartPolicy | None = attrs.field(default=None, converter=_restart_policy)
    env: Mapping[str, str] = attrs.field(default=EMPTY, converter=_fields.environment)
    node_selector: Mapping[str, str] = attrs.field(default=EMPTY, converter=_fields.label_map)
    tolerations: tuple[Toleration, ...] = attrs.field(default=(), converter=_tolerations)
    affinity: Mapping[str, Any] = attrs.field(default=EMPTY, converter=_affinity)
    volumes: tuple[Volume, ...] = attrs.field(default=(), converter=_volumes)
    service_account: str | None = attrs.field(default=None, converter=_fields.subdomain)
    pull_secrets: tuple[str, ...] = attrs.field(default=(), converter=_fields.subdomains)
    priority_class: str | None = attrs.field(default=None, converter=_fields.subdomain)
    labels: Mapping[str, str] = attrs.field(default=EMPTY, converter=_fields.label_map)
    annotations: Mapping[str, str] = attrs.field(default=EMPTY, converter=_fields.annotation_map)

    __repr__ = _shows_what_is_set

    def __attrs_post_init__(self) -> None:
        check_requests(self.requests, self.limits)


@attrs.frozen(kw_only=True, repr=False, field_transformer=_fields.named)
class SchedulingPolicy:
    """
    How the run's replicas are scheduled together, by Volcano or the scheduler plug-ins.

    Args:
        min_available: How many replicas must fit before any is started; None for all of them.

        queue: The scheduler's queue.

        min_resources: What must be free before any is started.

        priority_class: The priority class of the group.

        schedule_timeout_seconds: How long to wait for room.
    """

    min_available: int | None = attrs.field(default=None, converter=_fields.positive)
    queue: str | None = attrs.field(default=None, converter=_fields.subdomain)
    min_resources: Resources | None = attrs.field(default=None, converter=optional_resources)
    priority_class: str | None = attrs.field(default=None, converter=_fields.subdomain)
    schedule_timeout_seconds: int | None = attrs.field(default=None, converter=_fields.positive)

    __repr__ = _shows_what_is_set


def _clean_pod_policy(value: CleanPodPolicy | str) -> CleanPodPolicy:
    return _fields.word(CleanPodPolicy, value)


def _success_policy(value: SuccessPolicy | str | None) -> SuccessPolicy | None:
    return None if value is None else _fields.word(SuccessPolicy, value)


def _restart_scope(value: RestartScope | str) -> RestartScope:
    return _fields.word(RestartScope, value)


def _scheduling_policy(value: SchedulingPolicy | Mapping[str, Any] | None) -> SchedulingPolicy | None:
    return None if value is None else _fields.build(SchedulingPolicy, value)


@attrs.frozen(kw_only=True, repr=False, field_transformer=_fields.named)
class RunPolicy:
    """
    What becomes of a run: when it is over, when it is tried again, and what is left of it.

    Args:
        clean_pod_policy: What is removed once the run is over.

        ttl_seconds_after_finished: For how many seconds it can be found when it is over; None for as long as its history is kept.

        active_deadline_seconds: How long it may take, 1 or more; None for any time.

        backoff_limit: How often replicas may be started again, in all; 0 fails with the first that would be, None sets no limit.

        success_policy: When a run without a chief has succeeded; None: when all workers have. With a chief, it decides.

        restart_scope: Whether the failed replica alone is started again, or the whole group.

        suspend: Whether to submit it without starting anything, for a queue to release.

        scheduling_policy: How its replicas are scheduled together.

    .. doctest::

        >>> from distrib import RunPolicy
        >>> RunPolicy(backoff_limit=3, clean_pod_policy="all")
        RunPolicy(clean_pod_policy='All', backoff_limit=3)
    """

    clean_pod_policy: CleanPodPolicy = attrs.field(default=CleanPodPolicy.RUNNING, converter=_clean_pod_policy)
    ttl_seconds_after_finished: int | None = attrs.field(default=None, converter=_fields.optional_count)
    active_deadline_seconds: int | None = attrs.field(default=None, converter=_fields.deadline)
    backoff_limit: int | None = attrs.field(default=None, converter=_fields.optional_count)
    success_policy: SuccessPolicy | None = attrs.field(default=None, converter=_success_policy)
    restart_scope: RestartScope = attrs.field(default=RestartScope.REPLICA, converter=_restart_scope)
    suspend: bool = attrs.field(default=False, converter=_fields.flag)
    scheduling_policy: SchedulingPolicy | None = attrs.field(default=None, converter=_scheduling_policy)

    __repr__ = _shows_what_is_set
