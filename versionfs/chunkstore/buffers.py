"""Memory for large replies that is used again: new pages cost more than filling them."""

from __future__ import annotations

import contextlib
import mmap
import sys
import threading
from collections.abc import Sequence
from typing import Final

_HUGE_PAGE_BYTES: Final = 2 * 1024 * 1024


def pages(size_bytes: int) -> mmap.mmap:
    """Returns memory that begins at a page, in large pages where the kernel can.

    One fault for 2 MiB then instead of 512; and to a disk that is a virtual one, direct reads and
    writes in small pages may be a third as fast. It is private: shared memory is usually in small
    ones, whatever is asked for.
    """
    piece = mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        piece.madvise(mmap.MADV_HUGEPAGE, 0, size_bytes // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES)
    return piece


def _references(pieces: Sequence[object]) -> list[int]:
    """Returns how many references there are to each piece, with those of the list and of this."""
    return [sys.getrefcount(piece) for piece in pieces]


_ALONE: Final = _references([object()])[0]
"""References to a piece that nobody has a view of: versions of Python count them differently."""


class Buffers:
    """At most ``count`` pieces of ``size_bytes`` each. Thread-safe.

    A piece is given out as a view and is free again when no view of it is left, in whatever hands:
    nothing is ever overwritten that somebody may still read. Pieces begin at a page, as direct
    writes need it.
    """

    def __init__(self, size_bytes: int, count: int) -> None:
        self._size = size_bytes
        self._count = count
        self._pieces: list[mmap.mmap] = []
        self._lock = threading.Lock()

    @property
    def made(self) -> int:
        """How many pieces there are, free or not."""
        return len(self._pieces)

    def take(self, length: int) -> memoryview | None:
        """Returns ``length`` bytes to write to, of any content; None if no piece is free."""
        if length > self._size:
            return None
        with self._lock:
            for piece, references in zip(self._pieces, _references(self._pieces), strict=True):
                if references == _ALONE:
                    return memoryview(piece)[:length]
            if len(self._pieces) >= self._count:
                return None
            piece = pages(self._size)
            self._pieces.append(piece)
            return memoryview(piece)[:length]

    def trim(self) -> None:
        """Gives the memory of pieces that are free back to the system."""
        with self._lock:
            self._pieces = [
                piece
                for piece, references in zip(self._pieces, _references(self._pieces), strict=True)
                if references != _ALONE
            ]
