"""
Flyte's resources in our words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from distrib import _fields
from distrib._model import Resources
from distrib._refusal import refuse
from distrib.errors import did_you_mean

__all__ = ["Amounts", "parsed", "resources_of"]

#: flytekit's ``Resources``, ours, a mapping, a text, or None. Without a name for the first: it is another package's.
Amounts: TypeAlias = Any

#: What flytekit calls an amount -> what we do.
_AMOUNTS = {"cpu": "cpu", "mem": "memory", "gpu": "gpu", "ephemeral_storage": "ephemeral_storage"}


def resources_of(value: Amounts) -> Resources | None:
    """
    What is given as ``requests=`` or ``limits=``: flytekit's ``Resources``, ours, a mapping, or a text as in ``"cpu=2,mem=4Gi"``.

    >>> resources_of("cpu=2,mem=4Gi")
    Resources(cpu='2', memory='4Gi')
    """
    if value is None or isinstance(value, Resources):
        return value
    given = parsed(value) if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        given = {name: getattr(value, name) for name in _AMOUNTS if hasattr(value, name)}
        if not given:
            raise refuse("", value, 'write Resources(cpu="2", mem="4Gi"), or a text as in "cpu=2,mem=4Gi".')
    found = {_AMOUNTS.get(name, name): _single(name, amount) for name, amount in given.items() if amount is not None}
    # To Flyte, no GPUs are nothing said.
    return _fields.build(Resources, {name: amount for name, amount in found.items() if name != "gpu" or str(amount) != "0"})


def parsed(text: str) -> dict[str, str]:
    """
    flytekit's names and their amounts, from a text.

    >>> parsed("cpu=500m, mem=1Gi")
    {'cpu': '500m', 'mem': '1Gi'}
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, separator, amount = (piece.strip() for piece in part.partition("="))
        if not separator:
            raise refuse("", text, 'name each resource, as in "cpu=2,mem=4Gi".')
        if name not in _AMOUNTS:
            raise refuse("", text, f"no such resource: {name!r}.{did_you_mean(name, _AMOUNTS)}")
        if name in found:
            raise refuse("", text, f"{name} is given twice.")
        found[name] = amount
    return found


def _single(name: str, amount: Any) -> Any:
    if isinstance(amount, (list, tuple)):
        raise refuse(name, amount, "one amount is wanted here; write the first in requests= and the second in limits=.")
    return amount
