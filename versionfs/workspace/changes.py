"""One operation's changes of a workspace's records: gathered, then applied as one batch.

Nothing is visible, in memory or on disk, until ``Changes.apply`` has returned.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable

from versionfs.errors import FileSystemError
from versionfs.workspace.folders import Folder
from versionfs.workspace.inode import Inode, encode_name, inode_key, name_key
from versionfs.workspace.names import Names


class Clock:
    """The time of changes, and their sequence: it grows with each, also over a restart."""

    def __init__(self) -> None:
        self.sequence = time.time_ns()

    def tick(self) -> int:
        """Returns the next sequence number."""
        self.sequence += 1
        return self.sequence


class Changes:
    """What one operation does to records. Each inode is copied before it is changed."""

    def __init__(self, names: Names, clock: Clock, *, quiet: bool = False) -> None:
        """Begins; ``quiet`` changes do not count as such: what nodes are stays the same."""
        self._names = names
        self._quiet = quiet
        self.sequence = clock.tick()
        self.now = time.time_ns()
        self._inodes: dict[int, Inode] = {}
        self._removed: dict[int, Inode] = {}
        self._batch: dict[bytes, bytes | None] = {}
        self._new_folders: list[Folder] = []
        self._overlaid: list[Folder] = []
        self._left: list[int] = []

    def inode(self, number: int) -> Inode:
        """Returns a copy of a recorded inode, to be changed."""
        inode = self._inodes.get(number)
        if inode is None:
            inode = self._inodes[number] = self._names.inode(number).copy()
        return inode

    def add(self, inode: Inode) -> Inode:
        """Takes an inode that gets a record now."""
        self._inodes[inode.number] = inode
        return inode

    def adopt(self, number: int) -> Inode:
        """Returns a copy of any inode that the kernel knows; an unchanged one gets a record.

        Raises:
            FileSystemError: ENOENT: the number is not known.
        """
        if number in self._inodes:
            return self._inodes[number]
        folder = self._names.folders.get(number)
        if folder is not None:
            return self.folder(folder)
        self._names.check(number)
        found = self._names.base_file(number)
        if found is None:
            return self.inode(number)
        parent, leaf, index = found
        inode = Inode.of_entry(number, leaf.entry(index))
        return self.adopt_file(parent, leaf.names[index], number, inode)

    def adopt_file(self, parent: Folder, name: bytes, number: int, inode: Inode) -> Inode:
        """Gives an unchanged file of the base a record, under its name."""
        self.add(inode)
        self._left.append(number)
        self.name(parent, name, number)
        return inode

    def folder(self, folder: Folder) -> Inode:
        """Returns a copy of a directory's inode; it and all above it get records.

        Raises:
            FileSystemError: ENOENT: it is unchanged, and the base has it no longer.
        """
        if folder.recorded or folder.number in self._inodes:
            return self.inode(folder.number)
        if folder.is_gone:
            raise FileSystemError(errno.ENOENT)
        assert folder.parent is not None
        inode = Inode.of_entry(folder.number, self._names.folder_entry(folder))
        self.add(inode)
        self._new_folders.append(folder)
        self.name(folder.parent, folder.name, folder.number)
        return inode

    def name(self, parent: Folder, name: bytes, number: int | None) -> None:
        """Lets a name stand for a number (``WHITEOUT``: nothing), or for the base's (None)."""
        if not parent.recorded and parent.number not in self._inodes:
            self.folder(parent)
        key = name_key(parent.number, name)
        self._batch[key] = None if number is None else encode_name(number, self.sequence)
        self._overlaid.append(parent)

    def put(self, key: bytes, value: bytes | None) -> None:
        """Changes any other record."""
        self._batch[key] = value

    def remove(self, inode: Inode) -> None:
        """Takes an inode's record away: it has no name left."""
        self._removed[inode.number] = inode

    def put_all(self, mutations: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Changes other records."""
        self._batch.update(mutations)

    def apply(self, *, frees: bool = False) -> None:
        """Makes the changes, on disk and then in memory.

        ``frees`` says that they free space of the disk: a full one does not stop them.

        Raises:
            OSError: the disk is full or fails; nothing has changed.
            WouldBlock: the disk is full, and some of it is about to become free, or the table is
                far behind; likewise.
        """
        names, removed, orphans = self._names, self._removed, self._names.orphans
        batch: list[tuple[bytes, bytes | None]] = []
        for number, inode in self._inodes.items():
            if number in removed or number in orphans:
                continue
            if not self._quiet:
                inode.sequence = self.sequence
            batch.append((inode_key(number), inode.encode()))
        if removed:
            batch.extend((inode_key(number), None) for number in removed)
        batch.extend(self._batch.items())
        names.table.apply(batch, frees=frees)
        for number in self._left:
            lookups = names.leave_base(number)
            if lookups:
                names.lookups[number] = lookups
        for number, inode in self._inodes.items():
            names.unsaved.pop(number, None)
            if number in orphans:
                orphans[number] = inode
            elif number not in removed:
                names.remember(inode)
        for folder in self._new_folders:
            folder.recorded = True
            if folder.leaf >= 0:
                names.leaves.drop(folder.leaf)
                folder.leaf = -1
        for folder in self._overlaid:
            folder.overlaid = True
            folder.version += 1
        for number, inode in self._removed.items():
            names.drop(number)
            if number in names.lookups or number in names.folders:
                names.orphans[number] = self._inodes.get(number, inode)
