"""The one table from errors to errno values: what a system call on a mount answers."""

from __future__ import annotations

import errno
from typing import Final

from versionfs.errors import (
    AlreadyExistsError,
    AmbiguousError,
    ConflictError,
    CorruptionError,
    FileSystemError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StorageAuthError,
    StorageError,
    UnsupportedFormatError,
    VersionFSError,
)

__all__ = ["ENOATTR", "FileSystemError", "errno_of", "is_expected"]

ENOATTR: Final = errno.ENODATA
"""What Linux answers when an extended attribute does not exist."""

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_TABLE: Final[tuple[tuple[type[BaseException], int], ...]] = (
    # The first match counts, so a class stands before its base.
    (AmbiguousError, errno.ENOTUNIQ),
    (InvalidInputError, errno.EINVAL),
    # Unknown names are answered before an error is made of them: a NotFoundError that reaches
    # this table is something a snapshot refers to and the store has no longer.
    (NotFoundError, errno.EIO),
    (AlreadyExistsError, errno.EEXIST),
    (ConflictError, errno.EBUSY),
    (ReadOnlyError, errno.EROFS),
    (CorruptionError, errno.EIO),
    (UnsupportedFormatError, errno.EIO),
    (StorageAuthError, errno.EACCES),
    (StorageError, errno.EIO),
    (VersionFSError, errno.EIO),
    (MemoryError, errno.ENOMEM),
)


def errno_of(error: BaseException) -> int:
    """Returns the errno for an error; EIO for what is not in the table.

    An ``OSError`` that the file system raises itself (``FileSystemError``) keeps its number; one
    that comes from the machine underneath is EIO, because its number is about another file. Only
    that there is no space for what is written is told as it is.
    """
    if isinstance(error, FileSystemError):
        return error.number
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return error.errno
    for kind, number in _TABLE:
        if isinstance(error, kind):
            return number
    return errno.EIO


def is_expected(error: BaseException) -> bool:
    """Whether an error is an ordinary answer, not worth a line in the log."""
    if isinstance(error, OSError):
        return error.errno in _NO_SPACE
    return isinstance(error, (FileSystemError, AmbiguousError))
