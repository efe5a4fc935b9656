"""Packs on their way to a store behind a network: side by side, in turn where order matters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import describe, fill
from tests.support.machines import CountingFolder, machine
from tests.support.stores import bring, content, head
from versionfs.chunkstore import metadata_writer, writer
from versionfs.errors import StorageTransientError
from versionfs.pack import PackKind
from versionfs.repo import Store
from versionfs.transfer import export, pipeline


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = Random(3)
    fill(
        tmp_path / "source",
        {f"d{i % 20}/e{i % 40}/f{i}": rng.randbytes(30_000) for i in range(200)},
    )
    return tmp_path / "source"


@pytest.fixture
def remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Store, CountingFolder]]:
    monkeypatch.setattr(writer, "PACK_TARGET_BYTES", 100_000)
    monkeypatch.setattr(metadata_writer, "PACK_TARGET_BYTES", 1_000)
    store, objects = machine(tmp_path / "home", tmp_path / "store")
    with store:
        yield store, objects


def kind_of(root: Path, key: str) -> PackKind | None:
    return PackKind((root / key).read_bytes()[8]) if key.startswith("packs/") else None


def test_data_packs_are_put_side_by_side(
    remote: tuple[Store, CountingFolder], source: Path, tmp_path: Path
) -> None:
    store, objects = remote
    objects.latency = 0.01
    bring(store, source)
    assert 3 <= objects.most_at_once <= pipeline._UPLOADS + 1
    export(store, head(store).root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(source)


def test_complete_packs_wait_in_a_bounded_number(
    remote: tuple[Store, CountingFolder], source: Path
) -> None:
    """While nothing gets through, the import stops when six packs wait and goes on afterwards."""
    store, objects = remote
    go = threading.Event()
    objects.fail = lambda operation, _key: None if operation != "put" else (go.wait(30), None)[1]
    waiting: list[int] = []

    def look() -> None:
        # The import comes to rest by itself: it has nowhere to put what it reads.
        last = -1
        while (now := sum(1 for _ in objects.temporary().iterdir())) != last or now < 3:
            last = now
            go.wait(0.2)
        waiting.append(now)
        go.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    bring(store, source)
    watcher.join()
    assert 4 <= waiting[0] <= writer._UPLOADING_BOUND + 3
    assert list(objects.temporary().iterdir()) == []


def test_metadata_packs_then_the_segment_then_the_ref(
    remote: tuple[Store, CountingFolder], source: Path, tmp_path: Path
) -> None:
    store, objects = remote
    objects.latency = 0.002
    bring(store, source)
    kinds = [key.split("/")[0] for key in objects.kept]
    assert kinds.index("index") > max(at for at, kind in enumerate(kinds) if kind == "packs")
    assert objects.kept[-1] == "repos/photos/branches/main"
    found = [kind_of(tmp_path / "store", key) for key in objects.kept]
    assert found.count(PackKind.METADATA) > 5


def test_no_metadata_pack_is_in_the_store_without_those_before_it(
    remote: tuple[Store, CountingFolder], source: Path, tmp_path: Path
) -> None:
    """Else an import that finds the parent there would not write its children again."""
    store, objects = remote
    failed: list[str] = []

    # What put_file is given tells the kind, not the key.
    plain = CountingFolder.put_file

    def put_file(key: str, path: Path) -> None:
        if not failed and path.read_bytes()[8] == PackKind.METADATA:
            failed.append(key)
            raise StorageTransientError("the network is gone")
        plain(objects, key, path)

    objects.put_file = put_file  # type: ignore[method-assign]
    with pytest.raises(StorageTransientError, match="network is gone"):
        bring(store, source)
    assert failed
    kinds = [kind_of(tmp_path / "store", key) for key in objects.kept]
    assert PackKind.METADATA not in kinds
    assert list(objects.temporary().iterdir()) == []

    bring(store, source)
    export(store, head(store).root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(source)


def test_a_failed_import_stores_nothing_twice_when_it_is_run_again(
    remote: tuple[Store, CountingFolder], source: Path
) -> None:
    store, objects = remote
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())

    def fail(operation: str, _key: str) -> None:
        if operation == "put" and objects.sent > size / 2:
            raise StorageTransientError("the network is gone")

    objects.fail = fail
    with pytest.raises(StorageTransientError):
        bring(store, source)
    before = objects.sent
    objects.forget()
    objects.fail = lambda _operation, _key: None
    bring(store, source)
    # What was on its way at the end is lost, no more: the metadata is all new.
    assert size / 2 <= before < size
    assert objects.sent < size - before + 100_000 + size / 50
    assert content(store, b"d3/e3/f43") == (source / "d3/e3/f43").read_bytes()


def test_another_machine_goes_on_where_one_failed(
    remote: tuple[Store, CountingFolder], source: Path, tmp_path: Path
) -> None:
    store, objects = remote
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())

    def fail(operation: str, _key: str) -> None:
        if operation == "put" and objects.sent > size / 2:
            raise StorageTransientError("the network is gone")

    objects.fail = fail
    with pytest.raises(StorageTransientError):
        bring(store, source)
    other, there = machine(tmp_path / "other", tmp_path / "store")
    with other:
        bring(other, source)
        assert there.sent < size - objects.sent + 100_000 + size / 50
        assert content(other, b"d3/e3/f43") == (source / "d3/e3/f43").read_bytes()


def test_an_import_reads_from_its_cache_what_the_one_before_it_wrote(
    remote: tuple[Store, CountingFolder], source: Path
) -> None:
    store, objects = remote
    bring(store, source)
    (source / "d3/e3/f43").write_bytes(b"changed")
    objects.forget()
    bring(store, source)
    assert [key for key, _, _ in objects.ranges if key.startswith("packs/")] == []
    assert content(store, b"d3/e3/f43") == b"changed"
