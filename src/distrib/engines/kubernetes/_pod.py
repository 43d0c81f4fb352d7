"""
What runs in a pod: the container's first process, which supervises the one that calls the function.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import attrs

from ..._cluster import Replica
from ..._linux import adopt_orphans
from ..._streams import flush, say
from ._bootstrap import INDEX_VARIABLE, REFUSED_EXIT, ROLE_VARIABLE, TERMINATION_LOG, TERMINATION_VARIABLE
from ._child import Child
from ._orders import Orders
from ._part import Move, Part
from ._peers import Lead, Line, Member
from ._prepare import Refusal, await_names, fetch, me_of, read_orders, settle
from ._report import LIMIT, Report, decode, dump, encode

__all__ = ["main"]

#: For the others to hear that the run has failed, beyond what they may take to end.
_LAST_WORD_SECONDS = 3.0
#: For a word to a coordinator that may not be there.
_WORD_SECONDS = 5.0


def main() -> NoReturn:
    """
    Be the pod of a replica. Does not return: the exit code is the replica's.
    """
    try:
        orders = read_orders()
        # Not asyncio.run(): that waits for threads, and some of ours may wait for names.
        report = asyncio.new_event_loop().run_until_complete(_Pod(orders, me_of(orders)).run())
    except Refusal as refusal:
        name = f"{os.environ.get(ROLE_VARIABLE, '')}-{os.environ.get(INDEX_VARIABLE, '')}"
        report = hand_over(_refused(name, str(refusal)), None)
    flush()
    os._exit(report.code)


def hand_over(report: Report, orders: Orders | None) -> Report:
    """
    Write the termination message, and what is too large for it to the run's storage.

    Returns:
        What was written: another report if the value could not be handed over.
    """
    if report.kind == "refused":
        say(report.text)
    limit = LIMIT if orders is None else orders.message_limit
    text = encode(report, limit)
    if orders is not None and orders.storage is not None and decode(text) != report:
        report, text = _with_storage(report, orders)
    elif text is None:
        report = _without_value(report, orders, _too_large(report))
        text = encode(report, limit)
    path = Path(os.environ.get(TERMINATION_VARIABLE, TERMINATION_LOG))
    try:
        path.write_text(text or "", encoding="ascii")
    except OSError as error:
        say(f"the termination message cannot be written to {path}: {error}")
    return report


def _with_storage(report: Report, orders: Orders) -> tuple[Report, str | None]:
    from . import _storage

    url = f"{orders.storage}/{report.replica}.report"
    try:
        _storage.write(url, dump(report))
    except Exception as error:  # noqa: BLE001  # the storage's own library decides what it raises
        text = encode(report, orders.message_limit)
        if text is None:
            why = f"{url} cannot be written in the pod: {type(error).__name__}: {error}"
            report = _without_value(report, orders, why)
            text = encode(report, orders.message_limit)
        return report, text
    return report, encode(attrs.evolve(report, value=None, stored=url), orders.message_limit)


def _without_value(report: Report, orders: Orders | None, why: str) -> Report:
    say(why.replace("\n", " "))
    if orders is not None and report.replica != orders.coordinator:
        # Nobody may ever ask for it: it is told then.
        return attrs.evolve(report, value=None, text=why)
    error: dict[str, Any] = {"type": "ValueError", "text": why, "traceback": "", "frames": [], "rank": None}
    return Report(replica=report.replica, kind="raised", code=1, error=error, time=report.time)


def _too_large(report: Report) -> str:
    size = len(report.value or b"")
    return (
        f"{report.replica} returned a value of {size:,} bytes, and a pod can hand over about 3,000, compressed.\n"
        "Name a place for larger ones, as in kubernetes={'storage': 's3://bucket/runs'}, or have the function save its result itself."
    )


def _refused(name: str, text: str) -> Report:
    return Report(replica=name, kind="refused", code=REFUSED_EXIT, text=text, time=time.time())


class _Pod:
    """
    One pod, from its start to its end.
    """

    def __init__(self, orders: Orders, me: Replica) -> None:
        self._orders = orders
        self._me = me
        self._part = Part(orders=orders, name=me.name, began=time.monotonic())
        self._child = Child(me.name, self._hear_child)
        self._line: Line | None = None
        self._news = asyncio.Event()
        self._is_leaving = False
        self._linger: asyncio.TimerHandle | None = None

    async def run(self) -> Report:
        """
        Do all of it, and tell what was handed over.
        """
        adopt_orphans()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        # The first process of a container has none of the usual defaults: what is not handled does nothing.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        await self._open_line()
        starting = asyncio.create_task(self._start())
        move = await self._next_move()
        starting.cancel()
        return await self._leave(move)

    async def _open_line(self) -> None:
        if self._part.is_alone:
            return
        orders, me = self._orders, self._me
        self._line = (
            Lead(orders, self._hear_member, self._lose) if self._part.is_lead else Member(orders, me.name, self._hear_lead, self._lose)
        )
        try:
            await self._line.open()
        except OSError as error:
            raise Refusal(
                f"port {orders.control_port}, at which the pods of a run talk to each other, cannot be had: {error.strerror}. "
                "Name another one with kubernetes={'control_port': …}."
            ) from error

    async def _start(self) -> None:
        """
        Start the function's process, once all is as it has to be.
        """
        try:
            # In a thread: a storage may take its time, and a SIGTERM is to be heard meanwhile.
            about, environment = await asyncio.to_thread(self._prepared)
            if not self._part.is_alone:
                await await_names(self._orders, self._me)
            self._child.start(about, environment)
        except Refusal as refusal:
            self._end_with(_refused(self._me.name, str(refusal)))
        except Exception as error:  # noqa: BLE001  # whatever it is, the others have to be told
            self._end_with(_refused(self._me.name, f"the function cannot be called here: {type(error).__name__}: {error}"))

    def _prepared(self) -> tuple[dict[str, Any], dict[str, str]]:
        about = fetch(self._orders)
        return about, settle(self._orders, self._me, about)

    async def _next_move(self) -> Move:
        while True:
            now = time.monotonic()
            move = self._part.next(now)
            if move is not None:
                return move
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._part.when(now))
            self._news.clear()

    async def _leave(self, move: Move) -> Report:
        report = move.report
        self._is_leaving = True
        if self._line is not None and move.tell:
            self._line.tell(move.tell, self._part.listeners - {move.tell.get("cause")})
        if self._part.own is None:
            # Whoever stops it may be killed before it has ended.
            report = hand_over(attrs.evolve(report, time=time.time()), self._orders)
            say(f"{self._me.name} ends: {report.text}")
            await self._child.stop(self._orders.grace_period)
        elif report is not self._part.own:
            report = hand_over(attrs.evolve(report, time=time.time()), self._orders)
        self._child.kill()
        if self._line is not None:
            if move.tell:
                lead_seconds = self._orders.grace_period + _LAST_WORD_SECONDS
                await self._line.drained(lead_seconds if self._part.is_lead else _WORD_SECONDS)
            self._line.close()
        return report

    # What happens.

    def _end_with(self, report: Report) -> None:
        handed = hand_over(report, self._orders)
        self._part.ended(handed, time.monotonic())
        if handed.kind == "returned" and self._line is not None and not self._part.is_lead:
            self._line.tell({"word": "returned"})
        self._news.set()

    def _reap(self) -> None:
        # As the first process of the container, also for processes that others have left behind.
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child.pid:
                self._child.was_reaped(status)
                if self._linger is not None:
                    self._linger.cancel()
                # What it has sent before it ended stands in the pipe.
                asyncio.get_running_loop().call_soon(self._child_ended)

    def _child_ended(self) -> None:
        if self._part.own is None and not self._is_leaving:
            self._end_with(self._child.report())

    def _told_to_end(self) -> None:
        self._part.told_to_end()
        self._news.set()

    def _hear_child(self, message: Mapping[str, Any]) -> None:
        if message["kind"] == "progress":
            say(str(message["text"]))
        elif message["kind"] == "serving":
            self._part.says(self._me.name, "serving", time.monotonic())
            if self._line is not None and not self._part.is_lead:
                self._line.tell({"word": "serving"})
            self._news.set()
        elif message["kind"] in ("returned", "raised") and self._linger is None:
            # A thread, or a handler at exit, may keep the process for ever.
            self._linger = asyncio.get_running_loop().call_later(self._orders.grace_period, self._child.kill)

    def _hear_member(self, name: str, word: str) -> None:
        self._part.says(name, word, time.monotonic())
        self._news.set()

    def _hear_lead(self, word: str, cause: str) -> None:
        self._part.meets(self._orders.coordinator)
        self._part.hears(word, cause)
        self._news.set()

    def _lose(self, name: str = "") -> None:
        self._part.loses(name or self._orders.coordinator, time.monotonic())
        self._news.set()
