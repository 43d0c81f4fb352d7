"""
From a job to the processes it becomes: pure, and printable before anything starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from ..._cluster import REPLICA_VARIABLE, ClusterSpec, Replica, encode_cluster, encode_replica
from ...engine import Call, Plan
from ...errors import InvalidJobError, UnsupportedError
from .._rules import LONGEST_VARIABLE, check_lengths
from . import _devices
from ._options import LocalOptions
from ._preload import modules_to_preload
from ._process import check_variables

if TYPE_CHECKING:
    from ..._job import Job
    from ..._model import ReplicaGroup
    from ...backend import Backend

R_co = TypeVar("R_co", covariant=True)

# What a terminal can bear of a large plan.
_SHOWN = 20
_LONGEST_SHOWN = 2_000
_EXAMPLE_PORT = 20_000
_EXAMPLE_PORTS = 40_000


@attrs.frozen(kw_only=True)
class Process:
    """
    One replica as a process.

    Args:
        replica: Who it is.

        environment: The variables that it has and its siblings may not have.

        own: Variables that must be there from the process's very start; it cannot be forked then.
    """

    replica: Replica
    environment: Mapping[str, str]
    own: Mapping[str, str]


@attrs.frozen(kw_only=True, repr=False)
class LocalPlan(Plan[R_co]):
    """
    The processes of a job on this machine.

    Args:
        job: What is to run.

        call: The function and its arguments.

        options: The local engine's options.

        shared: Variables that all replicas have, besides those of this process.

        processes: The replicas, in the order of their ranks.

        preload: Modules that are imported once.

        unused: Fields of the job that have no meaning on this machine.
    """

    job: Job
    call: Call[R_co]
    options: LocalOptions
    shared: Mapping[str, str]
    processes: tuple[Process, ...]
    preload: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def coordinator(self) -> Replica:
        """
        The replica whose value is the result.
        """
        return next(process.replica for process in self.processes if process.replica.is_coordinator)

    def __str__(self) -> str:
        count = len(self.processes)
        lines = [f"{self.call.name}: {count} {'replica' if count == 1 else 'replicas'} of {self.job.framework} on this machine"]
        if self.preload:
            lines.append(f"  imported once: {', '.join(self.preload)}")
        remark = self.job.backend.remark(self.job)
        lines += [f"  {remark}"] if remark else []
        lines += [f"  {name}={value}" for name, value in self.shared.items()]
        for process in self.processes[:_SHOWN]:
            mark = " (coordinator)" if process.replica.is_coordinator else ""
            lines.append(f"{process.replica.name}{mark}")
            lines += [f"  {name}={_shortened(value)}" for name, value in {**process.own, **process.environment}.items()]
        if len(self.processes) > _SHOWN:
            lines.append(f"… and {len(self.processes) - _SHOWN} more, to {self.processes[-1].replica.name}; plan.processes has them all.")
        if self.unused:
            lines.append(f"Without effect on this machine: {', '.join(self.unused)}.")
        lines.append("The ports are examples: free ones are taken at the start.")
        return "\n".join(lines)


def _shortened(value: str) -> str:
    if len(value) <= _LONGEST_SHOWN:
        return value
    return f"{value[: _LONGEST_SHOWN // 2]} … {value[-_LONGEST_SHOWN // 4 :]} ({len(value):,} characters)"


def make_plan(job: Job, call: Call[R_co], options: LocalOptions) -> LocalPlan[R_co]:
    """
    Render *job* and *call* for this machine.

    Raises:
        UnsupportedError: The machine cannot honour a field.

        InvalidJobError: A variable is too long.
    """
    if job.run_policy.suspend:
        message = "run_policy.suspend=True: the local engine starts what it is given. Leave it out here."
        raise UnsupportedError(message, field="run_policy.suspend")
    check_variables(job)
    _check_size(job)
    backend = job.backend
    cluster = example_cluster(job)
    preload = modules_to_preload(call.function, backend.preload, options.preload, backend.name)
    shared, own = _base_environments(job, backend)
    return LocalPlan(
        job=job,
        call=call,
        options=options,
        shared=shared,
        processes=_processes(job, backend, cluster, own),
        # Not where each replica imports for itself in any case.
        preload=() if options.start_method == "spawn" or all(own.values()) else preload,
        unused=_unused(job),
    )


def with_cluster(plan: LocalPlan[R_co], cluster: ClusterSpec) -> LocalPlan[R_co]:
    """
    The same plan with other addresses.
    """
    own = {process.replica.role: process.own for process in plan.processes}
    return attrs.evolve(plan, processes=_processes(plan.job, plan.job.backend, cluster, own))


def example_cluster(job: Job) -> ClusterSpec:
    """
    Addresses to plan with: distinct, and the same for equal jobs.
    """
    places = (divmod(rank, _EXAMPLE_PORTS) for rank in range(job.world_size))
    return cluster_at(job, [f"127.0.0.{1 + host}:{_EXAMPLE_PORT + port}" for host, port in places])


def cluster_at(job: Job, addresses: Sequence[str]) -> ClusterSpec:
    """
    The cluster of *job*, its replicas at *addresses*, by rank.
    """
    rest = iter(addresses)
    return ClusterSpec({group.role: [next(rest) for _ in range(group.replicas)] for group in job.groups})


def _processes(job: Job, backend: Backend, cluster: ClusterSpec, own: Mapping[str, Mapping[str, str]]) -> tuple[Process, ...]:
    coordinator = backend.coordinator(cluster)
    devices = _deal_devices(job, cluster)
    cluster_json = encode_cluster(cluster)
    made = []
    for each in cluster.replicas:
        replica = attrs.evolve(each, is_coordinator=True) if each.rank == coordinator.rank else each
        environment = {**backend.environment(replica, cluster), **devices(replica)}
        environment[REPLICA_VARIABLE] = encode_replica(replica, cluster_json)
        check_lengths(environment, replica)
        made.append(Process(replica=replica, environment=environment, own=own[replica.role]))
    return tuple(made)


def _check_size(job: Job) -> None:
    # Said at once: a thousand million addresses would take all memory before one variable of them is made.
    most = LONGEST_VARIABLE // len('"127.0.0.1:1",')
    if job.world_size > most:
        role = max(job.groups, key=lambda group: group.replicas).role
        raise InvalidJobError(
            f"{role}: {job.world_size:,} replicas; each has a variable with the addresses of all, and the system takes "
            f"{LONGEST_VARIABLE:,} bytes for one: enough for {most:,} at most. Use fewer replicas.",
            field=role,
            value=job.world_size,
        )


def _base_environments(job: Job, backend: Backend) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """
    The variables for all replicas, and for each role those that only its replicas have from their start.
    """
    set_by_user = os.environ.keys() | job.env.keys()
    variables = [name for name in (_devices.THREADS_VARIABLE, *backend.thread_variables) if name not in set_by_user]
    available = _devices.cpu_count()
    counts = {group: str(_devices.threads(job.requested_cpu(group.role), job.world_size, available)) for group in job.groups}
    # What most replicas have is what all are forked with.
    most = max(counts.values(), key=lambda count: sum(group.replicas for group in job.groups if counts[group] == count))
    own = {group.role: {**(dict.fromkeys(variables, count) if count != most else {}), **group.env} for group, count in counts.items()}
    return {**dict.fromkeys(variables, most), **job.env}, own


def _deal_devices(job: Job, cluster: ClusterSpec) -> Callable[[Replica], dict[str, str]]:
    # A group that names its devices itself is given none.
    gpus = {group.role: job.requested_gpus(group.role) for group in job.groups if _devices.DEVICES_VARIABLE not in group.env}
    wanted = [(replica.name, gpus[replica.role]) for replica in cluster.replicas if replica.role in gpus]
    dealt = _devices.deal_devices(wanted, _devices.cuda_devices({**os.environ, **job.env}))
    return lambda replica: {_devices.DEVICES_VARIABLE: dealt[replica.name]} if replica.name in dealt else {}


_ONLY_ON_CLUSTERS = (
    "image",
    "node_selector",
    "tolerations",
    "affinity",
    "volumes",
    "labels",
    "annotations",
    "service_account",
    "pull_secrets",
    "priority_class",
)


def _unused(job: Job) -> tuple[str, ...]:
    places: list[tuple[str, Job | ReplicaGroup]] = [("", job), *((f"{group.role}.", group) for group in job.groups)]
    found = [f"{where}{name}" for where, holder in places for name in _ONLY_ON_CLUSTERS if getattr(holder, name, None)]
    found += [f"{where}{kind}.{name}" for where, holder in places for kind, name in _amounts_of(holder)]
    if job.run_policy.scheduling_policy is not None:
        found.append("run_policy.scheduling_policy")
    return tuple(found)


def _amounts_of(holder: Job | ReplicaGroup) -> Iterator[tuple[str, str]]:
    """
    The resources of a job or a group that nobody deals out here: all but processors and CUDA devices.
    """
    for kind in ("requests", "limits"):
        resources = getattr(holder, kind)
        if resources is not None:
            yield from ((kind, name) for name, _, _ in resources.amounts() if name not in ("cpu", "gpu"))
