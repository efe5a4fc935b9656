"""A full disk: what it stops changes nothing and completes when run again; a commit goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import describe, fill
from tests.support.stores import bring, head, settings_in
from versionfs.errors import StorageTransientError
from versionfs.repo import Store
from versionfs.transfer import export
from versionfs.workspace import CommitRequest, Workspace, commit


class Disk:
    """A file system of a given size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("size=4m")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "versionfs-test", str(self.folder)]
        if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("only root may mount a small disk")

    def resize(self, size: str) -> None:
        self._mount(f"remount,size={size}")

    def fill(self) -> None:
        with suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass

    def remove(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.remove()


SOURCES: dict[str, dict[str, bytes | None]] = {
    "small files": {f"d{i % 9}/f{i}": Random(i).randbytes(20_000) for i in range(400)},
    "a large file": {"large": Random(1).randbytes(9_000_000)},
    "many tiny files": {
        f"d{i % 5}/{Random(i).randbytes(110).hex()}": b"%d" % i for i in range(25_000)
    },
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_full_disk_leaves_the_branch_and_a_rerun_completes(
    disk: Disk, home: Path, source: Path, tmp_path: Path, kind: str
) -> None:
    first = tmp_path / "first"
    fill(first, {"a": b"1"})
    fill(source, SOURCES[kind])
    with Store.create(settings_in(home, store=disk.folder / "store")) as store:
        store.create_repository("photos")
        before = bring(store, first).commit
        assert before is not None
        free = os.statvfs(disk.folder).f_bavail
        for _ in range(2):
            with pytest.raises(StorageTransientError, match=r"the disk of the store .* is full"):
                bring(store, source)
            assert head(store) == before
        # Complete packs may stay; what was not complete is gone.
        assert list((disk.folder / "store" / "tmp").iterdir()) == []
        assert os.statvfs(disk.folder).f_bavail <= free
        disk.resize("64m")
        result = bring(store, source)
        assert result.commit is not None
        assert [c.id for c in store.repository("photos").history(head(store))] == [
            result.commit.id,
            before.id,
        ]
        export(store, head(store).root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(source)


def test_a_full_disk_of_the_index_is_named(disk: Disk, tmp_path: Path, source: Path) -> None:
    fill(source, {f"f{i}": b"%d" % i for i in range(30_000)})
    home = disk.folder / "home"
    with Store.create(settings_in(home, store=tmp_path / "store")) as store:
        disk.resize("1m")
        store.create_repository("photos")
        with pytest.raises(StorageTransientError, match=r"index in .*home"):
            bring(store, source)
        assert store.repository("photos").branches() == {}
        disk.resize("64m")
        result = bring(store, source)
        assert result.files == 30_000
        assert result.commit is not None


def test_an_export_to_a_full_disk_is_told(disk: Disk, home: Path, source: Path) -> None:
    fill(source, {"large": Random(1).randbytes(6_000_000)})
    with Store.create(settings_in(home)) as store:
        store.create_repository("photos")
        bring(store, source)
        with pytest.raises(StorageTransientError, match="cannot write"):
            export(store, head(store).root, disk.folder / "out")
        assert not (disk.folder / "out" / "large").exists()


def test_a_commit_is_made_on_a_full_disk(disk: Disk, home: Path, source: Path) -> None:
    fill(source, {"a": b"first", "b": b"second"})
    with Store.create(settings_in(home)) as store:
        store.create_repository("photos")
        bring(store, source)
        workspace = Workspace(store, disk.folder / "workspace", head(store))
        begin = workspace.overlay.changes
        numbers = []
        for name in (b"a", b"b"):
            found = workspace.lookup(1, name)
            assert found is not None
            numbers.append(found.number)
            workspace.files.write(begin, found.number, 0, b"changed")
        disk.fill()
        with suppress(OSError):
            while True:
                workspace.overlay.set_attributes(numbers[0], mode=0o600)
        for number in numbers:  # These are recorded when they are committed.
            workspace.files.write(begin, number, 0, b"CHANGED")
        assert workspace.names.unsaved
        result = commit(workspace, CommitRequest("photos", "main", "full", "ada"))
        assert result.commit is not None
        assert workspace.is_clean
        assert workspace.files.read(numbers[1], 0, 100) == b"CHANGED"
        workspace.close()
