"""
Writing to pipes from a loop that may wait for nobody.
"""

from __future__ import annotations

import os
import selectors


class Outlet:
    """
    A pipe to write to without ever waiting for its reader: what has no room yet goes out when there is some.
    """

    def __init__(self, number: int, selector: selectors.BaseSelector) -> None:
        self.number = number
        self.selector = selector
        self.rest = bytearray()
        os.set_blocking(number, False)

    def send(self, data: bytes) -> None:
        """
        Write *data*, now or later.
        """
        self.rest += data
        self.flush()

    def flush(self, *, wait: bool = False) -> None:
        """
        Write what is left, as far as there is room; with *wait*, all of it.
        """
        os.set_blocking(self.number, wait)
        try:
            while self.rest:
                del self.rest[: os.write(self.number, self.rest)]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # nobody reads it any more
            self.rest.clear()
        self._watch()

    def close(self) -> None:
        """
        Forget the rest.
        """
        self.rest.clear()
        self._watch()
        os.close(self.number)

    def _watch(self) -> None:
        watched = self.number in self.selector.get_map()
        if self.rest and not watched:
            self.selector.register(self.number, selectors.EVENT_WRITE, self.flush)
        elif watched and not self.rest:
            self.selector.unregister(self.number)
