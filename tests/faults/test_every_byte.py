"""Each single byte of a store's packs may be damaged, or all behind it missing: never wrong data.

Everything is read through readers that were just made, over objects that are the store's own but
for the damage.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from tests.support.stores import TINY_CHUNKS, bring, head, make_store, write_directory
from versionfs.chunkstore import DirectSource, MetadataReader, PackReader
from versionfs.errors import CorruptionError, NotFoundError
from versionfs.objectstore import LocalStore
from versionfs.pack import pack_key
from versionfs.repo import CommitReader, Store
from versionfs.tree import Contents, Trees
from versionfs.types import Commit, Entry, NodeRef, PackId

Read = dict[bytes, tuple[tuple[object, ...], bytes]]


class Damaged(LocalStore):
    """A local store some of whose objects are not what was put."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.objects: Mapping[str, bytes] = {}

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key not in self.objects:
            return super().get(key, start, length)
        data = self.objects[key][start:]
        return data if length is None else data[:length]


def read_all(store: Store, objects: LocalStore, ref: NodeRef) -> tuple[Commit, Read]:
    """Returns a commit and all that is below it: each entry's fields, but places, and its bytes."""
    packs = PackReader(DirectSource(objects), 1 << 20)
    metadata = MetadataReader(packs)
    trees, contents = Trees(metadata, 1 << 20), Contents(metadata, packs)
    commit = CommitReader(metadata).read(ref)

    def below(path: bytes, folder: Entry) -> Iterator[tuple[bytes, Entry]]:
        for entry in trees.entries(folder.node):
            yield path + entry.name, entry
            if entry.is_dir:
                yield from below(path + entry.name + b"/", entry)

    found: Read = {}
    for path, entry in below(b"", commit.root):
        data = contents.open(entry).read(0, entry.size) if entry.is_file else entry.target
        found[path] = tuple(entry[:-1]), data
    return commit, found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path]]:
    """A store of two packs, with commits, folders, a manifest, chunks raw and compressed."""
    base = tmp_path_factory.mktemp("small")
    source = base / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "text").write_bytes(b"all work and no play\n" * 20)
    (source / "noise").write_bytes(Random(1).randbytes(900) + bytes(2000))
    (source / "link").symlink_to("sub/text")
    with make_store(base / "home", TINY_CHUNKS) as store:
        bring(store, source)
        yield store, base / "home" / "store"


def packs(root: Path) -> dict[str, bytes]:
    """Returns the bytes of each pack, by key."""
    return {pack_key(bytes.fromhex(p.name)): p.read_bytes() for p in (root / "packs").glob("*/*")}


def what_happens(store: Store, damaged: Damaged, ref: NodeRef, whole: tuple[Commit, Read]) -> bool:
    """Reads all; returns whether damage was told. Anything else must be as it was."""
    named = None
    try:
        assert read_all(store, damaged, ref) == whole
    except CorruptionError as error:
        named = error.pack or "none"
    assert named is None or pack_key(PackId(bytes.fromhex(named))) in damaged.objects
    return named is not None


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_any_flipped_bit_is_told_or_does_not_matter(
    small: tuple[Store, Path], bit: int, caplog: pytest.LogCaptureFixture
) -> None:
    store, root = small
    ref = head(store).ref
    damaged = Damaged(root)
    whole = read_all(store, damaged, ref)
    assert set(whole[1]) == {b"link", b"noise", b"sub", b"sub/text"}
    told = 0
    for key, data in packs(root).items():
        for at in range(len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            damaged.objects = {key: bytes(flipped)}
            if what_happens(store, damaged, ref, whole):
                told += 1
                assert any(r.levelno == logging.ERROR for r in caplog.records)
                caplog.clear()
    assert told > 1500


def test_any_truncation_is_told_or_does_not_matter(small: tuple[Store, Path]) -> None:
    store, root = small
    ref = head(store).ref
    damaged = Damaged(root)
    whole = read_all(store, damaged, ref)
    for key, data in packs(root).items():
        told = []
        for size in range(len(data)):
            damaged.objects = {key: data[:size]}
            told.append(what_happens(store, damaged, ref, whole))
        # Up to where the blocks end, damage; the index behind them is not needed for reading.
        blocks = told.index(False)
        assert blocks > 100
        assert not any(told[blocks:])


def test_packs_that_changed_places_are_damage(small: tuple[Store, Path]) -> None:
    store, root = small
    (one, first), (two, second) = packs(root).items()
    damaged = Damaged(root)
    whole = read_all(store, damaged, head(store).ref)
    damaged.objects = {one: second, two: first}
    assert what_happens(store, damaged, head(store).ref, whole)


def test_a_reference_with_other_attributes_is_damage(small: tuple[Store, Path]) -> None:
    """The stamp is verified too: times and owners are never those of another version."""
    store, root = small
    commit = head(store)
    with pytest.raises(CorruptionError):
        read_all(store, LocalStore(root), commit.ref._replace(stamp=bytes(16)))
    with pytest.raises(CorruptionError):
        store.trees.node(commit.root.node._replace(stamp=bytes(16)))


def test_a_pack_that_comes_back_is_read_again_without_opening_the_store_anew(
    small: tuple[Store, Path],
) -> None:
    store, root = small
    damaged = Damaged(root)
    reader = PackReader(DirectSource(damaged), 1 << 20)
    entry = store.trees.walk_path(head(store).root, b"sub/text")
    assert entry is not None
    assert entry.location is not None
    key = pack_key(entry.location.pack)
    flipped = bytearray(packs(root)[key])
    flipped[entry.location.block_offset + 5] ^= 1
    damaged.objects = {key: bytes(flipped)}
    manifest = Contents(MetadataReader(reader), reader)
    with pytest.raises(CorruptionError):
        manifest.open(entry).read(0, entry.size)
    damaged.objects = {}
    assert manifest.open(entry).read(0, entry.size) == b"all work and no play\n" * 20


def test_a_store_without_any_pack_says_what_is_missing(tmp_path: Path) -> None:
    with make_store(tmp_path / "home") as store:
        root = write_directory(store, {})
        for path in (tmp_path / "home" / "store" / "packs").glob("*/*"):
            path.unlink()
        with pytest.raises(CorruptionError, match="missing") as caught:
            store.trees.node(root)
        assert caught.value.pack == root.location.pack.hex()
        with pytest.raises(NotFoundError):
            store.objects.get(pack_key(root.location.pack))
