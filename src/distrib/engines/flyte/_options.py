"""
Flyte's own settings of a task: what ``flyte={...}`` takes, and ``.on("flyte", ...)``.

They are the keywords of flytekit's ``@task``, under the same names. Objects of flytekit's classes are recognised by the modules that
are loaded: whoever has such an object has imported flytekit.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import attrs

from ... import _fields
from ..._frozen import FrozenMap
from ..._refusal import refuse

__all__ = ["FlyteOptions"]

_Convert = Callable[[Any], Any]


def _converted(kind: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """
    Converters that are made by a function are in the metadata, where type checkers put up with them.
    """
    made = [field.evolve(converter=field.metadata.get(_CONVERTER, field.converter)) for field in fields]
    return _fields.named_under("flyte.")(kind, made)


def _optional_flag(value: bool | None) -> bool | None:
    return None if value is None else _fields.flag(value)


def _optional_text(value: str | None) -> str | None:
    if value is None:
        return None
    found = _fields.text(value)
    if not found.strip():
        raise refuse("", value, "write text that is not empty, or leave it out.")
    return found


def _seconds(value: int | dt.timedelta) -> int | dt.timedelta:
    if isinstance(value, dt.timedelta):
        if value < dt.timedelta():
            raise refuse("", value, "write a time that is not negative.")
        return value
    return _fields.count(value)


def _names(value: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if value is None else _fields.sequence(_fields.text, value)


def _environment(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return None if value is None else _fields.environment(value)


def _labels(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return None if value is None else _fields.label_map(value)


def _annotations(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return None if value is None else _fields.annotation_map(value)


def _is_a(value: Any, *classes: str) -> bool:
    """
    Whether *value* is of one of these classes, written ``module:Class.Inner``.
    """
    for path in classes:
        module, _, names = path.partition(":")
        found: Any = sys.modules.get(module)
        for name in names.split("."):
            found = getattr(found, name, None)
        if isinstance(found, type) and isinstance(value, found):
            return True
    return False


def _object(*classes: str, plain: tuple[type, ...] = (), like: str = "") -> _Convert:
    def checked(value: Any) -> Any:
        if value is None or isinstance(value, plain) or _is_a(value, *classes):
            return value
        kinds = " or ".join(f"flytekit's {path.replace(':', '.').rpartition('.')[2]}" for path in classes)
        raise refuse("", value, f"write {like}{kinds}.")

    return checked


def _several(convert: _Convert) -> _Convert:
    def checked(value: Any) -> Any:
        return None if value is None else _fields.sequence(partial(_there, convert), value)

    return checked


def _there(check: _Convert, item: Any) -> Any:
    if item is None:
        raise refuse("", item, "leave it out.")
    return check(item)


_CONVERTER = "converter"


def _of(*classes: str, plain: tuple[type, ...] = (), like: str = "") -> dict[str, _Convert]:
    """
    That a field holds an object of one of flytekit's classes.
    """
    return {_CONVERTER: _object(*classes, plain=plain, like=like)}


def _list_of(*classes: str) -> dict[str, _Convert]:
    """
    That a field holds several objects of one of flytekit's classes.
    """
    return {_CONVERTER: _several(_object(*classes))}


def _hints(value: Any) -> Any:
    return None if value is None else _fields.sequence(lambda item: item, value)


def _shared_memory(value: bool | str | None) -> bool | str | None:
    if value is None or value is True:
        return value
    if not isinstance(value, str):
        raise refuse("", value, "write True, for as much as the memory, or a size such as '2Gi'.")
    return _fields.size(value)


@attrs.frozen(kw_only=True, field_transformer=_converted)
class FlyteOptions:
    """
    The keywords of flytekit's ``@task``; each means what it means there, and is left to flytekit where it is not given.

    Args:
        cache: Whether results are kept, or flytekit's ``Cache``.

        cache_serialize: Deprecated by flytekit: whether one of several equal executions runs, and the others wait for it.

        cache_version: Deprecated by flytekit: the version of what is kept.

        cache_ignore_input_vars: Deprecated by flytekit: inputs that make no difference.

        retries: How often Flyte tries again.

        interruptible: Whether it may run on nodes that can be taken away.

        deprecated: What users of the task are told, if it is.

        timeout: Seconds, or a ``timedelta``, after which Flyte ends it; 0 for never.

        container_image: The image, or flytekit's ``ImageSpec``; ``image=`` of the job is the same.

        environment: Variables of all replicas, besides ``env=`` of the job.

        requests: flytekit's ``Resources``; ``requests=`` of the job is the same.

        limits: flytekit's ``Resources``; ``limits=`` of the job is the same.

        secret_requests: The secrets that it needs: a list of flytekit's ``Secret``.

        execution_mode: flytekit sets it for ``@dynamic``.

        node_dependency_hints: What a dynamic task starts.

        task_resolver: How a pod finds the task; flytekit's own way if left out.

        docs: flytekit's ``Documentation``.

        disable_deck: Deprecated by flytekit: write *enable_deck*.

        enable_deck: Whether decks are written, by the coordinator.

        deck_fields: Which of flytekit's own decks.

        pod_template: flytekit's ``PodTemplate``; it is never changed.

        pod_template_name: The name of one that the cluster has.

        accelerator: One of ``flytekit.extras.accelerators``.

        pickle_untyped: Whether values without a type of Flyte's are pickled.

        shared_memory: The size of ``/dev/shm``, or True; ``shared_memory`` in ``limits=`` of the job is the same.

        resources: flytekit's ``Resources`` for requests and limits.

        labels: Labels of the job's own object in Kubernetes; those of pods are in *pod_template*.

        annotations: Likewise.

    .. doctest::

        >>> from distrib.engines.flyte import FlyteOptions
        >>> FlyteOptions(retries=2, timeout=3600).retries
        2
        >>> FlyteOptions(retries="2")
        Traceback (most recent call last):
        distrib.errors.InvalidJobError: flyte.retries='2': ...
    """

    cache: Any = attrs.field(default=False, metadata=_of("flytekit.core.cache:Cache", plain=(bool,), like="True, False or "))
    cache_serialize: bool | None = attrs.field(default=None, converter=_optional_flag)
    cache_version: str | None = attrs.field(default=None, converter=_optional_text)
    cache_ignore_input_vars: tuple[str, ...] | None = attrs.field(default=None, converter=_names)
    retries: int = attrs.field(default=0, converter=_fields.count)
    interruptible: bool | None = attrs.field(default=None, converter=_optional_flag)
    deprecated: str = attrs.field(default="", converter=_fields.text)
    timeout: int | dt.timedelta = attrs.field(default=0, converter=_seconds)
    container_image: Any = attrs.field(
        default=None, metadata=_of("flytekit.image_spec.image_spec:ImageSpec", plain=(str,), like="the image's name or ")
    )
    environment: Mapping[str, str] | None = attrs.field(default=None, converter=_environment)
    requests: Any = attrs.field(default=None, metadata=_of("flytekit.core.resources:Resources"))
    limits: Any = attrs.field(default=None, metadata=_of("flytekit.core.resources:Resources"))
    secret_requests: Any = attrs.field(default=None, metadata=_list_of("flytekit.models.security:Secret"))
    execution_mode: Any = attrs.field(default=None, metadata=_of("flytekit.core.python_function_task:PythonFunctionTask.ExecutionBehavior"))
    node_dependency_hints: Any = attrs.field(default=None, converter=_hints)
    task_resolver: Any = attrs.field(default=None, metadata=_of("flytekit.core.base_task:TaskResolverMixin"))
    docs: Any = attrs.field(default=None, metadata=_of("flytekit.models.documentation:Documentation"))
    disable_deck: bool | None = attrs.field(default=None, converter=_optional_flag)
    enable_deck: bool | None = attrs.field(default=None, converter=_optional_flag)
    deck_fields: Any = attrs.field(default=None, metadata=_list_of("flytekit.deck.deck:DeckField"))
    pod_template: Any = attrs.field(default=None, metadata=_of("flytekit.core.pod_template:PodTemplate"))
    pod_template_name: str | None = attrs.field(default=None, converter=_optional_text)
    accelerator: Any = attrs.field(default=None, metadata=_of("flytekit.extras.accelerators:BaseAccelerator"))
    pickle_untyped: bool = attrs.field(default=False, converter=_fields.flag)
    shared_memory: bool | str | None = attrs.field(default=None, converter=_shared_memory)
    resources: Any = attrs.field(default=None, metadata=_of("flytekit.core.resources:Resources"))
    labels: Mapping[str, str] | None = attrs.field(default=None, converter=_labels)
    annotations: Mapping[str, str] | None = attrs.field(default=None, converter=_annotations)

    def keywords(self) -> dict[str, Any]:
        """
        What was given, for ``flytekit.task``: fresh dictionaries and lists, objects as they are.
        """
        given = {field.name: getattr(self, field.name) for field in attrs.fields(FlyteOptions)}
        changed = {name: value for name, value in given.items() if value != getattr(_UNSET, name)}
        return {name: dict(value) if isinstance(value, FrozenMap) else _listed(name, value) for name, value in changed.items()}


def _listed(name: str, value: Any) -> Any:
    # flytekit wants a list of these, and tuples of the others.
    return list(value) if name in ("secret_requests", "node_dependency_hints") else value


_UNSET = FlyteOptions()
