"""The error tree: grouped by what the caller can do about it.

Every error says what failed, on what, and what to do next. The message is one line fit for a
terminal; ``hint`` is the next step, when there is one that is not already in the message.
``exit_code`` is what the command line exits with.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence


class VersionFSError(Exception):
    """The base of every error that versionfs raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotFoundError(VersionFSError):
    """A name (store, repository, branch, tag, revision, path, object) does not exist."""

    exit_code = 3


class AlreadyExistsError(VersionFSError):
    """The name to be created is taken."""

    exit_code = 4


class ConflictError(VersionFSError):
    """Somebody else moved the ref first; reread it, then try again or merge."""

    exit_code = 5


class OverlapError(ConflictError):
    """A commit would overwrite what others committed; nothing was committed, nothing is lost.

    ``problems`` holds one ``(path, what happened)`` for each path that both sides changed.
    """

    def __init__(self, message: str, problems: Sequence[tuple[bytes, str]], *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.problems = list(problems)


class ReadOnlyError(VersionFSError):
    """The target cannot be written: a snapshot, or a store without write permission."""

    exit_code = 6


class InvalidInputError(VersionFSError):
    """The request itself is malformed: a bad name, an ambiguous revision, an unusable source."""

    exit_code = 2


class AmbiguousError(InvalidInputError):
    """An abbreviated id matches more than one commit."""


class StorageError(VersionFSError):
    """The store failed."""

    exit_code = 7


class StorageTransientError(StorageError):
    """The store failed in a way that a later try may not: a timeout, a disk that is full now."""


class StoragePermanentError(StorageError):
    """The store failed in a way that trying again will not cure."""


class StorageAuthError(StoragePermanentError):
    """The store refused the credentials, or the file system the permission."""


class StorageMissingError(StoragePermanentError):
    """The place of the store itself (its bucket) does not exist: that says nothing of what it had.

    So it is no NotFoundError, which means that the store was asked and has no such name.
    """

    exit_code = 3


class CorruptionError(VersionFSError):
    """Stored bytes do not match their checksum or id. ``pack`` names the object, when known."""

    exit_code = 8

    def __init__(self, message: str, *, pack: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pack = pack


class UnsupportedFormatError(VersionFSError):
    """The store was written by a newer versionfs, or is not a versionfs store."""

    exit_code = 9


class SourceError(VersionFSError):
    """Files of an import or a commit could not be read; nothing was published.

    ``problems`` holds one ``(path, reason)`` for each.
    """

    exit_code = 10

    def __init__(self, message: str, problems: Sequence[tuple[bytes, str]], *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.problems = list(problems)


class MountError(VersionFSError):
    """A mount cannot be made or undone: mount point, /dev/fuse, fusermount3, permission."""

    exit_code = 11


class FileSystemError(Exception):
    """The answer to a system call that cannot be done, by its errno. Not told to people as such."""

    def __init__(self, number: int) -> None:
        super().__init__(number, errno.errorcode.get(number, str(number)))
        self.number = number


def let_go(error: BaseException) -> None:
    """Takes the frames from an error and from those that led to it.

    They hold what was being worked on, buffers and open files, and often each other: that would
    stay until Python looks for cycles.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        found = pending.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            found.__traceback__ = None
            pending += [found.__cause__, found.__context__]
