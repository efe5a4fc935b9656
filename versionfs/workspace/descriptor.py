"""Files that are open, and writes to them that may find the disk full."""

from __future__ import annotations

import contextlib
import errno
import os
import threading


class Descriptor:
    """Closes itself when nobody uses it any more, so none is closed under a running call."""

    __slots__ = ("asked", "number", "synced", "syncing")

    def __init__(self, number: int) -> None:
        self.number = number
        self.syncing = threading.Lock()
        """Held while it is synced: who finds the disk failing says so before the next one looks."""
        self.asked = 0
        """How many syncs were asked for, and up to which of them all is on the disk."""
        self.synced = 0

    def __del__(self) -> None:
        os.close(self.number)


def write_most(file: int, data: bytes | memoryview, offset: int) -> int:
    """Writes all, or what fits; returns how much.

    Raises:
        OSError: nothing was written.
    """
    done = os.pwrite(file, data, offset)
    if done < len(data):
        view = memoryview(data)
        with contextlib.suppress(OSError):
            while done < len(data):
                done += os.pwrite(file, view[done:], offset + done)
    return done


def write_all(file: int, data: bytes, offset: int) -> None:
    """Writes all.

    Raises:
        OSError: not all of it, or nothing, was written.
    """
    if write_most(file, data, offset) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
