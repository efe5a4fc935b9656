"""Which bytes of a layer were written: a set of byte ranges, exact, that is also a set of records.

A range ``[start, end)`` of layer L is the record ``x`` + L + start (u64, big-endian), whose value
is end (u64, little-endian). No range crosses a multiple of ``SEGMENT_BYTES``, and no two of a
segment touch. In memory a range takes 16 bytes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sortedcontainers import SortedDict

from versionfs.workspace.journal import Mutation

SEGMENT_BYTES: Final = 256 * 1024 * 1024
EXTENTS: Final = b"x"
"""What the keys of all extents begin with."""

Range = tuple[int, int]
"""``[start, end)``, in bytes."""


class _Change(NamedTuple):
    """What an addition does to one segment: replaces bounds ``[first, last)`` by one range."""

    segment: int
    first: int
    last: int
    start: int
    end: int


class Extents:
    """A set of byte ranges. One thread at a time."""

    __slots__ = ("_segments", "covered")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        # Per segment the bounds of its ranges, ascending: start, end, start, end …
        self._segments: SortedDict[int, array[int]] = SortedDict()
        self.covered = 0
        """How many bytes are in it."""
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return self.ranges(0, 1 << 64)

    def add(self, start: int, end: int) -> None:
        """Adds a range."""
        for change in list(self._changes(start, end)):
            bounds = self._segments.setdefault(change.segment, array("Q"))
            replaced = bounds[change.first : change.last]
            self.covered += change.end - change.start - sum(replaced[1::2]) + sum(replaced[::2])
            bounds[change.first : change.last] = array("Q", (change.start, change.end))

    def records_to_add(self, layer: int, start: int, end: int) -> list[Mutation]:
        """Returns what :meth:`add` will change of the records; nothing if the range is in it."""
        mutations: list[Mutation] = []
        for change in self._changes(start, end):
            bounds = self._segments.get(change.segment, ())
            mutations.extend(
                (extent_key(layer, old), None)
                for old in bounds[change.first : change.last : 2]
                if old != change.start
            )
            mutations.append((extent_key(layer, change.start), change.end.to_bytes(8, "little")))
        return mutations

    def _changes(self, start: int, end: int) -> Iterator[_Change]:
        while start < end:
            segment = start // SEGMENT_BYTES
            stop = min(end, (segment + 1) * SEGMENT_BYTES)
            bounds = self._segments.get(segment)
            if bounds is None:
                yield _Change(segment, 0, 0, start, stop)
            else:
                # An odd index is inside a range, or right at its end.
                first = bisect_left(bounds, start)
                last = bisect_right(bounds, stop)
                low, high = start, stop
                if first % 2:
                    first -= 1
                    low = bounds[first]
                if last % 2:
                    high = bounds[last]
                    last += 1
                elif last > first:
                    high = max(stop, bounds[last - 1])
                low = min(low, start)
                if last - first != 2 or bounds[first] != low or bounds[last - 1] != high:
                    yield _Change(segment, first, last, low, high)
            start = stop

    def clip(self, end: int) -> None:
        """Forgets what lies at ``end`` or beyond. Needs no records: see ``load``."""
        for segment in list(self._segments.irange(end // SEGMENT_BYTES)):
            bounds = self._segments.pop(segment)
            self.covered -= sum(bounds[1::2]) - sum(bounds[::2])
            kept = bounds[: bisect_left(bounds, end)]
            if len(kept) % 2:
                kept.append(end)
            if kept:
                self._segments[segment] = kept
                self.covered += sum(kept[1::2]) - sum(kept[::2])

    def ranges(self, start: int, end: int) -> Iterator[Range]:
        """Yields what is in it of ``[start, end)``, ascending; none touch."""
        if start >= end:
            return
        low = high = -1
        for segment in self._segments.irange(start // SEGMENT_BYTES, (end - 1) // SEGMENT_BYTES):
            bounds = self._segments[segment]
            index = bisect_right(bounds, start)
            for at in range(index - index % 2, len(bounds), 2):
                begin = max(bounds[at], start)
                if begin >= end:
                    break
                if begin != high:
                    if low < high:
                        yield low, high
                    low = begin
                high = min(bounds[at + 1], end)
        if low < high:
            yield low, high

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """Yields ``[start, end)`` in pieces, each with whether it is in the set."""
        for low, high in self.ranges(start, end):
            if start < low:
                yield start, low, False
            yield low, high, True
            start = high
        if start < end:
            yield start, end, False


def extents_prefix(layer: int) -> bytes:
    """Returns what the keys of all extents of a layer begin with."""
    return b"x" + layer.to_bytes(8, "big")


def extent_key(layer: int, start: int) -> bytes:
    """Returns the key of an extent's record."""
    return b"x" + layer.to_bytes(8, "big") + start.to_bytes(8, "big")


def layer_of_key(key: bytes) -> int:
    """Returns the layer that an extent's record belongs to."""
    return int.from_bytes(key[1:9], "big")


def load(records: Iterable[tuple[bytes, bytes]], limit: int) -> Extents:
    """Returns the extents of a layer's records that lie below ``limit``.

    From its limit on, a layer has all bytes itself, and a limit is never raised: what the records
    say of those means nothing.
    """
    extents = Extents()
    for key, value in records:
        start = int.from_bytes(key[9:], "big")
        if start >= limit:
            break
        extents.add(start, min(int.from_bytes(value, "little"), limit))
    return extents
