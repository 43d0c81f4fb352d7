"""
What the first process of a pod knows of its run, and what follows from it. Pure: it is told what happens, and when it is.

The coordinator's pod hears of all others and decides for all: when the run is over, and when it has failed. It ends last, since an
operator takes a run down once its coordinator has ended, and the others' values with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from ._bootstrap import STOPPED_EXIT
from ._orders import Orders
from ._report import Report

__all__ = ["GONE_SECONDS", "LOST_SECONDS", "Move", "Part"]

#: After how many seconds of silence a peer that is not started again counts as lost.
GONE_SECONDS = 15.0
#: The same for the coordinator, which has the last word.
LOST_SECONDS = 30.0


@attrs.frozen(kw_only=True)
class Move:
    """
    How this pod ends.

    Args:
        report: What became of it. If its function still runs, that is stopped.

        tell: What the others are told first; empty if nothing.
    """

    report: Report
    tell: Mapping[str, str] = attrs.field(factory=dict)


@attrs.define(kw_only=True)
class Part:
    """
    One pod's part in a run.

    Args:
        orders: The run's.

        name: The replica that this pod is.

        began: When it started. All times are in seconds of one clock.

        own: How its function has ended; None while it runs.
    """

    orders: Orders
    name: str
    began: float
    own: Report | None = None
    _told_to_end: bool = False
    _over: bool = False
    _failed: str = ""
    _why: str = ""
    _returned: set[str] = attrs.field(factory=set)
    _serving: set[str] = attrs.field(factory=set)
    _here: set[str] = attrs.field(factory=set)
    # Peer -> since when nothing is heard of it.
    _gone: dict[str, float] = attrs.field(factory=dict)
    _decided: float | None = None

    def __attrs_post_init__(self) -> None:
        peers = [name for name in self.orders.names if name != self.name] if self.is_lead else [self.orders.coordinator]
        self._gone = {} if self.is_alone else dict.fromkeys(peers, self.began)
        self._serving = {name for name in self.orders.names if _role(name) in self.orders.services}

    @property
    def is_lead(self) -> bool:
        """
        Whether this pod decides for all.
        """
        return self.name == self.orders.coordinator

    @property
    def is_alone(self) -> bool:
        """
        Whether there are no others.
        """
        return len(self.orders.names) == 1

    @property
    def listeners(self) -> frozenset[str]:
        """
        The peers that can still be told something: those that are there, and those that have yet to come.
        """
        return frozenset(set(self._gone) - self._seen | self._here)

    # What happens.

    def ended(self, report: Report, now: float) -> None:
        """
        Its function has ended.
        """
        self.own = report
        if report.kind == "returned":
            self.says(self.name, "returned", now)

    def told_to_end(self) -> None:
        """
        The kubelet wants the pod to end.
        """
        self._told_to_end = True

    def says(self, name: str, word: str, now: float) -> None:
        """
        A replica, this one perhaps, says ``here``, ``serving``, ``returned`` or ``failed``.
        """
        if name not in self.orders.names:
            return
        if name != self.name:
            self._here.add(name)
            self._gone.pop(name, None)
        if word == "serving":
            self._serving.add(name)
        elif word == "returned":
            self._returned.add(name)
        elif word == "failed":
            self._fail(name, f"{name} had failed")
        if self._decided is None and self._deciders_done():
            self._decided = now

    def hears(self, word: str, cause: str) -> None:
        """
        The coordinator says ``over``, ``failed`` and because of whom, or nothing but ``here``.
        """
        if word == "over":
            self._over = True
        elif word == "failed":
            self._fail(cause, f"{cause} had failed")

    def meets(self, name: str) -> None:
        """
        A peer is connected.
        """
        self._here.add(name)
        self._gone.pop(name, None)

    def loses(self, name: str, now: float) -> None:
        """
        A peer is connected no more.
        """
        self._here.discard(name)
        self._gone.setdefault(name, now)
        if self._decided is None and self._deciders_done():
            self._decided = now

    # What follows.

    def next(self, now: float) -> Move | None:
        """
        How this pod is to end now; None to go on.
        """
        if self.is_lead:
            self._look_for_lost(now)
        if self.own is not None and self.own.kind != "returned":
            return Move(report=self.own, tell=self._word_of_failure(self.own))
        if self._failed:
            return self._after_failure()
        if self._told_to_end:
            return self._at_the_kubelets_word()
        return self._lead_next(now) if self.is_lead else self._member_next(now)

    def when(self, now: float) -> float | None:
        """
        How many seconds may pass before :meth:`next` is asked again although nothing has happened; None for any number.
        """
        times = [since + self._patience(name) for name, since in self._gone.items()]
        if self._decided is not None:
            times.append(self._decided + self.orders.grace_period)
        later = [time - now for time in times if time > now]
        return min(later) if later else None

    def _lead_next(self, now: float) -> Move | None:
        if self.own is None or self._decided is None:
            return None
        waited_for = self._missing()
        if waited_for and now < self._decided + self.orders.grace_period:
            return None
        return Move(report=self.own, tell={"word": "over"})

    def _member_next(self, now: float) -> Move | None:
        if self._over:
            return Move(report=self.own or self._stopped("the run is over", code=0))
        lost = self._lost(now)
        if not lost:
            return None
        return Move(report=self.own or self._stopped(lost, cause=self.orders.coordinator))

    def _after_failure(self) -> Move:
        tell = {"word": "failed", "cause": self._failed} if self.is_lead else {}
        # Were the coordinator to end well, its operator would call the whole run a success.
        own = None if self.is_lead else self.own
        return Move(report=own or self._stopped(self._why, cause=self._failed), tell=tell)

    def _at_the_kubelets_word(self) -> Move:
        if self.own is not None and not self.is_lead:
            return Move(report=self.own)
        report = self._stopped("the pod was told to end")
        return Move(report=report, tell=self._word_of_failure(report))

    def _word_of_failure(self, report: Report) -> dict[str, str]:
        is_started_again = self.orders.restarts_after(_role(self.name), report.code)
        is_loss = self.orders.needed is not None and (report.signal is not None or report.kind == "stopped")
        return {} if self.is_alone or is_started_again or is_loss else {"word": "failed", "cause": self.name}

    def _stopped(self, text: str, *, code: int = STOPPED_EXIT, cause: str = "") -> Report:
        return Report(replica=self.name, kind="stopped", code=code, text=text, cause="" if cause == self.name else cause)

    def _fail(self, name: str, why: str) -> None:
        if not self._failed:
            self._failed, self._why = name, why

    # Who is still waited for, and who is lost.

    def _deciders_done(self) -> bool:
        if not self.is_lead or self.name not in self._returned:
            return False
        waited_for = set(self.orders.deciders) - self._returned
        # Those that an elastic group has lost are not missed, nor are those that never came, or came too late.
        return not (waited_for if self.orders.needed is None else waited_for & self._here - self._serving)

    def _missing(self) -> set[str]:
        missing = set(self.orders.names) - self._returned - self._serving
        return missing if self.orders.needed is None else missing & self._here

    def _patience(self, name: str) -> float:
        if name not in self._seen or self.orders.restarts.get(_role(name), "Never") != "Never":
            return self.orders.peers_timeout
        return min(GONE_SECONDS if self.is_lead else LOST_SECONDS, self.orders.peers_timeout)

    @property
    def _seen(self) -> set[str]:
        return {name for name, since in self._gone.items() if since > self.began} | self._here

    def _overdue(self, now: float) -> Iterator[str]:
        return (name for name, since in self._gone.items() if now >= since + self._patience(name))

    def _lost(self, now: float) -> str:
        for name in self._overdue(now):
            return f"the pod of the coordinator, {name}, is gone" if name in self._seen else self._unheard(name)
        return ""

    def _look_for_lost(self, now: float) -> None:
        seen = self._seen
        lost = [name for name in self._overdue(now) if name not in self._returned]
        if self.orders.needed is not None:
            left = len(self.orders.names) - sum(name in seen for name in lost)
            lost = lost if left < self.orders.needed else []
        for name in lost[:1]:
            self._fail(name, f"the pod of {name} is gone" if name in seen else self._unheard(name))

    def _unheard(self, name: str) -> str:
        return (
            f"nothing was heard of {name} for {self.orders.peers_timeout:g} s. "
            f"Its pod may not have been started, or a network policy may be in the way of port {self.orders.control_port}"
        )


def _role(name: str) -> str:
    return name.rpartition("-")[0]
