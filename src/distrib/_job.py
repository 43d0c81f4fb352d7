"""
What is to run: framework, groups and policies in one frozen value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from . import _fields
from ._frozen import EMPTY, FrozenMap
from ._keywords import backend_of, engine_of, engine_options_of, groups_of, is_count, option_names, options_of, own_env, sort_keywords
from ._model import ReplicaGroup, Resources, RestartPolicy, RunPolicy, check_requests, optional_resources
from ._quantity import UNIT, nano
from ._refusal import refuse
from ._registry import get_backend
from .errors import InvalidJobError, did_you_mean

if TYPE_CHECKING:
    from .backend import Backend

__all__ = ["DEFAULTS", "KEYS", "Job"]


def _run_policy(value: RunPolicy | Mapping[str, Any]) -> RunPolicy:
    return _fields.build(RunPolicy, value)


@attrs.frozen(kw_only=True, init=False, repr=False, field_transformer=_fields.named)
class Job:
    """
    What is to run. A job that exists is legal: its roles, counts and options have been checked by its backend.

    Args:
        framework: The name of a backend, e.g. ``"tensorflow"``.

        groups: The replica groups, if they are not given by keyword.

        options: The backend's own settings: an object of its options class, or a mapping of their fields.

        run_policy: When it is over, when it is tried again, and what is left of it.

        image: The container image of all groups that name none.

        env: Environment variables of all replicas.

        requests: What each replica is sure to be given, unless its group says otherwise.

        limits: What each replica may use at most, unless its group says otherwise.

        name: At most 63 lower-case letters, digits and ``-``, a letter first and no ``-`` last (a DNS-1035 label).

        engine: Where it runs, unless a call says otherwise; None leaves it to ``DISTRIB_ENGINE``.

        engine_options: Name of an engine -> that engine's own options.

        keywords: A role of the backend with a number, a mapping or a :class:`ReplicaGroup`; a field of the backend's options;
            or the name of an engine with its options.

    Raises:
        InvalidJobError: Something in it is wrong; the message names the field, the value and the remedy.

        UnknownBackendError: No backend has the name *framework*.

        UnknownEngineError: No engine has the name *engine*.

    .. doctest::

        >>> from distrib import Job
        >>> job = Job("tensorflow", chief=1, worker={"replicas": 2, "requests": {"cpu": 4}}, local={"grace_period": 5})
        >>> job
        Job('tensorflow', chief=1, worker={'replicas': 2, 'requests': Resources(cpu='4')}, local={'grace_period': 5})
        >>> job.world_size, job.group("worker").replicas
        (3, 2)
        >>> Job("tensorflow", wroker=2)
        Traceback (most recent call last):
        distrib.errors.InvalidJobError: wroker=2: ... Did you mean 'worker'? ...
    """

    framework: str
    groups: tuple[ReplicaGroup, ...]
    options: Any
    run_policy: RunPolicy = attrs.field(converter=_run_policy)
    image: str | None = attrs.field(converter=_fields.image)
    env: Mapping[str, str] = attrs.field(converter=own_env)
    requests: Resources | None = attrs.field(converter=optional_resources)
    limits: Resources | None = attrs.field(converter=optional_resources)
    name: str | None = attrs.field(converter=_fields.label_name)
    engine: str | None
    engine_options: Mapping[str, Mapping[str, Any]]

    def __init__(
        self,
        /,
        framework: str,
        *,
        groups: Iterable[ReplicaGroup | Mapping[str, Any]] = (),
        options: Any = None,
        run_policy: RunPolicy | Mapping[str, Any] = RunPolicy(),  # noqa: B008 - a frozen value
        image: str | None = None,
        env: Mapping[str, str] = EMPTY,
        requests: Resources | Mapping[str, Any] | None = None,
        limits: Resources | Mapping[str, Any] | None = None,
        name: str | None = None,
        engine: str | None = None,
        engine_options: Mapping[str, Mapping[str, Any]] = EMPTY,
        **keywords: Any,
    ) -> None:
        backend = backend_of(framework)
        by_role, by_option, by_engine = sort_keywords(keywords, backend, KEYS)
        set_options = options_of(backend, options, by_option)
        self.__attrs_init__(
            framework=backend.name,
            groups=groups_of(backend, groups, by_role, set_options),
            options=set_options,
            run_policy=run_policy,
            image=image,
            env=env,
            requests=requests,
            limits=limits,
            name=name,
            engine=engine_of(engine),
            engine_options=engine_options_of(engine_options, by_engine),
        )
        _check(self, backend)

    def evolve(self, /, **changes: Any) -> Job:
        """
        A copy with other values; takes the keywords of :class:`Job`.

        A number for a role changes how many replicas its group has and leaves the rest of it; a mapping or a group
        replaces it. The options of an engine are replaced as a whole.

        Raises:
            InvalidJobError: Something is wrong with the changes, or with the job that they would make.

        >>> Job("tensorflow", worker={"replicas": 2, "requests": {"cpu": 4}}).evolve(worker=8)
        Job('tensorflow', worker={'replicas': 8, 'requests': Resources(cpu='4')})
        """
        kept: dict[str, Any] = {field: getattr(self, field) for field in KEYS}
        if changes.get("framework", self.framework) != self.framework:
            kept["options"] = None
        kept["groups"] = [group for group in self.groups if group.role not in changes]
        if _follow_from_options(self) and changes.keys() & {"options", *option_names(self.backend)}:
            kept["groups"] = []
        for group in self.groups:
            if is_count(changes.get(group.role)):
                changes[group.role] = {**_given(group), "replicas": changes[group.role]}
        kept["engine_options"] = {name: options for name, options in self.engine_options.items() if name not in changes}
        return Job(**{**kept, **changes})

    @property
    def backend(self) -> Backend:
        """
        The framework's backend.
        """
        return get_backend(self.framework)

    @property
    def world_size(self) -> int:
        """
        How many replicas there are, over all groups.
        """
        return sum(group.replicas for group in self.groups)

    def group(self, role: str) -> ReplicaGroup:
        """
        The group of a role.

        Raises:
            InvalidJobError: The job has no replicas of that role.
        """
        for group in self.groups:
            if group.role == role:
                return group
        legal = [group.role for group in self.groups]
        raise InvalidJobError(f"the job has no {role}.{did_you_mean(role, legal)}", field="role", value=role)

    def restart_policy(self, role: str) -> RestartPolicy:
        """
        When a replica of a role is started again; ``Never`` unless its group says otherwise.
        """
        return self.group(role).restart_policy or RestartPolicy.NEVER

    def resources_requests(self, role: str) -> Resources | None:
        """
        What a replica of a role is sure to be given: its group's requests over those of the job.
        """
        return _merged(self.group(role).requests, self.requests)

    def resources_limits(self, role: str) -> Resources | None:
        """
        What a replica of a role may use at most: its group's limits over those of the job.
        """
        return _merged(self.group(role).limits, self.limits)

    def requested_cpu(self, role: str) -> float | None:
        """
        The cores that a replica of a role is sure to be given; its limit where nothing is requested, as in Kubernetes.
        """
        cpu: str | None = self._requested(role, "cpu")
        return None if cpu is None else nano(cpu) / UNIT

    def requested_gpus(self, role: str) -> int:
        """
        The GPUs that a replica of a role is sure to be given.
        """
        gpus: int | None = self._requested(role, "gpu")
        return gpus or 0

    def _requested(self, role: str, field: str) -> Any:
        group = self.group(role)
        for resources in (group.requests, self.requests, group.limits, self.limits):
            if resources is not None and getattr(resources, field) is not None:
                return getattr(resources, field)
        return None

    def env_of(self, role: str) -> Mapping[str, str]:
        """
        The environment variables of a role's replicas: its group's over those of the job.
        """
        return FrozenMap({**self.env, **self.group(role).env})

    def image_of(self, role: str) -> str | None:
        """
        The container image of a role's replicas: its group's, else the job's.
        """
        return self.group(role).image or self.image

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        # IPython and Hypothesis take classes of attrs to pieces, unless they are told.
        printer.text(repr(self))

    def __repr__(self) -> str:
        shown_groups = [f"{group.role}={_shorthand(group)}" for group in self.groups]
        set_fields = [f"{name}={value!r}" for name in _SHOWN if (value := getattr(self, name)) != DEFAULTS[name]]
        options = _changed_options(self.options)
        engines = [f"{name}={dict(options)!r}" for name, options in self.engine_options.items()]
        return f"Job({', '.join([repr(self.framework), *shown_groups, *options, *set_fields, *engines])})"


#: What a job has where nothing is said.
DEFAULTS: Mapping[str, Any] = {
    "options": None,
    "run_policy": RunPolicy(),
    "image": None,
    "env": EMPTY,
    "requests": None,
    "limits": None,
    "name": None,
    "engine": None,
    "engine_options": EMPTY,
}
#: The fields that a job is shown with by their own names.
_SHOWN = [name for name in DEFAULTS if name not in ("options", "engine_options")]


def _shorthand(group: ReplicaGroup) -> str:
    """
    The group as it may be written under its role's name.
    """
    given = {name: value.value if isinstance(value, RestartPolicy) else value for name, value in _given(group).items()}
    return repr(given["replicas"] if len(given) == 1 else given)


def _follow_from_options(job: Job) -> bool:
    """
    Whether the groups are what the options ask for by themselves, and nothing more.
    """
    if any(len(_given(group)) > 1 for group in job.groups):
        return False
    return {group.role: group.replicas for group in job.groups} == dict(job.backend.replicas(job.options))


def _given(group: ReplicaGroup) -> dict[str, Any]:
    """
    The fields that make the group, without its role.
    """
    fields = [(field, getattr(group, field.name)) for field in attrs.fields(ReplicaGroup) if field.name != "role"]
    return {field.name: value for field, value in fields if field.name == "replicas" or value != field.default}


def _changed_options(options: Any) -> list[str]:
    if options is None:
        return []
    fields = [(field, getattr(options, field.name)) for field in attrs.fields(type(options))]
    return [f"{field.alias}={value!r}" for field, value in fields if field.repr and value != _default(field)]


def _default(field: attrs.Attribute[Any]) -> Any:
    # A default that needs the object is shown, whatever it is.
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return attrs.NOTHING if default.takes_self else default.factory()
    return default


def _merged(own: Resources | None, jobs: Resources | None) -> Resources | None:
    return jobs if own is None else own.over(jobs)


def _check(job: Job, backend: Backend) -> None:
    if not job.groups:
        roles = [role.name for role in backend.roles]
        example = "worker" if "worker" in roles else roles[0]
        raise InvalidJobError(f"{example}: the job has no replicas; write e.g. {example}=2.", field=example, value=0)
    _check_env("env", job.env, backend)
    for group in job.groups:
        _fields.attempt(group.role, partial(_check_resources, job), group.role)
        _check_env(f"{group.role}.env", group.env, backend)
    scheduling = job.run_policy.scheduling_policy
    if scheduling is not None and scheduling.min_available is not None and scheduling.min_available > job.world_size:
        raise refuse("run_policy.scheduling_policy.min_available", scheduling.min_available, f"the job has only {job.world_size} replicas.")
    backend.validate(job)


def _check_env(field: str, env: Mapping[str, str], backend: Backend) -> None:
    for variable in backend.reserved:
        if variable in env:
            why = f"{backend.name} sets this variable for each replica; leave it out."
            raise refuse(f"{field}[{variable!r}]", env[variable], why)


def _check_resources(job: Job, role: str) -> None:
    check_requests(job.resources_requests(role), job.resources_limits(role))


#: The fields of a job, and the keywords that are not the names of something else.
KEYS = [field.name for field in attrs.fields(Job)]
