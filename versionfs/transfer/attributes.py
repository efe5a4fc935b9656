"""What a source says of a file besides its content."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

from versionfs.types import Xattrs

MODE_BITS: Final = 0o7777
_NO_XATTRS: Final = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES})


class Attributes(NamedTuple):
    """Permission bits, mtime, owner and extended attributes of a file or folder."""

    mode: int
    mtime_ns: int
    uid: int
    gid: int
    xattrs: Xattrs = ()

    @classmethod
    def of(cls, status: os.stat_result, xattrs: Xattrs) -> Attributes:
        """Returns the attributes in an ``lstat`` result."""
        return cls(
            status.st_mode & MODE_BITS,
            in_range(status.st_mtime_ns),
            status.st_uid,
            status.st_gid,
            xattrs,
        )


def in_range(time_ns: int) -> int:
    """Returns the nearest time that the format can hold: from 1677 to 2262."""
    return min(max(time_ns, -(1 << 63)), (1 << 63) - 1)


CONTENT_SEEN_BYTES: Final = 24
"""How much of ``seen`` tells that the content is the same."""


def read_xattrs(target: bytes | int, *, follow: bool = False) -> Xattrs:
    """Returns the ``user.*`` attributes of a path or descriptor, sorted by name.

    A file system without any has none; so has a file whose attributes may not be read.
    """
    try:
        names = os.listxattr(target) if isinstance(target, int) else _list(target, follow)
        if not names:
            return ()
        found = []
        for name in sorted(os.fsencode(name) for name in names):
            if name.startswith(b"user."):
                value = (
                    os.getxattr(target, name)
                    if isinstance(target, int)
                    else os.getxattr(target, name, follow_symlinks=follow)
                )
                found.append((name, value))
        return tuple(found)
    except OSError as error:
        if error.errno in _NO_XATTRS or error.errno == errno.ENODATA:
            return ()
        raise


def _list(path: bytes, follow: bool) -> list[str]:
    return os.listxattr(path, follow_symlinks=follow)


_SPECIAL: Final = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a fifo",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def special_kind(mode: int) -> str | None:
    """Returns what a file is, when it is of a kind that imports skip."""
    return _SPECIAL.get(stat.S_IFMT(mode))
