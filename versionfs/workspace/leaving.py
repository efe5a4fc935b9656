"""Layers that become too large for their slab, and leave it for files of their own.

What a layer has is copied beside where its own file will be, and renamed when it is whole; only
then it leaves its slab. After a kill in between, the names say which of the two files has it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Final

from versionfs.objectstore import WouldBlock, may_block
from versionfs.workspace.descriptor import Descriptor, write_most
from versionfs.workspace.ownfiles import OwnFiles
from versionfs.workspace.slab import MOVING, SYNCED, WINDOW, Freed, Slot, read_window
from versionfs.workspace.slabs import Slabs

_BLOCK: Final = 512


class Leaving:
    """Gives layers files of their own. Thread-safe."""

    def __init__(
        self,
        lock: threading.Lock,
        slabs: Slabs,
        own: OwnFiles,
        leaving: set[int],
        charge: Callable[[int], None],
    ) -> None:
        """Begins.

        Args:
            lock: guards the slabs and the files.
            slabs: where layers come from.
            own: where they go.
            leaving: kept up to date: those that a thread moves now. Nobody changes them meanwhile.
            charge: told how many bytes more of the disk are taken; the lock is held.
        """
        self._lock = lock
        self._slabs = slabs
        self._own = own
        self._leaving = leaving
        self._left = threading.Condition(lock)
        self._charge = charge

    def wait(self, layers: Collection[int]) -> None:
        """Waits until none of some layers is on its way. The lock must be held."""
        while self._leaving.intersection(layers):
            self._left.wait()

    def stays(self, layer: int, size: int) -> bool:
        """Whether a layer is in a slab and can have ``size`` bytes there; else it leaves first.

        The lock must be held; it is given up while one leaves.

        Raises:
            WouldBlock: a program has synced it, so its new file must be on the disk first.
            OSError: there is no space for a file of its own.
        """
        while (slot := self._slabs.find(layer)) is not None:
            is_leaving = bool(self._leaving) and layer in self._leaving
            if size <= WINDOW and not is_leaving:
                return True
            if not slot.flags & SYNCED and not is_leaving:
                try:
                    copy = self._copied(layer, slot)
                    os.rename(self._own.part(layer), self._own.path(layer))
                    freed = self._has_left(layer, slot, copy)
                except OSError:
                    self._has_stayed(layer)
                    raise
                with self._unlocked():
                    freed.give_back()
                    del freed
                return False
            if not may_block():
                raise WouldBlock(functools.partial(self._leave, layer))
            with self._unlocked():
                self._leave(layer)
        return False

    @contextlib.contextmanager
    def _unlocked(self) -> Iterator[None]:
        """Gives the lock, which must be held, up for a while."""
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

    def _leave(self, layer: int) -> None:
        """Gives a layer that was synced a file of its own, which is on the disk then. Blocks."""
        with self._own.names_lock:
            with self._lock:
                slot = self._slabs.find(layer)
                if slot is None:
                    return
                self._leaving.add(layer)
            try:
                with self._lock:
                    copy = self._copied(layer, slot)
                os.fdatasync(copy.number)
                os.rename(self._own.part(layer), self._own.path(layer))
                self._own.sync_names(f"{layer & 0xFF:02x}")
                with self._lock:
                    freed = self._has_left(layer, slot, copy)
                freed.give_back()
            except OSError:
                with self._lock:
                    self._has_stayed(layer)
                raise
            finally:
                with self._lock:
                    self._leaving.discard(layer)
                    self._left.notify_all()

    def _copied(self, layer: int, slot: Slot) -> Descriptor:
        """Copies a layer from its slab to a file beside where its own will be."""
        self._slabs.mark(layer, MOVING)
        path = self._own.part(layer)
        copy = Descriptor(self._own.make(path, os.O_TRUNC))
        file, at = self._slabs.place(layer, 0)
        for start, end in slot.ranges(0, slot.size):
            data = read_window(file, at, slot, start, end)
            if write_most(copy.number, data, start) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(copy.number, slot.size)
        os.utime(copy.number, ns=(slot.mtime_ns, slot.mtime_ns))
        return copy

    def _has_stayed(self, layer: int) -> None:
        """Undoes a move that failed: else a file that is behind the slab could be taken for it."""
        if self._slabs.find(layer) is None:
            return
        self._own.forget(layer)
        for path in (self._own.part(layer), self._own.path(layer)):
            path.unlink(missing_ok=True)
        self._slabs.mark(layer, MOVING, on=False)

    def _has_left(self, layer: int, slot: Slot, copy: Descriptor) -> Freed:
        freed = self._slabs.remove([layer])
        self._own.keep(layer, copy)
        taken = os.fstat(copy.number).st_blocks * _BLOCK
        self._charge(taken - slot.allocated)
        return freed
