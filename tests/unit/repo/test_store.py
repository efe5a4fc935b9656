"""Opening and making stores; the format file."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import TINY_CHUNKS, settings_in
from versionfs.chunking import DEFAULT_CHUNKING, ChunkingParameters
from versionfs.errors import (
    AlreadyExistsError,
    CorruptionError,
    NotFoundError,
    UnsupportedFormatError,
    VersionFSError,
)
from versionfs.objectstore import create_temporary
from versionfs.repo import Store, StoreFormat

FORMAT = StoreFormat("01K9ZZZZZZZZZZZZZZZZZZZZZZ", ChunkingParameters())


def changed(**changes: Any) -> bytes:
    value = json.loads(FORMAT.encode())
    value.update(changes)
    return json.dumps(value).encode()


def test_a_store_is_made_once_and_opened_again(home: Path) -> None:
    with Store.create(settings_in(home), TINY_CHUNKS) as store:
        made = store.format
        assert store.repositories() == []
    with pytest.raises(AlreadyExistsError, match="a store at"):
        Store.create(settings_in(home))
    with Store.open(settings_in(home)) as store:
        assert store.format == made
        assert store.chunking == TINY_CHUNKS
        assert b"whole" not in store.format.encode()
        assert store.id == made.store_id
    with Store.open_or_create(settings_in(home)) as store:
        assert store.format == made


def test_a_store_that_is_not_there(home: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no store at"):
        Store.open(settings_in(home))
    assert not home.exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NotFoundError, match="no store at"):
        Store.open(settings_in(home, store=empty))
    with Store.open_or_create(settings_in(home, store=empty)) as store:
        assert store.repositories() == []


def test_a_store_is_made_where_the_maker_of_one_was_killed(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    (folder / "tmp").mkdir(parents=True)
    path, file = create_temporary(folder / "tmp")
    file.write(b"{")
    file.close()
    (folder / "lock").touch()
    with pytest.raises(NotFoundError, match="no store at"):
        Store.open(settings_in(home, store=folder))
    with Store.open_or_create(settings_in(home, store=folder)) as store:
        assert store.repositories() == []
    Store.open(settings_in(home, store=folder)).close()
    assert path.exists()


def test_many_first_writers_make_one_store(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    start = threading.Barrier(8)

    def make(number: int) -> str:
        start.wait()
        with Store.open_or_create(settings_in(home / str(number), store=folder)) as store:
            return store.id

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(8)))) == 1


@pytest.mark.parametrize("name", ["file.txt", ".hidden", "sub/file", "tmp/file"])
def test_a_folder_of_something_else_is_not_touched(home: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("precious")
    with pytest.raises(UnsupportedFormatError, match="not a versionfs store"):
        Store.open(settings_in(home, store=folder))
    with pytest.raises(AlreadyExistsError, match="not empty"):
        Store.create(settings_in(home, store=folder))
    assert [p for p in folder.rglob("*") if p.is_file()] == [folder / name]


def test_a_file_is_not_a_store(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for way in (Store.open, Store.create):
        with pytest.raises(VersionFSError):
            way(settings_in(home, store=tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "x"


def test_a_format_comes_back() -> None:
    assert StoreFormat.decode(FORMAT.encode(), "here") == FORMAT
    default = StoreFormat("01K9ZZZZZZZZZZZZZZZZZZZZZZ", DEFAULT_CHUNKING)
    assert default.chunking.whole_bytes > 0
    assert StoreFormat.decode(default.encode(), "here") == default


def test_a_newer_format_is_told_apart_from_damage() -> None:
    with pytest.raises(UnsupportedFormatError, match="has format 2, this versionfs reads 1"):
        StoreFormat.decode(changed(format=2, chunking="of another shape"), "here")
    with pytest.raises(UnsupportedFormatError, match="gear"):
        StoreFormat.decode(changed(chunking={"algorithm": "gear"}), "here")
    sizes = {"algorithm": "fastcdc-2020-nc1", "min": 10**9, "average": 1, "max": 5}
    with pytest.raises(UnsupportedFormatError, match="chunk sizes"):
        StoreFormat.decode(changed(chunking=sizes), "here")
    sizes |= {"min": 64, "average": 256, "max": 1024}
    assert StoreFormat.decode(changed(chunking=sizes), "here").chunking == TINY_CHUNKS
    with pytest.raises(UnsupportedFormatError, match="cut with least"):
        StoreFormat.decode(changed(chunking=sizes | {"least": 5}), "here")
    for whole in (-1, 1025):
        with pytest.raises(UnsupportedFormatError, match="chunk sizes"):
            StoreFormat.decode(changed(chunking=sizes | {"whole": whole}), "here")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        FORMAT.encode()[:-10],
        changed(versionfs="other"),
        changed(format="x"),
        changed(format=None),
        changed(format=float("inf")),
        changed(format=0),
        changed(format=-1),
        changed(chunking=None),
        changed(chunking={}),
        changed(id=None),
        changed(id=""),
        changed(id="../../../../tmp/elsewhere"),
        changed(id="/etc"),
        changed(id="."),
    ],
    ids=lambda data: data[:40].decode(errors="replace"),
)
def test_a_damaged_format_file_is_named(home: Path, tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "versionfs.json").write_bytes(data)
    with pytest.raises(CorruptionError, match=r"versionfs\.json"):
        Store.open(settings_in(home, store=folder))
    assert not home.exists()


def test_no_flipped_bit_of_the_format_file_is_a_crash() -> None:
    data = FORMAT.encode()
    for at in range(len(data)):
        for bit in range(8):
            damaged = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            try:
                found = StoreFormat.decode(damaged, "here")
            except VersionFSError:
                continue
            assert "/" not in found.store_id
            assert found.store_id.isalnum()
