"""Damage in packs is told, with the pack's name, and never returned as data; the index heals."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import describe, write
from tests.support.stores import ROOT, bring, head, settings_in
from versionfs.errors import CorruptionError, VersionFSError
from versionfs.pack import PackKind, pack_key, read_index
from versionfs.repo import Store
from versionfs.transfer import export
from versionfs.types import PackId

CONTENT = Random(5).randbytes(60_000)
"""One chunk: the first block of the metadata pack is then the directory."""


def piece(data: bytes, at: int, size: int) -> bytes:
    return data[at : at + size]


def pack_file(home: Path, kind: PackKind) -> Path:
    """Returns the only pack of a kind in the store."""
    found = []
    for path in (home / "store" / "packs").glob("*/*"):
        data = path.read_bytes()
        index = read_index(PackId(bytes.fromhex(path.name)), len(data), partial(piece, data))
        if index.kind is kind:
            found.append(path)
    (only,) = found
    return only


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, 1000)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "codec byte": lambda path: flip(path, 16),
    "block": lambda path: flip(path, 5000),
    "truncated": truncate,
    "missing": lambda path: path.unlink(),
}


@pytest.fixture
def imported(home: Path, source: Path) -> Path:
    write(source / "file", CONTENT)
    with Store.create(settings_in(home)) as store:
        bring(store, source)
    return home


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_data_pack_is_named_and_not_read(
    imported: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = pack_file(imported, PackKind.DATA)
    DAMAGE[damage](path)
    with Store.open(settings_in(imported)) as store:
        entry = store.trees.lookup(head(store).root.node, b"file")
        assert entry is not None
        with caplog.at_level(logging.ERROR), pytest.raises(CorruptionError) as caught:
            store.contents.open(entry).read(0, len(CONTENT))
    assert caught.value.pack == path.name
    assert any(path.name in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("damage", ["codec byte", "truncated", "missing"])
def test_a_damaged_metadata_pack_is_named_and_not_read(imported: Path, damage: str) -> None:
    path = pack_file(imported, PackKind.METADATA)
    if damage == "truncated":
        os.truncate(path, 40)
    else:
        DAMAGE[damage](path)
    with Store.open(settings_in(imported)) as store, pytest.raises(CorruptionError) as caught:
        store.trees.lookup(head(store).root.node, b"file")
    assert caught.value.pack == path.name


@pytest.mark.parametrize("at", [0, 7, -2, -20, -48, -60])
def test_a_damaged_header_index_or_trailer_is_found(imported: Path, at: int) -> None:
    path = pack_file(imported, PackKind.DATA)
    flip(path, at % path.stat().st_size)
    data = path.read_bytes()
    pack = PackId(bytes.fromhex(path.name))
    with pytest.raises(VersionFSError, match=path.name[:12]):
        read_index(pack, len(data), lambda start, length: data[start : start + length])
    assert pack_key(pack).endswith(path.name)


def test_data_of_a_pack_that_is_gone_is_stored_again(imported: Path, source: Path) -> None:
    pack_file(imported, PackKind.DATA).unlink()
    write(source / "other", b"o")
    with Store.open(settings_in(imported)) as store:
        bring(store, source, branch="fresh", checksum=True)
        entry = store.trees.lookup(head(store, "fresh").root.node, b"file")
        assert entry is not None
        assert store.contents.open(entry).read(0, len(CONTENT)) == CONTENT


def clobber(data: bytearray, rng: Random) -> bytearray:
    """Overwrites a fifth of the pages, the first two (LMDB's roots) not among them."""
    for page in range(2, len(data) // 4096):
        if rng.random() < 0.2:
            data[page * 4096 : (page + 1) * 4096] = rng.randbytes(4096)
    return data


INDEX_DAMAGE: dict[str, Callable[[bytearray], bytes | bytearray]] = {
    "emptied": lambda _: b"",
    "halved": lambda data: data[: len(data) // 2],
    "garbage": lambda data: Random(1).randbytes(len(data)),
    "pages": lambda data: clobber(data, Random(2)),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGE)
def test_a_damaged_index_is_made_anew(
    imported: Path, source: Path, tmp_path: Path, damage: str
) -> None:
    (data,) = (imported / "cache" / "index").glob("*/data.mdb")
    data.write_bytes(INDEX_DAMAGE[damage](bytearray(data.read_bytes())))
    write(source / "second", b"2" * 100_000)
    # In a process of its own: a mapped page that is not there would end it with a signal.
    done = subprocess.run(
        [sys.executable, "-m", "versionfs", "import", str(source), "photos", "-m", "two"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "VERSIONFS_HOME": str(imported)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Store.open(settings_in(imported)) as store:
        export(store, head(store).root, tmp_path / "out")
        assert describe(tmp_path / "out") == describe(source)


def test_an_unchanged_source_heals_a_pack_that_was_lost(imported: Path, source: Path) -> None:
    pack_file(imported, PackKind.DATA).unlink()
    with Store.open(settings_in(imported)) as store:
        bring(store, source, branch="again")
        entry = store.trees.lookup(head(store, "again").root.node, b"file")
        assert entry is not None
        assert store.contents.open(entry).read(0, len(CONTENT)) == CONTENT


def test_nothing_is_deduplicated_against_a_truncated_pack(imported: Path, source: Path) -> None:
    truncate(pack_file(imported, PackKind.DATA))
    with Store.open(settings_in(imported)) as store:
        bring(store, source, branch="again", checksum=True)
        entry = store.trees.lookup(head(store, "again").root.node, b"file")
        assert entry is not None
        assert store.contents.open(entry).read(0, len(CONTENT)) == CONTENT


def test_a_copy_of_a_store_has_an_index_of_its_own(
    imported: Path, source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(imported / "store", copy)
    write(source / "later", b"l" * 1000)
    with (
        Store.open(settings_in(imported)) as one,
        Store.open(settings_in(imported, store=copy)) as two,
    ):
        assert one.id == two.id
        bring(one, source)
        assert bring(two, source).new_bytes == 1000
        export(two, head(two).root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(source)
