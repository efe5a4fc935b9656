"""Index segments: their bytes, and that damage is never believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from versionfs.chunking import stamp
from versionfs.chunkstore import segments
from versionfs.chunkstore.segments import (
    SegmentPack,
    SegmentWriter,
    decode_segment,
    encode_segment,
)
from versionfs.errors import CorruptionError, UnsupportedFormatError, VersionFSError
from versionfs.index import ChunkIndex, Environment
from versionfs.objectstore import LocalStore
from versionfs.pack import PackIndex, PackKind
from versionfs.types import PackId


def listing(number: int, kind: PackKind = PackKind.DATA, count: int = 3) -> SegmentPack:
    data = bytes([number]) * (count * (49 if kind is PackKind.DATA else 65))
    return SegmentPack(PackIndex(PackId(bytes([number]) * 32), kind, count, data), 1000 + number)


def test_what_is_encoded_is_decoded() -> None:
    packs = [listing(1), listing(2, PackKind.METADATA), listing(3, count=0)]
    assert list(decode_segment(encode_segment(packs), "s")) == packs
    assert list(decode_segment(encode_segment([]), "s")) == []


def test_the_bytes_are_those_of_the_format() -> None:
    """As docs/format.md says, by hand."""
    pack = listing(1)
    expected = (
        b"VFSSEGM\x01" + (1).to_bytes(4, "little") + bytes(4)
        + b"\x01" * 32 + (1001).to_bytes(8, "little") + b"\0" + bytes(3)
        + (3).to_bytes(4, "little") + (147).to_bytes(8, "little") + stamp(b"\x01" * 147)
        + b"\x01" * 147
    )  # fmt: skip
    assert encode_segment([pack]) == expected + stamp(expected)


def test_a_damaged_segment_is_never_believed() -> None:
    good = encode_segment([listing(1, count=1), listing(2, PackKind.METADATA, count=1)])
    for at in range(len(good)):
        damaged = bytearray(good)
        damaged[at] ^= 0x41
        with pytest.raises(VersionFSError, match="segment"):
            list(decode_segment(bytes(damaged), "s"))
    for length in range(len(good)):
        with pytest.raises(CorruptionError):
            list(decode_segment(good[:length], "s"))


def test_lengths_that_lie_are_found_even_with_a_right_checksum() -> None:
    body = bytearray(encode_segment([listing(1)])[:-16])
    body[8] = 2
    with pytest.raises(CorruptionError, match="malformed"):
        list(decode_segment(bytes(body) + stamp(body), "s"))
    body[8] = 1
    body[-1] ^= 1
    with pytest.raises(CorruptionError, match="malformed"):
        list(decode_segment(bytes(body) + stamp(body), "s"))


def test_a_newer_segment_is_refused() -> None:
    newer = bytearray(encode_segment([]))
    newer[7] = 2
    with pytest.raises(UnsupportedFormatError, match="version 2"):
        list(decode_segment(bytes(newer), "s"))


def names(objects: LocalStore) -> list[str]:
    return [info.key for info in objects.list("index/")]


def test_a_writer_puts_what_it_collected_and_nothing_twice(tmp_path: Path) -> None:
    objects = LocalStore(tmp_path / "store")
    index = ChunkIndex(Environment(tmp_path / "index"))
    writer = SegmentWriter(objects, index)
    writer.publish()
    assert names(objects) == []
    writer.add(*listing(1))
    writer.add(*listing(2))
    assert names(objects) == []
    writer.publish()
    writer.publish()
    (name,) = names(objects)
    assert list(decode_segment(objects.get(name), name)) == [listing(1), listing(2)]
    assert index.segments() == {name.removeprefix("index/")}


def test_a_writer_holds_no_more_than_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "SEGMENT_TARGET_BYTES", 300)
    objects = LocalStore(tmp_path / "store")
    writer = SegmentWriter(objects, None)
    for number in range(1, 6):
        writer.add(*listing(number))
    (first,) = names(objects)
    writer.publish()
    # Of two that were made within a millisecond either may come first by name.
    (second,) = set(names(objects)) - {first}
    counts = [len(list(decode_segment(objects.get(name), name))) for name in (first, second)]
    assert counts == [3, 2]


def test_its_own_segment_is_written_down_with_the_next_pack_or_at_the_end(tmp_path: Path) -> None:
    objects = LocalStore(tmp_path / "store")
    environment = Environment(tmp_path / "index")
    index = ChunkIndex(environment)

    def written() -> set[str]:
        return ChunkIndex(environment).segments()

    for number in (1, 2):
        packs, size = listing(number)
        index.add_pack(packs.pack, packs.places(), size_bytes=size)
        before = written()
        writer = SegmentWriter(objects, index)
        writer.add(packs, size)
        writer.publish()
        assert written() == before
        assert len(index.segments()) == number
    assert len(written()) == 1
    index.flush()
    assert written() == index.segments()
    assert len(written()) == 2


def test_its_own_segment_is_not_of_an_index_that_was_made_anew(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "index")
    index = ChunkIndex(environment)
    index.add_own_segment("one")
    environment.rebuild("for a test")
    assert index.segments() == set()
    packs, size = listing(1)
    index.add_pack(packs.pack, packs.places(), size_bytes=size)
    index.add_own_segment("two")
    index.flush()
    assert ChunkIndex(environment).segments() == {"two"}
