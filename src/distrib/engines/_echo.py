"""
Logs of replicas on a terminal, or wherever a program's output goes.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Sequence
from io import FileIO
from typing import TextIO

__all__ = ["Echo"]

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
# What would upset a terminal. Bytes: control characters but tab, newline, carriage return and escape.
_HARMFUL = bytes(set(range(32)) - {9, 10, 13, 27}) + b"\x7f"
# Sequences of escape: all but those that set colours or clear a line, which progress bars do.
_HARMFUL_SEQUENCES = rb"\x1b(?:\[[0-?]*[ -/]*(?:[@-JL-ln-~]|(?![ -~]))|[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ`-~]|(?!\[))"
# Colours as they were; nothing else of the terminal can be changed.
_RESTORE = b"\x1b[0m"
# How long a reader that has stopped to read may keep a run from ending that is to end.
_HURRIED_SECONDS = 1.0
# How often to look whether whoever reads is in a hurry.
_LOOK_SECONDS = 0.1


class Echo:
    """
    Shows logs on a text stream, each line with its replica's name in front.
    """

    def __init__(self, names: Sequence[str], stream: TextIO | None) -> None:
        self.stream = stream
        self.colours = stream is not None and _has_colours(stream)
        self.terminal = stream is not None and _is_terminal(stream)
        width = max(map(len, names), default=0)
        self.prefixes = {name: self._prefix(name, at, width) for at, name in enumerate(names)}
        self.middle = ""
        self.escaped = False
        self.is_hurried = False

    def _prefix(self, name: str, at: int, width: int) -> bytes:
        text = f"[{name}]".ljust(width + 2)
        return (f"\x1b[{_COLOURS[at % len(_COLOURS)]}m{text}\x1b[0m " if self.colours else f"{text} ").encode()

    def show(self, name: str, data: bytes) -> None:
        """
        Show *data*, which *name* wrote; a terminal does not get what would upset it.
        """
        if self.stream is None:
            return
        prefix = self.prefixes[name]
        if self.terminal:
            data = _for_terminal(data, prefix)
            self.escaped = self.escaped or b"\x1b" in data
        # A chunk may end within a line; what follows goes on there, unless another replica came in between.
        start = b"" if self.middle == name else b"\n" + prefix if self.middle else prefix
        self.middle = "" if data.endswith(b"\n") else name
        body = data[:-1] if data.endswith(b"\n") else data
        data = start + body.replace(b"\n", b"\n" + prefix) + (b"" if self.middle else b"\n")
        self._write(data)

    def end(self) -> None:
        """
        Finish a line that nobody finished, and take back what a replica may have done to the terminal.
        """
        if self.stream is not None and (self.middle or self.escaped):
            self._write((_RESTORE if self.escaped else b"") + (b"\n" if self.middle else b""))
            self.middle, self.escaped = "", False

    def hurry(self) -> None:
        """
        Do not wait any more for a reader that does not read: somebody wants the run to end.
        """
        self.is_hurried = True

    def _write(self, data: bytes) -> None:
        stream = self.stream
        assert stream is not None  # noqa: S101  # whoever calls has looked
        try:
            stream.flush()
            buffer = getattr(stream, "buffer", None)
            raw = buffer if isinstance(buffer, FileIO) else getattr(buffer, "raw", None)  # the first with `python -u`
            if isinstance(raw, FileIO):
                self._write_all(raw.fileno(), data)
            elif buffer is not None:
                buffer.write(data)
                buffer.flush()
            else:  # a notebook's stream takes text only
                stream.write(data.decode("utf-8", "backslashreplace"))
                stream.flush()
        except (OSError, ValueError):  # closed, or its reader is gone: the logs are kept all the same
            self.stream = None

    def _write_all(self, number: int, data: bytes) -> None:
        # Not by the buffer: what a closed pipe does not take would stay in it, and spoil the program's own end.
        # A file never makes anyone wait; a pipe that has any room has it for this much.
        most = len(data) if stat.S_ISREG(os.fstat(number).st_mode) else select.PIPE_BUF
        room = select.poll()
        room.register(number, select.POLLOUT)
        rest = memoryview(data)
        while rest:
            self._await_room(room)
            try:
                rest = rest[os.write(number, rest[:most]) :]
            except BlockingIOError:  # another program has made the terminal so
                continue

    def _await_room(self, room: select.poll) -> None:
        stalled = 0.0
        while not room.poll(1000 * _LOOK_SECONDS):
            stalled += _LOOK_SECONDS
            if self.is_hurried and stalled >= _HURRIED_SECONDS:
                raise BlockingIOError(errno.EAGAIN, "nobody reads")


def _for_terminal(data: bytes, prefix: bytes) -> bytes:
    if b"\x1b" in data:
        import re

        data = re.sub(_HARMFUL_SEQUENCES, b"", data)
    data = data.translate(None, _HARMFUL)
    if b"\r" not in data:
        return data
    # A progress bar starts its line again, where the prefix is.
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\r" + prefix)


def _has_colours(stream: TextIO) -> bool:
    """
    Whether to use colours: on a terminal that has them, unless ``NO_COLOR`` says otherwise (https://no-color.org).
    """
    return _is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError, OSError):
        return False
