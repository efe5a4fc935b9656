"""What is decoded ahead of a sequential reader of a large file in a local store."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests.property.test_content import store_file
from tests.support.stores import at, bring
from versionfs.chunkstore import BoundedCache
from versionfs.errors import CorruptionError
from versionfs.objectstore import LocalStore
from versionfs.pack import pack_key
from versionfs.repo import Store
from versionfs.tree import MOST_PIECES, FileContent, Pieces
from versionfs.types import Entry, PackId

MIB = 1024 * 1024
SIZE = 24 * MIB + 12345


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def text(seed: int, size: int) -> bytes:
    """Bytes that compress to about half."""
    return random.Random(seed).randbytes(size // 2 + 1).hex().encode()[:size]


@pytest.fixture
def large(store: Store) -> tuple[Entry, bytes]:
    data = text(8, SIZE)
    return store_file(store, data), data


def settle(store: Store) -> None:
    """Waits until nothing is decoded any more."""
    wait([job for _, job in store.contents.decoded._jobs.values()], 20)


def path_of(store: Store, pack: PackId) -> Path:
    assert isinstance(store.objects, LocalStore)
    return store.objects.local_path(pack_key(pack))


def verified(store: Store) -> int:
    settle(store)
    return store.packs.statistics().chunks_verified


def ends_of_leaves(store: Store, entry: Entry) -> list[int]:
    root = store.contents.node(entry.node)
    assert root.level == 1
    return list(root.ends)


def ahead(store: Store) -> set[tuple[int, int]]:
    """Returns what is decoded ahead, in MiB."""
    return {(begin // MIB, end // MIB) for _, begin, end in store.contents.decoded._jobs}


def test_reads_in_order_find_the_next_three_decoded(
    store: Store, large: tuple[Entry, bytes]
) -> None:
    entry, data = large
    content = store.contents.open(entry)
    for offset in range(0, SIZE, MIB):
        assert content.read(offset, MIB) == data[offset : offset + MIB]
        first = offset // MIB + 1
        assert ahead(store) == {(n, n + 1) for n in range(first, min(first + 3, 24))} | (
            {(24, 24)} if first in (22, 23, 24) else set()
        )
        settle(store)
    # Each chunk was decoded once, or, of two reads that were decoded side by side, twice.
    chunks = sum(1 for _ in content.extents())
    assert chunks <= verified(store) <= chunks + SIZE // MIB


def test_a_read_takes_what_was_decoded(store: Store, large: tuple[Entry, bytes]) -> None:
    entry, data = large
    content = store.contents.open(entry)
    content.read(0, MIB)
    settle(store)
    # Whoever decoded it now would find it gone.
    for _, extent in content.extents():
        assert extent.location is not None
        os.truncate(path_of(store, extent.location.pack), 0)
    store.packs.source.close()
    with pytest.raises(CorruptionError):
        content.read(8 * MIB, MIB)
    assert content.read(MIB, MIB) == data[MIB : 2 * MIB]


def test_what_is_not_compressed_is_left_to_who_reads_it(store: Store) -> None:
    data = random.Random(5).randbytes(4 * MIB)
    content = store.contents.open(store_file(store, data))
    assert content.read(0, MIB) == data[:MIB]
    assert content.read(MIB, MIB) == data[MIB : 2 * MIB]
    assert store.contents.decoded._threads is None


def test_one_processor_has_no_time_for_what_may_be_read(
    store: Store, large: tuple[Entry, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, data = large
    monkeypatch.setattr(store.contents.decoded, "_count", 1)
    assert store.contents.open(entry).read(0, MIB) == data[:MIB]
    assert store.contents.decoded._threads is None


def test_who_reads_here_and_there_or_little_has_nothing_decoded_ahead(
    store: Store, large: tuple[Entry, bytes]
) -> None:
    entry, data = large
    content = store.contents.open(entry)
    for offset in (5 * MIB, 3 * MIB, 9 * MIB):
        assert content.read(offset, MIB) == data[offset : offset + MIB]
    for offset in range(0, MIB, 4096):
        assert content.read(offset, 4096) == data[offset : offset + 4096]
    assert store.contents.decoded._threads is None


def test_two_readers_of_one_file_are_both_read_ahead_of(
    store: Store, large: tuple[Entry, bytes]
) -> None:
    entry, data = large
    content = store.contents.open(entry)
    for step in range(8):
        for start in (0, 12 * MIB):
            offset = start + step * MIB
            found = ahead(store)
            assert content.read(offset, MIB) == data[offset : offset + MIB]
            # The second begins elsewhere, so that it is noticed at its second read.
            assert step < 2 or (offset // MIB, offset // MIB + 1) in found


def test_many_readers_have_nothing_decoded_in_vain(
    store: Store, large: tuple[Entry, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, data = large
    reads: list[int] = []
    real = FileContent._read

    def counted(content: FileContent, offset: int, end: int, *, once: bool = False) -> Pieces:
        reads.append(offset)
        return real(content, offset, end, once=once)

    monkeypatch.setattr(FileContent, "_read", counted)
    contents = [store.contents.open(entry) for _ in range(10)]
    for offset in range(0, 12 * MIB, MIB):
        for content in contents:
            assert content.read(offset, MIB) == data[offset : offset + MIB]
            assert len(store.contents.decoded._jobs) <= 16
    settle(store)
    assert len(reads) <= 12 * 10 + 16
    # What nobody came back for makes room in the end.
    monkeypatch.setattr("versionfs.tree.decodeahead._STALE_S", 0.0)
    last = store.contents.open(entry)
    last.read(0, MIB)
    assert any(key[0] is last for key in store.contents.decoded._jobs)
    for content in (*contents, last):
        content.close()
    assert not store.contents.decoded._jobs


def test_damage_ahead_is_the_error_of_the_read_that_meets_it(store: Store, source: Path) -> None:
    data = text(9, 3 * MIB)
    (source / "f").write_bytes(data)
    bring(store, source)
    entry = at(store, b"f")
    assert entry is not None
    content = store.contents.open(entry)
    *_, (offset, extent) = content.extents()
    where = extent.location
    assert where is not None
    with path_of(store, where.pack).open("r+b") as file:
        file.seek(where.block_offset + 100)
        file.write(b"damage")
    assert content.read(0, MIB) == data[:MIB]
    settle(store)
    assert content.read(MIB, offset - MIB) == data[MIB:offset]
    with pytest.raises(CorruptionError, match=where.pack.hex()):
        content.read(offset, MIB)


def test_a_manifest_that_is_damaged_ahead_fails_no_read_before_it(store: Store) -> None:
    data = random.Random(10).randbytes(24 * MIB).hex().encode()
    entry = store_file(store, data)
    content = store.contents.open(entry)
    assert content.read(0, MIB) == data[:MIB]
    second = next(begin for begin in ends_of_leaves(store, entry) if begin > MIB)
    assert second < entry.size
    content.close()
    settle(store)
    store.contents._nodes.clear()
    damaged = store.contents.open(entry)
    first = second // MIB * MIB - MIB
    damaged.read(first - 2 * MIB, MIB)  # has the first leaf
    metadata = path_of(store, entry.node.location.pack)
    os.truncate(metadata, 0)
    store.metadata._packs.source.close()
    store.metadata._packs._kept = BoundedCache(1 << 20)
    for offset in (first - MIB, first):
        assert damaged.read(offset, MIB) == data[offset : offset + MIB]
    with pytest.raises(CorruptionError):
        damaged.read(first + MIB, MIB)


def test_no_thread_is_needed_to_read(
    store: Store, large: tuple[Entry, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    entry, data = large
    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    assert store.contents.open(entry).read(0, MIB) == data[:MIB]


def test_reading_a_large_file_leaves_other_blocks_in_the_cache(
    store: Store, large: tuple[Entry, bytes], source: Path
) -> None:
    entry, _ = large
    (source / "small").write_bytes(b"words " * 100)
    bring(store, source)
    small = at(store, b"small")
    assert small is not None
    store.contents.open(small).read(0, 10)
    held = store.packs._kept.held
    content = store.contents.open(entry)
    for offset in range(0, SIZE, MIB):
        content.read(offset, MIB)
    settle(store)
    assert store.packs._kept.held == held


def test_what_is_sent_on_is_not_joined(store: Store) -> None:
    data = random.Random(5).randbytes(4 * MIB)
    content = store.contents.open(store_file(store, data))
    pieces = content.read_pieces(MIB, MIB)
    assert 1 < len(pieces) <= MOST_PIECES
    assert all(isinstance(piece, memoryview) for piece in pieces)
    assert b"".join(pieces) == data[MIB : 2 * MIB]
    assert content.read_pieces(len(data), MIB) == []


def test_a_great_many_pieces_are_joined(tiny: Store) -> None:
    data = random.Random(5).randbytes(256 * 1024)
    content = tiny.contents.open(store_file(tiny, data))
    assert sum(1 for _ in content.extents()) > MOST_PIECES
    assert content.read_pieces(0, len(data)) == [data]


def test_little_that_was_decoded_ahead_holds_no_large_block(store: Store) -> None:
    # Text of a short period is cut into the longest chunks, of 192 KiB.
    data = (b"a line of text that comes again and again, %07d\n" % 1) * 100_000
    content = store.contents.open(store_file(store, data))
    step = 300_000
    assert content.read(0, step) == data[:step]
    settle(store)
    answers = [job.result() for _, job in store.contents.decoded._jobs.values()]
    assert len(answers) == 3
    for piece in (piece for answer in answers for piece in answer):
        held = piece.obj if isinstance(piece, memoryview) else piece
        assert len(held) <= 4 * len(piece)  # type: ignore[arg-type]
    assert content.read(step, step) == data[step : 2 * step]
