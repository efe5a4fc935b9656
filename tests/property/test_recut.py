"""Cutting an edited file again gives what cutting the whole new file gives."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.stores import TINY_CHUNKS, WHOLE_CHUNKS
from versionfs.chunking import ChunkingParameters, Cutter, chunk_id
from versionfs.tree.recutting import Kept, recut
from versionfs.types import NO_ID, Extent

ODD_CHUNKS = ChunkingParameters(67, 261, 1027)
MAX = TINY_CHUNKS.max_bytes

Piece = tuple[int, int, bytes | None]
"""Offset, length, and the bytes of a chunk (None: a hole)."""


def cut_whole(parameters: ChunkingParameters, data: bytes) -> list[Piece]:
    cutter = Cutter(parameters)
    cuts = [*cutter.feed(data), *cutter.finish()]
    return [(c.offset, c.length, None if c.data is None else bytes(c.data)) for c in cuts]


class OldFile:
    """The old file's extents."""

    def __init__(self, parameters: ChunkingParameters, data: bytes) -> None:
        self.size = len(data)
        self.pieces = cut_whole(parameters, data)
        self.starts = [offset for offset, _, _ in self.pieces]

    def extents(self, offset: int = 0) -> Iterator[tuple[int, Extent]]:
        assert 0 <= offset < self.size
        for start, length, data in self.pieces[bisect_right(self.starts, offset) - 1 :]:
            yield start, Extent(length, NO_ID if data is None else chunk_id(data), None)

    def between(self, start: int, end: int) -> list[Piece]:
        found = [piece for piece in self.pieces if start <= piece[0] < end]
        assert found[0][0] == start
        assert found[-1][0] + found[-1][1] == end
        return found


@dataclass
class Edited:
    """A file as a workspace edits it: which bytes may differ, and what is known to be zero."""

    data: bytearray
    visible: int
    dirty: list[tuple[int, int]] = field(default_factory=list)
    read_bytes: int = 0

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        if offset > len(self.data):
            self.data += bytes(offset - len(self.data))
        self.data[offset : offset + len(data)] = data
        self.dirty.append((offset, offset + len(data)))

    def truncate(self, size: int) -> None:
        self.visible = min(self.visible, size)
        del self.data[size:]
        self.data += bytes(size - len(self.data))

    def read(self, offset: int, length: int) -> bytes:
        assert length > 0
        assert 0 <= offset <= offset + length <= len(self.data)
        self.read_bytes += length
        return bytes(self.data[offset : offset + length])

    def next_zeros(self, offset: int) -> tuple[int, int] | None:
        """Knows the runs of 100 zeros or more."""
        found = self.data.find(bytes(100), offset)
        if found < 0:
            return None
        rest = self.data[found:]
        return found, found + len(rest) - len(rest.lstrip(b"\0"))


def recut_pieces(
    parameters: ChunkingParameters, old: OldFile, new: Edited, *, known_zeros: bool
) -> list[Piece]:
    found: list[Piece] = []
    at = 0
    for item in recut(
        parameters,
        old,
        len(new.data),
        sorted(new.dirty),
        new.read,
        new.next_zeros if known_zeros else None,
        visible=new.visible,
    ):
        if isinstance(item, Kept):
            assert at == item.start < item.end
            found += old.between(item.start, item.end)
            at = item.end
        else:
            found.append((at, item.length, None if item.data is None else bytes(item.data)))
            at += item.length
    return found


def check(parameters: ChunkingParameters, before: bytes, new: Edited) -> None:
    expected = cut_whole(parameters, bytes(new.data))
    old = OldFile(parameters, before)
    for known_zeros in (False, True):
        assert recut_pieces(parameters, old, new, known_zeros=known_zeros) == expected


# -- random files and edits ------------------------------------------------------------------------

Part = tuple[str, int, int]
parts = st.lists(
    st.one_of(
        st.tuples(st.just("noise"), st.integers(1, 4000), st.integers(0, 99)),
        st.tuples(st.just("zeros"), st.integers(1, 3 * MAX), st.just(0)),
        st.tuples(st.just("zeros"), st.integers(MAX - 3, MAX + 3), st.just(0)),
        st.tuples(st.just("text"), st.integers(1, 3000), st.just(0)),
        st.tuples(st.just("sparse"), st.integers(1, 3000), st.integers(0, 99)),
    ),
    max_size=8,
)


def render(found: list[Part]) -> bytes:
    out = bytearray()
    for kind, length, seed in found:
        if kind == "zeros":
            out += bytes(length)
        elif kind == "text":
            out += (b"all work and no play " * (length // 21 + 1))[:length]
        elif kind == "sparse":
            rng = random.Random(seed)
            while length > 0:
                run = min(length, rng.choice([1, 2, 300, MAX - 1, MAX]))
                out += bytes(run - 1) + bytes([rng.randrange(256)])
                length -= run
        else:
            out += random.Random(seed).randbytes(length)
    return bytes(out)


def edit(parameters: ChunkingParameters, before: bytes, rng: random.Random, steps: int) -> Edited:
    """Edits a file at random, mostly near its cuts and the ends of its runs of zeros."""
    new = Edited(bytearray(before), len(before))
    edges = [0, len(before)]
    for offset, length, data in cut_whole(parameters, before):
        edges += [offset, offset + length]
        if data is not None:
            edges.append(offset + len(data.rstrip(b"\0")))
            edges.append(offset + len(data) - len(data.lstrip(b"\0")))

    def place() -> int:
        if rng.random() < 0.7:
            return max(
                0, rng.choice(edges) + rng.choice([-2, -1, 0, 0, 1, 2, rng.randint(-99, 99)])
            )
        return rng.randint(0, len(new.data) + 50)

    for _ in range(steps):
        start, end = sorted((place(), place()))
        match rng.choice(["noise", "zeros", "byte", "zero", "same", "truncate", "fill"]):
            case "noise":
                new.write(start, rng.randbytes(min(end - start, rng.choice([10, 300, 5000]))))
            case "zeros":
                new.write(start, bytes(min(end - start, rng.choice([10, 300, MAX, 9000]))))
            case "byte":
                new.write(start, bytes([rng.randrange(1, 256)]))
            case "zero":
                new.write(start, b"\0")
            case "same":
                new.write(start, before[start : min(end, start + 500)])
            case "truncate":
                new.truncate(rng.choice([start, end, start + 2 * MAX]))
            case "fill":
                rest = bytes(new.data[start:]).lstrip(b"\0")
                new.write(start, bytes(max(0, len(new.data) - start - len(rest))) + b"x")
    return new


@pytest.mark.timeout(600)
@settings(max_examples=4 * settings().max_examples)
@given(
    parts,
    st.integers(0),
    st.integers(0, 6),
    st.sampled_from([TINY_CHUNKS, ODD_CHUNKS, WHOLE_CHUNKS]),
)
@example([], 0, 3, TINY_CHUNKS)
@example([("zeros", MAX, 0)], 0, 0, TINY_CHUNKS)
def test_an_edited_file_is_cut_as_if_it_were_new(
    found: list[Part], seed: int, steps: int, parameters: ChunkingParameters
) -> None:
    before = render(found)
    check(parameters, before, edit(parameters, before, random.Random(seed), steps))


NOISE = render([("noise", 20_000, 1)])


@pytest.mark.parametrize("before", [0, 1, 63, 64, 300, 998, 999, 1000, 1001, 3000])
@pytest.mark.parametrize("after", [0, 1, 300, 999, 1000, 1001, 3000])
def test_files_that_become_one_chunk_or_are_no_more(before: int, after: int) -> None:
    for start, data in [(0, b""), (0, b"x"), (after // 2, b"xy"), (max(after - 1, 0), b"z")]:
        for zeros in (b"", bytes(before // 3)):
            old = NOISE[: before - len(zeros)] + zeros
            new = Edited(bytearray(old), len(old))
            new.write(start, data)
            new.truncate(after)
            check(WHOLE_CHUNKS, old, new)
            new = Edited(bytearray(old), len(old))
            new.truncate(after)
            if start + len(data) <= after:
                new.write(start, data)
            check(WHOLE_CHUNKS, old, new)


def test_a_short_file_that_was_not_touched_is_kept_unread() -> None:
    new = Edited(bytearray(NOISE[:900]), 900)
    old = OldFile(WHOLE_CHUNKS, NOISE[:900])
    assert list(recut(WHOLE_CHUNKS, old, 900, [], new.read)) == [Kept(0, 900)]
    assert new.read_bytes == 0


@pytest.mark.parametrize("parameters", [TINY_CHUNKS, ODD_CHUNKS, WHOLE_CHUNKS])
@pytest.mark.parametrize("cut", [3, 20])
@pytest.mark.parametrize("shift", range(-4, 5))
def test_every_place_near_a_cut_may_be_where_a_file_ends_or_changes(
    parameters: ChunkingParameters, cut: int, shift: int
) -> None:
    at = cut_whole(parameters, NOISE)[cut][0] + shift
    for tail in (b"", b"\0", b"\0\0", b"x", bytes(MAX), bytes(5000) + b"x", NOISE[at : at + 1]):
        new = Edited(bytearray(NOISE), len(NOISE))
        new.truncate(at)
        new.write(at, tail)
        check(parameters, NOISE, new)
    for data in (b"\0", b"\xff", bytes(MAX - 1), bytes(MAX), bytes(3 * MAX)):
        for start in (at, at - len(data)):
            if start >= 0:
                new = Edited(bytearray(NOISE), len(NOISE))
                new.write(start, data)
                check(parameters, NOISE, new)


@pytest.mark.parametrize("zeros", [1, 2, 500, MAX - 1, MAX, MAX + 1, 5 * MAX])
@pytest.mark.parametrize("grown", [1, 2, 524, MAX - 1, MAX, 3 * MAX])
def test_runs_of_zeros_grow_and_shrink_over_cuts(zeros: int, grown: int) -> None:
    noise = NOISE[:3000]
    before = noise + bytes(zeros) + noise
    for start, data in [
        (3000 - min(grown, 3000), bytes(min(grown, 3000))),  # more zeros before
        (3000 + zeros, bytes(min(grown, 3000))),  # and behind
        (3000, b"x" * min(grown, zeros)),  # fewer
        (3000 + zeros - min(grown, zeros), b"x" * min(grown, zeros)),
        (3000 + zeros // 2, b"x"),  # in two
    ]:
        for parameters in (TINY_CHUNKS, ODD_CHUNKS):
            new = Edited(bytearray(before), len(before))
            new.write(start, data)
            check(parameters, before, new)
            new.truncate(len(before) - 3000)
            check(parameters, before, new)
            new.truncate(len(before) + grown)
            check(parameters, before, new)


# -- costs -----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0), st.integers(1, 12))
def test_what_is_read_follows_what_was_written(seed: int, writes: int) -> None:
    rng = random.Random(seed)
    before = rng.randbytes(300_000)
    new = Edited(bytearray(before), len(before))
    written = 0
    for _ in range(writes):
        length = rng.choice([1, 10, 3000])
        new.write(rng.randrange(len(before) - length), rng.randbytes(length))
        written += length
    old = OldFile(TINY_CHUNKS, before)
    recut_pieces(TINY_CHUNKS, old, new, known_zeros=False)
    # A chunk or two before and behind each; and the little that looks at the bytes before.
    assert new.read_bytes <= written + writes * (6 * MAX + 64)


def test_ranges_that_only_may_differ_are_kept_around(tmp_path: object) -> None:
    old = OldFile(TINY_CHUNKS, NOISE)
    new = Edited(bytearray(NOISE), len(NOISE))
    new.write(10_000, NOISE[10_000:10_001])
    items = list(recut(TINY_CHUNKS, old, len(NOISE), new.dirty, new.read))
    assert len(items) == 3
    assert isinstance(items[0], Kept)
    assert isinstance(items[2], Kept)
    assert new.read_bytes < 3 * MAX


def test_an_unchanged_file_is_kept_unread() -> None:
    old = OldFile(TINY_CHUNKS, NOISE)
    new = Edited(bytearray(NOISE), len(NOISE))
    assert list(recut(TINY_CHUNKS, old, len(NOISE), [], new.read)) == [Kept(0, len(NOISE))]
    assert new.read_bytes == 0


def test_an_error_of_the_reader_comes_through() -> None:
    def broken(_offset: int, _length: int) -> bytes:
        raise OSError(5, "damaged")

    old = OldFile(TINY_CHUNKS, NOISE)
    with pytest.raises(OSError, match="damaged"):
        list(recut(TINY_CHUNKS, old, len(NOISE), [(5, 6)], broken))
