"""
Ctrl-C and its like, while a program waits for a run: the run is cancelled first.
"""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from ._streams import flush, say

if TYPE_CHECKING:
    from types import FrameType

    from .engine import Run

__all__ = ["cancelling"]

R = TypeVar("R")


@contextmanager
def cancelling() -> Iterator[Watch]:
    """
    Have Ctrl-C, SIGTERM and SIGHUP cancel the run that the block hands to the watch, and end the caller as they would have.

    A second one leaves out the grace period. Handlers that the program has set are left alone.
    """
    watch = Watch()
    before = _unhandled(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        for number in before:
            signal.signal(number, watch.take)
        yield watch
    except KeyboardInterrupt:
        watch.cancel()
        if not watch.signals:
            raise
    except BaseException:
        if not watch.signals:
            raise
    finally:
        try:
            if watch.signals:
                watch.cancel()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if watch.signals:
            watch.end()


# One signal asks for the end, a second one for it at once; with a third one, whoever sent it has waited long enough.
_PATIENT = 2
# An end that takes longer than this is told about.
_LONG_SECONDS = 1.0


class Watch:
    """
    The run that a program waits for, and the signals that have come to end the program.
    """

    def __init__(self) -> None:
        self.run: Run[Any] | None = None
        self.signals: list[int] = []

    def over(self, run: Run[R]) -> Run[R]:
        """
        From now on signals cancel *run*.
        """
        self.run = run
        if self.signals:  # one came while it was submitted, and its exception was lost
            raise _interruption(self.signals[0])
        return run

    def take(self, number: int, _frame: FrameType | None) -> None:
        """
        Handle a signal.
        """
        self.signals.append(number)
        if self.run is None or len(self.signals) > _PATIENT:
            raise _interruption(number)
        # By another thread, not by an exception: Python drops those that are raised in its own callbacks. And by the plainest
        # kind of thread, for nobody knows what has been interrupted.
        _thread.start_new_thread(self._stop, (self.run, number, len(self.signals) > 1))

    @staticmethod
    def _stop(run: Run[Any], number: int, at_once: bool) -> None:
        hint = threading.Timer(_LONG_SECONDS, _tell, (run.id, number))
        hint.daemon = True
        with suppress(RuntimeError):  # no room for another thread: then nothing is said
            if not at_once:
                hint.start()
        with suppress(Exception):  # whoever waits for the run is told
            run.cancel(at_once=at_once)
        hint.cancel()

    def cancel(self) -> None:
        """
        Stop the run, if there is one, and wait for its end: until a third signal comes.
        """
        with suppress(KeyboardInterrupt, _EndedError):
            if self.run is not None:
                self.run.cancel(at_once=len(self.signals) > 1)

    def end(self) -> NoReturn:
        """
        End this process as the first signal would have.
        """
        number = self.signals[0]
        if number == signal.SIGINT:
            raise KeyboardInterrupt from None
        flush()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        raise SystemExit(128 + number)  # only if the signal is blocked


def _tell(id: str, number: int) -> None:
    again = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    say(f"{id} is being stopped; another {again} stops it at once")


class _EndedError(BaseException):
    """
    A signal has come before there was a run to cancel.
    """


def _interruption(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else _EndedError()


def _unhandled(*numbers: signal.Signals) -> dict[signal.Signals, Any]:
    # Only the main thread may set handlers, and only it is interrupted by them.
    if threading.current_thread() is not threading.main_thread():
        return {}
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    return {number: handler for number in numbers if (handler := signal.getsignal(number)) in defaults}
