"""
What tests of backends, engines and jobs are written with; needs the extra ``distrib[testing]``.

:class:`BackendContract` and :class:`EngineContract` are the promises of a backend and of an engine as tests: subclass one, name
what is to be tested, run pytest. :mod:`distrib.testing.strategies` draws jobs and all that they are made of for Hypothesis.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._contract import BackendContract, EngineContract, Seen
    from ._law import LawBrokenError

__all__ = ["BackendContract", "EngineContract", "LawBrokenError", "Seen"]

_HOMES = {"BackendContract": "_contract", "EngineContract": "_contract", "LawBrokenError": "_law", "Seen": "_contract"}
#: What holds the laws.
_ASSERTING = ("_law", "_contract", "_backend", "_engine")


def __getattr__(name: str) -> Any:
    # Loaded late: replicas import a module of this package, and need neither pytest nor Hypothesis.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    import pytest

    # Without it, a comparison that fails shows neither side.
    modules = [f"{__name__}.{module}" for module in _ASSERTING]
    pytest.register_assert_rewrite(*(module for module in modules if module not in sys.modules))
    globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
