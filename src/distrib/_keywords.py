"""
What the keywords of a job mean: its groups, the options of its backend, and those of engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from . import _fields
from ._cluster import REPLICA_VARIABLE, RUN_VARIABLE
from ._frozen import EMPTY, FrozenMap
from ._model import ReplicaGroup, Resources, RunPolicy
from ._refusal import refuse, shown
from ._registry import engines, get_backend, get_engine
from .errors import InvalidJobError, UnknownEngineError, did_you_mean

if TYPE_CHECKING:
    from .backend import Backend, Role

__all__ = [
    "backend_of",
    "engine_of",
    "engine_options_of",
    "groups_of",
    "is_count",
    "option_names",
    "options_of",
    "own_env",
    "sort_keywords",
]


def own_env(value: Mapping[str, str]) -> Mapping[str, str]:
    """
    Variables that a user may set: not those that tell each replica who it is.
    """
    env = _fields.environment(value)
    for variable in (REPLICA_VARIABLE, RUN_VARIABLE):
        if variable in env:
            raise refuse(f"[{variable!r}]", env[variable], "this variable is set for each replica; leave it out.")
    return env


def backend_of(framework: str) -> Backend:
    """
    The backend of a framework, asked for by any value.
    """
    if not isinstance(framework, str):
        raise refuse("framework", framework, "write the name of a framework, e.g. 'tensorflow'.")
    return get_backend(str.__str__(framework))


def engine_of(engine: str | None) -> str | None:
    """
    The name of an engine that there is, or None.
    """
    if engine is None:
        return None
    if not isinstance(engine, str):
        raise refuse("engine", engine, "write the name of an engine, e.g. 'local'.")
    if engine not in engines:
        raise UnknownEngineError(f"engine={shown(engine)}: no such engine.{_fields.nearest(engine, engines)}")
    return str.__str__(engine)


def sort_keywords(
    keywords: Mapping[str, Any], backend: Backend, keys: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """
    The keywords that are roles, those that are options of the backend, and those that are names of engines.

    Args:
        keywords: What was given besides the fields of all jobs.

        backend: Whose roles and options.

        keys: The fields of all jobs, for the message.
    """
    roles = [role.name for role in backend.roles]
    options = option_names(backend)
    by_role, by_option, by_engine = {}, {}, {}
    for key, value in keywords.items():
        if key in roles:
            by_role[key] = value
        elif key in options:
            by_option[key] = value
        elif key in engines:
            by_engine[key] = value
        else:
            end = _better_place(key, keywords, backend) or f".{_fields.nearest(key, [*roles, *options, *keys, *engines])}"
            raise refuse(_fields.as_path(key), value, f"{backend.name} jobs have no such field{end}")
    return by_role, by_option, by_engine


def _better_place(key: str, keywords: Mapping[str, Any], backend: Backend) -> str:
    """
    The end of a message about a keyword that belongs into another one; empty if it is known nowhere.
    """
    kinds = [("run_policy", RunPolicy), ("requests", Resources), ("limits", Resources)]
    kinds += [(name, get_engine(name).options) for name in engines if engines.is_built_in(name)]
    places = [f"{place}={{" for place, kind in kinds if key in _fields.field_names(kind)]
    if key in _fields.field_names(ReplicaGroup) and key != "role":
        role = next((role.name for role in backend.roles if role.name in keywords), backend.roles[0].name)
        count = f"'replicas': {shown(keywords[role])}, " if is_count(keywords.get(role)) and key != "replicas" else ""
        places.append(f"{role}={{{count}")
    return f"; write {' or '.join(f'{place}{key!r}: {shown(keywords[key])}}}' for place in places)}." if places else ""


def option_names(backend: Backend) -> list[str]:
    """
    The keywords that are options of a backend.
    """
    if backend.options is None:
        return []
    return _fields.field_names(backend.options)


# Replica groups


def groups_of(backend: Backend, groups: Iterable[Any], by_role: Mapping[str, Any], options: Any) -> tuple[ReplicaGroup, ...]:
    """
    The groups in the order of the backend's roles, without those of zero replicas.
    """
    found: dict[str, ReplicaGroup] = {}
    roles = [role.name for role in backend.roles]
    listed = _fields.attempt("groups", partial(_fields.sequence, _listed), groups)
    for place, group in enumerate(listed):
        if group.role not in roles:
            raise refuse(f"groups[{place}].role", group.role, f"{backend.name} has no such role.{did_you_mean(group.role, roles)}")
        if group.role in found:
            raise refuse(f"groups[{place}].role", group.role, "this role is given twice; write one group with all its replicas.")
        found[group.role] = group
    for role, value in (by_role if found or by_role else backend.replicas(options)).items():
        if role in found:
            raise refuse(role, value, "this role is in groups= too; write it once.")
        found[role] = _fields.attempt(role, partial(_of_role, role), value)
    for role_ in backend.roles:
        _check_count(backend, role_, found[role_.name].replicas if role_.name in found else 0)
    return tuple(found[role] for role in roles if role in found and found[role].replicas)


def _listed(value: Any) -> ReplicaGroup:
    return _with_own_env(_fields.build(ReplicaGroup, value))


def _of_role(role: str, value: Any) -> ReplicaGroup:
    if is_count(value):
        # Read here, because ".replicas" behind the role is not what the user has written.
        return ReplicaGroup(role=role, replicas=_fields.count(value))
    if not isinstance(value, (ReplicaGroup, Mapping)):
        raise refuse("", value, "write a number of replicas, a ReplicaGroup, or a mapping of its fields.")
    group = _fields.build(ReplicaGroup, value)
    if group.role not in ("", role):
        raise refuse("role", group.role, f"the group is given as {role}=; leave the role out.")
    return _with_own_env(group if group.role else attrs.evolve(group, role=role))


def is_count(value: Any) -> bool:
    """
    Whether a value given for a role is a number of replicas.
    """
    return not isinstance(value, bool) and hasattr(type(value), "__index__")


def _with_own_env(group: ReplicaGroup) -> ReplicaGroup:
    _fields.attempt("env", own_env, group.env)
    return group


def _check_count(backend: Backend, role: Role, replicas: int) -> None:
    if replicas < role.at_least:
        raise refuse(role.name, replicas, f"{backend.name} needs at least {role.at_least} of them; write {role.name}={role.at_least}.")
    if role.at_most is not None and replicas > role.at_most:
        raise refuse(role.name, replicas, f"{backend.name} takes at most {role.at_most} of them.")


# Options of the backend and of engines


def options_of(backend: Backend, given: Any, by_option: Mapping[str, Any]) -> Any:
    """
    An object of the backend's options class, from what was given as a whole and by keyword.
    """
    kind = backend.options
    if kind is None:
        if given is not None:
            raise refuse("options", given, f"{backend.name} has no options; leave it out.")
        return None
    try:
        if isinstance(given, kind):
            evolved: Any = attrs.evolve(given, **by_option)  # type: ignore[misc]
            return evolved
        return kind(**_option_values(backend, given, by_option))
    except InvalidJobError:
        raise
    except Exception as error:  # the options class is the backend's, and may raise anything
        raise refuse("options", given if given is not None else dict(by_option), f"{type(error).__name__}: {error}") from error


def _option_values(backend: Backend, given: Any, by_option: Mapping[str, Any]) -> dict[str, Any]:
    if given is None:
        return dict(by_option)
    if not isinstance(given, Mapping):
        raise refuse("options", given, f"write a mapping, with any of {', '.join(option_names(backend))}.")
    for key, value in given.items():
        if key not in option_names(backend):
            raise refuse(f"options.{key}", value, f"{backend.name} has no such option.{_fields.nearest(key, option_names(backend))}")
        if key in by_option:
            raise refuse(str(key), by_option[key], "this option is in options= too; write it once.")
    return {**given, **by_option}


def engine_options_of(given: Mapping[str, Any], by_engine: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """
    Name of an engine -> its options, from what was given as a whole and by keyword.
    """
    if not isinstance(given, Mapping):
        raise refuse("engine_options", given, "write a mapping: name of an engine -> its options.")
    found: dict[str, Mapping[str, Any]] = {}
    for name, options in _fields.attempt("engine_options", dict, given).items():
        if name not in engines:
            raise refuse(f"engine_options[{shown(name)}]", options, f"no such engine.{_fields.nearest(name, engines)}")
        found[name] = _fields.attempt(f"engine_options[{name!r}]", partial(_engine_values, name), options)
    for name, options in by_engine.items():
        if name in found:
            raise refuse(name, options, "this engine is in engine_options= too; write it once.")
        found[name] = _fields.attempt(name, partial(_engine_values, name), options)
    return FrozenMap(found) if found else EMPTY


def _engine_values(name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return _fields.plain(options)
    except InvalidJobError:
        # The engine is loaded only to ask it whether it takes what no other does.
        if not get_engine(name).takes_objects:
            raise
    return _fields.plain(options, objects=True)
