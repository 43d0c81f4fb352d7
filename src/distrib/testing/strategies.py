"""
Hypothesis strategies for jobs and all that they are made of. Each draws every field, so that none is forgotten in a round trip.

.. doctest::

    >>> from hypothesis import given
    >>> from distrib import Job
    >>> from distrib.testing.strategies import jobs
    >>> @given(jobs("tensorflow"))
    ... def test_a_job_is_equal_to_its_copy(job: Job) -> None:
    ...     assert job.evolve() == job
    >>> test_a_job_is_equal_to_its_copy()
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import attrs
from hypothesis import reject
from hypothesis import strategies as st

from .._cluster import ClusterSpec
from .._converter import to_plain
from .._job import Job
from .._model import (
    CleanPodPolicy,
    ReplicaGroup,
    Resources,
    RestartPolicy,
    RestartScope,
    RunPolicy,
    SchedulingPolicy,
    SuccessPolicy,
    TaintEffect,
    Toleration,
    TolerationOperator,
    Volume,
)
from .._registry import engine_names, get_backend, get_engine
from ..backend import Backend
from ..errors import InvalidJobError, UnknownEngineError

__all__ = [
    "cluster_specs",
    "job_keywords",
    "jobs",
    "option_keywords",
    "quantities",
    "replica_groups",
    "resources",
    "run_policies",
    "scheduling_policies",
    "tolerations",
    "volumes",
]

T = TypeVar("T")
Amount = str | int | float | Decimal

_MOST_REPLICAS = 5
_SECONDS = st.integers(1, 10**6)
_LETTERS_AND_DIGITS = string.ascii_lowercase + string.digits

#: Requests are drawn up to this size, limits from it on, so that any request goes with any limit.
_MIDDLE = 2**40

_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi")
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P")
_EXPONENTS = st.builds("{}{}".format, st.sampled_from("eE"), st.integers(-12, 15))

# Names are made of one draw each: a job has dozens of them.
_plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_labels = st.text(_LETTERS_AND_DIGITS, max_size=10).map("x{}".format)
_names = _labels.map(lambda label: ".".join(label[place : place + 4] for place in range(0, len(label), 4)))
_keys = _labels.map(lambda label: f"{label[:3]}.example/{label}" if len(label) % 2 else label)
_paths = _labels.map(lambda label: "/" + "/".join(label[place : place + 4] for place in range(0, len(label), 4)))
_images = _labels.map(lambda label: f"registry.example/{label}:{len(label)}")
_variables = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="), min_size=1, max_size=12)
_variables = _variables.filter(lambda name: not name.startswith("DISTRIB_"))
_envs = st.dictionaries(_variables, _plain_text, max_size=3)
_plain_data: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | _plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_plain_text, inner, max_size=3),
    max_leaves=5,
)


def _maybe(values: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | values


_fractions = st.builds("{}.{}".format, st.integers(0, 999), st.text(string.digits, max_size=10))
_suffixes = st.sampled_from((*_BINARY, *_DECIMAL)) | _EXPONENTS
_quantities: st.SearchStrategy[Amount] = st.one_of(
    st.builds("{}{}".format, st.integers(0, 8_000).map(str) | _fractions, _suffixes),
    st.integers(0, 2**63 - 1),
    st.floats(0, 2.0**62),
    st.decimals(0, 2**62, places=3),
)


def quantities() -> st.SearchStrategy[Amount]:
    """
    Kubernetes quantities of 0 or more in every form that may be written: texts of all three kinds, numbers, decimals.

    .. doctest::

        >>> from hypothesis import find
        >>> from distrib import Resources
        >>> Resources(memory=find(quantities(), lambda amount: str(amount).endswith("Gi")))
        Resources(memory='0')
    """
    return _quantities


#: What one job has: wherever devices are asked for it is the same number, since they cannot be overcommitted.
_DEVICES = (
    Resources(gpu=1),
    Resources(gpu=0, extended={"rdma/hca": 1}),
    Resources(gpu=8, extended={"amd.com/gpu": 2, "hugepages-2Mi": "64Mi"}),
)
_devices = st.sampled_from(_DEVICES)


def resources() -> st.SearchStrategy[Resources]:
    """
    Resources of any size.

    .. doctest::

        >>> from hypothesis import given, settings
        >>> @settings(max_examples=10)
        ... @given(resources())
        ... def test_devices_are_whole(drawn: Resources) -> None:
        ...     assert drawn.gpu in (None, 0, 1, 8)
        >>> test_devices_are_whole()
    """
    return _devices.flatmap(lambda devices: _resources(quantities(), devices))


def _resources(amounts: st.SearchStrategy[Amount], devices: Resources) -> st.SearchStrategy[Resources]:
    """
    Resources of *amounts*, with some or all of *devices*.
    """
    extended = st.lists(st.sampled_from(sorted(devices.extended)), unique=True) if devices.extended else st.just([])
    return st.builds(
        Resources,
        cpu=_maybe(amounts),
        memory=_maybe(amounts),
        gpu=st.sampled_from([None, devices.gpu]),
        ephemeral_storage=_maybe(amounts),
        shared_memory=_maybe(amounts),
        extended=extended.map(lambda keys: {key: devices.extended[key] for key in keys}),
    )


# A strategy costs far more to make than to draw from, so those that jobs are drawn from are made once.


@cache
def _requests(devices: Resources) -> st.SearchStrategy[Resources | None]:
    return _maybe(_resources(st.integers(0, _MIDDLE) | st.integers(0, _MIDDLE * 1000).map("{}m".format), devices))


@cache
def _limits(devices: Resources) -> st.SearchStrategy[Resources | None]:
    return _maybe(_resources(st.integers(_MIDDLE, 2**63 - 1) | st.integers(1, 1000).map("{}Ti".format), devices))


@st.composite
def tolerations(draw: st.DrawFn) -> Toleration:
    """
    Tolerations of taints of nodes.

    .. doctest::

        >>> from hypothesis import find
        >>> find(tolerations(), lambda toleration: toleration.toleration_seconds is not None).effect.value
        'NoExecute'
    """
    operator = draw(st.sampled_from(TolerationOperator))
    exists = operator is TolerationOperator.EXISTS
    effect = draw(_maybe(st.sampled_from(TaintEffect)))
    return Toleration(
        key=draw(_maybe(_keys) if exists else _keys),
        operator=operator,
        value=None if exists else draw(_maybe(_labels)),
        effect=effect,
        toleration_seconds=draw(_maybe(st.integers(0, 3600))) if effect is TaintEffect.NO_EXECUTE else None,
    )


_SOURCES: dict[str, st.SearchStrategy[Any]] = {
    "claim": _names,
    "nfs": _paths.map("server:{}".format),
    "config_map": _names,
    "secret": _names,
    "empty_dir": st.just(True),
}


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """
    Volumes from every source.

    .. doctest::

        >>> from hypothesis import find
        >>> find(volumes(), lambda volume: volume.empty_dir)
        Volume(mount_path='/x', empty_dir=True)
    """
    source = draw(st.sampled_from(sorted(_SOURCES)))
    given: dict[str, Any] = {source: draw(_SOURCES[source])}
    if source == "empty_dir":
        given["size_limit"] = draw(_maybe(quantities()))
    return Volume(mount_path=draw(_paths), sub_path=draw(_maybe(_labels)), read_only=draw(st.booleans()), **given)


def replica_groups(role: str = "worker", *, at_least: int = 0, at_most: int = _MOST_REPLICAS) -> st.SearchStrategy[ReplicaGroup]:
    """
    Groups of one role.

    Args:
        role: The role.

        at_least: The fewest replicas.

        at_most: The most replicas.

    .. doctest::

        >>> from hypothesis import given, settings
        >>> @settings(max_examples=10)
        ... @given(replica_groups("ps", at_least=1, at_most=2))
        ... def test_one_or_two(group: ReplicaGroup) -> None:
        ...     assert group.role == "ps" and group.replicas in (1, 2)
        >>> test_one_or_two()
    """
    replicas = st.integers(at_least, at_most)
    return st.builds(lambda group, replicas: attrs.evolve(group, role=role, replicas=replicas), _devices.flatmap(_groups), replicas)


@cache
def _groups(devices: Resources) -> st.SearchStrategy[ReplicaGroup]:
    """
    Groups of no role yet.
    """
    affinities = st.sampled_from(["nodeAffinity", "podAffinity", "podAntiAffinity"])
    return st.builds(
        ReplicaGroup,
        image=_maybe(_images),
        requests=_requests(devices),
        limits=_limits(devices),
        restart_policy=_maybe(st.sampled_from(RestartPolicy)),
        env=_envs,
        node_selector=st.dictionaries(_keys, _labels, max_size=2),
        tolerations=st.lists(tolerations(), max_size=2),
        affinity=st.dictionaries(affinities, st.dictionaries(_labels, _plain_data, max_size=2), max_size=2),
        volumes=st.lists(volumes(), max_size=2, unique_by=lambda volume: volume.mount_path),
        service_account=_maybe(_names),
        pull_secrets=st.lists(_names, max_size=2),
        priority_class=_maybe(_names),
        labels=st.dictionaries(_keys, _labels, max_size=2),
        annotations=st.dictionaries(_keys, _plain_text, max_size=2),
    )


def scheduling_policies(*, world_size: int = 1) -> st.SearchStrategy[SchedulingPolicy]:
    """
    Scheduling policies that wait for *world_size* replicas at most.

    .. doctest::

        >>> from hypothesis import given, settings
        >>> @settings(max_examples=10)
        ... @given(scheduling_policies(world_size=2))
        ... def test_nobody_is_waited_for_who_never_comes(policy: SchedulingPolicy) -> None:
        ...     assert policy.min_available in (None, 1, 2)
        >>> test_nobody_is_waited_for_who_never_comes()
    """
    return _scheduling_policies(world_size)


@cache
def _scheduling_policies(world_size: int) -> st.SearchStrategy[SchedulingPolicy]:
    return st.builds(
        SchedulingPolicy,
        min_available=_maybe(st.integers(1, world_size)),
        queue=_maybe(_names),
        min_resources=_maybe(resources()),
        priority_class=_maybe(_names),
        schedule_timeout_seconds=_maybe(_SECONDS),
    )


def run_policies(*, world_size: int = 1) -> st.SearchStrategy[RunPolicy]:
    """
    Run policies of jobs with *world_size* replicas.

    .. doctest::

        >>> from hypothesis import given, settings
        >>> @settings(max_examples=10)
        ... @given(run_policies())
        ... def test_deadlines_are_ahead(policy: RunPolicy) -> None:
        ...     assert policy.active_deadline_seconds is None or policy.active_deadline_seconds > 0
        >>> test_deadlines_are_ahead()
    """
    return _run_policies(world_size)


@cache
def _run_policies(world_size: int) -> st.SearchStrategy[RunPolicy]:
    return st.builds(
        RunPolicy,
        clean_pod_policy=st.sampled_from(CleanPodPolicy),
        ttl_seconds_after_finished=_maybe(st.integers(0, 10**6)),
        active_deadline_seconds=_maybe(_SECONDS),
        backoff_limit=_maybe(st.integers(0, 10)),
        success_policy=_maybe(st.sampled_from(SuccessPolicy)),
        restart_scope=st.sampled_from(RestartScope),
        suspend=st.booleans(),
        scheduling_policy=_maybe(scheduling_policies(world_size=world_size)),
    )


def jobs(backend: Backend | str, *, bare: bool = False) -> st.SearchStrategy[Job]:
    """
    Legal jobs of a backend that is installed: within the bounds of its roles, with any of its options.

    Args:
        backend: The backend, or its name.

        bare: Leave all else at its default, which is much faster.

    .. doctest::

        >>> from hypothesis import find
        >>> find(jobs("tensorflow", bare=True), lambda job: job.world_size == 3).world_size
        3
    """
    return _jobs(backend, bare=bare)


@st.composite
def _jobs(draw: st.DrawFn, which: Backend | str, *, bare: bool) -> Job:
    backend = _found(which)
    options = draw(_options(backend))
    counts = draw(_counts(backend))
    # What goes with what, the backend alone knows.
    tries = ((counts, options), (backend.replicas(options), options), (counts, None))
    legal = next((each for each in tries if _is_legal(backend, *each)), None) or reject()
    try:
        return Job(**draw(_bare(backend, *legal) if bare else _keywords(backend, *legal)))
    except InvalidJobError:
        return reject()


def job_keywords(backend: Backend | str) -> st.SearchStrategy[dict[str, Any]]:
    """
    Keywords of :class:`~distrib.Job` that only the backend's own ``validate`` may still refuse: each is right by itself,
    and the counts are within the bounds of the roles.

    Args:
        backend: The backend, or its name.

    .. doctest::

        >>> from hypothesis import given, settings
        >>> @settings(max_examples=10)
        ... @given(job_keywords("jax"))
        ... def test_any_of_them_make_a_job_of_jax(keywords: dict[str, Any]) -> None:
        ...     assert Job(**keywords).framework == "jax"
        >>> test_any_of_them_make_a_job_of_jax()
    """
    return _job_keywords(backend)


@st.composite
def _job_keywords(draw: st.DrawFn, which: Backend | str) -> dict[str, Any]:
    backend = _found(which)
    return draw(_keywords(backend, draw(_counts(backend)), draw(_options(backend))))


@st.composite
def _keywords(draw: st.DrawFn, backend: Backend, counts: Mapping[str, int], options: Any) -> dict[str, Any]:
    devices = draw(_devices)
    envs = _envs.filter(lambda env: not any(variable in env for variable in backend.reserved))
    groups = _groups(devices)
    return {
        "framework": backend.name,
        "groups": [attrs.evolve(draw(groups), role=role, replicas=replicas, env=draw(envs)) for role, replicas in counts.items()],
        "options": options,
        "run_policy": draw(run_policies(world_size=max(1, sum(counts.values())))),
        "image": draw(_maybe(_images)),
        "env": draw(envs),
        "requests": draw(_requests(devices)),
        "limits": draw(_limits(devices)),
        "name": draw(_maybe(_labels)),
        "engine": draw(_maybe(st.sampled_from(_sound_engines()))),
        "engine_options": draw(_engine_options()),
    }


def _bare(backend: Backend, counts: Mapping[str, int], options: Any) -> st.SearchStrategy[dict[str, Any]]:
    groups = [ReplicaGroup(role=role, replicas=count) for role, count in counts.items()]
    return st.just({"framework": backend.name, "groups": groups, "options": options})


@st.composite
def _options(draw: st.DrawFn, backend: Backend) -> Any:
    return None if backend.options is None else backend.options(**draw(option_keywords(backend.options)))


def cluster_specs(backend: Backend | str) -> st.SearchStrategy[ClusterSpec]:
    """
    Clusters of a backend that is installed: legal counts of its roles, at distinct addresses.

    Args:
        backend: The backend, or its name.

    .. doctest::

        >>> from hypothesis import given, settings
        >>> @settings(max_examples=10)
        ... @given(cluster_specs("jax"))
        ... def test_ranks_count_all(cluster: ClusterSpec) -> None:
        ...     assert [replica.rank for replica in cluster.replicas] == list(range(cluster.world_size))
        >>> test_ranks_count_all()
    """
    return _cluster_specs(backend)


@st.composite
def _cluster_specs(draw: st.DrawFn, which: Backend | str) -> ClusterSpec:
    counts = draw(_legal_counts(_found(which)))
    world_size = sum(counts.values())
    addresses = st.builds("{}:{}".format, _names, st.integers(1, 65535))
    at = iter(draw(st.lists(addresses, min_size=world_size, max_size=world_size, unique=True)))
    return ClusterSpec({role: [next(at) for _ in range(replicas)] for role, replicas in counts.items()})


def _found(backend: Backend | str) -> Backend:
    # Looked up when something is drawn, not when tests are collected.
    return get_backend(backend) if isinstance(backend, str) else backend


@st.composite
def _counts(draw: st.DrawFn, which: Backend | str) -> dict[str, int]:
    """
    Role -> replicas, within the bounds.
    """
    counts = {}
    for role in _found(which).roles:
        most = _MOST_REPLICAS if role.at_most is None else min(role.at_most, _MOST_REPLICAS)
        counts[role.name] = draw(st.integers(role.at_least, max(role.at_least, most)))
    return counts


@st.composite
def _legal_counts(draw: st.DrawFn, backend: Backend) -> dict[str, int]:
    """
    Role -> replicas, as the backend likes it.
    """
    counts = draw(_counts(backend))
    if not _is_legal(backend, counts, None):
        reject()
    return counts


def _is_legal(backend: Backend, counts: Mapping[str, int], options: Any) -> bool:
    groups = [ReplicaGroup(role=role, replicas=count) for role, count in counts.items()]
    try:
        Job(backend.name, groups=groups, options=options)
    except InvalidJobError:
        return False
    return True


@st.composite
def _engine_options(draw: st.DrawFn) -> Mapping[str, Mapping[str, Any]]:
    names = draw(st.lists(st.sampled_from(_sound_engines()), unique=True))
    return {name: draw(option_keywords(get_engine(name).options)) for name in names}


def _sound_engines() -> list[str]:
    """
    The engines that can be loaded: a package that is broken spoils its own name only.
    """
    return [name for name in engine_names() if _loads(name)]


def _loads(engine: str) -> bool:
    try:
        get_engine(engine)
    except UnknownEngineError:
        return False
    return True


#: Types whose whole range no options class means.
_TAMED: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 20),
    float: st.integers(0, 20).map(float),
    str: _labels,
    Any: _plain_data,
}


def option_keywords(kind: type) -> st.SearchStrategy[dict[str, Any]]:
    """
    Keywords of an options class, of a backend or of an engine: those it needs, and any of the others, with values that it takes.

    Where the type of a field does not tell what it takes, the field gives examples:
    ``attrs.field(metadata={"examples": ("fork", "spawn")})``.

    Args:
        kind: The class, one of attrs' with a type for each field.

    .. doctest::

        >>> from hypothesis import find
        >>> from distrib.backend import Role
        >>> find(option_keywords(Role), lambda keywords: len(keywords) == 1)
        {'name': 'x'}
    """
    return _option_keywords(kind)


@st.composite
def _option_keywords(draw: st.DrawFn, kind: type) -> dict[str, Any]:
    attrs.resolve_types(kind)
    fields = [field for field in attrs.fields(kind) if field.init]
    needed = {_keyword(field): draw(_given(field)) for field in fields if field.default is attrs.NOTHING}
    if not _takes(kind, needed):
        reject()
    for field in fields:
        if field.default is not attrs.NOTHING and draw(st.booleans()):
            more = {**needed, _keyword(field): draw(_given(field))}
            needed = more if _takes(kind, more) else needed
    return needed


def _given(field: attrs.Attribute[Any]) -> st.SearchStrategy[Any]:
    """
    Values that a field may take, those that it gives as examples among them.
    """
    examples = field.metadata.get("examples", ())
    return st.one_of(st.sampled_from(examples), _values(field.type)) if examples else _values(field.type)


def _values(kind: Any) -> st.SearchStrategy[Any]:
    """
    Values of a type, and of what it is made of.
    """
    parts = [_values(part) for part in get_args(kind) if part is not ...]
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return st.one_of(parts)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return st.dictionaries(*parts, max_size=3)
    if attrs.has(kind):
        return option_keywords(kind).map(lambda given: kind(**given))
    return _TAMED[kind] if kind in _TAMED else st.from_type(kind)


def _keyword(field: attrs.Attribute[Any]) -> str:
    return field.alias or field.name


def _takes(kind: type, settings: Mapping[str, Any]) -> bool:
    try:
        to_plain("options", kind(**settings))
    except (TypeError, ValueError):
        return False
    return True
