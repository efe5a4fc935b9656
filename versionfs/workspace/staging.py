"""Staging files: the bytes written to a workspace's files, in layers.

A layer has as many bytes as the file it belongs to, the bytes at the offsets they have there, holes
where nothing was written. A small one shares a file with others (``slabs.py``); one that is, or
becomes, larger than 64 KiB has a sparse file of its own (``ownfiles.py``, ``leaving.py``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from versionfs.syscalls import pread_all
from versionfs.workspace.descriptor import Descriptor, write_most
from versionfs.workspace.leaving import Leaving
from versionfs.workspace.ownfiles import OwnFiles
from versionfs.workspace.slab import SLOTS, SYNCED, WINDOW, read_window
from versionfs.workspace.slabs import Slabs

_DESCRIPTORS: Final = 256
_BLOCK: Final = 512


class LayerStatus(NamedTuple):
    """What a layer says of itself: bytes, bytes allocated on the disk, its mtime."""

    size: int
    allocated: int
    mtime_ns: int


class Staging:
    """The layers of a workspace, in a folder of their own. Thread-safe.

    Every method that names a layer raises ``FileNotFoundError`` when it does not exist.
    """

    def __init__(
        self, folder: Path, descriptors: int = _DESCRIPTORS, quota_bytes: int | None = None
    ) -> None:
        """Takes a folder, which comes into being.

        Args:
            folder: where the layers are.
            descriptors: how many files are kept open; of slabs an eighth of that besides.
            quota_bytes: how much of the disk all layers may take; None: no bound.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._quota = quota_bytes
        self._lock = threading.Lock()
        own = self._own = OwnFiles(folder, descriptors)
        leaving: set[int] = set()
        self._slabs = Slabs(
            folder, max(descriptors // 8, 1), own.open, own.make, own.has_whole, leaving
        )
        self._leaving = Leaving(self._lock, self._slabs, own, leaving, self._charge)
        self._failed: set[int] = set()
        """Layers of which a failed sync may have lost bytes: the kernel says that only once."""
        self._used = 0
        if quota_bytes is not None:
            self._used = sum(self.status(layer).allocated for layer in self.layers())

    @property
    def folder(self) -> Path:
        """Where the layers are."""
        return self._own.folder

    def path(self, layer: int) -> Path:
        """Returns the file that a layer is in."""
        with self._lock:
            if self._slabs.find(layer) is not None:
                return self._slabs.path(layer // SLOTS)
        return self._own.path(layer)

    def own_path(self, layer: int) -> Path | None:
        """Returns the file that is a layer, byte for byte; None if it shares one."""
        with self._lock:
            return None if self._slabs.find(layer) is not None else self._own.path(layer)

    # -- the life of a layer -----------------------------------------------------------------------

    def create(self, layer: int, size: int = 0) -> None:
        """Makes a layer of ``size`` zeros, which take no space.

        Raises:
            FileExistsError: it is there already.
            OSError: no space, or the disk failed; there is no such layer.
        """
        own = self._own
        if size <= WINDOW:
            with self._lock:
                own.check_open()
                gone = self._slabs.create(layer, size)
            del gone  # As in ``remove_all``.
            return
        with self._lock:
            if self._slabs.find(layer) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            found = own.keep(layer, Descriptor(own.make(own.path(layer), os.O_EXCL)))
        try:
            os.ftruncate(found.number, size)
        except OSError:
            self.remove(layer)
            raise

    def remove(self, layer: int) -> None:
        """Removes a layer; no error when there is none. Calls under way on it still finish."""
        self.remove_all([layer])

    def remove_all(self, layers: Iterable[int]) -> None:
        """Removes layers, as :meth:`remove`; those that share a slab at once."""
        for _, group in groupby(sorted(set(layers)), key=lambda layer: layer // SLOTS):
            some = list(group)
            with self._lock:
                self._leaving.wait(some)
                shared = [layer for layer in some if self._slabs.find(layer) is not None]
                if shared:
                    freed = self._slabs.remove(shared)
                    self._failed.difference_update(shared)
                    self._charge(-freed.size)
            if shared:
                freed.give_back()
                del freed  # A slab that is gone is closed here, and not under the lock.
            if len(shared) < len(some):
                for layer in set(some).difference(shared):
                    self._remove_own(layer)

    def _remove_own(self, layer: int) -> None:
        own = self._own
        with self._lock:
            path = own.path(layer)
        with contextlib.suppress(FileNotFoundError):
            freed = 0 if self._quota is None else self.status(layer).allocated
            path.unlink()
            with self._lock:
                self._charge(-freed)
        with self._lock:  # Last: else a reader could open it again just before.
            gone = own.forget(layer)
            self._failed.discard(layer)
            if path != own.path(layer):  # The folder was moved meanwhile.
                own.path(layer).unlink(missing_ok=True)
        del gone  # As in ``remove_all``.

    def layers(self) -> Iterator[int]:
        """Yields every layer there is, in no order; leaves out whatever else lies there."""
        with self._lock:
            slabs = self._slabs.numbers()
        for number in slabs:
            with self._lock:
                found = self._slabs.layers(number)
                gone = self._slabs.drop(number)
            del gone  # As in ``remove_all``.
            yield from found
        yield from self._own.layers()

    def highest(self) -> int:
        """Returns the highest layer there is; 0 if there is none."""
        highest = self._own.highest()
        with self._lock:
            for number in reversed(self._slabs.numbers()):
                layers = self._slabs.layers(number)
                if layers:
                    return max(highest, layers[-1])
        return highest

    # -- bytes -------------------------------------------------------------------------------------

    def read(self, layer: int, offset: int, size: int) -> bytes:
        """Returns up to ``size`` bytes at ``offset``: fewer only at the end of the layer."""
        while True:
            with self._lock:
                slot = self._slabs.find(layer)
                if slot is None:
                    found = self._own.get(layer)
                    break
                file, at = self._slabs.place(layer, 0)
            end = min(offset + size, slot.size)
            if offset >= end:
                return b""
            data = read_window(file, at, slot, offset, end)
            with self._lock:
                if self._slabs.find(layer) is not None:
                    return data
            # It has left meanwhile: what it had may have been removed under this call.
        return pread_all(found.number, size, offset)

    def small(self, layer: int) -> tuple[bytes, int] | None:
        """Returns the bytes of a small layer, and how many it takes on disk; None: ask for each.

        Nobody may write to it meanwhile.

        Raises:
            OSError: it cannot be read.
        """
        with self._lock:
            slot = self._slabs.find(layer)
            if slot is None:
                return None
            file, at = self._slabs.place(layer, 0)
        data = read_window(file, at, slot, 0, slot.size)
        with self._lock:
            if self._slabs.find(layer) is None:
                return None  # It has left meanwhile, and what it had may have been removed.
        return data, slot.allocated

    def write(self, layer: int, offset: int, data: bytes | memoryview) -> int:
        """Writes; the layer grows as needed. Returns how much was written: all, or what fitted.

        Raises:
            WouldBlock: what it has must get to the disk first; nothing was written.
            OSError: nothing was written; EDQUOT: the layers may not take more.
        """
        if self._quota is not None:
            self._check_quota(layer, offset, len(data))
        with self._lock:
            if self._leaving.stays(layer, offset + len(data)):
                done, taken = self._slabs.write(layer, offset, data)
                self._used += taken
                return done
            found = self._own.get(layer)
        if self._quota is None:
            return write_most(found.number, data, offset)
        before = os.fstat(found.number).st_blocks
        try:
            return write_most(found.number, data, offset)
        finally:
            taken = (os.fstat(found.number).st_blocks - before) * _BLOCK
            with self._lock:
                self._charge(taken)

    def truncate(self, layer: int, size: int) -> None:
        """Makes a layer shorter, or longer by zeros that take no space.

        No other thread may write to it meanwhile.

        Raises:
            WouldBlock: what it has must get to the disk first; nothing has changed.
            OSError: it has the size it had.
        """
        with self._lock:
            found = freed = None
            if self._leaving.stays(layer, size):
                freed = self._slabs.truncate(layer, size)
                self._used -= freed.size
            else:
                found = self._own.get(layer)
        if freed is not None:
            freed.give_back()
        if found is not None:
            before = 0 if self._quota is None else os.fstat(found.number).st_blocks
            os.ftruncate(found.number, size)
            if self._quota is not None:
                taken = (os.fstat(found.number).st_blocks - before) * _BLOCK
                with self._lock:
                    self._charge(taken)
        if not size and self._failed:
            with self._lock:
                self._failed.discard(layer)

    def _check_quota(self, layer: int, offset: int, size: int) -> None:
        """Raises EDQUOT if writing there takes more of the disk than there may be."""
        assert self._quota is not None
        if self._used + size <= self._quota:
            return
        there = sum(end - start for start, end in self.data_ranges(layer, offset, offset + size))
        if there < size and self._used + size - there > self._quota:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def _charge(self, taken: int) -> None:
        """Notes that the layers take more bytes of the disk. The lock must be held."""
        self._used = max(self._used + taken, 0)

    def status(self, layer: int) -> LayerStatus:
        """Returns size, allocated bytes and mtime."""
        with self._lock:
            slot = self._slabs.find(layer)
            if slot is not None:
                return LayerStatus(slot.size, slot.allocated, slot.mtime_ns)
            stat = self._own.status(layer)
        return LayerStatus(stat.st_size, stat.st_blocks * _BLOCK, stat.st_mtime_ns)

    def data_ranges(self, layer: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yields the parts of ``[start, end)`` that may be other than zeros, ascending.

        The layer must not be written meanwhile.
        """
        with self._lock:
            slot = self._slabs.find(layer)
            if slot is None:
                found = self._own.get(layer)
        if slot is not None:
            yield from slot.ranges(start, end)
            return
        while start < end:
            try:
                begin = os.lseek(found.number, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            if begin >= end:
                return
            stop = min(os.lseek(found.number, begin, os.SEEK_HOLE), end)
            yield max(begin, start), stop
            start = stop

    # -- moving ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def moving(self, folder: Path) -> Iterator[None]:
        """Holds all that goes by path while the caller renames; then goes on in another folder."""
        with self._own.names_lock, self._lock:
            yield
            self._own.folder = folder
            self._slabs.staging = folder

    # -- the disk ----------------------------------------------------------------------------------

    def sync(self, layer: int) -> None:
        """Writes a layer's bytes, size and name to the disk. Blocks: for threads.

        Those who sync one file at the same time share one write to the disk.

        Raises:
            OSError: the disk failed; it may have lost what was written since the last success, of
                all layers in the file. Each of them says so, until it is emptied or removed.
        """
        with self._lock:
            is_shared = self._slabs.find(layer) is not None
            if is_shared:
                # From now on it leaves the slab only for a file that is on the disk.
                self._slabs.mark(layer, SYNCED)
                found = self._slabs.file(layer)
                name = self._slabs.path(0).parent.name
            else:
                found = self._own.get(layer)
                name = f"{layer & 0xFF:02x}"
            found.asked += 1
            ticket = found.asked
        with found.syncing:
            if found.synced < ticket:
                asked = found.asked
                try:
                    os.fdatasync(found.number)
                except OSError:
                    with self._lock:
                        self._failed.add(layer)
                        if is_shared:
                            self._failed.update(self._slabs.layers(layer // SLOTS))
                        if not self._exists(layer):  # It was removed meanwhile.
                            self._failed.discard(layer)
                    raise
                found.synced = asked
        if self.has_failed(layer):
            raise OSError(errno.EIO, "what was written may not be on the disk")
        with self._own.names_lock:
            self._own.sync_names(name)

    def _exists(self, layer: int) -> bool:
        """Whether there is a layer. The lock must be held."""
        if self._slabs.find(layer) is None:
            try:
                self._own.status(layer)
            except FileNotFoundError:
                return False
        return True

    def has_failed(self, layer: int) -> bool:
        """Whether the disk may have lost bytes of a layer; until it is emptied or removed."""
        with self._lock:
            return layer in self._failed

    def close(self) -> None:
        """Closes all files; calls under way still finish. Idempotent."""
        with self._lock:
            self._own.close()
            self._slabs.close()
