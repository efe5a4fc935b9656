"""A workspace: one branch as a folder that can be written, by inode number.

Numbers are of this workspace alone. All methods are for one thread, which may be one that must not
block (``WouldBlock`` is raised before anything changed); what may take long is returned as work.
"""

from __future__ import annotations

import errno
import stat as modes
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, NamedTuple

from versionfs.errors import FileSystemError
from versionfs.objectstore import WouldBlock
from versionfs.repo import Store
from versionfs.tree import Leaf
from versionfs.types import Commit, Entry, Kind, NodeRef
from versionfs.workspace.base import (
    BASE_KEY,
    PENDING_KEY,
    decode_base,
    decode_pending,
    encode_base,
)
from versionfs.workspace.changes import Clock
from versionfs.workspace.files import Files
from versionfs.workspace.following import Moves, Step
from versionfs.workspace.inode import ROOT, TYPE_BITS, Inode, inode_key
from versionfs.workspace.layerbook import LayerBook
from versionfs.workspace.listing import WorkspaceListing
from versionfs.workspace.names import Names, base_of
from versionfs.workspace.overlay import Overlay
from versionfs.workspace.records import Records

_BLOCK: Final = 512


class Stat(NamedTuple):
    """What stat tells: ``mode`` has the type, ``size`` is in bytes, ``blocks`` of 512, times in ns.

    ``nlink`` of a directory is 1, which says that it does not count those in it.
    """

    number: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Workspace:
    """The uncommitted changes of a branch on this machine, over the tree of a base commit."""

    def __init__(self, store: Store, folder: Path, head: Commit) -> None:
        """Opens the workspace in a folder; makes nothing before the first change.

        Args:
            store: where the branch is.
            folder: see :func:`versionfs.workspace.places.folder_of`.
            head: the branch's head, the base of a workspace without changes.

        Raises:
            ConflictError: it has changes, and another process owns it.
        """
        self.store = store
        self.folder = folder
        self._head = head
        self.records = Records(
            folder,
            self._root(head),
            lambda: encode_base(self._head.ref),
            store.settings.workspace_bytes,
        )
        try:
            value = self.records.get(BASE_KEY)
            assert value is not None
            ref = decode_base(value)
            if ref != head.ref and self._is_unchanged(ref):
                root = self._root(head)
                mutations = [(BASE_KEY, encode_base(head.ref)), (inode_key(ROOT), root.encode())]
                # Never told to wait: who then opens it anew would only be told so again.
                self.records.apply(mutations, frees=True)
                ref = head.ref
            self.base: Commit = head if ref == head.ref else store.commits.read(ref)
            """The commit that the changes are on top of."""
            self.names = Names(self.records, store.trees)
        except BaseException:
            self.records.close()
            raise
        self.clock = Clock()
        self.layers = LayerBook(self.names, self.records)
        self.files = Files(self.names, self.records, self.layers, store.contents)
        self.overlay = Overlay(self.names, self.clock, self.files, self.layers)
        self.is_swept = not self.records.exists
        """Whether what a kill may have left was removed, or nothing can be left."""
        pending = self.records.get(PENDING_KEY)
        if pending is not None:
            # Killed while it committed: what belongs to that commit stays as it is until it is
            # known what came of it (``commit.recover``).
            self.layers.freeze(decode_pending(pending).frozen_below)

    @staticmethod
    def _root(head: Commit) -> Inode:
        return Inode.of_entry(ROOT, head.root)

    # -- names -----------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Stat | None:
        """Returns what a name in a directory is, and counts a lookup; None if nothing is.

        Raises:
            FileSystemError: ENOENT, ENOTDIR: ``parent`` is not a directory.
        """
        folder = self.names.folder(parent)
        found = self.names.find(folder, name)
        if found is None:
            return None
        number = self.names.enter(folder, name, found)
        try:
            return self.stat(number)
        except BaseException:
            self.forget(number, 1)
            raise

    def create(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Stat:
        """Makes a regular file, counts a lookup, and opens it; ``mode`` has the type.

        Raises:
            FileSystemError: as ``Overlay.make``.
        """
        number = self.overlay.make(parent, name, mode, uid, gid)
        self.files.open(number)
        inode = self.names.inode(number)
        now = inode.mtime_ns
        return Stat(number, inode.mode, 1, inode.uid, inode.gid, 0, 0, 0, now, now, now)

    def forget(self, number: int, lookups: int) -> None:
        """Takes lookups from a number; what has no name and is no longer known is thrown away."""
        orphan = self.names.forget(number, lookups)
        if orphan is not None:
            self.files.discard(orphan)

    def parent(self, number: int) -> int:
        """Returns the number of a directory's parent; its own for the root."""
        folder = self.names.folder(number)
        return ROOT if folder.parent is None else folder.parent.number

    def opendir(self, number: int) -> WorkspaceListing:
        """Opens a directory.

        Raises:
            FileSystemError: ENOENT, ENOTDIR.
        """
        return WorkspaceListing(self, self.names.folder(number))

    def knows(self, number: int) -> bool:
        """Whether the kernel knows a number."""
        names = self.names
        return number in names.folders or number in names.lookups or names.known.find(number) >= 0

    # -- attributes ------------------------------------------------------------------------------

    def stat(self, number: int) -> Stat:
        """Returns the attributes of a number.

        Raises:
            FileSystemError: ENOENT: it is not known.
        """
        names = self.names
        if number in names.lookups:  # A file with a record.
            return self._inode_stat(names.inode(number))
        folder = names.folders.get(number)
        if folder is not None and not folder.recorded:
            return self._entry_stat(number, names.folder_entry(folder))
        if folder is None:
            found = names.base_file(number)
            if found is not None:
                return self.base_stat(number, found[1], found[2])
        return self._inode_stat(names.inode(number))

    def base_stat(self, number: int, leaf: Leaf, index: int) -> Stat:
        """Returns the attributes of an unchanged entry of the base."""
        kind = leaf.kinds[index]
        size = 0 if kind == Kind.DIRECTORY else leaf.sizes[index]
        mtime = leaf.mtimes[index]
        return Stat(
            number,
            leaf.modes[index] | TYPE_BITS[kind],
            1,
            leaf.uids[index],
            leaf.gids[index],
            0,
            size,
            -(-size // _BLOCK),
            mtime,
            mtime,
            mtime,
        )

    def _entry_stat(self, number: int, entry: Entry) -> Stat:
        time = entry.mtime_ns
        mode = entry.mode | TYPE_BITS[entry.kind]
        return Stat(number, mode, 1, entry.uid, entry.gid, 0, 0, 0, time, time, time)

    def _inode_stat(self, inode: Inode) -> Stat:
        size = blocks = 0
        if inode.is_file:
            size, blocks = self.files.size(inode)
            if inode.layers:
                inode = self.names.inode(inode.number)  # with the times of its last write
        elif modes.S_ISLNK(inode.mode):
            size = len(inode.target)
        return Stat(
            inode.number,
            inode.mode,
            (1 if inode.nlink else 0) if inode.is_dir else inode.nlink,
            inode.uid,
            inode.gid,
            inode.rdev,
            size,
            blocks,
            inode.atime_ns,
            inode.mtime_ns,
            inode.ctime_ns,
        )

    def readlink(self, number: int) -> bytes:
        """Returns a symlink's target.

        Raises:
            FileSystemError: ENOENT; EINVAL: it is none.
        """
        found = self.names.base_file(number)
        if found is not None:
            _, leaf, index = found
            if leaf.kinds[index] != Kind.SYMLINK:
                raise FileSystemError(errno.EINVAL)
            return leaf.target(index)
        inode = self.names.inode(number)
        if not modes.S_ISLNK(inode.mode):
            raise FileSystemError(errno.EINVAL)
        return inode.target

    def xattrs(self, number: int) -> tuple[tuple[bytes, bytes], ...]:
        """Returns the extended attributes, as (name, value), sorted.

        Raises:
            FileSystemError: ENOENT.
        """
        if number in self.names.lookups:  # Asked before each write.
            return self.names.inode(number).xattrs
        folder = self.names.folders.get(number)
        if folder is not None and not folder.recorded:
            return self.names.folder_entry(folder).xattrs
        found = self.names.base_file(number) if folder is None else None
        if found is not None:
            return found[1].xattrs(found[2])
        return self.names.inode(number).xattrs

    def unchanged(self, number: int) -> Entry | None:
        """Returns the base's entry of what is as the base has it; None if it is changed."""
        folder = self.names.folders.get(number)
        if folder is not None:
            if folder.number == ROOT:
                return self.base.root if self.is_clean else None
            return None if folder.recorded else self.names.folder_entry(folder)
        found = self.names.base_file(number)
        return None if found is None else found[1].entry(found[2])

    def path(self, number: int) -> bytes:
        """Returns the path of a directory, ``b""`` for the root."""
        return self.names.folder(number).path()

    # -- the base --------------------------------------------------------------------------------

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to commit; times and owners alone are nothing."""
        root, base = self.names.inode(ROOT), self.base.root
        return (root.mode & 0o7777, root.xattrs) == (base.mode, base.xattrs) and not (
            self.records.has_names
        )

    def _is_unchanged(self, base: NodeRef) -> bool:
        """Whether a workspace that was just opened has no changes on top of a base."""
        if self.records.has_names:
            return False
        value = self.records.get(inode_key(ROOT))
        assert value is not None
        root, stored = Inode.decode(ROOT, value), self.store.commits.read(base).root
        return (root.mode & 0o7777, root.xattrs) == (stored.mode, stored.xattrs)

    def moved(self, folder: Path) -> Callable[[], None]:
        """Returns the work of making another folder that of the workspace, for another branch."""

        def work() -> None:
            self.records.move(folder)
            self.folder = folder

        return work

    def follow(
        self, head: Commit, may_go: Callable[[], bool] = lambda: True
    ) -> Generator[Step, None, None]:
        """Makes a workspace without changes show another commit.

        All that this needs is fetched first. If the workspace then has changes, or another base,
        or ``may_go`` says no, nothing happens; else everything moves before anything else is done,
        and only then what the kernel must drop is yielded.

        Raises:
            StorageError: the store cannot be read; OSError: the disk is full. Nothing has changed.
        """
        base, root = self.base, self._root(head)
        moves = Moves(self.names, ROOT)
        while True:
            yield from moves.planned(self.names.root.base, base_of(root))
            if self.base is not base or not self.is_clean or not may_go():
                return
            if self.records.get(PENDING_KEY) is not None:
                return
            if not self.records.exists:
                self.records.rebase(root)
                break
            mutations = [(BASE_KEY, encode_base(head.ref)), (inode_key(ROOT), root.encode())]
            try:
                self.records.apply(mutations)
                break
            except WouldBlock as wait:
                yield wait.fetch
        self._head = self.base = head
        self.names.drop(ROOT)
        yield from moves.switch()

    # -- the disk --------------------------------------------------------------------------------

    def sync(self) -> Callable[[], None]:
        """Returns the work of making all names and attributes survive a power cut."""
        return self.records.sync

    def close(self) -> None:
        """Saves what is only in memory, and gives the workspace up."""
        self.files.save_all(self.overlay.changes)
        self.records.close()
