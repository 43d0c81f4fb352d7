"""
The engine that makes jobs tasks of Flyte.

Importing it does not import flytekit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._engine import FlyteEngine as FlyteEngine
    from ._engine import FlytePlan as FlytePlan
    from ._options import FlyteOptions as FlyteOptions
    from ._task import DistributedFlyteTask as DistributedFlyteTask

__all__ = ["DistributedFlyteTask", "FlyteEngine", "FlyteOptions", "FlytePlan"]

_HOMES = {"DistributedFlyteTask": "_task", "FlyteEngine": "_engine", "FlyteOptions": "_options", "FlytePlan": "_engine"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
