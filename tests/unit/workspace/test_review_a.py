"""What a review of the writable branches found: nothing that was changed may be lost by it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import make_store
from versionfs.errors import FileSystemError
from versionfs.repo import Store
from versionfs.transfer import import_source
from versionfs.types import Commit
from versionfs.workspace import CommitRequest, Workspace, commit, folder_of

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
