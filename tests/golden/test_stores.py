"""Whole stores: of today and of old, read by versionfs and by a reader of the format's text.

``store.tar.gz`` is a store as version 1 wrote it in November 2026, made by ``freeze``; every later
version must read it, and find in it what ``make_source`` describes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.golden.reader import COMMIT, MANIFEST, Reader, keyed, stamp
from tests.support.folders import Seen, describe
from tests.support.stores import TINY_CHUNKS, bring, head, make_store, settings_in
from versionfs.repo import Store, write_commit
from versionfs.transfer import export
from versionfs.tree import ManifestBuilder, build_directory, directory_entry
from versionfs.types import NO_ID, Extent, Location, NodeRef, PackId

FROZEN = Path(__file__).parent / "store.tar.gz"
TREE_ID = "f4e7afd5f5a60a3b25dca1850010ca38f21dd1eff1005caec300b0f8e19afbda"
COMMIT_ID = "eeb1019c625d0081471a7b91cc7e27976dc02d5e3086047e11a2f876f944b9c2"
TIME_NS = 1_700_000_000_123_456_789
MODES = {"run": 0o4755, "none": 0o700}


def noise(seed: str, size: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def make_source(folder: Path) -> None:
    """Makes a bit of all that a version may hold; with tiny chunks, trees of several levels."""
    folder.mkdir()
    (folder / "hello.txt").write_bytes(b"hello\n")
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_bytes(b"all work and no play\n" * 400)
    # 40,000 bytes are some 300 chunks: an inner node above leaves.
    (folder / "large").write_bytes(noise("large", 40_000) + bytes(5000) + noise("more", 3000))
    (folder / "zeros").write_bytes(bytes(9000))
    (folder / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "link").symlink_to("no/such/target")
    (folder / "none").mkdir()
    (folder / "sub" / "below").mkdir(parents=True)
    (folder / "sub" / "below" / "same").write_bytes(b"hello\n")
    (folder / "sub" / "old").write_bytes(b"before 1970")
    Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff\n")).write_bytes(b"odd")
    (folder / "many").mkdir()
    for number in range(300):
        (folder / "many" / f"file-{number}").write_bytes(b"%d" % number)
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():  # Whatever the umask is.
            path.chmod(MODES.get(path.name, 0o755 if path.is_dir() else 0o644))
        os.utime(path, ns=(TIME_NS, TIME_NS), follow_symlinks=False)
    os.utime(folder / "sub" / "old", ns=(0, -1_500_000_000))


def freeze(work: Path) -> None:
    """Makes ``store.tar.gz``. Only for a new format version: then beside the old one."""
    make_source(work / "source")
    with make_store(work / "home", TINY_CHUNKS) as store:
        (work / "first").mkdir()
        bring(store, work / "first", message="first")
        bring(store, work / "source", message="second\n\nmit Umlauten: äöü", metadata={"run": "7"})
        photos = store.repository("photos")
        photos.create_tag("v1", photos.resolve("main", "~1"))
    with tarfile.open(FROZEN, "w:gz") as archive:
        for path in sorted((work / "home" / "store").rglob("*")):
            if path.is_file() and path.name != "lock":
                archive.add(path, str(path.relative_to(work / "home")))


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """A home with the store as it was written long ago."""
    home = tmp_path / "frozen"
    home.mkdir()
    subprocess.run(["tar", "-xf", FROZEN, "-C", home, "--no-same-owner"], check=True)
    return home


def expected(folder: Path) -> dict[bytes, Seen]:
    """Returns what is in a folder; the folder itself is not, and holes and zeros are one."""
    found = describe(folder)
    del found[b""]
    return found


def read(store: Path) -> dict[bytes, Seen]:
    kinds = {1: stat.S_IFREG, 2: stat.S_IFREG, 3: stat.S_IFDIR, 4: stat.S_IFLNK}
    return {
        item.path: Seen(
            kinds[item.kind],
            item.mode,
            item.mtime_ns,
            item.data,
            tuple((os.fsdecode(name), value) for name, value in item.xattrs),
        )
        for item in Reader(store).version("photos", "main")
    }


def test_a_reader_made_from_the_text_reads_what_is_written_today(tmp_path: Path) -> None:
    make_source(tmp_path / "source")
    with contextlib.suppress(OSError):  # a temporary folder without extended attributes
        os.setxattr(tmp_path / "source" / "text", "user.note", b"\x00\xff")
    with make_store(tmp_path / "home", TINY_CHUNKS) as store:
        bring(store, tmp_path / "source")
        kinds = {entry.name: entry.kind for entry in store.trees.entries(head(store).root.node)}
    assert (kinds[b"large"], kinds[b"zeros"], kinds[b"hello.txt"]) == (2, 2, 1)
    assert read(tmp_path / "home" / "store") == expected(tmp_path / "source")
    assert Reader(tmp_path / "home" / "store").check_packs() == 2


def test_default_chunk_sizes_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").write_bytes(noise("l", 3_000_000) + bytes(2_000_000))
    with make_store(tmp_path / "home") as store:
        bring(store, tmp_path / "source")
    assert read(tmp_path / "home" / "store") == expected(tmp_path / "source")


def test_a_store_of_old_is_read(frozen: Path, tmp_path: Path) -> None:
    make_source(tmp_path / "source")
    with Store.open(settings_in(frozen)) as store:
        photos = store.repository("photos")
        commit = photos.resolve("main", None)
        assert commit.id.hex() == COMMIT_ID
        assert commit.root.content.hex() == TREE_ID
        assert commit.message == "second\n\nmit Umlauten: äöü"
        assert commit.metadata == {"run": "7"}
        assert (commit.author, commit.number) == ("ada", 2)
        assert photos.resolve(None, "v1") == photos.resolve("main", "~1")
        export(store, commit.root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(tmp_path / "source")


def test_a_store_of_old_is_read_by_the_other_reader(frozen: Path, tmp_path: Path) -> None:
    make_source(tmp_path / "source")
    assert read(frozen / "store") == expected(tmp_path / "source")
    reader = Reader(frozen / "store")
    assert reader.ref("photos", "branches", "main")[0].hex() == COMMIT_ID
    value, _ = reader.commit(*reader.ref("photos", "tags", "v1"))
    assert (value["message"], value["parents"]) == ("first", [])
    assert reader.check_packs() >= 2


def test_an_import_of_the_same_data_adds_to_a_store_of_old_no_content(
    frozen: Path, tmp_path: Path
) -> None:
    """Cut points, ids and trees are what they were: all is found again."""
    make_source(tmp_path / "source")
    with Store.open(settings_in(frozen)) as store:
        result = bring(store, tmp_path / "source")
        assert (result.commit, result.new_bytes) == (None, 0)
        assert result.files_read > 300
        (tmp_path / "source" / "new").write_bytes(b"new")
        assert bring(store, tmp_path / "source").new_bytes == 3
    assert read(frozen / "store") == expected(tmp_path / "source")


COMMIT_TEXT = (
    '{"author":"ada \\"x\\" <ä>","message":"m\\n\\u0001","metadata":{"a":"1","b":"2"},"number":1,'
    '"parents":[],"root":{"files":0,"mode":493,"size":0,'
    '"tree":"5c0b40f01a6e2362ec1e79de998322fcbe41adb078045a7330d00f1c11a1f71e",'
    '"xattrs":[["757365722e61","00ff"]]},"time_ns":1700000000123456789,"version":1}'
)
ATTRIBUTES_TEXT = (
    '{"gid":100,"mtime_ns":-5,"parents":[],"stamp":"321dae5f1b3679c94cd356bca53267a6","uid":1000}'
)


def test_a_commit_is_this_text(tmp_path: Path) -> None:
    with make_store(tmp_path / "home") as store:
        writer = store.metadata_writer()
        child = build_directory(store.trees, writer, [])
        root = directory_entry(b"", child, 0o755, -5, 1000, 100)
        ref = write_commit(
            writer,
            root=root._replace(xattrs=((b"user.a", b"\x00\xff"),)),
            parents=[],
            author='ada "x" <ä>',
            message="m\n\x01",
            time_ns=TIME_NS,
            metadata={"b": "2", "a": "1"},
        )
        writer.finish()
        ref = writer.resolve(ref)
        found = store.metadata.load(COMMIT, ref)
        assert bytes(found.canonical).decode() == COMMIT_TEXT
        assert bytes(found.attributes).decode() == ATTRIBUTES_TEXT
        assert ref.id == keyed(COMMIT, COMMIT_TEXT.encode())
        assert ref.stamp == stamp(ATTRIBUTES_TEXT.encode())


def test_a_manifest_is_these_bytes(tmp_path: Path) -> None:
    place = Location(PackId(b"p" * 32), 16, 101, 0, 100)
    # Ids that end no node, so that 600 extents are a node of 512, the most, and one of 88.
    extents = [Extent(100, b"\xff" * 4 + i.to_bytes(28, "big"), place) for i in range(599)]
    extents.append(Extent(7, NO_ID, None))
    with make_store(tmp_path / "home") as store:
        writer = store.metadata_writer()
        builder = ManifestBuilder(store.metadata, writer)
        for extent in extents:
            builder.add(extent)
        root = builder.finish()
        writer.finish()
        leaves = [
            struct.pack(f"<B3xI{len(part)}Q", 0, len(part), *[e.length for e in part])
            + b"".join(e.chunk for e in part)
            for part in (extents[:512], extents[512:])
        ]
        inner = struct.pack("<B3xI2Q", 1, 2, 51_200, 8_707)
        inner += keyed(MANIFEST, leaves[0]) + keyed(MANIFEST, leaves[1])
        assert root.length == 59_907
        assert (root.ref.id, root.ref.stamp) == (keyed(MANIFEST, inner), stamp(b""))
        found = store.metadata.load(MANIFEST, writer.resolve(root.ref))
        assert bytes(found.canonical) == inner
        assert not found.attributes
        below = NodeRef(keyed(MANIFEST, leaves[0]), stamp(b""), found.location_columns[0])  # type: ignore[arg-type]
        assert bytes(store.metadata.load(MANIFEST, below).canonical) == leaves[0]
