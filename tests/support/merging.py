"""A workspace beside others that commit to its branch."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.stores import make_store
from versionfs.objectstore import WouldBlock
from versionfs.repo import Store
from versionfs.transfer import import_source
from versionfs.types import Commit
from versionfs.workspace import CommitRequest, Workspace, commit, folder_of
from versionfs.workspace.committing import Committing, recover_now
from versionfs.workspace.folders import Folder
from versionfs.workspace.following import Dropped
from versionfs.workspace.names import InBase
from versionfs.workspace.status import Status

REQUEST = CommitRequest("set", "main", "message", "author")


@dataclass
class Made:
    """A store with a commit, and a workspace of it."""

    folder: Path
    store: Store
    workspace: Workspace = field(init=False)
    others: int = 0

    def __post_init__(self) -> None:
        self.workspace = self.open(folder_of(self.store, "set", "main"))

    def head(self) -> Commit:
        """Returns the head of the branch."""
        return self.store.commits.read(self.store.repository("set").branch("main").commit)

    def open(self, folder: Path) -> Workspace:
        """Opens a workspace of the head."""
        return Workspace(self.store, folder, self.head())

    def reopen(self) -> Workspace:
        """Opens the workspace again, as after a restart."""
        self.workspace.close()
        self.workspace = self.open(folder_of(self.store, "set", "main"))
        return self.workspace

    def reopen_before_settling(self) -> Workspace:
        """Opens the workspace again, as after a kill in a commit that had moved the branch."""
        workspace = self.reopen()
        assert workspace.base.ref.id != self.head().ref.id
        recover_now(workspace, "set", "main")
        assert workspace.base.ref.id == self.head().ref.id
        return workspace

    def by_others(self, change: Callable[[Workspace], object]) -> None:
        """Commits something from a workspace elsewhere."""
        self.others += 1
        other = self.open(self.folder / f"other{self.others}")
        change(other)
        commit(other, REQUEST)
        other.close()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with make_store(tmp_path / "home") as store:
        source = tmp_path / "source"
        (source / "sub" / "deep").mkdir(parents=True)
        for path in ("a", "b", "sub/x", "sub/y", "sub/deep/z"):
            (source / path).write_bytes(b"first " + path.encode())
        import_source(store, "set", "main", b"", source, message="m", author="a")
        made = Made(tmp_path, store)
        yield made
        made.workspace.close()


def find(workspace: Workspace, path: bytes) -> int:
    number = 1
    for part in path.split(b"/"):
        found = workspace.lookup(number, part)
        if found is None:
            raise FileNotFoundError(path)
        number = found.number
    return number


def text(workspace: Workspace, path: bytes) -> bytes:
    return workspace.files.read(find(workspace, path), 0, 1_000)


def write(workspace: Workspace, path: bytes, offset: int, data: bytes) -> None:
    workspace.files.write(workspace.overlay.changes, find(workspace, path), offset, data)


def create(workspace: Workspace, path: bytes, data: bytes = b"new") -> int:
    folder, _, name = path.rpartition(b"/")
    parent = find(workspace, folder) if folder else 1
    mode = stat.S_IFREG | 0o644
    number = workspace.overlay.make(parent, name, mode, os.getuid(), os.getgid())
    workspace.files.write(workspace.overlay.changes, number, 0, data)
    return number


def committed(
    workspace: Workspace, after_cut: Callable[[], object] = lambda: None
) -> list[Dropped]:
    """Commits, with changes right after the cut; returns what the kernel had to drop."""
    committing = Committing(workspace, REQUEST)
    committing.cut()
    after_cut()
    committing.publish()
    dropped: list[Dropped] = []
    for step in committing.settle():
        if callable(step):
            step()
        else:
            dropped += step
    committing.end()
    return dropped


def changed(workspace: Workspace) -> list[bytes]:
    """Returns the paths that `versionfs status` tells."""
    frozen = workspace.records.frozen()
    assert frozen is not None
    with frozen:
        root, trees = workspace.base.root, workspace.names.trees
        status = Status(trees, frozen, workspace.records.staging, root)
        return [change.path for change in status.changes()]


def once(
    made: Made, monkeypatch: pytest.MonkeyPatch, look: int, meanwhile: Callable[[], object]
) -> None:
    """Lets one of the next looks at the base wait for the network, while something else is done."""
    names = made.workspace.names
    find, blocked, looks = names.find_in_base, False, 0

    def remote(folder: Folder, name: bytes) -> InBase | None:
        nonlocal blocked, looks
        looks += 1
        if looks > look and not blocked:
            blocked = True
            raise WouldBlock(meanwhile)
        return find(folder, name)

    monkeypatch.setattr(names, "find_in_base", remote)


def remove_sub(other: Workspace) -> None:
    sub = find(other, b"sub")
    other.overlay.unlink(find(other, b"sub/deep"), b"z")
    other.overlay.rmdir(sub, b"deep")
    other.overlay.unlink(sub, b"x")
    other.overlay.unlink(sub, b"y")
    other.overlay.rmdir(1, b"sub")


def made_anew(workspace: Workspace) -> None:
    remove_sub(workspace)
    workspace.overlay.make(1, b"sub", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
