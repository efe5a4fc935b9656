"""The next pack of a large file is read from the disk before its reader comes there."""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.property.test_content import store_file
from versionfs.chunkstore import OpenPackSource, PackRange, Scan, writer
from versionfs.errors import CorruptionError, StorageTransientError
from versionfs.repo import Store
from versionfs.tree.nextpack import NextPack
from versionfs.types import NO_ID, ChunkId, Extent, Location, PackId

MIB = 1024 * 1024
BLOCK = MIB // 4
CHUNK = ChunkId(b"c" * 32)


def pack(number: int) -> PackId:
    return PackId(bytes([number]) * 32)


class Recorder:
    """A source that only notes what it is asked to prefetch."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def prefetch(self, ranges: list[PackRange], _token: object, *, scan: Scan = Scan.NONE) -> None:
        assert not scan
        self.asked += [(r.pack[0], r.start, r.length) for r in ranges]


def reader_of(*runs: tuple[int | None, int, int]) -> tuple[NextPack, Recorder, int]:
    """Returns a file of runs of blocks: the pack (None: a hole), its first block, how many."""
    extents: list[tuple[int, Extent]] = []
    for number, first, count in runs:
        for index in range(first, first + count):
            extent = Extent(BLOCK, NO_ID, None)
            if number is not None:
                where = Location(pack(number), index * BLOCK, BLOCK, 0, BLOCK)
                extent = Extent(BLOCK, CHUNK, where)
            extents.append((len(extents) * BLOCK, extent))

    def since(offset: int) -> Iterator[tuple[int, Extent]]:
        return iter(extents[offset // BLOCK :])

    source = Recorder()
    return NextPack(source, since), source, len(extents) * BLOCK  # type: ignore[arg-type]


def read(reader: NextPack, size: int) -> Iterator[int]:
    """Reads in order, and yields where the reader is."""
    for end in range(MIB, size + 1, MIB):
        reader.note(end)
        yield end


def test_the_next_pack_is_asked_for_once_before_it_is_reached() -> None:
    reader, source, size = reader_of((1, 0, 128), (2, 0, 128), (3, 40, 88))
    seen: dict[int, int] = {}
    for end in read(reader, size):
        for number, _, _ in source.asked:
            seen.setdefault(number, end)
    assert source.asked == [(2, 0, 4 * MIB), (3, 40 * BLOCK, 4 * MIB)]
    # 12 to 16 MiB ahead of where they begin, which is at 32 and 64 MiB.
    assert 16 * MIB <= seen[2] <= 20 * MIB
    assert 48 * MIB <= seen[3] <= 52 * MIB


def test_what_is_in_the_readers_own_pack_is_left_to_the_kernel() -> None:
    reader, source, size = reader_of((1, 0, 50), (1, 90, 50), (None, 0, 8), (1, 10, 50))
    assert list(read(reader, size))
    assert source.asked == []


def test_a_piece_here_and_there_is_not_worth_it() -> None:
    reader, source, size = reader_of(
        (1, 0, 8), (2, 5, 3), (1, 11, 8), (3, 2, 3), (1, 22, 8), (4, 7, 4), (1, 34, 8)
    )
    assert list(read(reader, size))
    # Whoever is within one of them looks anew, and finds the way back.
    assert (4, 7 * BLOCK, MIB) in source.asked
    assert {number for number, _, _ in source.asked} <= {1, 4}


def test_a_pack_that_is_left_and_taken_up_again_is_two_runs() -> None:
    reader, source, _ = reader_of((1, 0, 20), (2, 60, 6), (2, 0, 40))
    reader.note(MIB)
    assert source.asked == [(2, 60 * BLOCK, 6 * BLOCK)]


def test_a_reader_that_is_slow_is_not_forgotten_for_one_that_is_fast() -> None:
    reader, source, _ = reader_of(*((number, 0, 256) for number in range(1, 5)))
    reader.note(50 * MIB)
    for step in range(25):
        reader.note((129 + step) * MIB)
    reader.note(51 * MIB)
    assert source.asked == [(2, 0, 4 * MIB)]


@pytest.mark.parametrize("readers", [2, 3, 4])
def test_readers_of_a_file_are_all_read_ahead_of(readers: int) -> None:
    reader, source, _ = reader_of(*((number, 0, 128) for number in range(1, 6)))
    for step in range(1, 31):
        for which in range(readers):
            reader.note((32 * which + step) * MIB)
    assert sorted(source.asked) == [(2 + which, 0, 4 * MIB) for which in range(readers)]


def test_pieces_far_apart_in_a_pack_are_two_runs() -> None:
    reader, source, size = reader_of((1, 0, 8), (2, 0, 3), (2, 120, 3), (1, 8, 8))
    assert list(read(reader, size))
    assert source.asked == []
    # What lies between two that are close is read with them, but no more than 4 MiB in all.
    reader, source, _ = reader_of((1, 0, 8), *((2, 2 * at, 1) for at in range(12)), (1, 8, 8))
    reader.note(MIB)
    assert source.asked == [(2, 0, 4 * MIB)]


@pytest.mark.parametrize(
    "error", [CorruptionError("a node is damaged"), StorageTransientError("no descriptor left")]
)
def test_what_fails_ahead_is_left_to_who_reads_there(error: Exception) -> None:
    def fails(_offset: int) -> Iterator[tuple[int, Extent]]:
        raise error

    source = Recorder()
    NextPack(source, fails).note(MIB)  # type: ignore[arg-type]
    assert source.asked == []


def test_a_manifest_of_nothing_but_empty_extents_takes_no_time() -> None:
    empty = Extent(0, CHUNK, Location(pack(1), 0, 1, 0, 0))
    taken = itertools.count()

    def endless(offset: int) -> Iterator[tuple[int, Extent]]:
        return ((offset, empty) for _ in itertools.islice(taken, 100_000))

    NextPack(Recorder(), endless).note(MIB)  # type: ignore[arg-type]
    assert next(taken) < 1000


def test_a_run_that_begins_where_the_reader_is_is_asked_for_once() -> None:
    def odd(offset: int) -> Iterator[tuple[int, Extent]]:
        yield offset, Extent(0, CHUNK, Location(pack(1), 0, 1, 0, 0))
        for at in range(64):
            where = Location(pack(2), offset + at * BLOCK, BLOCK, 0, BLOCK)
            yield offset + at * BLOCK, Extent(BLOCK, CHUNK, where)

    source = Recorder()
    reader = NextPack(source, odd)  # type: ignore[arg-type]
    for step in range(64):
        reader.note(step * BLOCK)
    assert len(source.asked) <= 16


def test_threads_may_read_one_file() -> None:
    reader, source, size = reader_of((1, 0, 128), (2, 0, 128), (3, 0, 128))
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            jobs = [threads.submit(lambda: [*read(reader, size)]) for _ in range(800)]
            assert all(job.result() for job in jobs)
    finally:
        sys.setswitchinterval(switch)
    assert {number for number, _, _ in source.asked} == {2, 3}


def test_a_file_in_a_local_store_is_read_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_TARGET_BYTES", 6 * MIB)
    data = random.Random(3).randbytes(20 * MIB)
    content = store.contents.open(store_file(store, data))
    first: dict[bytes, tuple[int, int]] = {}
    for offset, extent in content.extents():
        assert extent.location is not None
        first.setdefault(extent.location.pack, (offset, extent.location.block_offset))
    assert len(first) >= 3
    asked: list[PackRange] = []
    source = store.packs.source
    assert isinstance(source, OpenPackSource)
    monkeypatch.setattr(source, "prefetch", lambda ranges, _token: asked.extend(ranges))
    for offset in range(0, len(data), MIB):
        assert content.read(offset, MIB) == data[offset : offset + MIB]
    packs = list(first)
    assert [part.pack for part in asked] == packs[1 : 1 + len(asked)]
    assert len(asked) >= 2
    assert all(first[part.pack][1] == part.start for part in asked)


def test_who_reads_here_and_there_has_no_pack_read_ahead(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PACK_TARGET_BYTES", 6 * MIB)
    data = random.Random(4).randbytes(20 * MIB)
    content = store.contents.open(store_file(store, data))
    asked: list[PackRange] = []
    monkeypatch.setattr(store.packs.source, "prefetch", lambda ranges, _token: asked.extend(ranges))
    for offset in (4 * MIB, 2 * MIB, 13 * MIB):
        assert content.read(offset, MIB) == data[offset : offset + MIB]
    for offset in range(0, MIB, 4096):
        content.read(offset, 4096)
    assert asked == []


def test_what_is_asked_for_goes_through_the_kernel_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = store_file(store, random.Random(5).randbytes(5 * MIB))
    (_, extent), *_ = store.contents.open(entry).extents()
    assert extent.location is not None
    calls: list[tuple[int, int, int]] = []
    sendfile = os.sendfile

    def recorded(to: int, descriptor: int, start: int, length: int) -> int:
        calls.append((start, length, sendfile(to, descriptor, start, length)))
        return calls[-1][2]

    monkeypatch.setattr(os, "sendfile", recorded)
    source = store.packs.source
    source.prefetch([PackRange(PackId(b"\0" * 32), 0, MIB)], None)  # there is none: no matter
    source.prefetch([PackRange(extent.location.pack, 100, 2 * MIB)], None)
    source.prefetch([PackRange(extent.location.pack, 4 * MIB, 100 * MIB)], None)
    assert isinstance(source, OpenPackSource)
    source._threads["ahead"].shutdown()
    assert calls[0] == (100, 2 * MIB, 2 * MIB)
    assert calls[1][:2] == (4 * MIB, 100 * MIB)
    assert MIB <= calls[1][2] < 2 * MIB
    source.close()
    source.prefetch([PackRange(extent.location.pack, 0, MIB)], None)
    assert len(calls) == 2
    assert source._threads == {}
