"""
The call on its way to the pods: the function, its arguments, the project's own modules, and the orders, as the keys of a Secret.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import TYPE_CHECKING, Any

import attrs

from ..._registry import backends
from ...errors import InvalidJobError, MissingDependencyError, SubmitError
from .._calls import by_value, dump_call, target_of
from .._unpicklable import explain
from ._bootstrap import CALL_KEY, CODE_KEY, ORDERS_KEY
from ._pack import is_of_tests, pack_modules

if TYPE_CHECKING:
    from ..._job import Job
    from ...backend import Backend
    from ...engine import Call
    from ._orders import Orders

__all__ = ["LIMIT", "pack"]

#: What a Secret may hold is 1 MiB; its own words take a little.
LIMIT = 2**20 - 16 * 1024


def pack(call: Call[Any], job: Job, orders: Orders) -> dict[str, bytes]:
    """
    What the Secret of a run holds: key -> bytes. What is too large for it goes to the run's storage.

    A function of a module goes by its name, and the project's own modules beside it; any other goes itself.

    Raises:
        InvalidJobError: Something cannot be pickled, or it is too large and there is no storage; the message names it.

        SubmitError: The storage cannot be written.
    """
    data = {
        ORDERS_KEY: attrs.evolve(orders, token=secrets.token_hex(16)).to_json(),
        CALL_KEY: _packed(call, job),
        CODE_KEY: pack_modules(),
    }
    size = sum(map(len, data.values()))
    if size <= LIMIT:
        return data
    if orders.storage is None:
        raise _too_large(call, data, size)
    for key in (CALL_KEY, CODE_KEY):
        _store(f"{orders.storage}/{key}", data.pop(key))
    return data


def _packed(call: Call[Any], job: Job) -> bytes:
    pickled = _pickled(call, job.backend.wrap(call.function, job))
    about = {
        "python": sys.version_info[:2],
        "by_value": b"cloudpickle" in pickled,
        "versions": _versions(pickled, job.backend),
        "framework": job.framework,
        "backend": _backend(job.backend),
        "argv": sys.argv,
        "call": pickled,
    }
    return pickle.dumps(about, protocol=5)


def _pickled(call: Call[Any], function: Callable[..., Any]) -> bytes:
    held = io.BytesIO()
    with by_value(getattr(function, "function", function), is_of_tests):  # no pod can import such a module
        try:
            dump_call(*target_of(function, call.args), dict(call.kwargs), file=held)
        except Exception as error:
            raise explain(call, error) from error
    return held.getvalue()


def _backend(backend: Backend) -> bytes | None:
    """
    The backend itself, pickled, unless every distrib has it.
    """
    if backends.is_built_in(backend.name):
        return None
    import cloudpickle

    try:
        with by_value(type(backend), is_of_tests):
            return bytes(cloudpickle.dumps(backend))
    except Exception as error:
        raise InvalidJobError(
            f"framework={backend.name!r}: {type(backend).__name__} cannot be pickled, and the pods have no other way to it: {error}",
            field="framework",
            value=backend.name,
        ) from error


def _versions(pickled: bytes, backend: Backend) -> dict[str, str]:
    """
    Package -> its version here, of the packages whose modules the pickle may name, and of the framework.
    """
    names = {*_texts(pickled), *backend.requires, "cloudpickle"}
    tops = {name.partition(".")[0] for name in names if name in sys.modules or name in backend.requires}
    tops -= sys.stdlib_module_names
    owners = packages_distributions() if tops else {}
    found: dict[str, str] = {}
    for top in sorted(tops):
        for package in owners.get(top, ())[:1]:
            with suppress(PackageNotFoundError):  # half removed
                found[package] = version(package)
    return found


def _texts(pickled: bytes) -> Iterator[str]:
    return (argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str))


def _too_large(call: Call[Any], data: dict[str, bytes], size: int) -> InvalidJobError:
    return InvalidJobError(
        f"the call of {call.name}() is too large for a Secret: {size:,} bytes of {LIMIT:,} "
        f"(arguments and function {len(data[CALL_KEY]):,}, modules of the project {len(data[CODE_KEY]):,}). "
        "Name a place that the pods can read too, as in kubernetes={'storage': 's3://bucket/runs'}, "
        "or have the function read its data itself.",
        field="kubernetes.storage",
    )


def _store(url: str, data: bytes) -> None:
    from . import _storage

    try:
        _storage.write(url, data)
    except MissingDependencyError:
        raise
    except Exception as error:  # the storage's own library decides what it raises
        raise SubmitError(f"kubernetes.storage: {url} cannot be written: {type(error).__name__}: {error}") from error
