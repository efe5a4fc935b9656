"""What a quick sync of the index looks at, and what it finds."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.mount.support import commit
from versionfs.chunkstore import folders, sync_index
from versionfs.chunkstore import sync as sync_module
from versionfs.config import load_settings
from versionfs.index import ChunkIndex, IndexDamagedError
from versionfs.objectstore import LocalStore
from versionfs.pack import pack_key
from versionfs.repo import Store
from versionfs.types import PackId

OLD = time.time() - 1000


class Watched:
    """A store whose listings are noted."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.packs: Path = store.objects.local_path("packs")  # type: ignore[attr-defined]
        self.listed: list[str] = []
        self.wrote: list[bytes] = []
        plain = LocalStore.list

        def noted(objects: LocalStore, prefix: str):
            self.listed.append(prefix)
            return plain(objects, prefix)

        monkeypatch.setattr(LocalStore, "list", noted)

    def settle(self) -> None:
        """Makes all folders look as if nothing had changed for long."""
        for path in self.packs.iterdir():
            os.utime(path, (OLD, OLD))

    def sync(self, *, quick: bool = True) -> list[str]:
        self.listed.clear()
        self.store.sync_index(quick=quick)
        return self.listed

    def sync_of_another(self) -> list[str]:
        """As a process does that knows only what is written down."""
        self.listed.clear()
        store = self.store
        sync_index(store.objects, ChunkIndex(store.environment), quick=True)
        return self.listed


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with Store.create(load_settings({"VERSIONFS_HOME": str(tmp_path / "home")})) as store:
        rng = Random(5)
        for at in range(8):
            commit(store, {b"f%d" % at: rng.randbytes(100)})
        yield Watched(store, monkeypatch)


def lonely(watched: Watched) -> Path:
    """A pack that has its folder for itself."""
    for folder in sorted(watched.packs.iterdir()):
        packs = list(folder.iterdir())
        if len(packs) == 1:
            return packs[0]
    raise AssertionError("each folder has several packs")


def test_folders_that_are_as_they_were_are_not_listed(watched):
    watched.settle()
    assert watched.sync(quick=False) == ["packs/"]
    assert watched.sync() == []


def test_the_first_time_all_packs_are_listed(watched):
    assert watched.sync() == ["packs/"]


def test_a_folder_that_changed_just_now_is_listed_again(watched):
    watched.settle()
    recent = min(watched.packs.iterdir())
    os.utime(recent)
    watched.sync(quick=False)
    assert watched.sync() == [f"packs/{recent.name}/"]


def test_a_pack_that_went_is_found_and_so_is_one_that_came_back(watched):
    watched.settle()
    watched.sync(quick=False)
    pack = lonely(watched)
    aside = watched.packs.parent / "aside"
    pack.rename(aside)
    watched.sync()
    index = watched.store.index
    assert index.lost_packs() == {bytes.fromhex(pack.name)}
    assert bytes.fromhex(pack.name) not in index.known_packs()
    # While one is lost, all are looked at.
    assert watched.sync() == ["packs/"]
    aside.rename(pack)
    watched.sync()
    assert not index.lost_packs()
    assert bytes.fromhex(pack.name) in index.known_packs()


def test_a_pack_of_another_process_is_found(watched, tmp_path):
    watched.settle()
    watched.sync(quick=False)
    settings = load_settings(
        {
            "VERSIONFS_HOME": str(tmp_path / "other"),
            "VERSIONFS_STORE": str(tmp_path / "home" / "store"),
        }
    )
    before = set(watched.store.index.known_packs())
    with Store.open(settings) as other:
        commit(other, {b"theirs": b"of the other"})
    watched.sync()
    new = set(watched.store.index.known_packs()) - before
    assert len(new) == 2
    for pack in new:
        assert watched.store.objects.size(pack_key(PackId(pack)))


def test_what_a_folder_does_not_tell_is_found_within_the_hour(watched, monkeypatch):
    watched.settle()
    watched.sync(quick=False)
    pack = lonely(watched)
    os.truncate(pack, 10)
    assert watched.sync() == []
    known = watched.store.index.known_packs
    assert bytes.fromhex(pack.name) in known()
    now = time.time_ns()
    monkeypatch.setattr(
        "versionfs.chunkstore.sync.time.time_ns", lambda: now + int(folders.FULL_SECONDS * 1e9)
    )
    assert watched.sync() == ["packs/"]
    assert bytes.fromhex(pack.name) not in known()


def test_it_is_written_down_only_now_and_then_which_folders_changed(watched, monkeypatch):
    watched.settle()
    watched.sync(quick=False)
    index, wrote = watched.store.index, watched.wrote
    plain = index.put_folders

    def put(value: bytes) -> None:
        wrote.append(value)
        plain(value)

    monkeypatch.setattr(index, "put_folders", put)
    changed = min(watched.packs.iterdir())
    key = f"packs/{changed.name}/"
    os.utime(changed, (OLD + 1, OLD + 1))
    assert watched.sync() == [key]
    # This process knows it now, others do not.
    assert watched.sync() == []
    assert watched.sync_of_another() == [key]
    assert not wrote
    monkeypatch.setattr(folders, "_WORTH", 1)
    assert watched.sync() == []
    assert len(wrote) == 1
    assert watched.sync_of_another() == []


def test_what_this_process_knows_counts_until_another_has_written(watched):
    index = watched.store.index
    index.put_folders(b"one")
    index.keep_folders(b"one", b"one and more")
    assert index.folders() == (b"one", b"one and more")
    other = ChunkIndex(watched.store.environment)
    assert other.folders() == (b"one", b"one")
    other.put_folders(b"two")
    assert index.folders() == (b"two", b"two")
    # Nothing is kept on top of nothing: the index may have been made anew.
    index.put_folders(b"")
    index.keep_folders(b"", b"more")
    assert index.folders() == (b"", b"")


def test_folders_that_come_and_go_are_noticed(watched):
    watched.settle()
    watched.sync(quick=False)
    known = watched.store.index.known_packs
    free = next(f"{at:02x}" for at in range(256) if not (watched.packs / f"{at:02x}").exists())
    (watched.packs / free).mkdir()
    assert watched.sync() == [f"packs/{free}/"]
    gone = lonely(watched).parent
    lost = {bytes.fromhex(path.name) for path in gone.iterdir()}
    gone.rename(watched.packs.parent / "aside")
    assert f"packs/{gone.name}/" in watched.sync()
    assert not lost & set(known())


def test_folders_that_could_not_be_listed_are_the_next_time(watched, monkeypatch):
    watched.settle()
    os.utime(watched.packs, (OLD, OLD))

    def fails(path):
        raise OSError(24, "Too many open files", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", fails)
        watched.sync(quick=False)
    pack = lonely(watched)
    pack.unlink()
    pack.parent.rmdir()
    assert f"packs/{pack.parent.name}/" in watched.sync()
    assert bytes.fromhex(pack.name) not in watched.store.index.known_packs()


def test_a_folder_that_came_and_went_with_a_known_pack_is_noticed(watched):
    watched.settle()
    watched.sync(quick=False)
    before = set(watched.packs.iterdir())
    commit(watched.store, {b"more": b"in folders that were not there"})
    new = min(set(watched.packs.iterdir()) - before)
    lost = {bytes.fromhex(path.name) for path in new.iterdir()}
    shutil.rmtree(new)
    watched.sync()
    assert not lost & set(watched.store.index.known_packs())
    assert lost <= watched.store.index.lost_packs()


def test_ahead_of_a_commit_nothing_is_done_that_takes_long(watched, monkeypatch):
    watched.settle()
    sync = watched.store.sync_index
    # Nothing is remembered: all would be listed.
    sync(quick=True, ahead=True)
    assert watched.listed == []
    watched.sync(quick=False)
    changed = min(watched.packs.iterdir())
    os.utime(changed, (OLD + 1, OLD + 1))
    watched.listed.clear()
    monkeypatch.setattr(sync_module, "_FEW_FOLDERS", 0)
    sync(quick=True, ahead=True)
    assert watched.listed == []
    monkeypatch.setattr(sync_module, "_FEW_FOLDERS", 1)
    sync(quick=True, ahead=True)
    assert watched.listed == [f"packs/{changed.name}/"]


def test_a_folder_that_is_a_link_says_nothing_and_is_listed_each_time(watched):
    watched.settle()
    folder = lonely(watched).parent
    folder.rename(watched.packs.parent / "elsewhere")
    folder.symlink_to(watched.packs.parent / "elsewhere")
    watched.sync(quick=False)
    assert watched.sync() == [f"packs/{folder.name}/"]
    assert watched.sync() == [f"packs/{folder.name}/"]


@pytest.mark.parametrize("value", [b"", b"x" * 2056, bytes(8232 + 1)])
def test_what_is_not_of_this_form_is_as_if_there_was_nothing(value):
    assert folders.Folders.decode(value) is None


def test_nothing_is_deduplicated_against_a_pack_that_was_cut_short(watched, monkeypatch, caplog):
    monkeypatch.setattr(folders, "_WORTH", 1)
    store = watched.store
    data = Random(9).randbytes(3000)
    head = commit(store, {b"first": data})
    watched.settle()
    watched.sync(quick=False)
    first = store.trees.walk_path(head.root, b"first")
    assert first is not None
    assert first.location is not None
    pack = watched.packs.parent / pack_key(first.location.pack)
    os.truncate(pack, 100)
    assert watched.sync() == []
    head = commit(store, {b"again": data, b"more": b"so that it is another pack"})
    again = store.trees.walk_path(head.root, b"again")
    assert again is not None
    assert again.location is not None
    assert again.location.pack != first.location.pack
    assert store.contents.open(again).read(0, 5000) == data
    assert pack.name in caplog.text
    # Its name alone does not make it whole.
    watched.sync(quick=False)
    watched.sync(quick=False)
    assert store.index.lost_packs() == {bytes.fromhex(pack.name)}
    assert bytes.fromhex(pack.name) not in store.index.known_packs()


def test_an_index_that_was_made_anew_meanwhile_is_filled_from_all_packs(watched, monkeypatch):
    watched.settle()
    watched.sync(quick=False)
    monkeypatch.setattr(folders, "_WORTH", 0)  # All else is remembered.
    index = watched.store.index
    before, plain = index.known_packs(), index.known_packs
    damaged: list[bool] = []

    def known_packs(first_bytes=None):
        if not damaged:
            damaged.append(True)
            watched.store.environment.rebuild("for a test")
            raise IndexDamagedError("for a test")
        return plain(first_bytes)

    monkeypatch.setattr(index, "known_packs", known_packs)
    assert "packs/" in watched.sync()
    assert plain() == before
    # What was seen of the folders was of the index that is gone.
    assert index.folders() == (b"", b"")
