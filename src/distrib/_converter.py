"""
Jobs to and from plain data: what JSON and YAML hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.errors import AttributeValidationNote

from . import _fields
from ._frozen import freeze, thaw
from ._job import DEFAULTS, KEYS, Job
from ._refusal import refuse, under
from ._registry import get_backend
from .errors import InvalidJobError

__all__ = ["job_from_data", "job_to_data", "to_plain"]


_converter = Converter(forbid_extra_keys=True, omit_if_default=True)


def _wire_form(value: Any) -> Any:
    # cattrs takes a member of an enumeration that is a text as well for plain data, and leaves tuples as they are.
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {_wire_form(key): _wire_form(item) for key, item in value.items()}
    return [_wire_form(item) for item in value] if isinstance(value, (list, tuple)) else value


def job_to_data(job: Job) -> dict[str, Any]:
    """
    A job as fresh dictionaries, lists, texts and numbers, without what is at its default.

    Raises:
        InvalidJobError: The backend's options hold something that is no plain data.

    .. doctest::

        >>> from distrib._converter import job_from_data, job_to_data
        >>> from distrib._job import Job
        >>> data = job_to_data(Job("tensorflow", chief=1, worker={"replicas": 2, "requests": {"cpu": 4}}))
        >>> data
        {'framework': 'tensorflow', 'groups': [{'role': 'chief'}, {'role': 'worker', 'replicas': 2, 'requests': {'cpu': '4'}}]}
        >>> job_from_data(data).world_size
        3
    """
    data: dict[str, Any] = {}
    for key in KEYS:
        value = getattr(job, key)
        if key not in DEFAULTS or value != DEFAULTS[key]:
            data[key] = to_plain(key, value)
    return data


def to_plain(field: str, value: Any) -> Any:
    """
    A value of the model, or of a backend's options, as plain data.

    Raises:
        InvalidJobError: It holds something that is no plain data; *field* is what it is called.
    """
    data = _wire_form(_converter.unstructure(value))
    _fields.attempt(field, freeze, data)
    return data


def job_from_data(data: Mapping[str, Any]) -> Job:
    """
    The inverse of :func:`job_to_data`. The keys are the keywords of :class:`~distrib.Job`.

    Raises:
        InvalidJobError: The data is no job; the message has the path of what is wrong and, for an unknown key, the
            nearest one.

        UnknownBackendError: No backend has this name.

    >>> job_from_data({"framework": "tensorflow", "groups": [{"role": "worker", "replica": 2}]})
    Traceback (most recent call last):
    distrib.errors.InvalidJobError: groups[0].replica=2: ReplicaGroup has no such field. Did you mean 'replicas'? ...
    """
    if not isinstance(data, Mapping):
        raise refuse("job", data, "write a mapping, with the keywords of Job.")
    given = _keywords(_fields.attempt("job", dict, data))
    framework = given.pop("framework")
    options = given.get("options")
    if isinstance(framework, str) and isinstance(options, Mapping):
        kind = get_backend(framework).options
        if kind is not None:
            given["options"] = _structure(options, kind)
    return Job(framework, **given)


def _keywords(data: Mapping[Any, Any]) -> dict[str, Any]:
    for key, value in data.items():
        if not isinstance(key, str):
            raise refuse(_fields.as_path(key), value, "write the key as text.")
    if "framework" not in data:
        raise refuse("framework", None, "name the framework, e.g. 'tensorflow'.")
    # In YAML a key with nothing behind it says that nothing is given.
    return {str.__str__(key): value for key, value in data.items() if value is not None or key not in DEFAULTS}


def _structure(options: Mapping[str, Any], kind: type) -> Any:
    try:
        return _converter.structure(thaw(_fields.plain(options)), kind)
    except InvalidJobError as error:
        raise under("options", error) from None
    except Exception as error:
        raise under("options", _refusal(error, "", options)) from error


def _refusal(error: BaseException, path: str, value: Any) -> InvalidJobError:
    """
    What cattrs found first, in our words.
    """
    if isinstance(error, ForbiddenExtraKeysError):
        key = min(error.extra_fields)
        legal = _fields.field_names(error.cl)
        return refuse(_joined(path, key), _item(value, key), f"{error.cl.__name__} has no such field.{_fields.nearest(key, legal)}")
    if isinstance(error, BaseValidationError):
        first = error.exceptions[0]
        step = _step(first)
        return _refusal(first, path if step is None else _joined(path, step), value if step is None else _item(value, step))
    if isinstance(error, InvalidJobError):
        return error
    return refuse(path, value, f"{type(error).__name__}: {error}")


def _step(error: BaseException) -> str | int | None:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name
        if isinstance(note, IterableValidationNote):
            return note.index if isinstance(note.index, int) else str(note.index)
    return None


def _joined(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


def _item(value: Any, step: str | int) -> Any:
    try:
        return value[step]
    except (KeyError, IndexError, TypeError):
        return None
