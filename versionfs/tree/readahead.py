"""Fetches what a reader of a large file will read next, for stores behind a network.

Reads one after the other open a window that doubles while they go on; it is kept full ahead of the
reader, as in the kernel's own read-ahead. A read elsewhere closes it and drops what was not begun.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from versionfs.chunkstore import PackRange, PackSource

FIRST_BYTES: Final = 2 * 1024 * 1024
MOST_BYTES: Final = 64 * 1024 * 1024
_OUT_OF_ORDER_BYTES: Final = 4 * 1024 * 1024
"""How far a read may be from where the last one ended: the kernel sends several at a time, of up to
1 MiB each, and threads take them in any order."""


class Readahead:
    """The window of one open file. Thread-safe."""

    def __init__(
        self, source: PackSource, size_bytes: int, ranges: Callable[[int, int], Iterator[PackRange]]
    ) -> None:
        """Makes a closed window.

        Args:
            source: fetches.
            size_bytes: of the file.
            ranges: yields where the bytes ``[start, end)`` of the file lie; it may read.
        """
        self._source = source
        self._size = size_bytes
        self._ranges = ranges
        self._lock = threading.Lock()
        self._next = 0
        self._in_order = 0
        self._window = 0
        self._until = 0
        self._grown = 0
        self._opened = 0  # counts the windows: what belongs to one that was closed is left

    def note(self, offset: int, end: int) -> None:
        """Takes notice of a read of ``[offset, end)``; returns at once."""
        with self._lock:
            if not -_OUT_OF_ORDER_BYTES <= offset - self._next <= _OUT_OF_ORDER_BYTES:
                self._in_order = 1
                self._next = end
                self._shut()
                return
            if end <= self._next:
                return
            self._next = end
            self._in_order += 1
            if self._in_order < 2:
                return
            if not self._window:
                self._window = FIRST_BYTES
                self._until = self._grown = end
            elif end - self._grown >= self._window // 2:
                self._window = min(2 * self._window, MOST_BYTES)
                self._grown = end
            # Nearly full, so that as many requests run as there are connections.
            if self._until - end > self._window - self._window // 8:
                return
            start = max(self._until, end)
            stop = min(end + self._window, self._size)
            if stop <= start:
                return
            self._until = stop
            opened = self._opened
        self._source.later(lambda: self._prefetch(start, stop, opened))

    def close(self) -> None:
        """Closes the window; the next reads may open it again."""
        with self._lock:
            self._in_order = 0
            self._shut()

    def _shut(self) -> None:
        if self._window:
            self._window = 0
            self._opened += 1
            self._source.cancel(self)

    def _prefetch(self, start: int, stop: int, opened: int) -> None:
        ranges = list(self._ranges(start, stop))
        with self._lock:
            # Under the lock, so that what was closed meanwhile is not fetched after all.
            if opened == self._opened:
                self._source.prefetch(ranges, self)
