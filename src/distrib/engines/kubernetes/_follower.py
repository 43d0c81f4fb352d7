"""
Follows a run: takes in what its watches tell, and acts when it is over, late, stuck or to be cancelled.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from time import monotonic, sleep, time
from typing import Any, TypeVar

import attrs

from ...engine import RunState
from ...errors import EngineError, RunFailedError
from ._about import About
from ._client import ApiError, Client
from ._failure import error_of
from ._kinds import EVENTS, JOBS, PODS, Kind
from ._logs import Logs, read_all
from ._seen import Pod, seconds_of
from ._show import Show
from ._state import State, Verdict
from ._watch import News, Watch, pause_after

#: Kubernetes tells of troubles by events that are not normal; there are far fewer of them in a namespace.
NOT_NORMAL = {"fieldSelector": "type!=Normal"}
#: What the workload may take to keep its deadline by itself, before we do.
DEADLINE_MARGIN = 3.0
#: How long pods may take to end, besides the run's grace period, once it is decided how the run ends.
SETTLE_SECONDS = 10.0
#: How long to wait for the last pods of a run that is taken away before it is looked whether they are still there.
GONE_SECONDS = 45.0
#: What logs may take to arrive once the run is over.
DRAIN_SECONDS = 5.0
_TAIL_LINES = 20
# Together about 20 seconds: an API server that is started again is back by then.
_TRIES = 8
_HOPELESS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)

T = TypeVar("T")
Listener = Callable[[Pod, bool], None]


@attrs.frozen
class Cancel:
    """
    Somebody wants the run to end.
    """

    at_once: bool


class Follower:
    """
    The thread that follows a run, and what it knows.

    Args:
        client: Who is asked.

        about: What the run consists of.

        top: The kind of its top object.

        echo: Whether to show what becomes of it.
    """

    def __init__(self, client: Client, about: About, top: Kind, *, echo: bool) -> None:
        self.client = client
        self.about = about
        self.top = top
        #: Set when nothing will change any more.
        self.done = threading.Event()
        #: Why the run has not succeeded.
        self.error: EngineError | None = None
        #: Whether following has failed, so that the run may go on, whatever is known of it.
        self.has_failed = False
        #: What is known. Only the follower's own thread changes it, under *lock*, under which all others look at it. The cluster is never
        #: asked under it: an answer may take minutes, and nobody who looks is to wait for that.
        self.state = State(about.shape)
        self.lock = threading.RLock()
        self._inbox: queue.SimpleQueue[News | Cancel] = queue.SimpleQueue()
        self._listed: set[Kind] = set()
        self._listeners: list[Listener] = []
        self._show = Show(about) if echo else None
        self._logs = Logs(client, about.namespace, self._show.logs) if self._show is not None else None
        if self._logs is not None:
            self._listeners.append(lambda pod, gone: self._logs.see(pod, gone=gone) if self._logs is not None else None)
        selector = {"labelSelector": about.selector}
        queries = ((PODS, selector), (top, selector), (EVENTS, NOT_NORMAL))
        self._watches = [Watch(client, kind, about.namespace, self._inbox.put, **query) for kind, query in queries]
        self._settle_at: float | None = None
        self._stuck: tuple[Any, ...] = ()
        self._stuck_since = monotonic()
        self._gone_at: float | None = None
        self._at_once = False

    def start(self) -> None:
        """
        Begin.
        """
        for watch in self._watches:
            watch.start()
        threading.Thread(target=self._run, name=f"distrib follows {self.about.shape.run}", daemon=True).start()

    def cancel(self, *, at_once: bool) -> None:
        """
        Have the run end, without waiting for it.
        """
        if self._show is not None:
            self._show.hurry()
        self._inbox.put(Cancel(at_once))

    @property
    def is_informed(self) -> bool:
        """
        Whether all there is has been seen once.
        """
        return self.done.is_set() or {PODS, self.top} <= self._listed

    def listen(self, listener: Listener) -> None:
        """
        Have each version of each pod told, those known so far at once.
        """
        with self.lock:
            self._listeners.append(listener)
            for uid, pod in self.state.pods.items():
                listener(pod, uid in self.state.gone)

    def unlisten(self, listener: Listener) -> None:
        """
        Have enough of it.
        """
        with self.lock, suppress(ValueError):
            self._listeners.remove(listener)

    # What the thread does

    def _run(self) -> None:
        try:
            verdict = self._follow()
            self._clean_up()
            if self._logs is not None:
                self._logs.drain(DRAIN_SECONDS)
            self.error = error_of(self.state, verdict, namespace=self.about.namespace, tail=self._tail)
            if self._show is not None:
                self._show.end(self.state, verdict)
        except BaseException as error:  # noqa: BLE001  # whatever it is, nobody may wait for ever
            self.has_failed = True
            self.error = (
                error if isinstance(error, EngineError) else RunFailedError(f"following the run failed: {type(error).__name__}: {error}")
            )
            self.error.__cause__ = error.__cause__ if isinstance(error, EngineError) else error
            self._end_with(Verdict(state=RunState.FAILED, reason=str(self.error)))
        finally:
            for watch in self._watches:
                watch.stop()
            if self._logs is not None:
                self._logs.close()
            self.done.set()

    def _follow(self) -> Verdict:
        while True:
            try:
                message = self._inbox.get(timeout=self._patience())
            except queue.Empty:
                message = None
            if isinstance(message, Cancel):
                self._cancel(at_once=message.at_once)
            elif message is not None:
                self._take(message)
            if not self._inbox.empty():  # what there is to see is seen first
                continue
            if self._is_over():
                assert self.state.final is not None  # noqa: S101  # that is what being over means
                return self.state.final
            if self._show is not None:
                self._show.status(self.state)

    def _take(self, news: News) -> None:
        if news.change == "REFUSED" and news.kind != EVENTS:  # events only explain
            raise RunFailedError(
                f"the run cannot be followed: {news.error}. That takes a Role that may list and watch pods and {self.top.plural}; "
                "the run goes on by itself."
            )
        if self._show is not None:
            self._show.news(news)
        if news.change in ("LOST", "BACK", "REFUSED"):
            return
        with self.lock:
            before = set(self.state.gone)
            self.state.take(news)
            if news.change == "LISTED":
                self._listed.add(news.kind)
            if news.kind == PODS:
                uids = [str(data["metadata"].get("uid")) for data in news.objects]
                for uid in dict.fromkeys([*uids, *(self.state.gone - before)]):
                    if uid in self.state.pods:
                        self._tell(self.state.pods[uid], uid in self.state.gone)

    def _tell(self, pod: Pod, gone: bool) -> None:
        for listener in list(self._listeners):
            listener(pod, gone)

    def _is_over(self) -> bool:
        """
        Whether the run is over and nothing of it is to be waited for.
        """
        if not self.is_informed:
            return False
        state = self.state
        if self._gone_at is not None:  # it is being taken away
            return (not state.left or monotonic() >= self._gone_at) and self._is_gone()
        verdict = state.verdict()
        if verdict is None:
            verdict = self._late() or self._impatient()
            if verdict is None:
                self._settle_at = None
                return False
        if verdict.is_hopeless:
            self._end_with(verdict)
            self._take_away()
            return False
        if self._settle_at is None:
            self._settle_at = monotonic() + self.about.grace_period + SETTLE_SECONDS
        with self.lock:
            return state.conclude(anyway=monotonic() >= self._settle_at) is not None

    def _end_with(self, verdict: Verdict) -> None:
        with self.lock:
            self.state.end_with(verdict)

    def _patience(self) -> float | None:
        """
        For how long there is nothing to do unless something happens.
        """
        now = monotonic()
        times = [time for time in (self._settle_at, self._gone_at) if time is not None]
        if not times and self.is_informed:
            deadline = self._deadline()
            times += [] if deadline is None else [now + deadline - self._server_time()]
            times += [self._stuck_since + self.about.patience] if self._stuck else []
        return max(0.01, min(times) - now) if times else None

    def _server_time(self) -> float:
        return time() + self.client.skew

    def _deadline(self) -> float | None:
        """
        When we end the run ourselves, by the server's clock: the operator looks at its own only when something happens.
        """
        seconds = self.about.shape.deadline
        if seconds is None or self.state.is_suspended or not self.state.tops:
            return None
        started = self.state.started or min(seconds_of(top.created) for top in self.state.tops.values())
        return started + seconds + DEADLINE_MARGIN

    def _late(self) -> Verdict | None:
        deadline = self._deadline()
        if deadline is None or self._server_time() < deadline:
            return None
        reason = f"DeadlineExceeded: active_deadline_seconds={self.about.shape.deadline:g}"
        return Verdict(state=RunState.FAILED, reason=reason, is_late=True, is_hopeless=True)

    def _impatient(self) -> Verdict | None:
        stuck, now = self.state.stuck(), monotonic()
        if stuck != self._stuck:
            self._stuck, self._stuck_since = stuck, now
        if not stuck or now - self._stuck_since < self.about.patience:
            return None
        waiting = [(name, one.message) for name, one in self.state.replicas().items() if one.state == "Waiting"]
        more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        reason = (
            f"{waiting[0][0]}{more} did not start within {self.about.patience:g} s: {waiting[0][1]}. "
            "If it only needs longer, set kubernetes={'patience': …}"
        )
        return Verdict(state=RunState.FAILED, reason=reason, is_hopeless=True)

    def _clean_up(self) -> None:
        """
        Have nothing more of a run that is over started. Operators and JobSets see to that; Jobs know nothing of each other, and a pod
        that still waits for its place would get it some time, and hold it for nothing.
        """
        if self.top != JOBS or self.about.clean == "None" or self._gone_at is not None:
            return
        roles = {name.rpartition("-")[0] for name in self.about.shape.names if self.state.last_end(name) is None}
        for role in roles:
            top = self.state.tops.get(f"{self.about.shape.run}-{role}")
            if top is not None and top.name not in self.state.gone_tops and not top.has("Failed", "Complete"):
                with suppress(EngineError):  # the run has its end, whatever becomes of that
                    self.client.patch(JOBS, self.about.namespace, top.name, {"spec": {"suspend": True}})

    # Taking the run away

    def _cancel(self, *, at_once: bool) -> None:
        if not self.is_informed and self._was_over():
            return
        if self.state.final is None:
            self._end_with(Verdict(state=RunState.CANCELLED, reason=f"cancel() was called{' at once' if at_once else ''}"))
        elif self._gone_at is None or not at_once:
            return
        self._at_once = at_once
        self._take_away()

    def _was_over(self) -> bool:
        """
        Whether the run is over, although its watches have not told so yet: then it stays as it is.
        """
        # Beside what is known: lists of the watches that are on their way may be older.
        state = State(self.about.shape)
        try:
            for kind in (PODS, self.top):
                state.take(self._list(kind))
        except ApiError as error:
            if not error.is_forbidden:  # whoever may not look may yet be allowed to delete
                raise
        return state.conclude() is not None

    def _list(self, kind: Kind) -> News:
        found = self._surely(lambda: self.client.list(kind, self.about.namespace, labelSelector=self.about.selector))
        return News(kind, "LISTED", tuple(found.get("items") or ()))

    def _take_away(self) -> None:
        self._gone_at = monotonic() + GONE_SECONDS
        namespace, selector = self.about.namespace, self.about.selector
        try:
            for name in sorted(self.state.tops) or self._names_of_tops():
                self._surely(lambda name=name: self.client.delete(self.top, namespace, name))  # type: ignore[misc]
            # The garbage collector may take its time; and it gives pods the grace that they ask for.
            self._surely(lambda: self.client.delete_all(PODS, namespace, selector, 0 if self._at_once else None))
        except EngineError as error:
            raise EngineError(
                f"{error}. The run may go on: cancel it again, or use kubectl delete {self.top.plural} -n {namespace} -l {selector}"
            ) from error

    def _names_of_tops(self) -> list[str]:
        return [each["metadata"]["name"] for each in self._list(self.top).objects]

    def _is_gone(self) -> bool:
        """
        Whether no pod is left, by what the server says: one may have been made at the last moment.
        """
        self._gone_at = monotonic() + GONE_SECONDS
        news = self._list(PODS)
        with self.lock:
            self.state.take(news)
        if any(self.state.pods[uid].deleted is None for uid in set(self.state.pods) - self.state.gone):
            self._take_away()
        return not self.state.left

    def _surely(self, act: Callable[[], T]) -> T:
        failures = 0
        while True:
            try:
                return act()
            except EngineError as error:  # noqa: PERF203  # that is what tries are for
                failures += 1
                if (isinstance(error, ApiError) and error.status in _HOPELESS) or failures == _TRIES:
                    raise
                sleep(pause_after(failures))

    def _tail(self, pod: Pod) -> str:
        """
        The last lines of a pod's log.
        """
        data = self._logs.tails.get(pod.replica, b"") if self._logs is not None else b""
        if not data:
            with suppress(EngineError):
                for piece in read_all(self.client, self.about.namespace, pod, lines=_TAIL_LINES):
                    data = (data + piece)[-(1 << 14) :]
        return b"\n".join(data.splitlines()[-_TAIL_LINES:]).decode(errors="backslashreplace")
