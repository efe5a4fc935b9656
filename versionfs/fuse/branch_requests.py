"""Requests for branch folders, answered at once: the work of each is one plain call.

They raise what ``errno_of`` turns into an errno, and ``WouldBlock`` before anything has changed:
then its ``fetch`` is to be called in a thread, and the request again.
"""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Generator, Sequence
from typing import Final

from pyfuse3 import FUSEError

from versionfs.fuse.operations import report
from versionfs.tree import Pieces, Push
from versionfs.vfs import NAME_MAX, Branch, FileSystem, is_expected
from versionfs.workspace import Stat

_NAMESPACES: Final = (b"user.", b"trusted.", b"security.")
_OWN: Final = b"user.versionfs."
_LABEL: Final = b"security.selinux"
"""`ls -l` asks each file for it until it is told that there are none here. Where the kernel has
SELinux on, it answers itself; a file that was given a label still has it."""


class BranchRequests:
    """What is done for a request, by numbers and handles of branch folders (``serves``).

    Attributes are those that the mount shows. One thread only.
    """

    def __init__(self, filesystem: FileSystem) -> None:
        self._filesystem = filesystem
        branches = filesystem.branches
        assert branches is not None
        self._branches = branches

    def serves(self, number: int) -> bool:
        """Whether a number, or a handle, is one of a branch folder."""
        return self._branches.has(number)

    def _of(self, number: int) -> tuple[Branch, int]:
        """Returns the branch and the local number of a place that is to be changed."""
        if not self._branches.has(number):
            raise FUSEError(errno.EROFS)
        return self._branches.of(number)

    def lookup_now(self, parent: int, name: bytes) -> Stat | None:
        """Returns what a name in a directory is, and counts a lookup; None if nothing is."""
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        branch, local = self._branches.of(parent)
        found = branch.workspace.lookup(local, name)
        return None if found is None else branch.shown(found)

    def forget_now(self, inode_list: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Takes lookups from inodes; returns those that are not of branch folders."""
        others = []
        for number, lookups in inode_list:
            if not self._branches.has(number):
                others.append((number, lookups))
                continue
            try:
                branch, local = self._branches.of(number)
                branch.workspace.forget(local, lookups)
            except Exception as error:  # noqa: BLE001  (pyfuse3 would end the mount)
                report("forget", (number,), error)
        return others

    def make_now(
        self,
        parent: int,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        rdev: int = 0,
        target: bytes = b"",
    ) -> Stat:
        """Makes what ``mode`` says (mknod, mkdir, symlink), and counts a lookup."""
        branch, local = self._of(parent)
        workspace = branch.workspace
        number = workspace.overlay.make(local, name, mode, uid, gid, rdev=rdev, target=target)
        return branch.shown(workspace.stat(number))

    def create_now(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Stat:
        """Makes a regular file and opens it; its handle is its number."""
        branch, local = self._of(parent)
        mode = modes.S_IFREG | mode & 0o7777
        return branch.shown(branch.workspace.create(local, name, mode, uid, gid))

    def link_now(self, inode: int, parent: int, name: bytes) -> Stat:
        """Gives a file another name."""
        branch, into = self._of(parent)
        other, local = self._of(inode)
        if other is not branch:
            raise FUSEError(errno.EXDEV)
        branch.workspace.overlay.link(local, into, name)
        return branch.shown(branch.workspace.stat(local))

    def unlink_now(self, parent: int, name: bytes) -> None:
        """Takes a name away."""
        branch, local = self._of(parent)
        branch.workspace.overlay.unlink(local, name)

    def rmdir_now(self, parent: int, name: bytes) -> None:
        """Removes a directory."""
        branch, local = self._of(parent)
        branch.workspace.overlay.rmdir(local, name)

    def rename_now(
        self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """Renames, replaces or exchanges."""
        branch, old = self._of(old_parent)
        other, new = self._of(new_parent)
        if other is not branch:
            raise FUSEError(errno.EXDEV)
        branch.workspace.overlay.rename(old, old_name, new, new_name, flags)

    def getattr_now(self, inode: int) -> Stat:
        """Returns the attributes of an inode."""
        branch, local = self._branches.of(inode)
        return branch.shown(branch.workspace.stat(local))

    def setattr_now(
        self,
        inode: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
    ) -> Stat:
        """Changes attributes, the size among them."""
        branch, local = self._of(inode)
        workspace = branch.workspace
        if not branch.is_owner_kept and (uid is not None or gid is not None):
            shown = branch.shown(workspace.stat(local))
            if (uid is not None and uid != shown.uid) or (gid is not None and gid != shown.gid):
                raise FUSEError(errno.EPERM)
            uid = gid = None
        workspace.overlay.set_attributes(
            local,
            mode=None if mode is None else mode & 0o7777,
            uid=uid,
            gid=gid,
            size=size,
            atime_ns=atime_ns,
            mtime_ns=mtime_ns,
        )
        return branch.shown(workspace.stat(local))

    def readlink_now(self, inode: int) -> bytes:
        """Returns the target of a symlink."""
        branch, local = self._branches.of(inode)
        return branch.workspace.readlink(local)

    def getxattr_now(self, inode: int, name: bytes) -> bytes | None:
        """Returns an extended attribute; None if there is none of that name."""
        if not name.startswith(_NAMESPACES):
            raise FUSEError(errno.EOPNOTSUPP)
        branch, local = self._branches.of(inode)
        for stored, value in branch.workspace.xattrs(local):
            if stored == name:
                return value
        if name.startswith(_OWN):
            return self._filesystem.branch_xattr(branch, local, name[len(_OWN) :])
        if name == _LABEL:
            raise FUSEError(errno.EOPNOTSUPP)
        return None

    def listxattr_now(self, inode: int) -> list[bytes]:
        """Returns the names of the stored extended attributes."""
        branch, local = self._branches.of(inode)
        return [name for name, _ in branch.workspace.xattrs(local)]

    def setxattr_now(self, inode: int, name: bytes, value: bytes) -> None:
        """Sets an extended attribute."""
        branch, local = self._of(inode)
        if not name.startswith(_NAMESPACES) or name.startswith(_OWN):
            raise FUSEError(errno.EOPNOTSUPP)
        if name in _NAMESPACES:
            raise FUSEError(errno.EINVAL)
        branch.workspace.overlay.set_xattr(local, name, value)

    def removexattr_now(self, inode: int, name: bytes) -> None:
        """Removes an extended attribute."""
        branch, local = self._of(inode)
        if not name.startswith(_NAMESPACES):
            raise FUSEError(errno.EOPNOTSUPP)
        branch.workspace.overlay.remove_xattr(local, name)

    def open_now(self, inode: int, flags: int) -> int:
        """Opens a file and returns its handle; the kernel may keep its pages."""
        branch, local = self._branches.of(inode)
        workspace = branch.workspace
        if flags & os.O_TRUNC:
            workspace.overlay.set_attributes(local, size=0)
        workspace.files.open(local)
        return inode

    def to_push_now(self, inode: int) -> list[Push] | None:
        """Returns what to push to the kernel's cache when a file was just opened, if anything."""
        branch, local = self._branches.of(inode)
        return _shown(branch, branch.workspace.files.to_push(local))

    def push_ahead_now(self, inode: int) -> list[Push] | None:
        """Returns what to push ahead of files of a branch that are read in order, None: nothing."""
        branch, _ = self._branches.of(inode)
        return _shown(branch, branch.workspace.files.pusher.step())

    def read_now(self, handle: int, offset: int, size: int) -> Pieces:
        """Returns bytes of a file."""
        branch, local = self._branches.of(handle)
        return branch.workspace.files.read_pieces(local, offset, size)

    def write_now(self, handle: int, offset: int, data: bytes | memoryview) -> int:
        """Writes bytes of a file; returns how many."""
        branch, local = self._of(handle)
        workspace = branch.workspace
        return workspace.files.write(workspace.overlay.changes, local, offset, data)

    def release_now(self, handle: int) -> None:
        """Closes a file. Does not fail."""
        try:
            branch, local = self._branches.of(handle)
            branch.workspace.files.release(branch.workspace.overlay.changes, local)
        except Exception as error:  # noqa: BLE001  (pyfuse3 would end the mount)
            if not is_expected(error):
                report("release", (handle,), error)

    def opendir_now(self, inode: int) -> int:
        """Opens a directory and returns its handle."""
        return self._branches.opendir(inode)

    def readdir_now(self, handle: int, start: int) -> Generator[tuple[bytes, Stat, int]]:
        """Yields name, attributes and next offset of entries; each taken counts as a lookup.

        To be closed: what was yielded last without another being asked for was not taken.
        """
        branch, listing = self._branches.listing(handle)
        items = listing.items(start)
        try:
            for name, stat, offset in items:
                yield name, branch.shown(stat), offset
        finally:
            items.close()

    def readdir_packed_now(
        self, handle: int, start: int, room: int, seconds: float
    ) -> bytes | None:
        """Returns entries as the kernel reads them; None if :meth:`readdir_now` must give them."""
        branch, listing = self._branches.listing(handle)
        return listing.packed(start, room, branch.shown_as(seconds), branch.number(0))

    def look_ahead_now(self, handle: int) -> None:
        """Prepares what comes behind the entries of an open directory that were given last."""
        self._branches.listing(handle)[1].look_ahead()

    def releasedir_now(self, handle: int) -> None:
        """Closes a directory."""
        self._branches.releasedir(handle)


def _shown(branch: Branch, pushes: list[Push] | None) -> list[Push] | None:
    """Returns what a workspace pushes, by the numbers of the mount."""
    return pushes and [(branch.number(number), data) for number, data in pushes]
