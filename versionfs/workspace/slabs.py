"""Slabs: files that hold many small layers each, so that a small layer needs no file of its own.

Layer ``n`` is slot ``n % SLOTS`` of the slab ``slabs/<n / SLOTS in hex>``, a sparse file: a page
with a magic number, a table with 16 bytes for each slot, and from byte 65,536 on a *window* of
64 KiB for each. A table entry, little-endian: size u32 · blocks u16 · flags u16 · mtime i64 ns. An
entry of zeros is no layer.

Bit ``i`` of ``blocks`` says that bytes ``[4096 i, 4096 (i + 1))`` are in the window; where it is
not set the layer has zeros, whatever the window has. Behind the size the window may have anything:
who makes a layer longer writes what it has there first. Bytes are written before the entry that
tells of them, and an entry lies in one sector: killed at any instant, a layer is as it was before
a call or as it is after it.

The entry is kept by one pwrite(2); the copy of it in memory answers all that is asked of it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

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
_ZEROS: Final = bytes(BLOCK)
_COARSE: Final = 5
"""CLOCK_REALTIME_COARSE, which gives files their mtime."""
_NO_ALLOCATION: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})
_PUNCH: Final = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_FOLDER: Final = "slabs"


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
    """One slab that is open: its descriptor, and its table."""

    __slots__ = ("descriptor", "live", "number", "table")

    def __init__(self, number: int, descriptor: Descriptor, table: bytearray) -> None:
        self.number = number
        self.descriptor = descriptor
        self.table = table
        self.live = 0


class Slabs:
    """The slabs in a staging folder. The caller serialises all calls.

    A layer that is named has a slot, but for ``find`` and ``create``.
    """

    def __init__(
        self,
        staging: Path,
        bound: int,
        open_file: Callable[[Path, int], int],
        make_file: Callable[[Path, int], int],
        is_own: Callable[[int], bool],
        leaving: Collection[int],
    ) -> None:
        """Begins.

        Args:
            staging: the staging folder.
            bound: how many slabs are kept open.
            open_file: opens a file, by its path and flags.
            make_file: the same, and makes it with its folder.
            is_own: whether a layer that a kill found on its way has got to a file of its own.
            leaving: the layers that are on their way now.
        """
        self.staging = staging
        self._bound = bound
        self._open_file = open_file
        self._make_file = make_file
        self._is_own = is_own
        self._leaving = leaving
        self._slabs: OrderedDict[int, Slab] = OrderedDict()
        self._newest: Slab | None = None
        self._numbers: set[int] = set()
        with contextlib.suppress(FileNotFoundError):
            numbers = map(_number, os.listdir(staging / _FOLDER))
            self._numbers = {number for number in numbers if number >= 0}

    # -- slabs -------------------------------------------------------------------------------------

    def path(self, number: int) -> Path:
        """Returns where a slab is."""
        return self.staging / _FOLDER / f"{number:014x}"

    def _slab(self, number: int) -> Slab | None:
        newest = self._newest
        if newest is not None and newest.number == number:
            return newest
        slab = self._slabs.get(number)
        if slab is not None:
            self._slabs.move_to_end(number)
            return slab
        if number not in self._numbers:
            return None
        try:
            opened = Descriptor(self._open_file(self.path(number), os.O_RDWR))
        except FileNotFoundError:
            self._numbers.discard(number)
            return None
        return self._add(number, opened)

    def _add(self, number: int, descriptor: Descriptor) -> Slab:
        data = os.pread(descriptor.number, _TABLE_END, 0)
        if data[: len(_MAGIC)].strip(b"\0") and not data.startswith(_MAGIC):
            raise OSError(errno.EIO, "it is no slab of staging files", str(self.path(number)))
        table = bytearray(data[_TABLE_AT:].ljust(_TABLE_END - _TABLE_AT, b"\0"))
        slab = Slab(number, descriptor, table)
        for index, (size, blocks, flags, mtime_ns) in enumerate(_ENTRY.iter_unpack(bytes(table))):
            layer = number * SLOTS + index
            if flags & MOVING and layer not in self._leaving:
                # A kill came in between; which file has the layer, the names say.
                if self._is_own(layer):
                    self._put(slab, index, _EMPTY)
                    _freed(slab, index, blocks).give_back()
                    continue
                self._put(slab, index, _ENTRY.pack(size, blocks, flags & ~MOVING, mtime_ns))
            slab.live += flags & LIVE
        self._slabs[number] = slab
        if len(self._slabs) > self._bound:
            self._slabs.popitem(last=False)
        return slab

    def _made(self, number: int) -> Slab:
        """Returns a slab; makes its file.

        Raises:
            OSError: there is no space for it.
        """
        path = self.path(number)
        opened = self._make_file(path, 0)
        descriptor = Descriptor(opened)
        try:
            try:
                # A table that has its space never finds the disk full.
                os.posix_fallocate(opened, 0, _TABLE_END)
            except OSError as error:
                if error.errno not in _NO_ALLOCATION:
                    raise
                os.pwrite(opened, bytes(_TABLE_END), 0)
            os.pwrite(opened, _MAGIC, 0)
        except OSError:
            path.unlink()
            raise
        self._numbers.add(number)
        return self._add(number, descriptor)

    def _put(self, slab: Slab, index: int, entry: bytes) -> None:
        os.pwrite(slab.descriptor.number, entry, _TABLE_AT + index * 16)
        slab.table[index * 16 : index * 16 + 16] = entry

    # -- slots -------------------------------------------------------------------------------------

    def find(self, layer: int) -> Slot | None:
        """Returns what is known of a layer."""
        slab = self._slab(layer // SLOTS)
        if slab is None:
            return None
        values = _ENTRY.unpack_from(slab.table, layer % SLOTS * 16)
        return Slot(*values) if values[2] else None

    def create(self, layer: int, size: int) -> Descriptor | None:
        """Makes a layer of ``size`` zeros.

        Returns the file of a slab that is gone since this one gets more, to be let go of when no
        lock is held.

        Raises:
            FileExistsError: it is there.
            OSError: there is no space.
        """
        number = layer // SLOTS
        slab = self._slab(number)
        if slab is None:
            slab = self._made(number)
        newest, gone = self._newest, None
        if newest is None or number > newest.number:
            self._newest = slab
            if newest is not None:
                gone = self._drop(newest)
        index = layer % SLOTS
        if slab.table[index * 16 + 6]:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        now = time.clock_gettime_ns(_COARSE)
        self._put(slab, index, _ENTRY.pack(size, 0, LIVE, now))
        slab.live += 1
        return gone

    def file(self, layer: int) -> Descriptor:
        """Returns the file of a layer that has a slot."""
        slab = self._slab(layer // SLOTS)
        assert slab is not None
        return slab.descriptor

    def place(self, layer: int, offset: int) -> tuple[Descriptor, int]:
        """Returns the file of a layer that has a slot, and where in it a byte of the layer is."""
        return self.file(layer), _WINDOWS_AT + layer % SLOTS * WINDOW + offset

    def mark(self, layer: int, flag: int, *, on: bool = True) -> None:
        """Sets a flag of a layer that has a slot, or takes it away."""
        slab = self._slab(layer // SLOTS)
        assert slab is not None
        size, blocks, flags, mtime = _ENTRY.unpack_from(slab.table, layer % SLOTS * 16)
        marked = flags | flag if on else flags & ~flag
        if marked != flags:
            self._put(slab, layer % SLOTS, _ENTRY.pack(size, blocks, marked, mtime))

    def write(self, layer: int, offset: int, data: bytes | memoryview) -> tuple[int, int]:
        """Writes into the window of a layer; returns how much, and the bytes allocated for that.

        Raises:
            OSError: nothing was written.
        """
        slab = self._slab(layer // SLOTS)
        assert slab is not None
        index = layer % SLOTS
        size, blocks, flags, _ = _ENTRY.unpack_from(slab.table, index * 16)
        end = offset + len(data)
        first, last = offset // BLOCK, (end - 1) // BLOCK
        fresh = ((2 << last) - (1 << first)) & ~blocks
        low = offset
        at = _WINDOWS_AT + index * WINDOW
        file = slab.descriptor.number
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
        slab.table[index * 16 : index * 16 + 16] = entry
        return end - offset, fresh.bit_count() * BLOCK

    def _close_gap(self, file: int, at: int, size: int, blocks: int, start: int) -> int:
        """Makes what lies between the end and ``start`` zeros; returns from where on to write."""
        block = size // BLOCK
        if not size % BLOCK or not blocks >> block & 1:
            return start
        stop = (block + 1) * BLOCK
        if start < stop:
            return size
        _write_all(file, bytes(stop - size), at + size)
        return start

    def truncate(self, layer: int, size: int) -> Freed:
        """Sets the size of a layer, at most ``WINDOW``; returns the space to be given back.

        Nobody may write to the layer before that is done.

        Raises:
            OSError: it has the size it had.
        """
        slab = self._slab(layer // SLOTS)
        assert slab is not None
        index = layer % SLOTS
        before, blocks, flags, _ = _ENTRY.unpack_from(slab.table, index * 16)
        at = _WINDOWS_AT + index * WINDOW
        kept = blocks
        if size > before:
            low = self._close_gap(slab.descriptor.number, at, before, blocks, size)
            if low < size:
                _write_all(slab.descriptor.number, bytes(size - low), at + low)
        else:
            kept &= (1 << -(-size // BLOCK)) - 1
        now = time.clock_gettime_ns(_COARSE)
        self._put(slab, index, _ENTRY.pack(size, kept, flags, now))
        return _freed(slab, index, blocks & ~kept)

    def remove(self, layers: Sequence[int]) -> Freed:
        """Removes layers of one slab, in order, and the slab after the last one in it.

        Returns the space to be given back, before one of these layers is made again.
        """
        slab = self._slab(layers[0] // SLOTS)
        assert slab is not None
        table = bytearray(slab.table)
        taken: list[tuple[int, int]] = []
        for layer in layers:
            index = layer % SLOTS
            taken.append((index, _ENTRY.unpack_from(table, index * 16)[1]))
            table[index * 16 : index * 16 + 16] = _EMPTY
        low, high = taken[0][0] * 16, taken[-1][0] * 16 + 16
        os.pwrite(slab.descriptor.number, table[low:high], _TABLE_AT + low)
        slab.table = table
        slab.live -= len(layers)
        ranges: list[tuple[int, int]] = []
        if self._drop(slab) is None:
            for first, last in _runs(taken):
                ranges.append((_WINDOWS_AT + first * WINDOW, (last + 1 - first) * WINDOW))
        size = sum(blocks.bit_count() for _, blocks in taken) * BLOCK
        return Freed(size, slab.descriptor, ranges)

    def _drop(self, slab: Slab) -> Descriptor | None:
        """Removes a slab without layers, but for the one that gets more; returns it if it is gone.

        Its name goes at once, for one of its number may be made again; its space, when it is
        closed.
        """
        if slab.live or slab is self._newest:
            return None
        self.path(slab.number).unlink(missing_ok=True)
        self._numbers.discard(slab.number)
        self._slabs.pop(slab.number, None)
        return slab.descriptor

    def drop(self, number: int) -> Descriptor | None:
        """Removes a slab without layers, but for the one that gets more.

        Returns its file, to be let go of when no lock is held; None if nothing was removed.
        """
        slab = self._slab(number)
        return None if slab is None else self._drop(slab)

    def layers(self, number: int) -> list[int]:
        """Returns the layers of a slab."""
        slab = self._slab(number)
        if slab is None:
            return []
        table = slab.table
        return [number * SLOTS + i for i in range(SLOTS) if table[i * 16 + 6]]

    def numbers(self) -> list[int]:
        """Returns the slabs there are, ascending."""
        return sorted(self._numbers)

    def close(self) -> None:
        """Closes all files; calls under way still finish."""
        self._slabs.clear()
        self._newest = None
        self._numbers.clear()


def _freed(slab: Slab, index: int, blocks: int) -> Freed:
    """Returns the space of blocks of a slot."""
    ranges: list[tuple[int, int]] = []
    if blocks:
        first = (blocks & -blocks).bit_length() - 1
        at = _WINDOWS_AT + index * WINDOW + first * BLOCK
        ranges.append((at, (blocks.bit_length() - first) * BLOCK))
    return Freed(blocks.bit_count() * BLOCK, slab.descriptor, ranges)


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


def _number(name: str) -> int:
    try:
        number = int(name, 16)
    except ValueError:
        return -1
    return number if name == f"{number:014x}" else -1


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


def _write_all(file: int, data: bytes, offset: int) -> None:
    if write_most(file, data, offset) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
