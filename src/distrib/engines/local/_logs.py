"""
The replicas' logs: read and followed.

Replicas write straight into their own files, so nothing they write is lost, waits for anybody, or takes memory here,
whoever dies; readers learn from the kernel that a file has grown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..._linux import watch_files

_CHUNK = 1 << 18
# A line without an end is shown once it is as long as this.
_LONGEST_PARTIAL = 1 << 16
# The files of more replicas than this are not all kept open.
_MOST_OPEN = 64
# Bytes of UTF-8: one that starts a character of several bytes, and one that goes on with it.
_FIRST_OF_SEVERAL, _FOLLOWING = 0xC0, 0x80
#: How often to look where the kernel cannot tell.
LOOK_SECONDS = 0.1


def tail(path: str, lines: int) -> str:
    """
    The last lines of a file, of at most 16 KiB together; an empty string if there is none.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 14)))
            return b"\n".join(file.read().splitlines()[-lines:]).decode(errors="backslashreplace")
    except OSError:
        return ""


class Follower:
    """
    The logs of some replicas, as they grow.

    Args:
        folder: Where the logs are.

        names: The replicas.
    """

    def __init__(self, folder: str, names: Sequence[str]) -> None:
        self.folder = folder
        self.places = dict.fromkeys(names, 0)
        self.partial = dict.fromkeys(names, b"")
        self.files: dict[str, int] = {}
        self.grown = watch_files(folder)
        #: Whether there is more to be read at once.
        self.is_behind = False

    def close(self) -> None:
        """
        Let go of the files.
        """
        for number in [*self.files.values(), *([self.grown] if self.grown is not None else [])]:
            os.close(number)
        self.files, self.grown = {}, None

    def read(self, *, last: bool = False) -> Iterator[tuple[str, bytes]]:
        """
        What has been written since, in whole lines as far as possible; of each replica in turn, and no more than a chunk: one
        that writes without end keeps nobody from the others.

        Args:
            last: Nothing more will come, so give out all of the rest.
        """
        if self.grown is not None:
            try:
                os.read(self.grown, _CHUNK)  # what it says is only that something has grown
            except BlockingIOError:
                pass
        self.is_behind = True
        while self.is_behind:
            self.is_behind = False
            for name in self.places:
                yield from self._read_one(name)
            if not last:
                return
        for name, rest in self.partial.items():
            if rest:
                yield name, rest
        self.partial = dict.fromkeys(self.places, b"")

    def _read_one(self, name: str) -> Iterator[tuple[str, bytes]]:
        number = self._open(name)
        if number is None:
            return
        try:
            yield from self._read_file(name, number)
        finally:
            if name not in self.files:
                os.close(number)

    def _open(self, name: str) -> int | None:
        if name in self.files:
            return self.files[name]
        try:
            number = os.open(os.path.join(self.folder, f"{name}.log"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if len(self.files) < _MOST_OPEN:
            self.files[name] = number
        return number

    def _read_file(self, name: str, number: int) -> Iterator[tuple[str, bytes]]:
        chunk = os.pread(number, _CHUNK, self.places[name])
        self.is_behind |= len(chunk) == _CHUNK
        self.places[name] += len(chunk)
        whole, end, rest = (self.partial[name] + chunk).rpartition(b"\n")
        if len(rest) > _LONGEST_PARTIAL:
            cut = _last_whole_character(rest)
            whole, end, rest = whole + end + rest[:cut], b"", rest[cut:]
        self.partial[name] = rest
        if whole or end:
            yield name, whole + end


def _last_whole_character(data: bytes) -> int:
    """
    Where the last character of UTF-8 that may not be complete starts; the end if there is none.
    """
    for back in range(1, 4):
        if data[-back] >= _FIRST_OF_SEVERAL:
            return len(data) - back
        if data[-back] < _FOLLOWING:
            break
    return len(data)
