"""
The line between the pods of a run: everybody's first process holds one to the coordinator's.

Lines of JSON over TCP. Each message names the run's token, which only its pods know. Whoever connects again says all that it has
said before, so a coordinator that was started again knows as much as the one before it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ._orders import Orders

__all__ = ["Lead", "Line", "Member"]

_AGAIN_SECONDS = 0.25
_CONNECT_SECONDS = 10.0
# A node that is gone says no goodbye: after this many seconds of silence, and as many more, the line is cut.
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 4}
_UNSENT_MILLISECONDS = 10_000


class Line(Protocol):
    """
    What a pod has of it.
    """

    async def open(self) -> None:
        """
        Begin.
        """

    def tell(self, message: Mapping[str, str], to: Collection[str] = ()) -> None:
        """
        Tell whoever is at the other end, now and whenever it connects again; *to* says who has to be told before all ends.
        """

    async def drained(self, seconds: float) -> None:
        """
        Wait until the others have taken in what was told, but no longer than *seconds*.
        """

    def close(self) -> None:
        """
        End it.
        """


class Lead:
    """
    The coordinator's side.

    Args:
        orders: The run's.

        hear: Called with the name of a replica and its word.

        lose: Called with the name of a replica whose line is cut.
    """

    def __init__(self, orders: Orders, hear: Callable[[str, str], None], lose: Callable[[str], None]) -> None:
        self._orders = orders
        self._hear = hear
        self._lose = lose
        self._lines: dict[str, asyncio.StreamWriter] = {}
        self._told: Mapping[str, str] | None = None
        self._server: asyncio.Server | None = None
        self._owed: set[str] = set()
        self._done = asyncio.Event()

    async def open(self) -> None:
        """
        Listen.

        Raises:
            OSError: The port is taken.
        """
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        listening = socket.create_server(("", self._orders.control_port), family=family, dualstack_ipv6=both, backlog=4096)
        self._server = await asyncio.start_server(self._serve, sock=listening)

    def tell(self, message: Mapping[str, str], to: Collection[str] = ()) -> None:
        """
        Tell all of the others, those too that connect later; *to* says who has to be told before all ends.
        """
        self._told = message
        self._owed = set(to)
        self._look_whether_done()
        for writer in self._lines.values():
            _write(writer, message)

    async def drained(self, seconds: float) -> None:
        """
        Wait until all who have to be told have hung up, but no longer than *seconds*.
        """
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._done.wait(), seconds)

    def close(self) -> None:
        """
        Listen no more.
        """
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _keep_alive(writer)
        name = ""
        try:
            while line := await reader.readline():
                message = self._read(line)
                if message is None:
                    break
                name = message["name"]
                self._take(name, writer)
                self._hear(name, message["word"])
        except (OSError, ValueError, KeyError):  # cut, or somebody who speaks another language
            pass
        finally:
            if name and self._lines.get(name) is writer:
                del self._lines[name]
                self._lose(name)
                self._owed.discard(name)
                self._look_whether_done()
            writer.close()

    def _read(self, line: bytes) -> dict[str, str] | None:
        message: Any = json.loads(line)
        is_ours = isinstance(message, dict) and hmac.compare_digest(str(message.get("token")).encode(), self._orders.token.encode())
        return message if is_ours and message["name"] in self._orders.names else None

    def _look_whether_done(self) -> None:
        if self._told is not None and not self._owed:
            self._done.set()

    def _take(self, name: str, writer: asyncio.StreamWriter) -> None:
        if self._lines.get(name) is writer:
            return
        self._lines[name] = writer
        _write(writer, self._told or {"word": "here"})


class Member:
    """
    Everybody else's side.

    Args:
        orders: The run's.

        name: Who this is.

        hear: Called with the coordinator's word, and the replica that is its cause.

        lose: Called when the line is cut.
    """

    def __init__(self, orders: Orders, name: str, hear: Callable[[str, str], None], lose: Callable[[], None]) -> None:
        self._orders = orders
        self._name = name
        self._hear = hear
        self._lose = lose
        self._said: list[Mapping[str, str]] = [{"word": "here"}]
        self._writer: asyncio.StreamWriter | None = None
        self._answered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """
        Connect, again and again if need be.
        """
        self._task = asyncio.create_task(self._run())

    def tell(self, message: Mapping[str, str], to: Collection[str] = ()) -> None:  # noqa: ARG002  # there is only one
        """
        Tell the coordinator, each new one too.
        """
        self._said.append(message)
        if self._writer is not None:
            self._write(self._writer, message)

    async def drained(self, seconds: float) -> None:
        """
        Wait until the coordinator has given its last word, which it does when it hears of a failure.
        """
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._answered.wait(), seconds)

    def close(self) -> None:
        """
        Hang up.
        """
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            self._writer.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._converse()
            except (OSError, ValueError, KeyError, asyncio.TimeoutError):
                pass
            finally:
                if self._writer is not None:
                    self._writer.close()
                    self._writer = None
                    self._lose()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _converse(self) -> None:
        connecting = asyncio.open_connection(self._orders.coordinator_host, self._orders.control_port)
        reader, writer = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
        _keep_alive(writer)
        self._writer = writer
        for message in self._said:
            self._write(writer, message)
        while line := await reader.readline():
            message = json.loads(line)
            self._hear(message["word"], message.get("cause", ""))
            if message["word"] != "here":
                self._answered.set()

    def _write(self, writer: asyncio.StreamWriter, message: Mapping[str, str]) -> None:
        _write(writer, {**message, "name": self._name, "token": self._orders.token})


def _write(writer: asyncio.StreamWriter, message: Mapping[str, str]) -> None:
    with suppress(OSError):  # its reader will notice
        writer.write(json.dumps(message).encode() + b"\n")


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    line = writer.get_extra_info("socket")
    with suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNSENT_MILLISECONDS)
