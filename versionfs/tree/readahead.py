"""Fetches what a reader of a large file will read next, for stores behind a network.

Reads one after the other open a window that grows while they go on; it is kept full ahead of the
reader, as in the kernel's own read-ahead. A read elsewhere closes it and drops what was not begun.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from versionfs.chunkstore import PackRange, PackSource

FIRST_BYTES: Final = 8 * 1024 * 1024
MOST_BYTES: Final = 80 * 1024 * 1024
_GROWTH: Final = 3
_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""What is asked for at a time, once the window is large: a request costs processor time."""
_REST_BYTES: Final = 1024 * 1024
"""So little of a pack is not left for a request of its own."""
_EAGER_BYTES: Final = 256 * 1024
"""Who begins with so many bytes of a file, at once, will read on: the kernel asks for less when
somebody looks at a head."""
_OUT_OF_ORDER_BYTES: Final = 4 * 1024 * 1024
"""How far a read may be from where the last one ended: the kernel sends several at a time, of up to
1 MiB each, and threads take them in any order."""


class Readahead:
    """The window of one open file. Thread-safe."""

    def __init__(
        self,
        source: PackSource,
        size_bytes: int,
        ranges: Callable[[int, int], Iterator[tuple[int, PackRange | None]]],
    ) -> None:
        """Makes a closed window.

        Args:
            source: fetches.
            size_bytes: of the file.
            ranges: yields where the bytes ``[start, end)`` of the file lie (None for a hole), each
                after where it ends in the file; it may read.
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
        self._planning = False
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
            if self._in_order < 2 and (offset or end < _EAGER_BYTES):
                return
            if not self._window:
                self._window = FIRST_BYTES
                self._until = self._grown = end
            elif end - self._grown >= self._window // 4:
                self._window = min(_GROWTH * self._window, MOST_BYTES)
                self._grown = end
            if self._planning or not self._has_room():
                return
            self._planning = True
        self._source.later(self._plan)

    def close(self) -> None:
        """Closes the window; the next reads may open it again."""
        with self._lock:
            self._in_order = 0
            self._shut()
            self._source.leave(self)

    def _shut(self) -> None:
        if self._window:
            self._window = 0
            self._opened += 1
            self._source.cancel(self)

    def _has_room(self) -> bool:
        """Whether the window is open and a request fits into it, or the rest of the file."""
        begin = max(self._until, self._next)
        room = min(self._next + self._window, self._size) - begin
        return room > 0 and room >= min(self._request(), self._size - begin)

    def _request(self) -> int:
        """Returns the bytes of a request: as many as run side by side are to fit in."""
        return min(self._window // 4, _REQUEST_BYTES)

    def _plan(self) -> None:
        """Asks for all that fits into the window; one thread at a time."""
        try:
            while True:
                with self._lock:
                    if not self._has_room():
                        self._planning = False
                        return
                    opened, least = self._opened, self._request()
                    start = max(self._until, self._next)
                    stop = min(self._next + self._window, self._size)
                found = self._requests(start, stop, least)
                with self._lock:
                    # Under the lock, so that what was closed meanwhile is not fetched after all.
                    if opened == self._opened:
                        self._until = found[-1][0] if found else stop  # nothing but holes
                        for _, ranges in found:
                            self._source.prefetch(ranges, self)
        except BaseException:
            with self._lock:
                self._planning = False
            raise

    def _requests(self, start: int, stop: int, least: int) -> list[tuple[int, list[PackRange]]]:
        """Returns what to ask for from ``start`` on, each with where it ends in the file.

        They are of one pack each, and of ``least`` bytes or what the pack has. The last may end
        before ``stop``: what is behind it is asked for next time, with more.
        """
        found: list[tuple[int, list[PackRange]]] = []
        ranges: list[PackRange] = []
        held = until = 0
        for end, where in self._ranges(start, min(stop + _REST_BYTES, self._size)):
            if where is not None:
                if ranges and ranges[0].pack != where.pack:
                    _add(found, until, ranges, held < _REST_BYTES)
                    ranges, held = [], 0
                    if until >= stop:
                        return found
                ranges.append(where)
                held += where.length
            until = end
            if ranges and held >= least and end <= stop:
                found.append((end, ranges))
                ranges, held = [], 0
        if until >= self._size or not found:
            _add(found, until, ranges, held < _REST_BYTES)
        return found


def _add(
    found: list[tuple[int, list[PackRange]]], end: int, ranges: list[PackRange], is_little: bool
) -> None:
    """Adds the last request of a pack; a little one becomes a part of the one before."""
    if found and (not ranges or (is_little and found[-1][1][0].pack == ranges[0].pack)):
        found[-1] = (end, found[-1][1] + ranges)
    elif ranges:
        found.append((end, ranges))
