"""Discards what was changed at and below names: they show the base of their directories again.

Programs go on between the steps, and what they make meanwhile stays as it is.
"""

from __future__ import annotations

import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from versionfs.types import Entry
from versionfs.workspace.changes import Changes
from versionfs.workspace.folders import Folder
from versionfs.workspace.following import Dropped, Step, fetched, place_folder, removed
from versionfs.workspace.inode import (
    ROOT,
    WHITEOUT,
    Inode,
    decode_name,
    name_key,
    names_prefix,
)

if TYPE_CHECKING:
    from versionfs.workspace.workspace import Workspace


class Discarding:
    """Discards changes; ``count`` is how many names show the base again."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._names = workspace.names
        self._began = workspace.clock.sequence
        self.count = 0

    @contextmanager
    def held(self, parent: Folder, name: bytes, inode: Inode) -> Iterator[Folder]:
        """Keeps a directory that has a record known meanwhile."""
        folder = self._names.recorded_folder(parent, name, inode)
        folder.lookups += 1
        try:
            yield folder
        finally:
            self._workspace.forget(folder.number, 1)

    def below(self, folder: Folder) -> Generator[Step, None, None]:
        """Restores all names in a directory of the base; of the root its attributes, too."""
        prefix = names_prefix(folder.number)
        for key, _ in self._names.table.scan(prefix):
            yield from self.name(folder, key[len(prefix) :])
        if folder.number == ROOT:
            yield from fetched(lambda: self.reset(folder, self._workspace.base.root))
            yield [Dropped(ROOT, None)]

    def name(self, folder: Folder, name: bytes) -> Generator[Step, None, None]:
        """Restores one name that has a record.

        Programs go on between the steps: what is not read anew after one may not be so any more.
        """
        names = self._names
        found = yield from fetched(lambda: names.find_in_base(folder, name))
        value = names.table.get(name_key(folder.number, name))
        if value is None or folder.gone:
            return
        number, sequence = decode_name(value)
        if self.is_later(sequence):
            return
        inode = None if number == WHITEOUT else names.inode(number)
        if inode is not None and inode.is_dir:
            with self.held(folder, name, inode) as child:
                if found is not None and found.is_dir and lies_over(inode, found.entry):
                    yield from self.below(child)
                    yield from self._to_base(folder, name, child)
                else:
                    yield from self._discard_tree(folder, name, child)
            return
        yield from fetched(lambda: self._discard(folder, name, value))
        yield [Dropped(folder.number, name), Dropped(folder.number, None)]

    def _discard(self, folder: Folder, name: bytes, value: bytes) -> None:
        """Takes the record of a name away that is no directory's, if it still is what it was."""
        names = self._names
        if names.table.get(name_key(folder.number, name)) != value:
            return
        changes = self._workspace.overlay.changes()
        lost = lose(changes, value)
        changes.name(folder, name, None)
        changes.apply(frees=True)
        names.unpin(folder, name)
        self.discard_bytes(lost)
        self.count += 1

    def discard_bytes(self, lost: Inode | None) -> None:
        """Throws away what was written to a file that has no name any more, and nobody open."""
        if lost is not None and not lost.nlink and lost.number not in self._names.orphans:
            self._workspace.files.discard(lost)

    def reset(self, folder: Folder, entry: Entry) -> None:
        """Gives a directory its attributes of the base; its record stays."""
        changes = self._workspace.overlay.changes()
        _reset(changes.inode(folder.number), entry)
        changes.apply(frees=True)
        folder.overlaid = self._names.has_names(folder.number)

    def is_later(self, sequence: int) -> bool:
        """Whether a name came to mean what it does since this began."""
        # One from a time when the clock was ahead is not.
        return self._began < sequence <= self._workspace.clock.sequence

    def is_at(self, folder: Folder, name: bytes, child: Folder) -> bool:
        """Whether a directory is still where it was."""
        if folder.gone or child.gone or child.parent is not folder or child.name != name:
            return False
        value = self._names.table.get(name_key(folder.number, name))
        return value is not None and decode_name(value)[0] == child.number

    def _to_base(self, parent: Folder, name: bytes, child: Folder) -> Generator[Step, None, None]:
        """Takes the record of a directory away in which nothing is changed any more.

        It stays where something was made in it meanwhile, or when it was moved.
        """
        if (yield from fetched(lambda: self._goes_to_base(parent, name, child))):
            yield [Dropped(parent.number, None), Dropped(child.number, None)]

    def _goes_to_base(self, parent: Folder, name: bytes, child: Folder) -> bool:
        names = self._names
        found = names.find_in_base(parent, name)
        if found is None or not found.is_dir or not self.is_at(parent, name, child):
            return False
        inode = names.inode(child.number)
        if not lies_over(inode, found.entry):
            return False
        if self._names.has_names(child.number):
            self.reset(child, found.entry)
            return True
        changes: Changes = self._workspace.overlay.changes()
        changes.remove(changes.inode(child.number))
        changes.name(parent, name, None)
        changes.apply(frees=True)
        names.orphans.pop(child.number, None)
        names.pin(parent.number, name, child.number)
        place_folder(names, child, found)
        child.overlaid = False
        self.count += 1
        return True

    def _discard_tree(
        self, parent: Folder, name: bytes, folder: Folder
    ) -> Generator[Step, None, None]:
        """Throws away a directory that is not the base's: its records and those below.

        It stays where something was made in it meanwhile, or when it was moved.
        """
        names = self._names
        prefix = names_prefix(folder.number)
        for key, value in names.table.scan(prefix):
            number, sequence = decode_name(value)
            if self.is_later(sequence):
                continue
            if not self.is_at(parent, name, folder):
                return
            child_name = key[len(prefix) :]
            inode = None if number == WHITEOUT else names.inode(number)
            if inode is None or not inode.is_dir:
                discard = partial(self._discard, folder, child_name, value)
                yield from fetched(discard)
                yield [Dropped(folder.number, child_name)]
                continue
            with self.held(folder, child_name, inode) as child:
                yield from self._discard_tree(folder, child_name, child)
        yield (yield from fetched(lambda: self._removed(parent, name, folder)))

    def _removed(self, parent: Folder, name: bytes, folder: Folder) -> list[Dropped]:
        """Takes the record of a directory away that has no names left, if it is still there."""
        names = self._names
        if not self.is_at(parent, name, folder) or self._names.has_names(folder.number):
            return []
        changes = self._workspace.overlay.changes()
        inode = changes.inode(folder.number)
        inode.nlink = 0
        changes.remove(inode)
        changes.name(parent, name, None)
        changes.apply(frees=True)
        names.unpin(parent, name)
        self.count += 1
        dropped = [Dropped(parent.number, name), Dropped(parent.number, None)]
        # Unchanged directories below have no records, yet the kernel may know them.
        return dropped + removed(folder)


def lose(changes: Changes, value: bytes) -> Inode | None:
    """Takes a name from what a record says, which is no directory; returns that, if anything."""
    number, _ = decode_name(value)
    if number == WHITEOUT:
        return None
    lost = changes.inode(number)
    lost.nlink -= 1
    if not lost.nlink:
        changes.remove(lost)
    return lost


def lies_over(inode: Inode, entry: Entry) -> bool:
    """Whether a changed directory lies over the tree of an entry, and not another of its name."""
    base = inode.base
    return base is not None and (base.content, base.stamp) == (entry.content, entry.stamp)


def _reset(inode: Inode, entry: Entry) -> None:
    inode.mode = stat.S_IFMT(inode.mode) | entry.mode
    inode.uid, inode.gid, inode.xattrs = entry.uid, entry.gid, entry.xattrs
    inode.mtime_ns = inode.ctime_ns = entry.mtime_ns
