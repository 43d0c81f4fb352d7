"""
A plug-in of pytest that does next to nothing: it knows the marker of the suites in :mod:`distrib.testing`.
"""

from __future__ import annotations

from typing import Any


def pytest_configure(config: Any) -> None:
    """
    Register ``slow``, so that suites with strict markers can subclass ours.
    """
    config.addinivalue_line("markers", "slow: takes more than a few seconds; `-m 'not slow'` leaves it out")
