"""What cutting an edited file again costs with chunks of the usual size, counted in bytes read."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest

from versionfs.chunking import DEFAULT_CHUNKING, Cut, Cutter, chunk_id
from versionfs.tree import Kept, New, recut
from versionfs.types import NO_ID, Extent

CHUNKS = DEFAULT_CHUNKING
MIB = 1 << 20
CHUNK = CHUNKS.max_bytes
TIB = 1 << 40
BLOCK = random.Random(4).randbytes(8 * MIB)
SIZE = 256 * MIB


class Repeated:
    """A file of one block over and over, so that it need not be in memory, under some writes."""

    def __init__(self, size: int, writes: Sequence[tuple[int, bytes]] = ()) -> None:
        self.size = size
        self.writes = writes
        self.read_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset < offset + length <= self.size
        self.read_bytes += length
        out = bytearray()
        while len(out) < length:
            at = (offset + len(out)) % len(BLOCK)
            out += BLOCK[at : at + length - len(out)]
        for start, data in self.writes:
            low, high = max(start, offset), min(start + len(data), offset + length)
            if low < high:
                out[low - offset : high - offset] = data[low - start : high - start]
        return bytes(out)


class Listed:
    """A file's extents, in a list."""

    def __init__(self, extents: list[Extent]) -> None:
        self._extents = extents
        self._starts = [0]
        for extent in extents:
            self._starts.append(self._starts[-1] + extent.length)
        self.size = self._starts[-1]

    def extents(self, offset: int = 0) -> Iterator[tuple[int, Extent]]:
        first = bisect_right(self._starts, offset) - 1
        for index in range(first, len(self._extents)):
            yield self._starts[index], self._extents[index]

    @classmethod
    def of(cls, file: Repeated) -> Listed:
        cutter = Cutter(CHUNKS)
        cuts: list[Cut] = []
        for at in range(0, file.size, 4 * MIB):
            cuts += cutter.feed(file.read(at, min(4 * MIB, file.size - at)))
        cuts += cutter.finish()
        return cls(
            [Extent(c.length, NO_ID if c.data is None else chunk_id(c.data), None) for c in cuts]
        )


@pytest.fixture(scope="module")
def old() -> Listed:
    return Listed.of(Repeated(SIZE))


def flat(old: Listed, items: Sequence[Kept | New]) -> list[tuple[int, bytes]]:
    found = []
    for item in items:
        if isinstance(item, New):
            found.append((item.length, NO_ID if item.data is None else chunk_id(item.data)))
            continue
        for start, extent in old.extents(item.start):
            if start >= item.end:
                break
            found.append((extent.length, extent.chunk))
    return found


def changed(
    old: Listed, new: Repeated, dirty: Sequence[tuple[int, int]], visible: int = SIZE
) -> tuple[list[Kept | New], int]:
    """Returns the pieces, which are those of the whole file, and how many bytes were read."""
    items = list(recut(CHUNKS, old, new.size, dirty, new.read, visible=visible))
    read_bytes = new.read_bytes
    whole = Listed.of(new)
    assert flat(old, items) == [(e.length, e.chunk) for _, e in whole.extents()]
    return items, read_bytes


def new_bytes(items: Sequence[Kept | New]) -> int:
    return sum(item.length for item in items if isinstance(item, New))


@pytest.mark.parametrize("at", [0, 1, 100 * MIB + 12_345, SIZE - 1])
def test_one_changed_byte_reads_about_a_chunk(old: Listed, at: int) -> None:
    byte = bytes([BLOCK[at % len(BLOCK)] ^ 1])
    items, read_bytes = changed(old, Repeated(SIZE, [(at, byte)]), [(at, at + 1)])
    assert read_bytes <= 3 * CHUNK
    assert new_bytes(items) <= 3 * CHUNK
    assert len(items) <= 6


def test_an_appended_mebibyte_reads_itself_and_the_last_chunk(old: Listed) -> None:
    items, read_bytes = changed(old, Repeated(SIZE + MIB), [(SIZE, SIZE + MIB)])
    assert read_bytes <= MIB + 2 * CHUNK
    assert new_bytes(items) <= MIB + 2 * CHUNK


def test_a_file_cut_short_reads_its_last_chunk(old: Listed) -> None:
    size = 77 * MIB + 5
    items, read_bytes = changed(old, Repeated(size), [], size)
    assert read_bytes <= CHUNK + 100
    assert isinstance(items[0], Kept)


def test_many_small_writes_read_about_a_chunk_each(old: Listed) -> None:
    rng = random.Random(5)
    places = sorted(rng.sample(range(SIZE - 4096), 40))
    writes = [(at, rng.randbytes(4096)) for at in places]
    dirty = [(at, at + 4096) for at in places]
    _, read_bytes = changed(old, Repeated(SIZE, writes), dirty)
    assert read_bytes <= 40 * 2 * CHUNK


def nothing(_offset: int, _length: int) -> bytes:
    raise AssertionError("zeros are not read")


def test_a_file_that_is_one_hole_is_not_read() -> None:
    items = list(recut(CHUNKS, Listed([]), TIB, [], nothing, lambda _: (0, TIB)))
    assert items == [New(TIB, None)]


def test_a_sparse_extension_reads_the_last_chunk_only(old: Listed) -> None:
    new = Repeated(TIB)
    items = list(recut(CHUNKS, old, TIB, [], new.read, lambda _: (SIZE, TIB)))
    assert new.read_bytes <= CHUNK + 100
    assert items[-1] == New(TIB - SIZE, None)
    assert items[0] == Kept(0, SIZE - sum(i.length for i in items[1:-1] if isinstance(i, New)))


def test_a_write_into_a_hole_leaves_two_holes_unread() -> None:
    at = TIB // 3
    old = Listed([Extent(TIB, NO_ID, None), Extent(MIB, b"c" * 32, None)])

    def read(offset: int, length: int) -> bytes:
        assert length <= 8192
        return b"".join(
            b"x" if at <= o < at + 5 or o >= TIB else b"\0" for o in range(offset, offset + length)
        )

    items = list(recut(CHUNKS, old, TIB + MIB, [(at, at + 5)], read))
    assert [(i.length, i.data and bytes(i.data)) for i in items if isinstance(i, New)] == [
        (at, None),
        (5, b"xxxxx"),
        (TIB - at - 5, None),
    ]
    assert items[-1] == Kept(TIB, TIB + MIB)


def test_a_hundred_thousand_tiny_writes_cost_no_more_than_one_that_covers_them(
    old: Listed,
) -> None:
    dirty = [(at, at + 1) for at in range(0, 10_000_000, 100)]
    new = Repeated(SIZE)
    calls = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal calls
        calls += 1
        return new.read(offset, length)

    items = list(recut(CHUNKS, old, SIZE, dirty, read))
    assert calls <= 10
    assert new.read_bytes <= 12 * MIB
    assert flat(old, items) == [(e.length, e.chunk) for _, e in old.extents()]


def test_a_file_written_in_order_is_read_in_order_once(old: Listed) -> None:
    new = Repeated(64 * MIB)
    places: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        places.append((offset, offset + length))
        return new.read(offset, length)

    list(recut(CHUNKS, Listed([]), new.size, [], read))
    assert all(a[1] == b[0] for a, b in pairwise(places))
    assert new.read_bytes == new.size
    assert len(places) <= 20
