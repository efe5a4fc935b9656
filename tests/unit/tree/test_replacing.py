"""Entries that take the place of others: the leaf is the one that building it from all gives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.stores import edit_directory, file_entry, write_directory
from versionfs.chunkstore import (
    ChangedLocations,
    LocationColumns,
    MetadataObject,
    encode_locations,
)
from versionfs.chunkstore.locations import THIS_PACK
from versionfs.errors import CorruptionError
from versionfs.repo import Store
from versionfs.tree import Child, Leaf
from versionfs.tree.encoding import encode_leaf
from versionfs.tree.replacing import Replacing
from versionfs.types import Entry, Kind, Location, NodeId, NodeRef, PackId

OWN = PackId(b"o" * 32)
PACKS = [OWN, *(PackId(bytes([number]) * 32) for number in range(5))]
COUNT = 40
NOWHERE = Location(OWN, 0, 0, 0, 0)


def some_entry(rng: random.Random, name: bytes, packs: Sequence[PackId | None]) -> Entry:
    kind = rng.choice([Kind.FILE, Kind.LARGE, Kind.DIRECTORY, Kind.SYMLINK])
    pack = rng.choice(packs)
    where = None if pack is None else Location(pack, *(rng.getrandbits(32) for _ in range(4)))
    return Entry(
        name,
        kind,
        rng.getrandbits(12),
        rng.getrandbits(40),
        rng.getrandbits(30),
        rng.randbytes(32),
        rng.randbytes(9) if kind == Kind.SYMLINK else b"",
        ((b"user.a", rng.randbytes(5)),) if rng.random() < 0.3 else (),
        rng.getrandbits(60) - (1 << 59),
        rng.getrandbits(32),
        rng.getrandbits(32),
        rng.randbytes(16),
        where,
    )


def summary(entries: Sequence[Entry]) -> tuple[int, int]:
    size = sum(entry.size for entry in entries if entry.kind != Kind.SYMLINK)
    return sum(entry.files for entry in entries), size


class Recorder:
    """A writer that keeps what it is given."""

    def put(self, _kind: int, canonical: bytes, attributes: bytes, locations: Any) -> NodeRef:
        assert isinstance(locations, ChangedLocations)
        self.parts = canonical, attributes, locations.encode(locations.changed)
        return NodeRef(NodeId(b"i" * 32), b"s" * 16, Location(PACKS[1], 0, 0, 0, 0))


@pytest.mark.parametrize("seed", range(40))
def test_the_bytes_are_those_of_encoding_all_anew(seed: int) -> None:
    rng = random.Random(seed)
    packs: list[PackId | None] = [*rng.sample(PACKS, 3), None] if seed % 2 else [OWN]
    names = [b"name%03d" % number for number in range(COUNT)]
    entries = [some_entry(rng, name, packs) for name in names]
    canonical, attributes, locations = encode_leaf(entries)
    # What lies in the pack that the leaf is in has no name there.
    own = [w._replace(pack=THIS_PACK) if w and w.pack == OWN else w for w in locations]
    section = memoryview(encode_locations(own))
    source = MetadataObject(memoryview(canonical), memoryview(attributes), section, OWN)
    leaf = Leaf(source)
    child = Child(
        NodeRef(NodeId(b"i" * 32), b"s" * 16, NOWHERE), names[-1], COUNT, *summary(entries)
    )
    replacing = Replacing(child, leaf, is_last=False)
    for index in sorted(rng.sample(range(COUNT), rng.choice([1, 5, COUNT]))):
        entries[index] = some_entry(rng, names[index], [*PACKS, THIS_PACK, None])
        assert replacing.replace(entries[index])
    assert replacing.entries() == entries
    writer = Recorder()
    written = replacing.write(writer)  # type: ignore[arg-type]
    canonical, attributes, locations = encode_leaf(entries)
    assert writer.parts == (canonical, attributes, encode_locations(locations))
    assert written[1:] == (names[-1], COUNT, *summary(entries))


def test_only_what_is_there_is_replaced() -> None:
    entries = [file_entry(name) for name in (b"a", b"c", b"e")]
    canonical, attributes, locations = encode_leaf(entries)
    section = memoryview(encode_locations(locations))
    leaf = Leaf(MetadataObject(memoryview(canonical), memoryview(attributes), section, OWN))
    child = Child(NodeRef(NodeId(b"i" * 32), b"s" * 16, NOWHERE), b"e", 3, 3, 0)
    replacing = Replacing(child, leaf, is_last=True)
    assert not replacing.replace(file_entry(b"b"))
    assert replacing.write(Recorder()) is child  # type: ignore[arg-type]
    assert [replacing.holds(name) for name in (b"b", b"e", b"ea")] == [True, True, False]


def test_what_a_parent_says_of_a_leaf_is_put_right() -> None:
    entries = [file_entry(name, b"1234") for name in (b"a", b"c", b"e")]
    canonical, attributes, locations = encode_leaf(entries)
    section = memoryview(encode_locations(locations))
    leaf = Leaf(MetadataObject(memoryview(canonical), memoryview(attributes), section, OWN))
    wrong = Child(NodeRef(NodeId(b"i" * 32), b"s" * 16, NOWHERE), b"zzz", 7, 0, 0)
    replacing = Replacing(wrong, leaf, is_last=False)
    assert replacing.replace(file_entry(b"c", b"1"))
    assert replacing.write(Recorder())[1:] == (b"e", 3, 3, 9)  # type: ignore[arg-type]
    assert not replacing.holds(b"f")


def test_a_location_that_names_no_pack_is_damage() -> None:
    section = bytearray(encode_locations([Location(PACKS[1], 1, 2, 3, 4)] * 3))
    section[8 + 32] = 9  # the pack number of the first
    columns = LocationColumns(memoryview(bytes(section)), OWN)
    section[8 + 32] = 3  # one that a pack which comes to the table would have
    near = LocationColumns(memoryview(bytes(section)), OWN)
    with pytest.raises(CorruptionError, match="names pack 3"):
        near.with_changed({1: Location(PACKS[2], 0, 0, 0, 0)})
    for work in (columns.all, lambda: columns.with_changed({}), lambda: columns[0]):
        with pytest.raises(CorruptionError, match="names pack 9"):
            work()
    # Where that location is replaced there is none any more.
    assert columns.with_changed({0: None}) == encode_locations([None, columns[1], columns[2]])


def test_no_entry_is_made_of_what_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {b"name%05d" % number: file_entry(b"name%05d" % number) for number in range(5000)}
    root = write_directory(store, model)
    made = 0
    entries = Leaf.entries

    def counted(leaf: Leaf) -> list[Entry]:
        nonlocal made
        made += leaf.count
        return entries(leaf)

    monkeypatch.setattr(Leaf, "entries", counted)
    edits: dict[bytes, Entry | None] = {
        name: file_entry(name, b"new") for name in (b"name00000", b"name02500", b"name04999")
    }
    edited = edit_directory(store, root, edits)
    assert made == 0
    assert edited.id == write_directory(store, {**model, **edits}).id  # type: ignore[dict-item]
    # A name more decides anew where leaves end: of one leaf, or two.
    edit_directory(store, root, {b"name02500x": file_entry(b"name02500x")})
    assert 0 < made < 1500
