"""Cuts an edited file again: what is kept of the old extents, and what is cut anew.

The result is what cutting the whole new file gives; the work follows what was written. Bytes do
not move in an edit, so a place has the same offset in the old file and in the new. Two facts carry
it, for a place that is a cut (a boundary of chunks or holes) in the old file *and* in the new:

1. What follows is cut as if the file began there (see ``Cutter``). So a new cutter may start there.
2. If the bytes from there up to an ``edge`` are the same, old and new have the same extents up to
   where the difference could be noticed. Let the bytes before the edge end in zeros from ``sure``
   on (``sure`` = ``edge`` when they end in none). A hole that begins before ``sure`` ends before
   the edge, so both files have it. Hence the data run that is being cut either ends at the same
   place in both, or at ``sure`` or later in both; and a chunk that ends ``LOOK_AHEAD_BYTES`` before
   ``sure`` does not notice which. When ``max_bytes`` zeros or more lie between ``sure`` and the
   edge, a hole begins at ``sure`` in both files, and all extents up to there are the same.

The end of the file is such a difference too, unless both files end there. A file shorter than
``whole_bytes`` is one chunk; from such a one, nothing is kept for a longer one.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from versionfs.chunking import ChunkingParameters, Cut, Cutter
from versionfs.chunking.cut import LOOK_AHEAD_BYTES
from versionfs.types import NO_ID, Extent

_PEEK_BYTES: Final = 4096
"""How much of an old chunk is read to see whether the one before it still ends there."""
_PIECE_CHUNKS: Final = 4
_PIECE_BYTES: Final = 4 * 1024 * 1024
"""Long new data is read in pieces of this size, or of so many times ``max_bytes``."""
_LOOK_BACK_BYTES: Final = 64
_LOOK_BACK_MOST_BYTES: Final = 64 * 1024
_NEVER: Final = sys.maxsize


class Extents(Protocol):
    """The extents of the old file (``FileContent``)."""

    @property
    def size(self) -> int:
        """The length of the file, in bytes."""

    def extents(self, offset: int = 0) -> Iterator[tuple[int, Extent]]:
        """Yields the extents from the one that holds ``offset`` on, each with its own offset."""


class Kept(NamedTuple):
    """The old extents in ``[start, end)``, which both are offsets where extents begin or end."""

    start: int
    end: int


class New(NamedTuple):
    """``length`` bytes that are one chunk, or a hole (``data`` is None)."""

    length: int
    data: memoryview | None


Read = Callable[[int, int], bytes]
"""Returns so many bytes of the new file at an offset; all of them lie within the file."""

NextZeros = Callable[[int], tuple[int, int] | None]
"""Returns the first range ``[start, end)`` known to be zeros in the new file that ends behind an
offset, or None. Only ranges of ``max_bytes`` or more matter; zeros that are not named are found."""


def recut(
    parameters: ChunkingParameters,
    old: Extents,
    size: int,
    dirty: Iterable[tuple[int, int]],
    read: Read,
    next_zeros: NextZeros | None = None,
    *,
    visible: int | None = None,
) -> Iterator[Kept | New]:
    """Yields the extents of an edited file, in order.

    Reads the chunk in which a dirty range begins, the range, and what follows up to the first old
    cut that is a cut again: about one chunk on ordinary data. Reads no zeros that are known.

    Args:
        parameters: of the store. An old file that was cut by others keeps what is not touched.
        old: the file before.
        size: the length of the new file, in bytes.
        dirty: the ranges ``[start, end)`` that may differ from the old file, sorted by start; they
            may touch or overlap.
        read: reads the new file. What it raises ends the iteration; nothing is changed by it.
        next_zeros: knows zeros of the new file, as in a sparse file.
        visible: how many bytes of the old file still show; all from there on may differ. None
            stands for all.
    """
    return _Recutting(parameters, old, size, dirty, read, next_zeros, visible).run()


class _Recutting:
    """One call of ``recut``."""

    def __init__(
        self,
        parameters: ChunkingParameters,
        old: Extents,
        size: int,
        dirty: Iterable[tuple[int, int]],
        read: Read,
        next_zeros: NextZeros | None,
        visible: int | None,
    ) -> None:
        self._parameters = parameters
        self._old = old
        self._size = size
        self._read = read
        self._next_zeros = next_zeros
        self._zeros: tuple[int, int] | None = (0, 0)
        """The last range that ``next_zeros`` returned, asked about ``_asked``."""
        self._asked = 0
        shared = min(old.size, size, old.size if visible is None else visible)
        self._starts, self._ends = _merged(dirty, shared, parameters.min_bytes)
        if shared < max(old.size, size):
            _add(self._starts, self._ends, shared, _NEVER, parameters.min_bytes)
        self._sure: tuple[int, int] = (-1, 0)
        """The number of a dirty range, and where the extents known to stay before it end."""

    def run(self) -> Iterator[Kept | New]:
        if 0 < self._size < self._parameters.whole_bytes:
            if self._starts:
                yield New(self._size, memoryview(self._read(0, self._size)))
            else:
                yield Kept(0, self._size)
            return
        at = 0
        while at < self._size:
            kept = self._kept_until(at)
            if kept > at:
                yield Kept(at, kept)
                at = kept
            else:
                for cut in self._cut(at):
                    yield New(cut.length, cut.data)
                    at += cut.length

    # What is kept

    def _kept_until(self, at: int) -> int:
        """Returns where the old extents from ``at`` on, a cut in both files, stop being kept.

        That is ``at`` itself when not even the first is known to stay.
        """
        number = bisect_right(self._ends, at)
        if number == len(self._ends):
            return self._size
        if self._starts[number] <= at:
            return at
        if self._sure[0] != number:
            self._sure = number, self._last_sure_cut(number)
        return max(at, self._sure[1])

    def _last_sure_cut(self, number: int) -> int:
        """Returns the last old cut before a dirty range that the range cannot have moved.

        The bytes before the range are the same as far as the range before it, or further.
        """
        edge = self._starts[number]
        start, extent = next(self._old.extents(edge - 1))
        if extent.chunk == NO_ID:
            if edge - start >= self._parameters.max_bytes:
                return start
            sure = start
        else:
            sure = edge - self._zeros_before(edge, self._ends[number - 1] if number else 0)
        if sure < LOOK_AHEAD_BYTES:
            return 0
        return next(self._old.extents(sure - LOOK_AHEAD_BYTES))[0]

    def _zeros_before(self, edge: int, low: int) -> int:
        """Counts the zeros before an offset, down to ``low``: fewer than ``max_bytes``.

        Only where the old file has no hole, so that a longer run of zeros cannot be there.
        """
        zeros = 0
        step = _LOOK_BACK_BYTES
        while zeros < edge - low:
            length = min(step, edge - low - zeros)
            data = self._read(edge - zeros - length, length)
            rest = len(data.rstrip(b"\0"))
            zeros += length - rest
            if rest:
                break
            step = min(4 * step, _LOOK_BACK_MOST_BYTES)
        return zeros

    def _joins(self, at: int) -> bool:
        """Tells whether the cutter may stop at a cut of the new file, as old extents follow."""
        return (
            at < self._size and self._kept_until(at) > at and next(self._old.extents(at))[0] == at
        )

    # What is cut

    def _cut(self, start: int) -> Iterator[Cut]:
        """Cuts the new file from a cut on, up to one behind which old extents are kept."""
        cutter = Cutter(self._parameters, is_file=False)
        fed = start
        final = False
        while not final:
            final = fed == self._size
            if final:
                cuts = cutter.finish()
            else:
                end, zeros = self._next_piece(fed)
                if zeros:
                    cuts = cutter.feed_zeros(end - fed)
                else:
                    cuts = cutter.feed(self._read(fed, end - fed))
                fed = end
            for cut in cuts:
                yield cut
                if self._joins(start + cut.offset + cut.length):
                    return

    def _next_piece(self, at: int) -> tuple[int, bool]:
        """Returns up to where to read next, and whether that is known to be zeros."""
        number = bisect_right(self._ends, at)
        edge = self._starts[number] if number < len(self._ends) else self._size
        if at < edge:
            # Old bytes: an extent at a time, as a cut is most likely where the old one was.
            start, extent = next(self._old.extents(at))
            end = start + extent.length
            if extent.chunk == NO_ID:
                return min(end, edge), True
            if at == start:
                end = min(end, at + _PEEK_BYTES)
            return min(end, self._size), False
        end = min(
            self._ends[number],
            at + max(_PIECE_CHUNKS * self._parameters.max_bytes, _PIECE_BYTES),
            self._size,
        )
        zeros = self._long_zeros(at)
        if zeros is not None:
            if zeros[0] <= at:
                return min(zeros[1], self._size), True
            end = min(end, zeros[0])
        return end, False

    def _long_zeros(self, at: int) -> tuple[int, int] | None:
        """Returns the first known zeros behind an offset that are worth not reading."""
        if self._next_zeros is None:
            return None
        zeros: tuple[int, int] | None = (0, 0) if at < self._asked else self._zeros
        self._asked = at
        while zeros is not None and (
            zeros[1] <= at or zeros[1] - zeros[0] < self._parameters.max_bytes
        ):
            zeros = self._next_zeros(max(zeros[1], at))
        self._zeros = zeros
        return zeros


def _merged(ranges: Iterable[tuple[int, int]], bound: int, gap: int) -> tuple[list[int], list[int]]:
    """Returns starts and ends of the ranges below a bound, as disjoint ones in order.

    Ranges less than ``gap`` apart become one: nothing between them would be kept.
    """
    starts: list[int] = []
    ends: list[int] = []
    for start, end in ranges:
        _add(starts, ends, start, min(end, bound), gap)
    return starts, ends


def _add(starts: list[int], ends: list[int], start: int, end: int, gap: int) -> None:
    if start >= end:
        return
    if ends and start < ends[-1] + gap:
        ends[-1] = max(ends[-1], end)
    else:
        starts.append(start)
        ends.append(end)
