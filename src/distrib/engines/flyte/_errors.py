"""
What Flyte is told of a failure: the exception itself, wherever it was raised, and whether it is worth another attempt.
"""

from __future__ import annotations

from typing import Any

from ..._outcome import ProcessFailedError, load_exception
from ...errors import RetryableError

__all__ = ["as_flytes"]


class _ElsewhereError(Exception):
    """
    The traceback of another process, shown as the cause.
    """

    def __init__(self, traceback: str) -> None:
        super().__init__(f"\n{traceback}")

    def __str__(self) -> str:
        return str(self.args[0])


def as_flytes(error: Exception) -> Exception:
    """
    The exception to raise in place of *error*: Flyte's own recoverable one for :class:`~distrib.RetryableError`, and that of the process
    that has failed for one which came from there.
    """
    from flytekit.exceptions.user import FlyteRecoverableException

    if isinstance(error, ProcessFailedError):
        return _of_process(error.told)
    if isinstance(error, RetryableError):
        recoverable: Exception = FlyteRecoverableException(_said(error))
        return _caused(recoverable, error)
    return error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def _of_process(told: dict[str, Any]) -> Exception:
    original = load_exception(told.get("pickled"))
    found = as_flytes(original) if isinstance(original, Exception) else RuntimeError(f"{told['type']}: {told['text']}")
    rank = "" if told.get("rank") is None else f"in the process of rank {told['rank']}:\n"
    return _caused(found, _ElsewhereError(f"{rank}{told['traceback']}")) if told.get("traceback") else found
