"""Writes files past the kernel's memory (O_DIRECT), where the disk takes it."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Final

from versionfs.chunkstore.buffers import pages

_PAGE_BYTES: Final = 4096
_PIECE_BYTES: Final = 2 * 1024 * 1024


class DirectWriter:
    """Writes whole pages, by way of an aligned buffer if need be. For one thread at a time.

    What streams through the kernel's memory would push out what is read again, and new pages there
    cost more than all else of a write.
    """

    def __init__(self) -> None:
        self._piece: mmap.mmap | None = None
        self._is_taken = True

    def write(self, path: Path, data: memoryview, at: int) -> int:
        """Writes the begin of ``data`` at an offset that is a multiple of a page.

        Returns how many bytes that were: what is left is less than a page, or all of it where this
        cannot be done.

        Raises:
            OSError: the disk is full, or fails.
        """
        if not self._is_taken:
            return 0
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            self._is_taken = False
            return 0
        end = len(data) - len(data) % _PAGE_BYTES
        written, is_aligned = 0, True
        try:
            while written < end:
                if is_aligned:
                    try:
                        done = os.pwrite(descriptor, data[written:end], at + written)
                    except OSError as error:
                        if error.errno != errno.EINVAL:
                            raise
                        is_aligned = False
                        continue
                else:
                    done = self._copied(descriptor, data[written:end], at + written)
                written += done
                if done % _PAGE_BYTES:
                    break
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._is_taken = False
        finally:
            os.close(descriptor)
        return written

    def _copied(self, descriptor: int, data: memoryview, at: int) -> int:
        """Writes by way of the aligned buffer, as much as it holds; returns how much that was."""
        if self._piece is None:
            self._piece = pages(_PIECE_BYTES)
        with memoryview(self._piece) as piece:
            length = min(len(data), _PIECE_BYTES)
            piece[:length] = data[:length]
            return os.pwrite(descriptor, piece[:length], at)
