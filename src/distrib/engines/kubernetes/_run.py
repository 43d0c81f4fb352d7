"""
A run on Kubernetes, as any machine sees it that may look.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from ...engine import Event, Run, RunStatus
from ...errors import InvalidJobError, did_you_mean
from .._patience import Patience
from ._about import About
from ._client import ApiError, Client
from ._events import events_of
from ._follower import DRAIN_SECONDS, NOT_NORMAL, Follower
from ._kinds import EVENTS, PODS, Kind
from ._logs import LONGEST_PARTIAL, Channel, Logs, read_all
from ._results import KubernetesResults
from ._seen import Pod
from ._state import State
from ._watch import News

R_co = TypeVar("R_co", covariant=True)


class KubernetesRun(Run[R_co]):
    """
    One run.

    Args:
        client: Who is asked.

        about: What it consists of.

        top: The kind of its top object.

        echo: Whether to show what becomes of it.
    """

    def __init__(self, client: Client, about: About, top: Kind, *, echo: bool = False) -> None:
        self._client = client
        self.about = about
        self._top = top
        self._echo = echo
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._follower: Follower | None = None

    @property
    def id(self) -> str:
        return self.about.id

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def follow(self) -> Follower:
        """
        Begin to follow the run, unless that has been done.
        """
        with self._lock:
            if self._owner != os.getpid():  # a copy of the process by fork has none of the threads
                self._owner, self._follower = os.getpid(), None
            if self._follower is None:
                self._follower = Follower(self._client, self.about, self._top, echo=self._echo)
                self._follower.start()
            return self._follower

    def status(self) -> RunStatus:
        with self._knowing() as state:
            return state.status()

    @contextmanager
    def _knowing(self) -> Iterator[State]:
        """
        What is known of the run: by those who follow it, else by asking.
        """
        with self._lock:
            follower = self._follower if self._owner == os.getpid() else None
        if follower is None or not follower.is_informed or follower.has_failed:
            yield self._look()
        else:
            with follower.lock:
                yield follower.state

    def _look(self) -> State:
        """
        What the cluster says now.
        """
        state = State(self.about.shape)
        own = {"labelSelector": self.about.selector}
        for kind, selectors in ((self._top, own), (PODS, own), (EVENTS, NOT_NORMAL)):
            try:
                found = self._client.list(kind, self.about.namespace, **selectors)
            except ApiError:
                if kind == EVENTS:  # they only explain
                    continue
                raise
            state.take(News(kind, "LISTED", tuple(found.get("items") or ())))
        state.conclude()
        return state

    def wait(self, timeout: float | None = None) -> RunStatus:
        follower = self._awaited(timeout)
        if follower.has_failed and follower.error is not None:  # it may go on: no status would be true
            raise follower.error.with_traceback(None)
        return follower.state.status()

    def _awaited(self, timeout: float | None) -> Follower:
        """
        Who has followed the run, to its end or as far as that went.
        """
        patience = Patience(timeout)
        follower = self.follow()
        while not follower.done.wait(patience.seconds()):
            patience.check(self.id)
        return follower

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self._awaited(timeout).error

    def results(self, timeout: float | None = None) -> KubernetesResults[R_co]:
        error = self.exception(timeout)
        if error is not None:
            # Asked for twice, it does not tell of the first time too.
            raise error.with_traceback(None)
        return KubernetesResults(self.about.shape, self.follow().state.values())

    def cancel(self, *, at_once: bool = False) -> None:
        with self._lock:
            if self._follower is not None and self._follower.has_failed:  # nobody hears of it any more
                self._follower, self._echo = None, False
        follower = self.follow()
        follower.cancel(at_once=at_once)
        self._awaited(None)
        if follower.has_failed and follower.error is not None:
            raise follower.error.with_traceback(None)

    def events(self) -> Sequence[Event]:
        with self._knowing() as state:
            return events_of(state)

    def logs(self, replica: str | None = None, *, follow: bool = False) -> Iterator[str]:
        names = self.about.shape.names
        if replica is not None and replica not in names:
            raise InvalidJobError(f"no replica is called {replica!r}.{did_you_mean(replica, names)}", field="replica", value=replica)
        pieces = self._followed(replica) if follow else self._kept(replica)
        return _lines(pieces, prefixed=replica is None)

    def _kept(self, replica: str | None) -> Iterator[tuple[str, bytes]]:
        names = [replica] if replica else self.about.shape.names
        with self._knowing() as state:
            pods = [(name, pod) for name in names for pod in state.pods_of(name) if pod.uid not in state.gone and pod.starts]
        for name, pod in pods:
            for piece in read_all(self._client, self.about.namespace, pod):
                yield name, piece

    def _followed(self, replica: str | None) -> Iterator[tuple[str, bytes]]:
        channel = Channel()
        logs = Logs(self._client, self.about.namespace, channel.put)
        follower = self.follow()

        def see(pod: Pod, gone: bool) -> None:
            if replica in (None, pod.replica):
                logs.see(pod, gone=gone)

        follower.listen(see)

        def end() -> None:
            follower.done.wait()
            logs.drain(DRAIN_SECONDS)
            channel.end()

        threading.Thread(target=end, name=f"distrib ends logs of {self.about.shape.run}", daemon=True).start()
        try:
            yield from channel.take()
        finally:
            channel.end()
            follower.unlisten(see)  # first: a pod that is new just now would be read on
            logs.close()


def _lines(pieces: Iterator[tuple[str, bytes]], *, prefixed: bool) -> Iterator[str]:
    rests: dict[str, bytes] = {}
    for name, piece in pieces:
        *lines, rest = (rests.pop(name, b"") + piece).split(b"\n")
        if len(rest) > LONGEST_PARTIAL:
            lines, rest = [*lines, rest], b""
        if rest:
            rests[name] = rest
        for line in lines:
            yield _line(name, line, prefixed)
    for name, rest in rests.items():
        yield _line(name, rest, prefixed)


def _line(name: str, line: bytes, prefixed: bool) -> str:
    text = line.decode("utf-8", "backslashreplace")
    return f"[{name}] {text}" if prefixed else text
