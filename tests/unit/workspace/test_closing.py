"""What a workspace reads of the store it closes: nothing is read or decoded ahead for nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import bring, head, home, source, store
from versionfs.repo import Store
from versionfs.tree import FileContent, Pieces
from versionfs.workspace import CommitRequest, Committing, Workspace, commit, files
from versionfs.workspace.status import Status

__all__ = ["home", "source", "store"]

REQUEST = CommitRequest("photos", "main", "a change", "test")


@pytest.fixture
def workspace(store: Store, source: Path, tmp_path: Path) -> Iterator[Workspace]:
    for name in ("a", "b"):
        (source / name).write_bytes(b"stored")
    bring(store, source)
    workspace = Workspace(store, tmp_path / "workspace", head(store))
    yield workspace
    workspace.close()


@pytest.fixture
def unclosed(monkeypatch: pytest.MonkeyPatch) -> set[FileContent]:
    """Returns those that were read and not closed since."""
    left: set[FileContent] = set()
    read, close = FileContent.read_pieces, FileContent.close

    def reading(self: FileContent, offset: int, size: int) -> Pieces:
        left.add(self)
        return read(self, offset, size)

    def closing(self: FileContent) -> None:
        left.discard(self)
        close(self)

    monkeypatch.setattr(FileContent, "read_pieces", reading)
    monkeypatch.setattr(FileContent, "close", closing)
    return left


def number_of(workspace: Workspace, name: bytes) -> int:
    found = workspace.lookup(1, name)
    assert found is not None
    return found.number


def changed(workspace: Workspace, name: bytes) -> int:
    """Changes a part of a file, and returns its number."""
    number = number_of(workspace, name)
    workspace.files.write(workspace.overlay.changes, number, 0, b"S")
    return number


def read(workspace: Workspace, number: int) -> None:
    assert workspace.files.read(number, 0, 100) == b"Stored"


def test_a_changed_file_is_closed_when_nobody_has_it_open(
    workspace: Workspace, unclosed: set[FileContent]
) -> None:
    number = changed(workspace, b"a")
    for _ in range(2):
        workspace.files.open(number)
    read(workspace, number)
    workspace.files.release(workspace.overlay.changes, number)
    assert unclosed
    workspace.files.release(workspace.overlay.changes, number)
    assert not unclosed
    read(workspace, number)


@pytest.mark.parametrize("name", [b"b", b"new"])
def test_a_changed_file_is_closed_when_others_take_its_place(
    workspace: Workspace, unclosed: set[FileContent], monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.setattr(files, "_KEPT", 1)
    read(workspace, changed(workspace, b"a"))
    assert unclosed
    if name == b"new":
        workspace.overlay.make(1, name, 0o100644, 0, 0)
    else:
        changed(workspace, name)
    assert not unclosed


def test_a_changed_file_is_closed_when_it_is_removed(
    workspace: Workspace, unclosed: set[FileContent]
) -> None:
    number = changed(workspace, b"a")
    read(workspace, number)
    workspace.overlay.unlink(1, b"a")
    workspace.forget(number, workspace.names.lookups[number])
    assert not unclosed


def test_a_commit_closes_what_it_reads_and_what_was_read_of_the_base_before(
    workspace: Workspace, unclosed: set[FileContent]
) -> None:
    number = changed(workspace, b"a")
    read(workspace, number)
    assert commit(workspace, REQUEST).commit is not None
    assert not unclosed
    read(workspace, number)


def test_a_file_that_a_commit_gives_another_base_is_closed(
    workspace: Workspace, unclosed: set[FileContent]
) -> None:
    number = changed(workspace, b"a")
    committing = Committing(workspace, REQUEST)
    committing.cut()
    changed(workspace, b"a")
    committing.publish()
    read(workspace, number)
    assert unclosed
    for step in committing.settle():
        if callable(step):
            step()
    committing.end()
    assert not unclosed
    read(workspace, number)


@pytest.mark.parametrize("is_same", [True, False])
def test_differences_closes_what_it_compares(
    workspace: Workspace, store: Store, unclosed: set[FileContent], is_same: bool
) -> None:
    workspace.files.truncate(workspace.overlay.changes, number_of(workspace, b"a"), 2)
    data = b"stored"[2:] if is_same else b"STORED"[2:]
    workspace.files.write(workspace.overlay.changes, number_of(workspace, b"a"), 2, data)
    workspace.files.write(workspace.overlay.changes, number_of(workspace, b"b"), 0, b"stored")
    frozen = workspace.records.frozen()
    assert frozen is not None
    with frozen:
        staging, root = workspace.records.staging, workspace.base.root
        status = Status(store.trees, frozen, staging, root, store.contents)
        assert [change.path for change in status.differences()] == [b"a"] * (not is_same)
    assert not unclosed
