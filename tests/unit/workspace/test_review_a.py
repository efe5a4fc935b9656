"""What a review of the writable branches found: nothing that was changed may be lost by it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import make_store
from versionfs.errors import FileSystemError, VersionFSError
from versionfs.objectstore import WouldBlock, never_blocking
from versionfs.repo import Repository, Store
from versionfs.transfer import import_source
from versionfs.types import Commit
from versionfs.workspace import CommitRequest, Workspace, commit, folder_of, recover_now

REQUEST = CommitRequest("set", "main", "a change", "test")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"first")
    (source / "b").write_bytes(b"second")
    with make_store(tmp_path / "home") as store:
        import_source(store, "set", "main", b"", source, message="m", author="a")
        yield store


def head(store: Store) -> Commit:
    return store.commits.read(store.repository("set").branch("main").commit)


def opened(store: Store, folder: Path | None = None) -> Workspace:
    return Workspace(store, folder or folder_of(store, "set", "main"), head(store))


def number_of(workspace: Workspace, name: bytes) -> int:
    found = workspace.lookup(1, name)
    assert found is not None
    return found.number


def content(workspace: Workspace, name: bytes) -> bytes:
    return workspace.files.read(number_of(workspace, name), 0, 1000)


def write(workspace: Workspace, name: bytes, data: bytes) -> None:
    workspace.files.write(workspace.overlay.changes, number_of(workspace, name), 0, data)


def create(workspace: Workspace, name: bytes, data: bytes = b"") -> int:
    mode = stat.S_IFREG | 0o644
    number = workspace.overlay.make(1, name, mode, os.getuid(), os.getgid())
    workspace.files.write(workspace.overlay.changes, number, 0, data)
    return number


@pytest.mark.parametrize("change", ["create", "write"])
def test_who_only_looked_does_not_overwrite_what_another_process_changed(
    store: Store, change: str
) -> None:
    looked = opened(store)
    other = opened(store)
    create(other, b"new", b"PRECIOUS")
    other.close()
    with pytest.raises(FileSystemError) as error:
        create(looked, b"mine", b"x") if change == "create" else write(looked, b"a", b"x")
    assert error.value.number == errno.EBUSY
    assert looked.records.is_stale
    looked.close()
    again = opened(store)
    assert content(again, b"new") == b"PRECIOUS"
    assert again.lookup(1, b"mine") is None
    create(again, b"mine", b"x")
    again.close()


def test_who_only_looked_does_not_bring_back_the_commit_before(store: Store) -> None:
    looked = opened(store)
    other = opened(store)
    write(other, b"a", b"FIRST")
    commit(other, REQUEST)
    other.close()
    with pytest.raises(FileSystemError):
        create(looked, b"mine", b"x")
    for step in looked.follow(head(store)):
        if callable(step):
            step()
    create(looked, b"mine", b"x")
    assert not looked.records.is_stale
    assert content(looked, b"a") == b"FIRST"
    commit(looked, REQUEST)
    looked.close()
    again = opened(store)
    assert (content(again, b"a"), content(again, b"mine")) == (b"FIRST", b"x")
    again.close()


def test_a_table_without_changes_is_taken_as_it_is(store: Store) -> None:
    looked = opened(store)
    other = opened(store)
    create(other, b"new", b"x")
    other.overlay.unlink(1, b"new")
    layers = other.files._next_layer
    other.close()
    create(looked, b"mine", b"x")
    assert looked.files._next_layer > layers
    looked.close()


def test_layers_are_numbered_above_all_that_are_there(store: Store) -> None:
    workspace = opened(store)
    create(workspace, b"new", b"x")
    workspace.records.staging.create(1_000_000)
    workspace.close()
    again = opened(store)
    create(again, b"other", b"x")
    assert max(again.records.staging.layers()) > 1_000_000
    again.close()


def test_a_change_that_failed_reserves_no_layers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    create(workspace, b"empty")

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(workspace.records, "apply", full)
        with pytest.raises(OSError, match="full"):
            write(workspace, b"empty", b"x")
    write(workspace, b"empty", b"PRECIOUS")
    create(workspace, b"second", b"PRECIOUS 2")
    names = sorted(workspace.records.staging.layers())
    reserved = workspace.records.get(b"mlayer")
    assert reserved is not None
    assert int.from_bytes(reserved, "little") > names[-1]
    workspace.close()


# -- power cuts ----------------------------------------------------------------------------------


def synced(workspace: Workspace, name: bytes) -> None:
    workspace.files.sync(workspace.overlay.changes, number_of(workspace, name))()


def after_power_cut(store: Store, workspace: Workspace, before: Path) -> Workspace:
    """Opens what was durable, without the staging files that were removed since."""
    staging = workspace.folder / "staging"
    there = {path.name for path in staging.rglob("*")}
    for path in (before / "staging").rglob("*"):
        if path.name not in there:
            path.unlink()
    return opened(store, before)


def hold_back(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the disk refuse to sync: nothing that happens from now on is durable."""

    def fail() -> None:
        raise OSError(errno.EIO, "no sync")

    table = workspace.records._table
    assert table is not None
    monkeypatch.setattr(table, "sync", fail)


def test_what_a_file_was_replaced_with_goes_only_after_that_is_durable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    create(workspace, b"doc", b"OLD")
    synced(workspace, b"doc")
    create(workspace, b"tmp", b"NEW")
    synced(workspace, b"tmp")
    before = tmp_path / "before"
    with monkeypatch.context() as patched:
        shutil.copytree(workspace.folder, before)
        hold_back(workspace, patched)
        layers = set(workspace.records.staging.layers())
        workspace.overlay.rename(1, b"tmp", 1, b"doc")
        for number in list(workspace.names.lookups):
            workspace.forget(number, workspace.names.lookups[number])
        assert workspace.records.has_discards
        with pytest.raises(OSError, match="no sync"):
            workspace.records.drain()
        assert set(workspace.records.staging.layers()) == layers
        after = after_power_cut(store, workspace, before)
        assert (content(after, b"doc"), content(after, b"tmp")) == (b"OLD", b"NEW")
        after.close()
    workspace.records.drain()
    assert len(set(workspace.records.staging.layers())) == 1
    assert content(workspace, b"doc") == b"NEW"
    workspace.close()


def test_what_a_commit_has_settled_goes_only_after_that_is_durable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    create(workspace, b"new", b"NEW")
    write(workspace, b"a", b"FIRST")
    before = tmp_path / "before"
    advance = Repository.advance

    def advancing(self: Repository, *arguments: object, **options: object) -> object:
        done = advance(self, *arguments, **options)  # type: ignore[arg-type]
        shutil.copytree(workspace.folder, before)
        hold_back(workspace, monkeypatch)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Repository, "advance", advancing)
        commit(workspace, REQUEST)
    after = after_power_cut(store, workspace, before)
    assert (content(after, b"new"), content(after, b"a")) == (b"NEW", b"FIRST")
    recover_now(after, "set", "main")
    assert (content(after, b"new"), content(after, b"a")) == (b"NEW", b"FIRST")
    after.close()
    workspace.close()


def test_a_lost_staging_file_is_an_error_each_time_and_nothing_is_committed(store: Store) -> None:
    workspace = opened(store)
    create(workspace, b"new", b"NEW")
    write(workspace, b"a", b"FIRST")
    layers = list(workspace.records.staging.layers())
    workspace.close()
    workspace = opened(store)
    for layer in layers:
        workspace.records.staging.remove(layer)
    for name in (b"new", b"a") * 2:
        with pytest.raises(OSError, match="gone") as error:
            content(workspace, name)
        assert error.value.errno == errno.EIO
    with pytest.raises((OSError, VersionFSError), match="gone"):
        commit(workspace, REQUEST)
    workspace.overlay.unlink(1, b"new")
    with pytest.raises((OSError, VersionFSError), match="gone"):
        commit(workspace, REQUEST)
    workspace.files.truncate(workspace.overlay.changes, number_of(workspace, b"a"), 0)
    write(workspace, b"a", b"again")
    commit(workspace, REQUEST)
    assert content(workspace, b"a") == b"again"
    workspace.close()


def test_room_that_is_about_to_be_free_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    number = create(workspace, b"old", b"x")
    create(workspace, b"new", b"x")
    staging = workspace.records.staging
    real = staging.write

    def full(*arguments: object) -> int:
        if len(list(staging.layers())) > 1:
            raise OSError(errno.ENOSPC, "full")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(staging, "write", full)
    with monkeypatch.context() as patched:
        hold_back(workspace, patched)
        workspace.overlay.unlink(1, b"old")
        workspace.forget(number, workspace.names.lookups.get(number, 0))
        with never_blocking(), pytest.raises(WouldBlock) as wait:
            write(workspace, b"new", b"y")
    wait.value.fetch()
    with never_blocking():
        write(workspace, b"new", b"y")
    assert content(workspace, b"new") == b"y"
    workspace.close()
