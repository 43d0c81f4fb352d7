"""
What a law is: a test whose docstring states it, and whose failure says who broke which law, and by what example.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import attrs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure, UnsatisfiedAssumption

__all__ = ["Contract", "LawBrokenError", "assert_frozen", "for_all", "law"]

#: Whoever draws from somebody else's classes does not know how often they refuse, nor how long that takes.
_UNKNOWABLE = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example)

_SHRINK_SECONDS = 5.0

#: How Hypothesis begins the traceback of what has failed only once.
_AGAIN = "Failed to reproduce exception"


class LawBrokenError(AssertionError):
    """
    A backend or an engine does not keep a promise.

    Args:
        message: Who broke which law, how, and the example that shows it.

        law: What was promised.
    """

    # Where users find it.
    __module__ = "distrib.testing"

    def __init__(self, message: str, *, law: str) -> None:
        super().__init__(message)
        self.law = law


class Contract(ABC):
    """
    What the suites have in common.
    """

    @abstractmethod
    def _who(self) -> str:
        """
        Whose promises these are, for messages.
        """

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        """
        Have what is tested be found by its name, installed or not.
        """
        yield


C = TypeVar("C", bound=Contract)


def law(test: Callable[[C], None]) -> Callable[[C], None]:
    """
    Make a law of a test: the first sentence of its docstring is what is promised.
    """

    @wraps(test)
    def checked(self: C) -> None:
        who = self._who()  # first: whoever is not there at all has not broken a law
        try:
            with self._at_hand():
                test(self)
        except Exception as error:  # noqa: BLE001  # what is tested may raise anything
            cause = error
        else:
            return
        promise = _promise(test)
        raise LawBrokenError(f"{who} breaks the law: {promise}\n{_told(cause)}", law=promise) from cause

    return checked


def for_all(*strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """
    Run a check with examples, as many as Hypothesis' profile says; the first one that fails is made small and shown.
    """

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        quiet = (*settings().suppress_health_check, *_UNKNOWABLE)
        phases = set(settings().phases) - {Phase.explain}
        ours = settings(deadline=None, report_multiple_bugs=False, suppress_health_check=quiet, phases=tuple(phases))
        return ours(given(*strategies)(_impatient(check)))

    return decorate


def _impatient(check: Callable[..., None]) -> Callable[..., None]:
    """
    A check that lets examples be made smaller for a few seconds only: some take long to make.
    """
    failed: set[str] = set()
    first: list[float] = []

    @wraps(check)
    def limited(*args: Any, **kwargs: Any) -> None:
        example = repr((args, kwargs))
        if first and time.monotonic() - first[0] > _SHRINK_SECONDS and example not in failed:
            return
        try:
            check(*args, **kwargs)
        except UnsatisfiedAssumption:  # an example that does not count has not failed
            raise
        except Exception:
            first.append(time.monotonic())
            failed.add(example)
            raise

    return limited


def _promise(test: Callable[..., Any]) -> str:
    first = (test.__doc__ or test.__name__).strip().split("\n\n")[0]
    return " ".join(first.split())


def _told(error: BaseException) -> str:
    # What fails only once, because it has changed what comes next, Hypothesis wraps; the example is always in its notes.
    cause = error.exceptions[0] if isinstance(error, FlakyFailure) else error
    said = str(cause) if isinstance(cause, AssertionError) else f"{type(cause).__name__}: {cause}"
    return "\n".join([said, *(note for note in getattr(error, "__notes__", ()) if not note.startswith(_AGAIN))])


def assert_frozen(value: Any) -> None:
    """
    Fail if a field of an attrs object can be set.
    """
    for field in attrs.fields(type(value)):
        try:
            setattr(value, field.name, getattr(value, field.name))
        except AttributeError:
            continue
        raise AssertionError(f"{field.name} of {value} can be set; write @attrs.frozen(kw_only=True)")
