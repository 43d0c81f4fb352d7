"""
The engine that runs a job as processes of this machine.

The supervisor imports modules of this package, so that importing the package itself has to cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._engine import LocalEngine as LocalEngine
    from ._options import LocalOptions as LocalOptions
    from ._plan import LocalPlan as LocalPlan

__all__ = ["LocalEngine", "LocalOptions", "LocalPlan"]

_HOMES = {"LocalEngine": "_engine", "LocalOptions": "_options", "LocalPlan": "_plan"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
