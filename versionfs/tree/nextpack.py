"""Has the next pack of a large file read from the disk before its reader comes there.

For local stores. The kernel reads ahead of who reads a pack in order, but within that pack, and it
begins with little: where the next one began, the reader waited for the disk, and again some
megabytes later, for the first large piece (docs/design/008).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, takewhile
from typing import Final

from versionfs.chunkstore import PackRange, PackSource
from versionfs.types import Extent, Location, PackId

_AHEAD_BYTES: Final = 16 * 1024 * 1024
"""How far ahead of the reader another pack is looked for. Bytes of the file."""
_AHEAD_EXTENTS: Final = 512
"""So many at most are looked at: they may be as small as they like."""
_STEP_BYTES: Final = 4 * 1024 * 1024
"""How often, if there was none."""
_MOST_BYTES: Final = 4 * 1024 * 1024
"""What is read of a pack. The kernel goes on from there in large pieces."""
_LEAST_BYTES: Final = 1024 * 1024
"""Less than that of a pack is not worth it: of a file of many versions, a piece here and there."""
_GAP_BYTES: Final = 256 * 1024
"""So much between two blocks, of no use to the file, is read along; more ends the run."""
_READERS: Final = 4

Extents = Callable[[int], Iterator[tuple[int, Extent]]]


class NextPack:
    """What is read ahead of the readers of one open file. Thread-safe."""

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
        # For each reader: from where to where there is nothing new to find.
        self._known: tuple[tuple[int, int], ...] = ()

    def note(self, end: int) -> None:
        """Takes notice of a reader that goes on at ``end``; may read the manifest, raises nothing.

        What is wrong with what comes there is told who reads it.
        """
        known = self._known
        if any(begin <= end < until for begin, until in known):
            return
        until = end + _STEP_BYTES
        with suppress(Exception):
            found = self._find(end)
            if found is not None:
                until = max(found[0], end + _LEAST_BYTES)
                self._source.prefetch([found[1]], None)
        others = [it for it in known if not it[1] <= end < it[1] + _STEP_BYTES]
        self._known = (*others, (end, until))[-_READERS:]

    def _find(self, end: int) -> tuple[int, PackRange] | None:
        """Returns where in the file the next pack begins, and what is worth reading of it."""
        here: PackId | None = None
        run: _Run | None = None
        bound = end + _AHEAD_BYTES + _MOST_BYTES
        near = takewhile(lambda item: item[0] < bound, self._extents(end))
        for at, extent in islice(near, _AHEAD_EXTENTS):
            where = extent.location
            if where is None:
                continue
            here = here or where.pack
            if run is None or not run.goes_on(where):
                if run is not None and run.stored >= _LEAST_BYTES:
                    break
                if at >= end + _AHEAD_BYTES:
                    return None
                run = _Run(at, where) if where.pack != here else None
            if run is not None:
                run.add(where)
                if run.stored >= _MOST_BYTES:
                    break
        if run is None or run.stored < _LEAST_BYTES:
            return None
        return run.begin, PackRange(run.pack, run.start, min(run.stop - run.start, _MOST_BYTES))


class _Run:
    """Blocks that follow each other in a pack as they do in the file: ``[start, stop)`` there."""

    __slots__ = ("_last", "begin", "pack", "start", "stop", "stored")

    def __init__(self, begin: int, first: Location) -> None:
        self.begin = begin
        self.pack = first.pack
        self.start = self.stop = self._last = first.block_offset
        self.stored = 0

    def goes_on(self, where: Location) -> bool:
        """Whether a block is the last one, or comes behind it."""
        if where.pack != self.pack:
            return False
        if where.block_offset == self._last:
            return True
        return self.stop <= where.block_offset <= self.stop + _GAP_BYTES

    def add(self, where: Location) -> None:
        stop = where.block_offset + where.stored_length
        self.stored += max(stop - max(self.stop, where.block_offset), 0)
        self.stop, self._last = max(stop, self.stop), where.block_offset
