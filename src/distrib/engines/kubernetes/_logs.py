"""
The logs of a run's pods, as they grow: merged, without loss and without repeats.

Each pod is read by a thread of its own, which waits for its container to start, reads until it has ended, and takes up again
where it was when the connection breaks: the server can only be asked for what was written since a full second, so the lines
of the last two seconds that have been read before are counted, and left out.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http import HTTPStatus
from time import monotonic, time

from ...errors import EngineError
from ._client import ApiError, Client
from ._seen import Pod
from ._watch import pause_after

#: A line that is longer is given out in pieces.
LONGEST_PARTIAL = 1 << 16
_TAIL = 1 << 14
# Containers end at some time within the second that Kubernetes tells.
_SECOND = 1.0
_FRACTION = slice(19, 29)
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_WHOLE = len("2026-01-02T03:04:05.000000000Z")
# What connections may take to end by themselves, once the run has.
_SOON_SECONDS = 0.1

Show = Callable[[str, bytes], None]


class Cursor:
    """
    How far the log of a container has been read.
    """

    def __init__(self) -> None:
        self._latest = b""
        self._counts: dict[bytes, int] = {}
        self._skip = 0
        self._rest = b""
        self._given = 0
        self._owed = 0

    def since(self) -> str | None:
        """
        What to ask the server for: a time, or None for all of it. From now on, what comes is taken for the answer.
        """
        self._rest, self._skip, self._owed, self._given = b"", sum(self._counts.values()), self._given, 0
        return _second_before(max(self._counts)) if self._counts else None

    def take(self, piece: bytes) -> bytes:
        """
        What is new in the next piece of the answer, in whole lines unless they are very long, and without the times.
        """
        *lines, rest = (self._rest + piece).split(b"\n")
        found = []
        for line in lines:
            text = self._text(line)
            if text is not None:
                found += [text, b"\n"]
                self._given = 0
        self._rest = rest
        if len(rest) > LONGEST_PARTIAL:
            found.append(self._partial())
        return b"".join(found)

    def end(self) -> bytes:
        """
        The rest: a last line that was not finished.
        """
        stamp, text = _split(self._rest)
        self._rest = b""
        if not text or self._is_known(stamp):
            return b""
        return text[self._owed :] + b"\n"

    def _text(self, line: bytes) -> bytes | None:
        stamp, text = _split(line)
        if self._is_known(stamp):
            self._skip -= 1
            return None
        self._skip = 0
        if stamp[10:11] != b"T" or not stamp[:4].isdigit():  # not the container's, but what the kubelet has to say about it
            return line
        second = stamp[: _FRACTION.start] + stamp[_FRACTION.stop :]
        if second in self._counts:
            self._counts[second] += 1
        elif not self._counts or second >= _second_before(max(self._counts)).encode():
            # A line of the standard output may come after a later one of the standard error: two seconds are looked at again.
            self._counts[second] = 1
            before = _second_before(max(self._counts)).encode()
            self._counts = {each: count for each, count in self._counts.items() if each >= before}
        self._latest = max(self._latest, stamp)
        text, self._owed = text[self._owed :], 0
        return text

    def _is_known(self, stamp: bytes) -> bool:
        return self._skip > 0 and stamp <= self._latest

    def _partial(self) -> bytes:
        stamp, text = _split(self._rest)
        if self._is_known(stamp):
            return b""
        given, self._owed = text[self._owed :], max(0, self._owed - len(text))
        self._given += len(text)
        self._rest = stamp + b" "
        return given


def _split(line: bytes) -> tuple[bytes, bytes]:
    """
    The time of a line and its text. Times are compared as texts: each gets all nine digits, of which the last may have been left out.

    >>> _split(b"2026-01-02T03:04:05.25Z hello")
    (b'2026-01-02T03:04:05.250000000Z', b'hello')
    """
    stamp, _, text = line.partition(b" ")
    if (len(stamp) != _WHOLE or stamp[-1:] != b"Z") and (found := _STAMP.fullmatch(stamp)):
        stamp = b"%s.%s%s" % (found[1], (found[2] or b"").ljust(9, b"0"), found[3])
    return stamp, text


def _second_before(second: bytes) -> str:
    text = second.decode()
    before = datetime.fromisoformat(text[:19]) - timedelta(seconds=1)
    return before.isoformat() + text[19:]


class Reader:
    """
    Reads the log of one pod, whatever becomes of its container.
    """

    def __init__(self, client: Client, namespace: str, pod: Pod, show: Show) -> None:
        self._client = client
        self._namespace = namespace
        self._show = show
        self._changed = threading.Condition()
        self._pod = pod
        self._gone = False
        self._closed = False
        self._is_last = False
        self._is_cut = False
        self._number = 0
        self._versions = 0
        self._stream_close: Callable[[], None] | None = None
        self.thread = threading.Thread(target=self._run, name=f"distrib reads {pod.name}", daemon=True)
        self.thread.start()

    def see(self, pod: Pod, *, gone: bool) -> None:
        """
        A new version of the pod.
        """
        with self._changed:
            self._pod, self._gone = pod, self._gone or gone
            self._versions += 1
            self._changed.notify_all()

    def finish(self) -> None:
        """
        No version of the pod will come any more: read to the end of what there is.
        """
        with self._changed:
            self._is_last = True
            self._changed.notify_all()

    def hurry(self) -> None:
        """
        Read the rest at once, if the container has ended: the kubelet ends what follows its log up to a second after that.
        """
        if self._stream_close is not None and self._is_done(self._number):
            self._is_cut = True
            self._stream_close()

    def close(self) -> None:
        """
        Read no more.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._stream_close is not None:
            self._stream_close()

    def _run(self) -> None:
        number = 0
        while self._await_start(number):
            # Of the ends before the last one nothing is kept.
            number = max(number, self._pod.restarts - 1)
            self._read(number)
            number += 1

    def _await_start(self, number: int) -> bool:
        with self._changed:
            while not self._closed:
                if self._pod.starts > number:
                    return True
                # The kubelet calls a pod over a second after its container has ended, and a run does not wait for that.
                if self._gone or self._pod.is_over or self._is_last:
                    return False
                self._changed.wait()
        return False

    def _read(self, number: int) -> None:
        self._number, self._is_cut = number, False
        cursor, failures, complete = Cursor(), 0, False
        while not self._closed and not complete:
            seen, is_last = self._versions, self._pod.restarts > number
            try:
                was_done = self._is_done(number)
                self._read_once(cursor, previous=is_last, follow=not was_done)
                failures, complete = 0, was_done or (not self._is_cut and self._has_all(number, time() + self._client.skew))
            except ApiError as error:
                failures += 1
                if error.is_absent or self._gone:
                    break
                if error.status != HTTPStatus.BAD_REQUEST:
                    self._await_change(self._versions, pause_after(failures))
                elif not self._is_done(number):  # it is being started: its next version will tell more
                    if not self._await_change(seen, None):
                        break
                elif is_last or self._pod.restarts <= number:  # nothing is kept of it
                    break
            except EngineError:  # the connection broke, or the credentials are being exchanged
                failures += 1
                self._await_change(self._versions, pause_after(failures))
        rest = cursor.end()
        if rest:
            self._show(self._pod.replica, rest)

    def _read_once(self, cursor: Cursor, *, previous: bool, follow: bool) -> None:
        since = cursor.since()
        query = {"container": self._pod.container, "timestamps": "true", **({"sinceTime": since} if since else {})}
        query |= {"previous": "true"} if previous else {"follow": "true"} if follow else {}
        stream = self._client.log(self._namespace, self._pod.name, **query)
        self._stream_close = stream.close
        if self._closed:
            stream.close()
        for piece in stream.pieces():
            found = cursor.take(piece)
            if found:
                self._show(self._pod.replica, found)

    def _has_all(self, number: int, when: float) -> bool:
        """
        Whether the log ended because the container did, and not because somebody in between had enough.
        """
        while not self._is_done(number) and not self._closed:
            # The end of the container is told by the pod's next version, which is on its way.
            if not self._await_change(self._versions, pause_after(1) + _SECOND):
                return False
        end = self._pod.ends.get(number)
        return end is None or end.time <= when + _SECOND

    def _is_done(self, number: int) -> bool:
        return self._gone or self._pod.is_over or self._pod.restarts > number or number in self._pod.ends

    def _await_change(self, seen: int, timeout: float | None) -> bool:
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._gone or self._versions > seen or (self._is_last and timeout is None), timeout
            )
            return self._closed or self._gone or self._versions > seen


class Logs:
    """
    The logs of several pods.

    Args:
        client: Whom to ask.

        namespace: Where the pods are.

        show: Called with a replica's name and what it has written, by one thread at a time.
    """

    def __init__(self, client: Client, namespace: str, show: Show) -> None:
        self._client = client
        self._namespace = namespace
        self._show_it = show
        self._lock = threading.Lock()
        self._readers: dict[str, Reader] = {}
        #: The last bytes of each replica's log.
        self.tails: dict[str, bytes] = {}

    def see(self, pod: Pod, *, gone: bool) -> None:
        """
        A new version of a pod; the first one of each begins to be read.
        """
        reader = self._readers.get(pod.uid)
        if reader is not None:
            reader.see(pod, gone=gone)
        elif pod.replica and not gone:
            self._readers[pod.uid] = Reader(self._client, self._namespace, pod, self._show)

    def drain(self, seconds: float) -> None:
        """
        Wait until all that was written has been read: at most so long.
        """
        until = monotonic() + seconds
        readers = list(self._readers.values())
        for reader in readers:
            reader.finish()
        soon = min(monotonic() + _SOON_SECONDS, until)
        for reader in readers:
            reader.thread.join(max(0.0, soon - monotonic()))
        for reader in readers:
            reader.hurry()
        for reader in readers:
            reader.thread.join(max(0.0, until - monotonic()))
        self.close()

    def close(self) -> None:
        """
        Read no more.
        """
        for reader in list(self._readers.values()):
            reader.close()

    def _show(self, name: str, data: bytes) -> None:
        with self._lock:
            self.tails[name] = (self.tails.get(name, b"") + data)[-_TAIL:]
            self._show_it(name, data)


class Channel:
    """
    What readers have read, on its way to one who asks for the next line; they wait for that one when it is slow.
    """

    _MOST = 1 << 20

    def __init__(self) -> None:
        self._pieces: list[tuple[str, bytes]] = []
        self._size = 0
        self._state = threading.Condition()
        self._ended = False

    def put(self, name: str, data: bytes) -> None:
        """
        Add something, when there is room for it.
        """
        with self._state:
            self._state.wait_for(lambda: self._size < self._MOST or self._ended)
            self._pieces.append((name, data))
            self._size += len(data)
            self._state.notify_all()

    def end(self) -> None:
        """
        Nothing more will come, or nothing more is wanted.
        """
        with self._state:
            self._ended = True
            self._state.notify_all()

    def take(self) -> Iterator[tuple[str, bytes]]:
        """
        What there is, as it comes.
        """
        while True:
            with self._state:
                self._state.wait_for(lambda: self._pieces or self._ended)
                pieces, self._pieces, self._size = self._pieces, [], 0
                self._state.notify_all()
            if not pieces:
                return
            yield from pieces


def read_all(client: Client, namespace: str, pod: Pod, *, lines: int | None = None) -> Iterator[bytes]:
    """
    All lines of a pod's container that the cluster still has, in pieces, or so many of the last; nothing if the pod is gone.
    """
    for previous in (["true"] if pod.restarts else []) + [""]:
        query = {"container": pod.container, **({"previous": previous} if previous else {}), **({"tailLines": str(lines)} if lines else {})}
        try:
            yield from client.log(namespace, pod.name, **query).pieces()
        except ApiError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
                raise
