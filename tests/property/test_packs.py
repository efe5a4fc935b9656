"""What goes into blocks and packs comes out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from versionfs.chunking import BlockCodec, chunk_id, decode_block, pack_hasher
from versionfs.chunkstore import (
    ChunkWriter,
    DirectSource,
    LocationColumns,
    PackReader,
    encode_locations,
)
from versionfs.chunkstore.locations import THIS_PACK
from versionfs.errors import CorruptionError, VersionFSError
from versionfs.objectstore import LocalStore
from versionfs.pack import PackKind, PackWriter, pack_key, read_index
from versionfs.repo import Store
from versionfs.types import Location, PackId

payload = st.binary(max_size=300) | st.builds(
    lambda unit, times: unit * times, st.binary(min_size=1, max_size=20), st.integers(0, 9000)
)
ids = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)


@given(payload, st.sampled_from([-1, 1, 3, 19]))
@example(b"", 3)
def test_a_block_decodes_to_what_was_encoded(data: bytes, level: int) -> None:
    stored = BlockCodec(level).encode(data)
    assert bytes(decode_block(stored)) == data
    assert len(stored) <= len(data) + 1


@given(st.binary(max_size=200))
def test_junk_is_never_a_crash_of_the_block_decoder(data: bytes) -> None:
    try:
        decode_block(data)
    except CorruptionError:
        pass
    else:
        assert data[0] in (0, 1)


@given(st.lists(st.tuples(ids, payload), max_size=12), st.sampled_from(list(PackKind)))
@settings(max_examples=50)
def test_a_pack_lists_what_was_put_into_it(
    tmp_path_factory: pytest.TempPathFactory, objects: list[tuple[bytes, bytes]], kind: PackKind
) -> None:
    folder = tmp_path_factory.mktemp("packs")
    codec = BlockCodec()
    writer = PackWriter(folder, kind)
    for number, (object_id, data) in enumerate(objects):
        stored = codec.encode(data)
        offset = writer.append(stored)
        writer.add(number % 4, object_id, bytes([number]) * 16, offset, len(stored), 0, len(data))
    pack = writer.finish()
    whole = pack.path.read_bytes()
    writer.close()
    hasher = pack_hasher()
    hasher.update(whole)
    assert hasher.digest() == pack.id
    assert len(whole) == pack.size_bytes
    index = read_index(pack.id, len(whole), lambda at, n: whole[at : at + n])
    assert index == pack.index
    found = []
    for number, entry in enumerate(index):
        where = entry.location
        block = whole[where.block_offset : where.block_offset + where.stored_length]
        data = bytes(decode_block(block))[where.offset : where.offset + where.length]
        found.append((entry.id, data))
        assert entry.kind == number % 4
        assert entry.stamp == (bytes([number]) if kind is PackKind.METADATA else b"\0") * 16
        assert where.pack == pack.id
    assert found == objects


@given(st.data())
def test_a_damaged_pack_index_is_never_believed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    writer = PackWriter(tmp_path_factory.mktemp("packs"), PackKind.DATA)
    writer.add(0, b"i" * 32, b"", writer.append(b"\0block"), 6, 0, 5)
    pack = writer.finish()
    whole = bytearray(pack.path.read_bytes())
    writer.close()
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    kept = data.draw(st.just(len(whole)) | st.integers(0, len(whole)))
    try:
        index = read_index(pack.id, kept, lambda start, n: bytes(whole[start : start + n]))
    except VersionFSError as error:
        message = error.message
    else:
        # The reserved bytes of the header, the block (it has ids of its own), the end's version.
        assert index == pack.index
        assert kept == len(whole)
        assert at in {*range(9, 22), *range(len(whole) - 28, len(whole) - 24), len(whole) - 1}
        return
    assert pack.id.hex() in message


chunks = st.lists(st.binary(min_size=1, max_size=50) | payload.filter(bool), max_size=15)


@settings(max_examples=40)
@given(st.lists(chunks, min_size=1, max_size=4))
def test_chunks_come_back_and_are_stored_once(shared: Store, batches: list[list[bytes]]) -> None:
    with ThreadPoolExecutor(2) as threads, ThreadPoolExecutor(1) as packer:
        writer = ChunkWriter(shared.objects, shared.index, shared.codec, threads, packer)
        placed = []
        known = [shared.index.locate([chunk_id(d) for d in batch]) for batch in batches]
        for batch in batches:
            placed += list(zip(batch, writer.add([(chunk_id(d), d) for d in batch]), strict=True))
        writer.seal()
    reader = PackReader(DirectSource(shared.objects), 1 << 20)
    for data, placement in placed:
        assert placement.location is not None
        assert bytes(reader.chunk(chunk_id(data), placement.location)) == data
        assert shared.index.locate([chunk_id(data)]) == [placement.location]
    fresh = {
        d
        for batch, where in zip(batches, known, strict=True)
        for d, w in zip(batch, where, strict=True)
        if w is None
    }
    assert writer.statistics().chunks_new == len(fresh)
    assert writer.statistics().bytes_new == sum(len(d) for d in fresh)


locations = st.lists(
    st.none()
    | st.builds(
        Location,
        st.sampled_from([PackId(b"a" * 32), PackId(b"b" * 32), PackId(b"self" * 8), THIS_PACK]),
        u32,
        u32,
        u32,
        u32,
    ),
    max_size=20,
)


@given(locations)
def test_locations_come_back(found: list[Location | None]) -> None:
    here = PackId(b"self" * 8)
    columns = LocationColumns(memoryview(encode_locations(found)), here)
    assert columns.count == len(found)
    expected = [
        where._replace(pack=here) if where is not None and where.pack == THIS_PACK else where
        for where in found
    ]
    assert [columns[i] for i in range(columns.count)] == expected


@given(locations, st.data())
def test_a_cut_location_section_is_damage(
    found: list[Location | None], data: st.DataObject
) -> None:
    section = encode_locations(found)
    cut = data.draw(st.integers(0, len(section) - 1))
    with pytest.raises(CorruptionError):
        LocationColumns(memoryview(section[:cut]), PackId(b"p" * 32))


def test_a_reader_keeps_blocks_within_its_bound(tmp_path: Path) -> None:
    objects = LocalStore(tmp_path / "store")
    writer = PackWriter(objects.temporary(), PackKind.DATA)
    places = []
    for number in range(20):
        data = bytes([number]) * 1000
        stored = b"\0" + data
        places.append((chunk_id(data), writer.append(stored)))
        writer.add(0, chunk_id(data), b"", places[-1][1], len(stored), 0, len(data))
    pack = writer.finish()
    objects.put_file(pack_key(pack.id), pack.path)
    writer.close()
    reader = PackReader(DirectSource(objects), 5000)
    for _ in range(2):
        for chunk, offset in places:
            assert len(reader.chunk(chunk, Location(pack.id, offset, 1001, 0, 1000))) == 1000
    assert reader.statistics().blocks_read == 40
    for _ in range(2):
        for chunk, offset in places[-4:]:
            reader.chunk(chunk, Location(pack.id, offset, 1001, 0, 1000))
    assert reader.statistics().blocks_read == 40
    assert reader.statistics().cache_hits == 8
