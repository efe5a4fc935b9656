"""Manifests against lists of extents, and reads of files against their bytes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.stores import file_entry
from versionfs.chunking import Cutter, chunk_id
from versionfs.chunkstore import ChunkWriter
from versionfs.repo import Store
from versionfs.tree import ManifestBuilder
from versionfs.types import NO_ID, Entry, Extent, Kind

part = st.one_of(
    st.tuples(st.just(0), st.integers(1, 5000)),
    st.tuples(st.integers(1, 2**16), st.integers(1, 3000)),
)


def render(parts: list[tuple[int, int]]) -> bytes:
    return b"".join(bytes(n) if not seed else random.Random(seed).randbytes(n) for seed, n in parts)


def store_file(store: Store, data: bytes) -> Entry:
    """Stores a file as imports do: cut, written, listed in a manifest."""
    cutter = Cutter(store.chunking)
    cuts = [*cutter.feed(data), *cutter.finish()]
    with ThreadPoolExecutor(2) as threads, ThreadPoolExecutor(1) as packer:
        writer = ChunkWriter(store.objects, store.index, store.codec, threads, packer)
        pieces = [bytes(cut.data) for cut in cuts if cut.data is not None]
        placements = iter(writer.add([(chunk_id(piece), piece) for piece in pieces]))
        writer.seal()
        nodes = store.metadata_writer()
        manifest = ManifestBuilder(store.metadata, nodes)
        for cut in cuts:
            if cut.data is None:
                manifest.add(Extent(cut.length, NO_ID, None))
            else:
                location = next(placements).location
                assert location is not None
                manifest.add(Extent(cut.length, chunk_id(cut.data), location))
    root = manifest.finish()
    nodes.finish()
    ref = nodes.resolve(root.ref)
    assert root.length == len(data)
    return file_entry(
        b"f",
        kind=Kind.LARGE,
        size=len(data),
        content=ref.id,
        stamp=ref.stamp,
        location=ref.location,
    )


@settings(max_examples=50)
@given(st.lists(part, min_size=1, max_size=6), st.data())
def test_reads_give_the_bytes_of_the_file(
    shared: Store, parts: list[tuple[int, int]], draw: st.DataObject
) -> None:
    data = render(parts)
    content = shared.contents.open(store_file(shared, data))
    assert content.size == len(data)
    assert content.read(0, len(data)) == data
    assert content.read(0, len(data) + 100) == data
    for _ in range(12):
        offset = draw.draw(st.integers(0, len(data) + 10))
        size = draw.draw(st.integers(0, 6000))
        assert content.read(offset, size) == data[offset : offset + size]
    assert content.read(-1, 5) == b""
    assert content.read(len(data), 1) == b""


@settings(max_examples=30)
@given(st.lists(part, min_size=1, max_size=6))
def test_extents_cover_the_file_without_gaps(shared: Store, parts: list[tuple[int, int]]) -> None:
    data = render(parts)
    content = shared.contents.open(store_file(shared, data))
    extents = list(content.extents())
    at = 0
    for offset, extent in extents:
        assert offset == at
        piece = data[at : at + extent.length]
        if extent.chunk == NO_ID:
            assert piece == bytes(extent.length)
            assert extent.location is None
        else:
            assert extent.chunk == chunk_id(piece)
        at += extent.length
    assert at == len(data)
    for offset, _ in extents[:: max(1, len(extents) // 7)]:
        assert list(content.extents(offset)) == [e for e in extents if e[0] >= offset]
        assert next(iter(content.extents(offset + 0)))[0] == offset


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 10**7), max_size=10))
def test_large_manifests_have_the_extents_that_were_added(
    shared: Store, seed: int, offsets: list[int]
) -> None:
    rng = random.Random(seed)
    extents = [
        Extent(rng.randrange(1, 2000), NO_ID if rng.random() < 0.1 else rng.randbytes(32), None)
        for _ in range(rng.choice([1, 500, 12_000]))
    ]
    nodes = shared.metadata_writer()
    manifest = ManifestBuilder(shared.metadata, nodes)
    for extent in extents:
        manifest.add(extent)
    root = manifest.finish()
    nodes.finish()
    ref = nodes.resolve(root.ref)
    size = sum(e.length for e in extents)
    assert root.length == size
    content = shared.contents.open(
        file_entry(
            b"f", kind=Kind.LARGE, size=size, content=ref.id, stamp=ref.stamp, location=ref.location
        )
    )
    assert [extent for _, extent in content.extents()] == extents
    starts = [0]
    for extent in extents:
        starts.append(starts[-1] + extent.length)
    for offset in offsets:
        if offset < size:
            start, extent = next(iter(content.extents(offset)))
            assert start <= offset < start + extent.length
            assert extent == extents[starts.index(start)]


def test_inserting_bytes_into_a_large_file_rewrites_a_handful_of_nodes(shared: Store) -> None:
    rng = random.Random(3)
    extents = [Extent(1000, rng.randbytes(32), None) for _ in range(30_000)]

    def nodes_for(items: list[Extent]) -> int:
        nodes = shared.metadata_writer()
        manifest = ManifestBuilder(shared.metadata, nodes)
        for item in items:
            manifest.add(item)
        manifest.finish()
        nodes.finish()
        return nodes.objects_written

    assert nodes_for(extents) > 150
    assert nodes_for(extents) == 0
    assert (
        nodes_for([*extents[:15_000], Extent(7, rng.randbytes(32), None), *extents[15_000:]]) <= 6
    )
    assert nodes_for([*extents, Extent(7, rng.randbytes(32), None)]) <= 4


def test_only_regular_files_are_opened(shared: Store) -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        shared.contents.open(file_entry(b"l", kind=Kind.SYMLINK))


def test_an_empty_file_has_no_bytes(shared: Store) -> None:
    content = shared.contents.open(file_entry(b"empty"))
    assert content.read(0, 10) == b""
    assert list(content.extents()) == []
