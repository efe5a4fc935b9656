"""What system calls do to the names of a workspace, as POSIX and ext4 have it.

Access is checked by the kernel (``default_permissions``); everything else is checked here. Each
operation first looks, which may raise ``WouldBlock``, then makes all its changes at once. One
thread only.
"""

from __future__ import annotations

import errno
import stat
from typing import Final

from versionfs.errors import FileSystemError
from versionfs.workspace.attributes import NAME_MAX, AttributeOverlay
from versionfs.workspace.changes import Changes, Clock
from versionfs.workspace.files import Files
from versionfs.workspace.folders import Folder
from versionfs.workspace.inode import (
    WHITEOUT,
    Inode,
    decode_name,
    names_prefix,
)
from versionfs.workspace.layerbook import LayerBook
from versionfs.workspace.names import InBase, Names

_LINK_MAX: Final = 65_000
_TARGET_MAX: Final = 4_095

NOREPLACE: Final = 1
EXCHANGE: Final = 2
"""Flags of renameat2(2)."""


class Overlay(AttributeOverlay):
    """The operations that change names and attributes."""

    def __init__(self, names: Names, clock: Clock, files: Files, layers: LayerBook) -> None:
        super().__init__(names, clock, files)
        self._layers = layers

    # -- making ----------------------------------------------------------------------------------

    def make(
        self,
        parent: int,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        target: bytes = b"",
    ) -> int:
        """Makes a file, directory, symlink or other node, and counts a lookup; returns its number.

        ``mode`` has the type.

        Raises:
            FileSystemError: EEXIST, ENOENT, ENOTDIR, ENAMETOOLONG.
        """
        folder = self._writable(parent, name)
        if self._names.find(folder, name) is not None:
            raise FileSystemError(errno.EEXIST)
        if len(target) > _TARGET_MAX:
            raise FileSystemError(errno.ENAMETOOLONG)
        changes = self.changes()
        above = changes.folder(folder)
        if above.mode & stat.S_ISGID:
            gid = above.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        number = self._names.free_number(folder.number, name)
        now = changes.now
        inode = Inode(number, mode, uid, gid, 1, now, now, now, rdev=rdev, target=target)
        changes.add(inode)
        changes.name(folder, name, number)
        above.mtime_ns = above.ctime_ns = now
        if inode.is_file:
            self._files.make(inode, changes)
        else:
            changes.apply()
        self._names.unpin(folder, name)
        if inode.is_dir:
            self._names.recorded_folder(folder, name, inode).lookups += 1
        else:
            self._names.lookups[number] = 1
        return number

    def link(self, number: int, parent: int, name: bytes) -> None:
        """Gives a file another name, and counts a lookup.

        Raises:
            FileSystemError: EEXIST, EPERM (a directory), EMLINK, ENOENT (it has no name left).
        """
        folder = self._writable(parent, name)
        if self._names.find(folder, name) is not None:
            raise FileSystemError(errno.EEXIST)
        if number in self._names.folders:
            raise FileSystemError(errno.EPERM)
        self._names.check(number)
        if number in self._names.orphans:
            raise FileSystemError(errno.ENOENT)
        changes = self.changes()
        inode = changes.adopt(number)
        if inode.nlink >= _LINK_MAX:
            raise FileSystemError(errno.EMLINK)
        inode.nlink += 1
        inode.ctime_ns = changes.now
        self._touch(changes, folder)
        changes.name(folder, name, number)
        changes.apply()
        self._names.unpin(folder, name)
        self._names.lookups[number] = self._names.lookups.get(number, 0) + 1

    # -- removing --------------------------------------------------------------------------------

    def unlink(self, parent: int, name: bytes) -> None:
        """Takes a name away; the file lives on while somebody has it open.

        Raises:
            FileSystemError: ENOENT, EISDIR.
        """
        folder = self._names.folder(parent)
        found = self._found(folder, name)
        if self._is_dir(found):
            raise FileSystemError(errno.EISDIR)
        absent = self._absent(folder, name)
        changes = self.changes()
        inode = self._adopted(changes, folder, name, found)
        self._take_name(changes, inode)
        self._touch(changes, folder)
        changes.name(folder, name, absent)
        changes.apply(frees=True)
        self._names.unpin(folder, name)
        self._thrown_away(inode)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Removes an empty directory.

        Raises:
            FileSystemError: ENOENT, ENOTDIR, ENOTEMPTY.
        """
        folder = self._names.folder(parent)
        found = self._found(folder, name)
        if not self._is_dir(found):
            raise FileSystemError(errno.ENOTDIR)
        child = self._child(folder, name, found)
        if not self.is_empty(child):
            raise FileSystemError(errno.ENOTEMPTY)
        absent = self._absent(folder, name)
        changes = self.changes()
        self._remove_folder(changes, child)
        self._touch(changes, folder)
        changes.name(folder, name, absent)
        changes.apply(frees=True)
        self._gone(child)

    def is_empty(self, folder: Folder) -> bool:
        """Whether nothing is in a directory."""
        hidden = set()
        if folder.overlaid:
            prefix = names_prefix(folder.number)
            for key, value in self._names.table.scan(prefix):
                if decode_name(value)[0] != WHITEOUT:
                    return False
                hidden.add(key[len(prefix) :])
        if folder.base is None:
            return True
        for _, leaf in self._names.trees.leaves(folder.base):
            if not hidden.issuperset(leaf.names):
                return False
        return True

    # -- renaming --------------------------------------------------------------------------------

    def rename(self, parent: int, name: bytes, to: int, to_name: bytes, flags: int = 0) -> None:
        """Renames as renameat2(2) does.

        Raises:
            FileSystemError: ENOENT, EEXIST (``NOREPLACE``), ENOTDIR, EISDIR, ENOTEMPTY, EINVAL (a
                directory into itself, or flags that do not go together), ENAMETOOLONG.
        """
        if flags not in (0, NOREPLACE, EXCHANGE):
            raise FileSystemError(errno.EINVAL)
        source, target = self._names.folder(parent), self._writable(to, to_name)
        found = self._found(source, name)
        other = self._names.find(target, to_name)
        if flags == NOREPLACE and other is not None:
            raise FileSystemError(errno.EEXIST)
        if flags == EXCHANGE:
            if other is None:
                raise FileSystemError(errno.ENOENT)
            self._exchange(source, name, found, target, to_name, other)
            return
        if other is not None and other == found and isinstance(found, int):
            return  # two names of one file: nothing to do, says POSIX
        if source is target and name == to_name:
            return
        child = self._child(source, name, found) if self._is_dir(found) else None
        if child is not None and _is_within(target, child):
            raise FileSystemError(errno.EINVAL)
        replaced = None
        if other is not None:
            if self._is_dir(other):
                if child is None:
                    raise FileSystemError(errno.EISDIR)
                replaced = self._child(target, to_name, other)
                if not self.is_empty(replaced):
                    raise FileSystemError(errno.ENOTEMPTY)
            elif child is not None:
                raise FileSystemError(errno.ENOTDIR)
        absent = self._absent(source, name)
        changes = self.changes()
        inode = (
            changes.folder(child)
            if child is not None
            else self._adopted(changes, source, name, found)
        )
        lost: Inode | None = None
        if replaced is not None:
            self._remove_folder(changes, replaced)
        elif other is not None:
            lost = self._adopted(changes, target, to_name, other)
            self._take_name(changes, lost)
        self._touch(changes, source)
        self._touch(changes, target)
        inode.ctime_ns = changes.now
        changes.name(source, name, absent)
        changes.name(target, to_name, inode.number)
        changes.apply(frees=other is not None)
        self._names.unpin(source, name)
        self._names.unpin(target, to_name)
        if replaced is not None:
            self._gone(replaced)
        if lost is not None:
            self._thrown_away(lost)
        if child is not None:
            self._move(child, target, to_name)

    def _exchange(
        self,
        source: Folder,
        name: bytes,
        found: int | InBase,
        target: Folder,
        to_name: bytes,
        other: int | InBase,
    ) -> None:
        one = self._child(source, name, found) if self._is_dir(found) else None
        two = self._child(target, to_name, other) if self._is_dir(other) else None
        if (one is not None and _is_within(target, one)) or (
            two is not None and _is_within(source, two)
        ):
            raise FileSystemError(errno.EINVAL)
        if source is target and name == to_name:
            return
        changes = self.changes()
        first = changes.folder(one) if one else self._adopted(changes, source, name, found)
        second = changes.folder(two) if two else self._adopted(changes, target, to_name, other)
        first.ctime_ns = second.ctime_ns = changes.now
        self._touch(changes, source)
        self._touch(changes, target)
        changes.name(source, name, second.number)
        changes.name(target, to_name, first.number)
        changes.apply()
        self._names.unpin(source, name)
        self._names.unpin(target, to_name)
        for folder in (one, two):
            if folder is not None:
                folder.detach()
        if one is not None:
            one.attach(target, to_name)
        if two is not None:
            two.attach(source, name)

    def _move(self, child: Folder, target: Folder, name: bytes) -> None:
        parent = child.parent
        child.detach()
        child.attach(target, name)
        if parent is not None:
            self._names.release(parent)

    # -- parts -----------------------------------------------------------------------------------

    def _writable(self, parent: int, name: bytes) -> Folder:
        folder = self._names.folder(parent)
        if folder.gone:
            raise FileSystemError(errno.ENOENT)
        if len(name) > NAME_MAX:
            raise FileSystemError(errno.ENAMETOOLONG)
        return folder

    def _found(self, folder: Folder, name: bytes) -> int | InBase:
        if len(name) > NAME_MAX:
            raise FileSystemError(errno.ENAMETOOLONG)
        found = self._names.find(folder, name)
        if found is None:
            raise FileSystemError(errno.ENOENT)
        return found

    def _is_dir(self, found: int | InBase) -> bool:
        return found.is_dir if isinstance(found, InBase) else self._names.inode(found).is_dir

    def _child(self, folder: Folder, name: bytes, found: int | InBase) -> Folder:
        """Returns the folder of a directory that was found."""
        if isinstance(found, InBase):
            return self._names.base_folder(folder, name, found)
        return self._names.recorded_folder(folder, name, self._names.inode(found))

    def _adopted(self, changes: Changes, folder: Folder, name: bytes, found: int | InBase) -> Inode:
        """Returns a copy of the inode of a file that was found; it gets a record if it has none."""
        if not isinstance(found, InBase):
            return changes.inode(found)
        # The number by which the kernel knows it, if it does.
        number = self._names.number_of(folder, name, found)
        return changes.adopt_file(folder, name, number, Inode.of_entry(number, found.entry))

    def _absent(self, folder: Folder, name: bytes) -> int | None:
        """Returns what a name that is about to go stands for then."""
        # What a commit under way has will be in the base: it must stay hidden then. What that
        # commit does not have may be in the base too, if others make it: that must show.
        is_hidden = self._names.find_in_base(folder, name) is not None or self._layers.may_commit(
            folder.number, name
        )
        return WHITEOUT if is_hidden else None

    def _touch(self, changes: Changes, folder: Folder) -> None:
        inode = changes.folder(folder)
        inode.mtime_ns = inode.ctime_ns = changes.now

    def _take_name(self, changes: Changes, inode: Inode) -> None:
        inode.nlink -= 1
        inode.ctime_ns = changes.now
        if not inode.nlink:
            changes.remove(inode)

    def _remove_folder(self, changes: Changes, folder: Folder) -> None:
        """Removes the records of an empty directory, its whiteouts among them."""
        inode = changes.folder(folder)
        inode.nlink = 0
        changes.remove(inode)
        if folder.overlaid:
            for key, _ in self._names.table.scan(names_prefix(folder.number)):
                changes.put(key, None)

    def _gone(self, folder: Folder) -> None:
        """Marks a removed directory, which the kernel may still know."""
        folder.gone = True
        folder.base = None
        folder.overlaid = False
        folder.detach()
        self._names.unpin(folder.parent or folder, folder.name)
        self._names.release(folder)

    def _thrown_away(self, inode: Inode) -> None:
        """Frees the content of a file without names, unless it may still be open."""
        if not inode.nlink and inode.number not in self._names.orphans:
            self._files.discard(inode)


def _is_within(folder: Folder, above: Folder) -> bool:
    """Whether a directory is another one or below it."""
    current: Folder | None = folder
    while current is not None:
        if current is above:
            return True
        current = current.parent
    return False
