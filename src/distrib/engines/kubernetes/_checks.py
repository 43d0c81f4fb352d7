"""
What is refused before anything is sent: because Kubernetes would refuse it, or would accept it and never finish it.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..._cluster import REPLICA_VARIABLE, encode_cluster, encode_replica
from ..._model import RestartPolicy
from ..._quantity import nano
from ..._refusal import refuse
from ...errors import UnsupportedError, did_you_mean
from ...manifests import resource_list, restart_policy, shared_memory
from .._rules import LONGEST_VARIABLE, check_lengths, length_of
from ._bootstrap import MOUNT, RESERVED, TERMINATION_LOG
from ._labels import ABOUT_ANNOTATION, RESERVED_LABELS, RESERVED_PREFIXES

if TYPE_CHECKING:
    from ..._job import Job
    from ..._model import ReplicaGroup, Resources
    from ._options import KubernetesOptions
    from ._orders import Orders
    from .workloads import Workload

#: The most pods that a Job has while all of them run.
MOST_REPLICAS = 100_000
#: The most that etcd takes as one object, less what the API server and controllers add to it.
LARGEST_OBJECT = 3 * 2**19 - 100 * 2**10
#: The most that the annotations of one object may have in all.
LARGEST_ANNOTATIONS = 256 * 2**10
#: How much longer an operator's own variable may be than ours of the same cluster.
_MORE = 256
_VARIABLE = r"[-._a-zA-Z][-._a-zA-Z0-9]*"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # the name of the device
_NODES, _PODS = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"


def check(job: Job, options: KubernetesOptions, workload: Workload) -> None:
    """
    Refuse a job that cannot run as it says.

    Raises:
        UnsupportedError: The workload, or Kubernetes, cannot honour a field.

        InvalidJobError: A field is wrong for Kubernetes.
    """
    workload.kind(job.backend)
    for group in job.groups:
        # Said at once: a thousand million addresses would take all memory.
        if group.replicas > MOST_REPLICAS:
            raise refuse(group.role, group.replicas, f"a Job of Kubernetes has {MOST_REPLICAS:,} pods at most; use fewer.")
    workload.check(job, options)
    _check_env("env", job.env)
    for group in job.groups:
        if job.image_of(group.role) is None and options.image is None:
            raise refuse(
                "image", None, "name the container image that has the program and distrib, e.g. image='registry.example.com/train:1'."
            )
        _check_group(job, group)


def check_objects(objects: tuple[dict[str, Any], ...]) -> None:
    """
    Refuse objects that are larger than Kubernetes takes.

    Raises:
        InvalidJobError: Says what is too large, and by how much.
    """
    for each in objects:
        size = len(json.dumps(each, ensure_ascii=False, separators=(",", ":")).encode())
        if size > LARGEST_OBJECT:
            raise refuse(
                each["kind"],
                size,
                f"so many bytes are more than the {LARGEST_OBJECT:,} that Kubernetes keeps; shorten env and annotations.",
            )


def check_cluster(job: Job, orders: Orders) -> None:
    """
    Refuse a cluster that no process can be told of, or whose coordinator would listen to two kinds of callers at one port.

    Raises:
        InvalidJobError: Says which variable would be too long, or which port is taken.
    """
    cluster = orders.spec
    ports = {address.rpartition(":")[2] for addresses in cluster.values() for address in addresses}
    if str(orders.control_port) in ports:
        raise refuse("kubernetes.control_port", orders.control_port, "replicas find each other at this port; name another one.")
    whole = encode_cluster(cluster)
    for group in job.groups:
        replica = orders.replica(group.role, group.replicas - 1)
        variables = {**job.backend.environment(replica, cluster), REPLICA_VARIABLE: encode_replica(replica, whole)}
        check_lengths(variables, replica, more=_MORE, remedy="Use fewer replicas, or shorter names for job and namespace.")


def _check_group(job: Job, group: ReplicaGroup) -> None:
    _check_env(f"{group.role}.env", group.env)
    _check_labels(group)
    _check_volumes(job, group)
    _check_affinity(group)
    for of in ("requests", "limits"):
        _check_huge_pages(job, group, of)
    if _ends_at_the_first_loss(job, group):
        raise UnsupportedError(
            f"{group.role}.restart_policy='Never': on Kubernetes the first replica that is lost would end the run, and this training "
            "is to go on without it. Leave it out, or write 'ExitCode'.",
            field=f"{group.role}.restart_policy",
        )


def _ends_at_the_first_loss(job: Job, group: ReplicaGroup) -> bool:
    needed = job.backend.needed(job)
    return needed is not None and needed < job.world_size and restart_policy(job, group.role) is RestartPolicy.NEVER


def _check_env(field: str, env: Mapping[str, str]) -> None:
    for name, value in env.items():
        where = f"{field}[{name!r}]"
        if name in RESERVED:
            raise refuse(where, value, "the Kubernetes engine sets this variable for each replica; leave it out.")
        if re.fullmatch(_VARIABLE, name) is None or name in (".", "..") or name.startswith(".."):
            message = (
                f"{where}: Kubernetes takes letters, digits, '_', '-' and '.', no digit first, in the names of variables. Use another one."
            )
            raise UnsupportedError(message, field=where)
        length = length_of(name, value)
        if length > LONGEST_VARIABLE:
            why = f"{length:,} bytes are more than the {LONGEST_VARIABLE:,} that the system takes; put it into a file."
            raise refuse(where, value, why)


def _check_labels(group: ReplicaGroup) -> None:
    for name, value in group.labels.items():
        if name.startswith(RESERVED_PREFIXES) or name in RESERVED_LABELS:
            raise refuse(f"{group.role}.labels[{name!r}]", value, "this label is set by whoever looks after the pods; use another one.")
    if ABOUT_ANNOTATION in group.annotations:
        why = "this annotation is set by the Kubernetes engine; use another one."
        raise refuse(f"{group.role}.annotations[{ABOUT_ANNOTATION!r}]", group.annotations[ABOUT_ANNOTATION], why)
    size = sum(len(name.encode()) + len(value.encode()) for name, value in group.annotations.items())
    if size > LARGEST_ANNOTATIONS:
        why = f"{size:,} bytes of annotations are more than the {LARGEST_ANNOTATIONS:,} that Kubernetes takes; shorten them."
        raise refuse(f"{group.role}.annotations", group.annotations, why)


def _check_volumes(job: Job, group: ReplicaGroup) -> None:
    size = shared_memory(job, group.role)
    if size is not None and nano(size) == 0:
        of = next(of for of in ("limits", "requests") if _has(getattr(job, f"resources_{of}")(group.role), "shared_memory"))
        field = _place(group, of, "shared_memory")
        raise UnsupportedError(f"{field}='0': Kubernetes has no way to take /dev/shm away. Leave it out, or give it a size.", field=field)
    taken: set[str] = set()
    for place, volume in enumerate(group.volumes):
        path = posixpath.normpath(volume.mount_path)
        field = f"{group.role}.volumes[{place}].mount_path"
        if path in taken:
            raise refuse(field, volume.mount_path, "another volume is mounted there already; mount it elsewhere.")
        taken.add(path)
        if path in ("/", "//"):
            raise refuse(field, volume.mount_path, "the image itself would be hidden; mount it at a folder.")
        for ours in (MOUNT, TERMINATION_LOG):
            # In an empty folder there is room for the place of the call, as there is for that of an account's token.
            has_room = ours == MOUNT and volume.empty_dir and not volume.read_only
            if f"{path}/".startswith(f"{ours}/") or (ours.startswith(f"{path}/") and not has_room):
                raise refuse(field, volume.mount_path, f"{ours} is the run's own; mount it elsewhere.")
        if path == _SHARED_MEMORY and size is not None:
            raise refuse(field, volume.mount_path, "shared_memory is mounted there; leave one of them out.")


def _check_affinity(group: ReplicaGroup) -> None:
    for kind, value in group.affinity.items():
        field = f"{group.role}.affinity.{kind}"
        if not isinstance(value, Mapping):
            raise refuse(field, value, "write a mapping.")
        for key in value:
            if key not in (_NODES, _PODS):
                # Operators' resources leave out what Kubernetes does not know, without a word.
                raise refuse(f"{field}.{key}", value[key], f"no such rule.{did_you_mean(key, (_NODES, _PODS))}")


def _check_huge_pages(job: Job, group: ReplicaGroup, of: str) -> None:
    amounts = resource_list(getattr(job, f"resources_{of}")(group.role))
    for name, amount in amounts.items():
        _, found, page = name.partition("hugepages-")
        if not found:
            continue
        field = _place(group, of, f"extended[{name!r}]")
        if nano(page) == 0 or nano(amount) % nano(page):
            raise refuse(field, amount, f"write a multiple of the page's size, {page}.")
        others = {**resource_list(job.resources_requests(group.role)), **resource_list(job.resources_limits(group.role))}
        if not {"cpu", "memory"} & set(others):
            raise refuse(field, amount, "Kubernetes gives huge pages only to those that ask for cpu or memory too; add either.")


def _has(resources: Resources | None, amount: str) -> bool:
    return resources is not None and amount in (path for path, _, _ in resources.amounts())


def _place(group: ReplicaGroup, of: str, amount: str) -> str:
    """
    Where users have written an amount: in the group, else in the job.
    """
    return f"{group.role}.{of}.{amount}" if _has(getattr(group, of), amount) else f"{of}.{amount}"
