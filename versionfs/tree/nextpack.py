"""Has the next pack of a large file read from the disk before its reader comes there.

For local stores. The kernel reads ahead of who reads a pack in order, but within that pack, and it
begins with little: where the next one began, the reader waited for the disk, and again some
megabytes later, for the first large piece (docs/design/008).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from typing import Final

from versionfs.chunkstore import PackRange, PackSource
from versionfs.errors import CorruptionError
from versionfs.types import Extent, Location, PackId

_AHEAD_BYTES: Final = 16 * 1024 * 1024
"""How far ahead of the reader another pack is looked for. Bytes of the file."""
_STEP_BYTES: Final = 4 * 1024 * 1024
"""How often, if there was none."""
_MOST_BYTES: Final = 4 * 1024 * 1024
"""What is read of a pack. The kernel goes on from there in large pieces."""
_LEAST_BYTES: Final = 1024 * 1024
"""Less than that of a pack is not worth it: of a file of many versions, a piece here and there."""
_READERS: Final = 4

Extents = Callable[[int], Iterator[tuple[int, Extent]]]


class NextPack:
    """What is read ahead of the readers of one open file."""

    __slots__ = ("_extents", "_known", "_source")

    def __init__(self, source: PackSource, extents: Extents) -> None:
        """Reads nothing yet.

        Args:
            source: is asked to prefetch.
            extents: yields the extents of the file from the one that holds an offset on, each with
                its own offset.
        """
        self._source = source
        self._extents = extents
        self._known: deque[tuple[int, int]] = deque(maxlen=_READERS)

    def note(self, end: int) -> None:
        """Takes notice of a reader that goes on at ``end``; returns at once."""
        if any(begin <= end < until for begin, until in self._known):
            return
        until, found = end + _STEP_BYTES, None
        with suppress(CorruptionError):  # Whoever reads there is told.
            found = self._find(end)
        if found is not None:
            until, part = found
            self._source.prefetch([part], None)
        self._known.append((end, until))

    def _find(self, end: int) -> tuple[int, PackRange] | None:
        """Returns where in the file the next pack begins, and what is worth reading of it."""
        here: PackId | None = None
        run: _Run | None = None
        bound = end + _AHEAD_BYTES + _MOST_BYTES
        for at, extent in takewhile(lambda item: item[0] < bound, self._extents(end)):
            where = extent.location
            if where is None:
                continue
            here = here or where.pack
            if run is None or not run.goes_on(where):
                if run is not None and run.length >= _LEAST_BYTES:
                    break
                if at >= end + _AHEAD_BYTES:
                    return None
                run = _Run(at, where) if where.pack != here else None
            if run is not None:
                run.add(where)
                if run.length >= _MOST_BYTES:
                    break
        if run is None or run.length < _LEAST_BYTES:
            return None
        return run.begin, PackRange(run.pack, run.start, run.length)


class _Run:
    """Blocks that follow each other in a pack as they do in the file."""

    __slots__ = ("_last", "_stop", "begin", "pack", "start")

    def __init__(self, begin: int, first: Location) -> None:
        self.begin = begin
        self.pack = first.pack
        self.start = self._last = self._stop = first.block_offset

    @property
    def length(self) -> int:
        return self._stop - self.start

    def goes_on(self, where: Location) -> bool:
        return where.pack == self.pack and where.block_offset >= self._last

    def add(self, where: Location) -> None:
        self._last = where.block_offset
        self._stop = where.block_offset + where.stored_length
