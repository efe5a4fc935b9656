"""Asks a disk for small files before they are read, from one thread and without waiting."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

from versionfs.transfer.reading import FileRead, open_for_reading

Opened = int | OSError | None
"""A descriptor, or why there is none; None when it is to be opened later."""


def open_ahead(path: bytes, size: int) -> Opened:
    """Opens a file, and asks the disk for its bytes."""
    try:
        descriptor = open_for_reading(path)
    except OSError as error:
        return None if error.errno in (errno.EMFILE, errno.ENFILE) else error
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_WILLNEED)
    return descriptor


class Ahead:
    """A batch of open files that the disk was asked for; read by who wants the result."""

    def __init__(self, opened: list[Opened], read: Callable[[], list[FileRead | OSError]]) -> None:
        """Takes the files; ``read`` reads and closes them."""
        self._opened = opened
        self._read = read

    def done(self) -> bool:
        """See ``Future.done``: nothing is read before somebody waits."""
        return False

    def result(self) -> list[FileRead | OSError]:
        """Reads the files, and closes them."""
        self._opened = []
        return self._read()

    def close(self) -> None:
        """Closes the files, unread."""
        for descriptor in self._opened:
            if isinstance(descriptor, int):
                os.close(descriptor)
        self._opened = []
