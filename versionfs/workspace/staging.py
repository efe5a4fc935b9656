"""Staging files: the bytes written to a workspace's files, each layer a sparse file of its own.

Layer ``0x12ab`` is ``ab/00000000000012ab``: as many bytes as the file it belongs to, the bytes at
the offsets they have there, holes where nothing was written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from versionfs.workspace.database import sync_folder

_DESCRIPTORS: Final = 256
_BLOCK: Final = 512
_LAYER_NAME: Final = re.compile("[0-9a-f]{16}")
_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})


class LayerStatus(NamedTuple):
    """What a layer's file says of itself: bytes, bytes allocated on the disk, its mtime."""

    size: int
    allocated: int
    mtime_ns: int


class _Descriptor:
    """Closes itself when nobody uses it any more, so none is closed under a running call."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


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
            descriptors: how many files are kept open.
            quota_bytes: how much of the disk all layers may take; None: no bound.
        """
        self.folder = folder
        self._bound = descriptors
        self._quota = quota_bytes
        self._open: OrderedDict[int, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()
        self._names_lock = threading.Lock()
        # A name is on the disk only after its folder was synced: not known of those found here.
        self._unsynced = [True] * 256
        self._top_unsynced = True
        self._closed = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._used = 0
        if quota_bytes is not None:
            self._used = sum(self.status(layer).allocated for layer in self.layers())

    def path(self, layer: int) -> Path:
        """Returns where a layer's file is."""
        return self.folder / f"{layer & 0xFF:02x}" / f"{layer:016x}"

    # -- descriptors -------------------------------------------------------------------------------

    def _get(self, layer: int) -> _Descriptor:
        with self._lock:
            found = self._open.get(layer)
            if found is not None:
                self._open.move_to_end(layer)
                return found
            return self._add(layer, os.O_RDWR)

    def _add(self, layer: int, flags: int) -> _Descriptor:
        if self._closed:
            raise OSError(errno.EBADF, "the staging folder is closed")
        path = self.path(layer)
        while True:
            try:
                number = os.open(path, flags | os.O_CLOEXEC, 0o600)
                break
            except OSError as error:
                if error.errno not in _TOO_MANY or not self._open:
                    raise
                self._open.popitem(last=False)
        found = _Descriptor(number)
        self._open[layer] = found
        if len(self._open) > self._bound:
            self._open.popitem(last=False)
        return found

    # -- the life of a layer -----------------------------------------------------------------------

    def create(self, layer: int, size: int = 0) -> None:
        """Makes a layer of ``size`` zeros, which take no space.

        Raises:
            FileExistsError: it is there already.
            OSError: no space, or the disk failed; there is no such layer.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        with self._lock:
            try:
                found = self._add(layer, flags)
            except FileNotFoundError:
                self.path(layer).parent.mkdir(mode=0o700, exist_ok=True)
                self._top_unsynced = True
                found = self._add(layer, flags)
            self._unsynced[layer & 0xFF] = True
        if size:
            try:
                os.ftruncate(found.number, size)
            except OSError:
                self.remove(layer)
                raise

    def remove(self, layer: int) -> None:
        """Removes a layer; no error when there is none. Calls under way on it still finish."""
        path = self.path(layer)
        with contextlib.suppress(FileNotFoundError):
            freed = 0 if self._quota is None else self.status(layer).allocated
            path.unlink()
            self._charge(-freed)
        with self._lock:  # Last: else a reader could open it again just before.
            self._open.pop(layer, None)
            if path != self.path(layer):  # The folder was moved meanwhile.
                self.path(layer).unlink(missing_ok=True)

    def layers(self) -> Iterator[int]:
        """Yields every layer there is, in no order; leaves out whatever else lies there."""
        for folder in sorted(self.folder.iterdir()):
            if len(folder.name) != 2 or not folder.is_dir():
                continue
            for file in os.scandir(folder):
                try:
                    layer = int(file.name, 16)
                except ValueError:
                    continue
                if self.path(layer) == folder / file.name:
                    yield layer

    def highest(self) -> int:
        """Returns the highest layer there is; 0 if there is none."""
        names = (name for folder in self.folder.iterdir() for name in _names(folder))
        return max((int(name, 16) for name in names), default=0)

    # -- bytes -------------------------------------------------------------------------------------

    def read(self, layer: int, offset: int, size: int) -> bytes:
        """Returns up to ``size`` bytes at ``offset``: fewer only at the end of the layer."""
        found = self._get(layer)
        data = os.pread(found.number, size, offset)
        if len(data) < size:
            parts = [data]
            missing = size - len(data)
            while data and missing:
                data = os.pread(found.number, missing, offset + size - missing)
                parts.append(data)
                missing -= len(data)
            data = b"".join(parts)
        return data

    def write(self, layer: int, offset: int, data: bytes | memoryview) -> int:
        """Writes; the layer grows as needed. Returns how much was written: all, or what fitted.

        Raises:
            OSError: nothing was written; EDQUOT: the layers may not take more.
        """
        found = self._get(layer)
        if self._quota is None:
            return self._write(found, offset, data)
        self._check_quota(layer, offset, len(data))
        before = os.fstat(found.number).st_blocks
        try:
            return self._write(found, offset, data)
        finally:
            self._charge((os.fstat(found.number).st_blocks - before) * _BLOCK)

    @staticmethod
    def _write(found: _Descriptor, offset: int, data: bytes | memoryview) -> int:
        done = os.pwrite(found.number, data, offset)
        if done < len(data):
            view = memoryview(data)
            try:
                while done < len(data):
                    done += os.pwrite(found.number, view[done:], offset + done)
            except OSError:
                if not done:
                    raise
        return done

    def truncate(self, layer: int, size: int) -> None:
        """Makes a layer shorter, or longer by zeros that take no space.

        Raises:
            OSError: it has the size it had.
        """
        found = self._get(layer)
        if self._quota is None:
            os.ftruncate(found.number, size)
            return
        before = os.fstat(found.number).st_blocks
        os.ftruncate(found.number, size)
        self._charge((os.fstat(found.number).st_blocks - before) * _BLOCK)

    def _check_quota(self, layer: int, offset: int, size: int) -> None:
        """Raises EDQUOT if writing there takes more of the disk than there may be."""
        assert self._quota is not None
        if self._used + size <= self._quota:
            return
        there = sum(end - start for start, end in self.data_ranges(layer, offset, offset + size))
        if there < size and self._used + size - there > self._quota:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def _charge(self, taken: int) -> None:
        with self._lock:
            self._used = max(self._used + taken, 0)

    def status(self, layer: int) -> LayerStatus:
        """Returns size, allocated bytes and mtime."""
        with self._lock:
            found = self._open.get(layer)
        stat = os.stat(self.path(layer)) if found is None else os.fstat(found.number)
        return LayerStatus(stat.st_size, stat.st_blocks * _BLOCK, stat.st_mtime_ns)

    def data_ranges(self, layer: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yields the parts of ``[start, end)`` that may be other than zeros, ascending.

        The layer must not be written meanwhile.
        """
        found = self._get(layer)
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
        with self._names_lock, self._lock:
            yield
            self.folder = folder

    # -- the disk ----------------------------------------------------------------------------------

    def sync(self, layer: int) -> None:
        """Writes a layer's bytes, size and name to the disk. Blocks: for threads.

        Raises:
            OSError: the disk failed; it may have lost what was written since the last success.
        """
        found = self._get(layer)
        os.fdatasync(found.number)
        bucket = layer & 0xFF
        with self._names_lock:  # Who finds a name synced must not return before it is.
            if self._unsynced[bucket]:
                # Said before it is done: a name that comes meanwhile is not synced by this.
                self._unsynced[bucket] = False
                try:
                    sync_folder(self.folder / f"{bucket:02x}")
                except BaseException:
                    self._unsynced[bucket] = True
                    raise
            if self._top_unsynced:
                self._top_unsynced = False
                try:
                    sync_folder(self.folder)
                    sync_folder(self.folder.parent)
                except BaseException:
                    self._top_unsynced = True
                    raise

    def close(self) -> None:
        """Closes all files; calls under way still finish. Idempotent."""
        with self._lock:
            self._closed = True
            self._open.clear()


def _names(folder: Path) -> list[str]:
    """Returns the names in a folder that may be those of layers: the highest one only."""
    if len(folder.name) != 2 or not folder.is_dir():
        return []
    return sorted(filter(_LAYER_NAME.fullmatch, os.listdir(folder)))[-1:]
