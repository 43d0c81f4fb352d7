"""
What becomes of some objects: listed once, then followed.

::

    list ──► watch from the list's version ──► … until the server ends it, the connection breaks, or the version is too old
      ▲            ▲                                      │                      │                          │
      │            └──────────── from the last version ◄──┴──────────────────────┘                          │
      └───────────────────────────────────────────────────────── 410 Gone ◄─────────────────────────────────┘
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import attrs

from ...errors import EngineError
from ._client import ApiError, Client, Stream, UnreachableError
from ._kinds import Kind

#: The server ends a watch after this many seconds, and it is resumed.
WATCH_SECONDS = 3600
#: Between two tries: doubled each time, from the first to the second, and any part of that.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
_HOPELESS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
# A connection that breaks once is nothing to tell about.
_WORTH_TELLING = 3


@attrs.frozen
class News:
    """
    What a watch tells.

    Args:
        kind: What it watches.

        change: ``LISTED`` with all objects that there are, ``ADDED``, ``MODIFIED``, ``DELETED`` with one; ``LOST`` and ``BACK`` when
            the server cannot be asked for a while; ``REFUSED`` when it does not let us, and the watch has ended.

        objects: Whom it is about.

        error: Why, with ``LOST`` and ``REFUSED``.
    """

    kind: Kind
    change: str
    objects: tuple[dict[str, Any], ...] = ()
    error: Exception | None = None


class Watch:
    """
    Follows the objects of a kind that a query selects, in a thread of its own.

    Args:
        client: Whom to ask.

        kind: What to follow.

        namespace: Where.

        tell: Called with each :class:`News`, in order, by the watch's thread.

        query: Selectors.
    """

    def __init__(self, client: Client, kind: Kind, namespace: str, tell: Callable[[News], None], **query: str) -> None:
        self.client = client
        self.kind = kind
        self.namespace = namespace
        self.query = query
        self._tell = tell
        self._stopped = threading.Event()
        self._stream: Stream | None = None
        self._version = ""
        self._failures = 0
        self._was_let = False
        self._thread = threading.Thread(target=self._run, name=f"distrib watches {kind.plural}", daemon=True)

    def start(self) -> Watch:
        """
        Begin.
        """
        self._thread.start()
        return self

    def stop(self) -> None:
        """
        End, without waiting for it.
        """
        self._stopped.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def _run(self) -> None:
        while not self._stopped.is_set() and self._goes_on():
            # Not at once, should the server, or something in front of it, end watches as soon as they begin.
            self._stopped.wait(pause_after(max(1, self._failures)))

    def _goes_on(self) -> bool:
        try:
            if not self._version:
                self._list()
            self._follow()
        except ApiError as error:
            # An API server that has just been started may know neither us nor the kind of the objects yet.
            if error.status in _HOPELESS and not self._was_let:
                self._tell(News(self.kind, "REFUSED", error=error))
                return False
            if error.status == HTTPStatus.GONE:
                self._version = ""
            else:  # an API server that is starting, or has too much to do
                self._failed(error)
        except EngineError as error:  # it cannot be reached, or the credentials are being exchanged
            self._failed(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, nobody may wait for news that never come
            self._tell(News(self.kind, "REFUSED", error=error))
            return False
        return True

    def _list(self) -> None:
        found = self.client.list(self.kind, self.namespace, **self.query)
        version = (found.get("metadata") or {}).get("resourceVersion")
        if not version:
            raise UnreachableError(f"list {self.kind.plural}: the answer is no API server's")
        self._tell(News(self.kind, "LISTED", tuple(found.get("items") or ())))
        self._version = version

    def _follow(self) -> None:
        # Not all at once, should many have begun together.
        seconds = round(WATCH_SECONDS * random.uniform(0.75, 1))  # noqa: S311  # nothing secret
        stream = self._stream = self.client.watch(self.kind, self.namespace, seconds, resourceVersion=self._version, **self.query)
        try:
            if self._stopped.is_set():  # it came between: nobody closes this one
                return
            self._well()
            self._was_let = True
            for line in stream.lines():
                self._take(line)
        finally:
            stream.close()

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            change, data = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise UnreachableError(f"watch {self.kind.plural}: the answer is cut short") from error
        if change == "ERROR":
            code = int(data.get("code") or 0)
            raise ApiError(f"watch {self.kind.plural}: {data.get('message')}", status=code, reason=str(data.get("reason") or ""))
        if change in ("ADDED", "MODIFIED", "DELETED"):
            self._tell(News(self.kind, change, (data,)))
        self._version = data["metadata"]["resourceVersion"]

    def _well(self) -> None:
        if self._failures >= _WORTH_TELLING:
            self._tell(News(self.kind, "BACK"))
        self._failures = 0

    def _failed(self, error: Exception) -> None:
        if self._stopped.is_set():
            return
        self._failures += 1
        if self._failures == _WORTH_TELLING:
            self._tell(News(self.kind, "LOST", error=error))


def pause_after(failures: int) -> float:
    """
    How many seconds to wait before the next try, after so many that have failed.
    """
    longest = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1)  # noqa: S311  # nothing secret
