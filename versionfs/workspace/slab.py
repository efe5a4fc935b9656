"""A slab: a file that holds many small layers, so that a small layer needs no file of its own.

A sparse file: a page with a magic number, a table with 16 bytes for each *slot*, and from byte
65,536 on a *window* of 64 KiB for each. A table entry, little-endian: size u32 · blocks u16 · flags
u16 · mtime i64 ns. An entry of zeros is no layer.

Bit ``i`` of ``blocks`` says that bytes ``[4096 i, 4096 (i + 1))`` are in the window; where it is
not set the layer has zeros, whatever the window has. Behind the size the window may have anything:
who makes a layer longer writes what it has there first. Bytes are written before the entry that
tells of them, and an entry lies in one sector: killed at any instant, a layer is as it was before
a call or as it is after it.

The entry is kept by one pwrite(2); the copy of it in memory answers all that is asked of it.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from versionfs.syscalls import pread_all
from versionfs.workspace.descriptor import Descriptor, write_all, write_most

SLOTS: Final = 1024
WINDOW: Final = 64 * 1024
"""Bytes that a slot can have."""

BLOCK: Final = 4096

LIVE: Final = 1
MOVING: Final = 2
"""The layer is on its way to a file of its own. After a kill that has it, if it is there."""
SYNCED: Final = 4
"""A program asked for the layer to be on the disk: no power cut may take what it was then."""

_MAGIC: Final = b"vfsslab1"
_ENTRY: Final = struct.Struct("<IHHq")
_TABLE_AT: Final = 4096
_TABLE_END: Final = _TABLE_AT + SLOTS * _ENTRY.size
_WINDOWS_AT: Final = 64 * 1024
_EMPTY: Final = bytes(_ENTRY.size)
_COARSE: Final = 5
"""CLOCK_REALTIME_COARSE, which gives files their mtime."""
_NO_ALLOCATION: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})
_PUNCH: Final = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


class Slot(NamedTuple):
    """What a slab's table says of a layer."""

    size: int
    blocks: int
    flags: int
    mtime_ns: int

    @property
    def allocated(self) -> int:
        """Bytes that it takes of the disk."""
        return self.blocks.bit_count() * BLOCK

    def covers(self, start: int, end: int) -> bool:
        """Whether all of ``[start, end)`` is in the window."""
        mask = (2 << (end - 1) // BLOCK) - (1 << start // BLOCK) if start < end else 0
        return self.blocks & mask == mask

    def ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yields the parts of ``[start, end)`` that may be other than zeros, ascending."""
        end = min(end, self.size)
        while start < end:
            block = start // BLOCK
            if not self.blocks >> block & 1:
                start = (block + 1) * BLOCK
                continue
            while self.blocks >> block & 1:
                block += 1
            yield start, min(block * BLOCK, end)
            start = block * BLOCK


class Freed(NamedTuple):
    """Space of a slab that nobody uses any more, to be given back when no lock is held.

    A slab that is gone is given back when ``file``, the last who has it open, is let go of.
    """

    size: int
    """Bytes that layers took of the disk there."""
    file: Descriptor
    ranges: list[tuple[int, int]]
    """Where, and how many bytes; what is in between is not used either."""

    def give_back(self) -> None:
        """Gives the space back, as far as the file system can."""
        for at, length in self.ranges:
            _give_back(self.file, at, length)


class Slab:
    """One slab that is open. The caller serialises all calls.

    A slot that is named has a layer, but for ``slot`` and ``create``.
    """

    __slots__ = ("descriptor", "live", "number", "table")

    def __init__(self, number: int, descriptor: Descriptor, path: Path) -> None:
        """Reads the table of the slab of a number, which is at ``path``.

        Raises:
            OSError: it cannot be read; EIO: it is no slab.
        """
        data = os.pread(descriptor.number, _TABLE_END, 0)
        if data[: len(_MAGIC)].strip(b"\0") and not data.startswith(_MAGIC):
            raise OSError(errno.EIO, "it is no slab of staging files", str(path))
        self.number = number
        self.descriptor = descriptor
        self.table = bytearray(data[_TABLE_AT:].ljust(_TABLE_END - _TABLE_AT, b"\0"))
        self.live = sum(flags & LIVE for _, _, flags, _ in self._entries())
        """How many layers it has."""

    @staticmethod
    def begin(file: int) -> None:
        """Makes a new file a slab without layers.

        Raises:
            OSError: there is no space for it.
        """
        try:
            # A table that has its space never finds the disk full.
            os.posix_fallocate(file, 0, _TABLE_END)
        except OSError as error:
            if error.errno not in _NO_ALLOCATION:
                raise
            os.pwrite(file, bytes(_TABLE_END), 0)
        os.pwrite(file, _MAGIC, 0)

    # -- the table ---------------------------------------------------------------------------------

    def _entries(self) -> Iterator[tuple[int, int, int, int]]:
        return _ENTRY.iter_unpack(bytes(self.table))

    def _put(self, index: int, entry: bytes) -> None:
        os.pwrite(self.descriptor.number, entry, _TABLE_AT + index * 16)
        self.table[index * 16 : index * 16 + 16] = entry

    def slot(self, index: int) -> Slot | None:
        """Returns what is known of a slot; None: it has no layer."""
        values = _ENTRY.unpack_from(self.table, index * 16)
        return Slot(*values) if values[2] else None

    def used(self) -> list[int]:
        """Returns the slots that have a layer."""
        table = self.table
        return [index for index in range(SLOTS) if table[index * 16 + 6]]

    def moving(self) -> list[int]:
        """Returns the slots whose layer is on its way to a file of its own."""
        return [index for index, entry in enumerate(self._entries()) if entry[2] & MOVING]

    def mark(self, index: int, flag: int, *, on: bool = True) -> None:
        """Sets a flag, or takes it away."""
        size, blocks, flags, mtime = _ENTRY.unpack_from(self.table, index * 16)
        marked = flags | flag if on else flags & ~flag
        if marked != flags:
            self._put(index, _ENTRY.pack(size, blocks, marked, mtime))

    # -- layers ------------------------------------------------------------------------------------

    def create(self, index: int, size: int) -> None:
        """Makes a layer of ``size`` zeros.

        Raises:
            FileExistsError: it is there.
            OSError: the disk failed.
        """
        if self.table[index * 16 + 6]:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        now = time.clock_gettime_ns(_COARSE)
        self._put(index, _ENTRY.pack(size, 0, LIVE, now))
        self.live += 1

    def place(self, index: int, offset: int) -> int:
        """Returns where in the file a byte of a layer is."""
        return _WINDOWS_AT + index * WINDOW + offset

    def write(self, index: int, offset: int, data: bytes | memoryview) -> tuple[int, int]:
        """Writes into the window of a layer; returns how much, and the bytes allocated for that.

        Raises:
            OSError: nothing was written.
        """
        size, blocks, flags, _ = _ENTRY.unpack_from(self.table, index * 16)
        end = offset + len(data)
        first, last = offset // BLOCK, (end - 1) // BLOCK
        fresh = ((2 << last) - (1 << first)) & ~blocks
        low = offset
        at = _WINDOWS_AT + index * WINDOW
        file = self.descriptor.number
        if fresh or offset > size:
            if offset > size:
                low = self._close_gap(file, at, size, blocks, offset)
            if fresh >> first & 1:
                low = first * BLOCK
            high = end
            if fresh >> last & 1 and size > end:
                high = min(size, (last + 1) * BLOCK)
            if low < offset or high > end:
                data = bytes(offset - low) + data + bytes(high - end)
        done = write_most(file, data, at + low)
        if done < len(data):
            end = min(end, low + done)
            last = (end - 1) // BLOCK
            if fresh >> last & 1 and end < min(size, (last + 1) * BLOCK):
                end = last * BLOCK  # Not all of it is there: left out.
                last -= 1
            if end <= offset:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fresh &= (2 << last) - 1
        now = time.clock_gettime_ns(_COARSE)
        entry = _ENTRY.pack(max(size, end), blocks | fresh, flags, now)
        os.pwrite(file, entry, _TABLE_AT + index * 16)
        self.table[index * 16 : index * 16 + 16] = entry
        return end - offset, fresh.bit_count() * BLOCK

    def _close_gap(self, file: int, at: int, size: int, blocks: int, start: int) -> int:
        """Makes what lies between the end and ``start`` zeros; returns from where on to write."""
        block = size // BLOCK
        if not size % BLOCK or not blocks >> block & 1:
            return start
        stop = (block + 1) * BLOCK
        if start < stop:
            return size
        write_all(file, bytes(stop - size), at + size)
        return start

    def truncate(self, index: int, size: int) -> Freed:
        """Sets the size of a layer, at most ``WINDOW``; returns the space to be given back.

        Nobody may write to the layer before that is done.

        Raises:
            OSError: it has the size it had.
        """
        before, blocks, flags, _ = _ENTRY.unpack_from(self.table, index * 16)
        at = _WINDOWS_AT + index * WINDOW
        kept = blocks
        if size > before:
            low = self._close_gap(self.descriptor.number, at, before, blocks, size)
            if low < size:
                write_all(self.descriptor.number, bytes(size - low), at + low)
        else:
            kept &= (1 << -(-size // BLOCK)) - 1
        now = time.clock_gettime_ns(_COARSE)
        self._put(index, _ENTRY.pack(size, kept, flags, now))
        return self._freed(index, blocks & ~kept)

    def remove(self, indexes: Sequence[int]) -> Freed:
        """Removes layers, in order.

        Returns the space to be given back, before one of them is made again.
        """
        table = bytearray(self.table)
        taken: list[tuple[int, int]] = []
        for index in indexes:
            taken.append((index, _ENTRY.unpack_from(table, index * 16)[1]))
            table[index * 16 : index * 16 + 16] = _EMPTY
        low, high = taken[0][0] * 16, taken[-1][0] * 16 + 16
        os.pwrite(self.descriptor.number, table[low:high], _TABLE_AT + low)
        self.table = table
        self.live -= len(indexes)
        ranges = [
            (_WINDOWS_AT + first * WINDOW, (last + 1 - first) * WINDOW)
            for first, last in _runs(taken)
        ]
        size = sum(blocks.bit_count() for _, blocks in taken) * BLOCK
        return Freed(size, self.descriptor, ranges)

    def clear(self, index: int) -> Freed:
        """Removes one layer; returns the space of its blocks, as ``remove``."""
        _, blocks, flags, _ = _ENTRY.unpack_from(self.table, index * 16)
        self._put(index, _EMPTY)
        self.live -= flags & LIVE
        return self._freed(index, blocks)

    def _freed(self, index: int, blocks: int) -> Freed:
        """Returns the space of blocks of a slot."""
        ranges: list[tuple[int, int]] = []
        if blocks:
            first = (blocks & -blocks).bit_length() - 1
            at = _WINDOWS_AT + index * WINDOW + first * BLOCK
            ranges.append((at, (blocks.bit_length() - first) * BLOCK))
        return Freed(blocks.bit_count() * BLOCK, self.descriptor, ranges)


def read_window(file: Descriptor, at: int, slot: Slot, start: int, end: int) -> bytes:
    """Returns the bytes ``[start, end)`` of a layer whose window begins at ``at``."""
    if slot.covers(start, end):
        return _read(file, at + start, end - start)
    pieces = []
    for low, high in slot.ranges(start, end):
        pieces += [bytes(low - start), _read(file, at + low, high - low)]
        start = high
    return b"".join([*pieces, bytes(end - start)])


def _read(file: Descriptor, at: int, size: int) -> bytes:
    """Reads from a slab; what lies behind its end is zeros."""
    data = pread_all(file.number, size, at)
    return data if len(data) == size else data + bytes(size - len(data))


def _give_back(file: Descriptor, at: int, length: int) -> None:
    _fallocate()(file.number, _PUNCH, at, length)


def _runs(taken: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields the first and the last slot of those that follow each other and have blocks."""
    used = [index for index, blocks in taken if blocks]
    for _, group in groupby(enumerate(used), lambda pair: pair[1] - pair[0]):
        run = [index for _, index in group]
        yield run[0], run[-1]


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int]:
    import ctypes  # Only where something is removed: it takes its time.

    call: Callable[[int, int, int, int], int] = ctypes.CDLL(None).fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]  # type: ignore[attr-defined]
    return call
