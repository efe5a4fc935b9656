"""What system calls do to the attributes of a workspace's nodes, as POSIX and ext4 have it."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Final

from versionfs.errors import FileSystemError
from versionfs.workspace.changes import Changes, Clock
from versionfs.workspace.inode import without_privileges
from versionfs.workspace.names import Names

if TYPE_CHECKING:
    from versionfs.workspace.files import Files

NAME_MAX: Final = 255
_XATTRS_BOUND: Final = 65_536
_LAST_TIME: Final = (1 << 63) - 1

XATTR_CREATE: Final = 1
XATTR_REPLACE: Final = 2


class AttributeOverlay:
    """The operations that change attributes. One thread only."""

    def __init__(self, names: Names, clock: Clock, files: Files) -> None:
        self._names = names
        self._clock = clock
        self._files = files

    def changes(self, *, quiet: bool = False) -> Changes:
        """Begins an operation; see ``Changes``."""
        return Changes(self._names, self._clock, quiet=quiet)

    def set_attributes(
        self,
        number: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
    ) -> None:
        """Changes attributes; ``mode`` is permission bits, ``size`` is in bytes.

        Raises:
            FileSystemError: ENOENT, EISDIR or EINVAL (the size of what has none), EFBIG.
            OSError: the disk is full or fails.
        """
        if size is not None:
            if number in self._names.folders:
                raise FileSystemError(errno.EISDIR)
            self._files.truncate(self.changes, number, size)
            if {mode, uid, gid, atime_ns, mtime_ns} == {None}:
                return
        changes = self.changes()
        inode = changes.adopt(number)
        if mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | mode & 0o7777
        if uid is not None or gid is not None:
            inode.uid = inode.uid if uid is None else uid
            inode.gid = inode.gid if gid is None else gid
            if not inode.is_dir and mode is None:
                inode.mode = without_privileges(inode.mode)
        if atime_ns is not None:
            inode.atime_ns = _kept_time(atime_ns)
        if mtime_ns is not None:
            inode.mtime_ns = _kept_time(mtime_ns)
        inode.ctime_ns = changes.now
        changes.apply()

    def set_xattr(self, number: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """Sets an extended attribute.

        Raises:
            FileSystemError: EEXIST, ENODATA (by the flags), ENOSPC (all of a file's together are
                larger than 64 KiB), ERANGE (the name).
        """
        if not 0 < len(name) <= NAME_MAX:
            raise FileSystemError(errno.ERANGE)
        changes = self.changes()
        inode = changes.adopt(number)
        there = any(key == name for key, _ in inode.xattrs)
        if flags == XATTR_CREATE and there:
            raise FileSystemError(errno.EEXIST)
        if flags == XATTR_REPLACE and not there:
            raise FileSystemError(errno.ENODATA)
        kept = [pair for pair in inode.xattrs if pair[0] != name]
        if sum(len(k) + len(v) for k, v in kept) + len(name) + len(value) > _XATTRS_BOUND:
            raise FileSystemError(errno.ENOSPC)
        inode.xattrs = tuple(sorted([*kept, (name, value)]))
        inode.ctime_ns = changes.now
        changes.apply()

    def remove_xattr(self, number: int, name: bytes) -> None:
        """Removes an extended attribute.

        Raises:
            FileSystemError: ENODATA: there is none of that name.
        """
        changes = self.changes()
        inode = changes.adopt(number)
        kept = tuple(pair for pair in inode.xattrs if pair[0] != name)
        if len(kept) == len(inode.xattrs):
            raise FileSystemError(errno.ENODATA)
        inode.xattrs = kept
        inode.ctime_ns = changes.now
        changes.apply()


def _kept_time(time_ns: int) -> int:
    """Returns the nearest time that can be kept: the years 1677 to 2262."""
    return max(-_LAST_TIME, min(time_ns, _LAST_TIME))
