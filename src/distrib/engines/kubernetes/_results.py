"""
What the pods of a run returned.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from ...errors import EngineError
from .._results import NamedResults
from ._report import Report, load

if TYPE_CHECKING:
    from ..._outcome import ByRank
    from ._seen import End
    from ._state import Shape

R_co = TypeVar("R_co", covariant=True)


class KubernetesResults(NamedResults[R_co]):
    """
    The values of a run's replicas: from the termination messages of their pods, or from the storage that these name.

    Args:
        shape: What the run consists of.

        ends: How the replicas that have returned have ended.
    """

    def __init__(self, shape: Shape, ends: Mapping[str, End]) -> None:
        super().__init__(shape.names, shape.coordinator)
        self._ends = ends

    def _is_kept(self, name: str) -> bool:
        return name in self._ends

    def _read(self, name: str) -> R_co | ByRank:
        end = self._ends.get(name)
        if end is None or end.report is None:
            raise LookupError(f"{name} returned no value, or its pod, and the value with it, is gone")
        report = whole(end.report)
        if report.value is None:
            raise LookupError(report.text or f"{name} returned, and its value is neither in its pod's termination message nor in storage")
        return pickle.loads(report.value)  # type: ignore[no-any-return]  # noqa: S301  # unpickles only what its own pods wrote


def whole(report: Report) -> Report:
    """
    The report with what did not fit into the termination message.

    Raises:
        EngineError: The storage cannot be read.
    """
    return load(_fetch(report.stored)) if report.stored else report


def _fetch(url: str) -> bytes:
    from . import _storage

    try:
        return _storage.read(url)
    except Exception as error:  # the storage's own library decides what it raises
        raise EngineError(
            f"{url} cannot be read: {type(error).__name__}: {error}. It is where the run has stored what it returned."
        ) from error
