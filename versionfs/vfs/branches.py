"""The branch folders of a mount that can be written: each a workspace under numbers of its own.

A number in a branch folder has ``BRANCH_BIT`` set, then the folder's slot, then the number that its
workspace knows. Used from one thread only, but for the work that is handed out.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from versionfs.errors import ConflictError, FileSystemError
from versionfs.repo import Store
from versionfs.tree import Shown
from versionfs.types import Commit
from versionfs.vfs.nodes import ROOT_NUMBER
from versionfs.vfs.owner import Owner
from versionfs.vfs.views import Invalidation, Step
from versionfs.workspace import ROOT, Dropped, Stat, Workspace, WorkspaceListing, folder_of

log = logging.getLogger(__name__)

BRANCH_BIT: Final = 1 << 61
_SLOT_SHIFT: Final = 48
_LOCAL_MASK: Final = (1 << _SLOT_SHIFT) - 1
_SLOT_MASK: Final = (1 << 61 - _SLOT_SHIFT) - 1


class Branch:
    """One branch folder."""

    def __init__(
        self, workspace: Workspace, slot: int, repository: str, name: str, parent: int, owner: Owner
    ) -> None:
        self.workspace = workspace
        self.repository = repository
        self.name = name
        self.parent = parent
        """The mount's number of the folder that the branch folder is in."""
        self._fixed = owner.fixed
        self._bits = BRANCH_BIT | slot << _SLOT_SHIFT
        self.is_owner_kept = owner.fixed is None
        self.is_committing = False
        self.is_gone = False
        """Whether the branch was deleted, when the refs were looked at last."""

    def number(self, local: int) -> int:
        """Returns the mount's number for one of the workspace's."""
        return self._bits | local

    def shown_as(self, seconds: float) -> Shown:
        """Returns how entries that may be kept for some seconds are shown."""
        return Shown(seconds, *(self._fixed or ()))

    def shown(self, stat: Stat) -> Stat:
        """Returns attributes as the mount shows them."""
        number = self._bits | stat[0]
        if self._fixed is None:
            return Stat(number, *stat[1:])
        return Stat(number, *stat[1:3], *self._fixed, *stat[5:])


class Branches:
    """All branch folders of a mount that were looked at."""

    def __init__(self, store: Store, owner: Owner) -> None:
        self._store = store
        self._owner = owner
        self._slots: list[Branch] = []
        self._by_name: dict[tuple[str, str], Branch] = {}
        self._elsewhere: set[tuple[str, str]] = set()
        self._root: tuple[Branch, int] | None = None
        self._listings: dict[int, tuple[Branch, WorkspaceListing]] = {}
        self._next_listing = BRANCH_BIT
        self.on_open: Callable[[Branch], None] = _nothing
        """Is told each branch whose folder is looked at for the first time."""

    def __iter__(self) -> Iterator[Branch]:
        return iter(list(self._by_name.values()))

    def has(self, number: int) -> bool:
        """Whether a number is one of a branch folder."""
        return number >> 61 == 1 or (number == ROOT_NUMBER and self._root is not None)

    def of(self, number: int) -> tuple[Branch, int]:
        """Returns the branch of a number that is one of a branch folder, and the local number."""
        if number == ROOT_NUMBER:
            assert self._root is not None
            return self._root
        return self._slots[number >> _SLOT_SHIFT & _SLOT_MASK], number & _LOCAL_MASK

    def steps(
        self, repository: str | None, heads: Mapping[tuple[str, str], Commit | None]
    ) -> Iterator[Step]:
        """Moves the folders without changes to the heads of their branches; see ``Refresh``.

        A branch whose head is None was deleted. Its name goes; what is open in it stays.
        """
        for branch in self:
            if repository not in (None, branch.repository):
                continue
            key = branch.repository, branch.name
            if key not in heads:
                continue
            head = heads[key]
            if head is None:
                if not branch.is_gone and branch.parent:
                    yield [Invalidation(branch.parent, branch.name.encode())]
                branch.is_gone = True
                continue
            branch.is_gone = False
            workspace = branch.workspace
            if workspace.records.is_stale and branch.parent:
                yield [Invalidation(branch.parent, branch.name.encode())]
            if head.ref == workspace.base.ref or not workspace.is_clean:
                continue
            if not branch.is_committing:
                # A commit may begin while what is needed to follow is fetched.
                moving = workspace.follow(head, partial(_is_idle, branch))
                yield from self.invalidations(branch, moving)

    def invalidations(
        self, branch: Branch, steps: Iterable[list[Dropped] | Callable[[], object]]
    ) -> Iterator[Step]:
        """Turns what a workspace's kernel must drop into what the mount's must."""
        for step in steps:
            if callable(step):
                yield step
            else:
                folders = branch.workspace.names.folders
                yield [
                    Invalidation(number, dropped.name, dropped.number in folders)
                    for dropped in step
                    for number in self.shown_numbers(branch, dropped.number)
                ]

    def known(self, repository: str, name: str) -> Branch | None:
        """Returns a branch folder that was looked at, if it was."""
        return self._by_name.get((repository, name))

    def enter(self, repository: str, name: str, head: Commit, parent: int) -> Stat | None:
        """Counts a lookup of a branch folder, and returns its attributes.

        None if it cannot be written here, because another process has its workspace: then it is
        shown as the snapshot of its head.
        """
        branch = self._branch(repository, name, head, parent)
        if branch is None:
            return None
        branch.parent = parent
        branch.workspace.names.root.lookups += 1
        return branch.shown(branch.workspace.stat(ROOT))

    def mount_root(self, repository: str, name: str, head: Commit, path: bytes) -> bool:
        """Makes a directory of a branch the root of the mount; tells whether that could be."""
        branch = self._branch(repository, name, head, 0)
        if branch is None:
            return False
        number = ROOT
        for part in filter(None, path.split(b"/")):
            found = branch.workspace.lookup(number, part)
            if found is None:
                return False
            number = found.number
        self._root = branch, number
        return True

    def is_elsewhere(self, repository: str, name: str) -> bool:
        """Whether a branch was last shown as a snapshot because another process has its workspace.

        That may end at any time, and nobody tells.
        """
        return (repository, name) in self._elsewhere

    def rename(self, branch: Branch, name: str) -> list[Invalidation]:
        """Makes the folder of a branch, with all that is open in it, the folder of another.

        What has its old name from now on is another folder. Returns what the kernel must drop.
        """
        old = branch.name
        self._by_name.pop((branch.repository, old), None)
        self._by_name[branch.repository, name] = branch
        branch.name = name
        if not branch.parent:
            return []
        return [Invalidation(branch.parent, text.encode()) for text in (old, name)]

    def shown_numbers(self, branch: Branch, local: int) -> list[int]:
        """Returns the mount's numbers of a local one: the root of the mount has another."""
        if self._root == (branch, local):
            return [branch.number(local), ROOT_NUMBER]
        return [branch.number(local)]

    def _branch(self, repository: str, name: str, head: Commit, parent: int) -> Branch | None:
        key = (repository, name)
        branch = self._by_name.get(key)
        if branch is None or branch.workspace.records.is_stale:
            folder = folder_of(self._store, repository, name)
            try:
                workspace = Workspace(self._store, folder, head)
            except ConflictError as error:
                if key not in self._elsewhere:
                    log.warning("%s/%s is shown read-only: %s", repository, name, error)
                    self._elsewhere.add(key)
                return None
            branch = Branch(workspace, len(self._slots), repository, name, parent, self._owner)
            self._elsewhere.discard(key)
            self._slots.append(branch)
            self._by_name[key] = branch
            self.on_open(branch)
        return branch

    def opendir(self, number: int) -> int:
        """Opens a directory of a branch folder and returns a handle."""
        branch, local = self.of(number)
        handle = self._next_listing
        self._next_listing += 1
        self._listings[handle] = branch, branch.workspace.opendir(local)
        return handle

    def listing(self, handle: int) -> tuple[Branch, WorkspaceListing]:
        """Returns an open directory.

        Raises:
            FileSystemError: EBADF: there is none, or no longer.
        """
        found = self._listings.get(handle)
        if found is None:
            raise FileSystemError(errno.EBADF)
        return found

    def releasedir(self, handle: int) -> None:
        """Closes a directory."""
        self._listings.pop(handle, None)

    def disk(self) -> Callable[[], os.statvfs_result]:
        """Returns the work of finding out the space for changes."""
        top = self._store.settings.state_dir

        def work() -> os.statvfs_result:
            path: Path = top
            while not path.exists():
                path = path.parent
            return os.statvfs(path)

        return work

    def close(self) -> None:
        """Gives all workspaces up."""
        for branch in self._slots:
            try:
                branch.workspace.close()
            except Exception:
                log.exception("closing the workspace of %s/%s", branch.repository, branch.name)


def _is_idle(branch: Branch) -> bool:
    return not branch.is_committing


def _nothing(_branch: Branch) -> None:
    pass
