"""The one table from what the operating system says to versionfs's error tree."""

from __future__ import annotations

import errno
from typing import Final

from versionfs.errors import (
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StorageAuthError,
    StoragePermanentError,
    StorageTransientError,
    VersionFSError,
)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})
_PASSING: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})


def translate(error: OSError, url: str, key: str, *, writing: bool) -> VersionFSError:
    """Returns the error that says what the failed system call means for an object of a store.

    A reader finds no object both where nothing is and where the path leads through a file or to a
    folder (as an S3 prefix would say); a writer is told of the latter, for it needs a repair.
    """
    code = error.errno
    reason = (error.strerror or str(error)).lower()
    if code in _FULL:
        return StorageTransientError(
            f"the disk of the store {url} is full",
            hint="free some space on it, then run the command again; nothing was lost",
        )
    if code == errno.EROFS or (code in _FORBIDDEN and writing):
        return ReadOnlyError(
            f"the store {url} cannot be written: {reason} ({key})",
            hint="use a store, or a user, with write permission",
        )
    if code in _FORBIDDEN:
        return StorageAuthError(
            f"the store {url} cannot be read: {reason} ({key})",
            hint="ask its owner for read permission",
        )
    if code in _NOT_THERE and not writing:
        return NotFoundError(f"the store {url} has no object {key}")
    if code == errno.ENAMETOOLONG:
        return InvalidInputError(f"the name is too long for the store {url}: {key}")
    if code in _PASSING:
        return StorageTransientError(
            f"the store {url} failed for now: {reason} ({key})", hint="try again later"
        )
    return StoragePermanentError(
        f"the store {url} failed: {reason} ({error.filename2 or error.filename or key})",
        hint="check that path and the disk it is on",
    )
