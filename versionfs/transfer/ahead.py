"""Batches of small files that are read, or asked of the disk, while others are handled."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor

from versionfs.syscalls import Read
from versionfs.transfer.reading import FileRead, Opened, open_for_reading


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


class InThread:
    """A batch that another thread reads, without the interpreter lock; the rest by who wants it."""

    def __init__(
        self,
        executor: Executor,
        read: Callable[[], list[Read | None]],
        finish: Callable[[list[Read | None]], list[FileRead | OSError]],
    ) -> None:
        """Begins to read; ``finish`` makes the result of what was read."""
        self._read = read
        self._finish = finish
        self.seconds = 0.0
        """How long it took, here and there, once there is a result."""
        self._future = executor.submit(self._work)

    def _work(self) -> list[Read | None]:
        began = time.monotonic()
        found = self._read()
        self.seconds = time.monotonic() - began
        return found

    def done(self) -> bool:
        """See ``Future.done``."""
        return self._future.done()

    def result(self) -> list[FileRead | OSError]:
        """Waits, and returns what was read, or why it was not."""
        found = self._future.result()
        began = time.monotonic()
        results = self._finish(found)
        self.seconds += time.monotonic() - began
        return results
