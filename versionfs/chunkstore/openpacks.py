"""Reads packs of a local store through descriptors that stay open.

The kernel reads ahead of who reads a pack in order, and costs less than half as much as when it is
asked to, with posix_fadvise: it takes large pages then.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from versionfs.chunkstore.readaround import ReadAround
from versionfs.chunkstore.source import DirectSource, PackRange, Scan
from versionfs.objectstore import LocalStore
from versionfs.pack import pack_key
from versionfs.types import PackId

_OPEN: Final = 64
"""Packs kept open: some gigabytes of data."""
_NEAR_BYTES: Final = 2 * 1024 * 1024
"""A read that begins so near to where the last one ended follows it, maybe in another thread."""


class _OpenPack:
    """An open pack; closes itself when nobody reads it any more."""

    __slots__ = ("descriptor", "end")

    def __init__(self, path: os.PathLike[str]) -> None:
        self.end = 0  # of what was read last
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self.descriptor)


class OpenPackSource(DirectSource):
    """Keeps the packs that were read last open. Packs never change, so that is as good as a look.

    A pack that turns out to be damaged is opened anew: somebody may have put a whole one in place.
    """

    def __init__(self, objects: LocalStore) -> None:
        super().__init__(objects)
        self._store = objects
        self._around = ReadAround()
        self._packs: OrderedDict[bytes, _OpenPack] = OrderedDict()
        self._lock = threading.Lock()
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._closed = False

    def read(
        self,
        pack: PackId,
        start: int,
        length: int,
        scan: Scan = Scan.NONE,  # noqa: ARG002
    ) -> bytes:
        """See ``PackSource.read``."""
        try:
            found = self._opened(pack)
            began = time.perf_counter()
            data = os.pread(found.descriptor, length, start)
            if len(data) == length:
                if not -_NEAR_BYTES < start - found.end < _NEAR_BYTES:
                    self._read_around(pack, start, length, time.perf_counter() - began)
                found.end = start + length
                return data
        except OSError:
            pass
        # Whatever is wrong, this finds out, and says it.
        self.forget(pack)
        return self._store.get(pack_key(pack), start, length)

    def prefetch(
        self,
        ranges: Iterable[PackRange],
        token: object,  # noqa: ARG002
        *,
        scan: Scan = Scan.NONE,  # noqa: ARG002
    ) -> None:
        """See ``PackSource.prefetch``: the kernel has the bytes then, nobody else."""
        for part in ranges:
            self._submit("ahead", self._read_ahead, part)

    def _read_around(self, pack: PackId, start: int, length: int, seconds: float) -> None:
        """Takes notice of a read that follows no other."""
        part = self._around.note(pack, start, length, seconds)
        if part is not None and not self._submit("around", self._read_window, part):
            self._around.done(part, None)

    def _submit(self, name: str, work: Callable[[PackRange], object], part: PackRange) -> bool:
        """Has the thread of that name do it; False if there can be none."""
        with self._lock, suppress(RuntimeError):  # There can be no more threads.
            if not self._closed:
                if name not in self._threads:
                    self._threads[name] = ThreadPoolExecutor(1, f"versionfs-{name}")
                self._threads[name].submit(work, part)
                return True
        return False

    def _read_window(self, part: PackRange) -> None:
        began = time.perf_counter()
        seconds = None
        try:
            if self._read_ahead(part):
                seconds = time.perf_counter() - began
        finally:
            self._around.done(part, seconds)

    def _read_ahead(self, part: PackRange) -> int:
        """Reads bytes to nowhere: they are not copied, and come as to any who reads in order."""
        with suppress(OSError), open(os.devnull, "wb", buffering=0) as nowhere:
            found = self._opened(part.pack)  # It is open for as long as it is referred to.
            return os.sendfile(nowhere.fileno(), found.descriptor, part.start, part.length)
        return 0

    def _opened(self, pack: PackId) -> _OpenPack:
        """Returns a pack that is open; opens it if it is not."""
        with self._lock:
            found = self._packs.get(pack)
        return found or self._open(pack)

    def _open(self, pack: PackId) -> _OpenPack:
        found = _OpenPack(self._store.local_path(pack_key(pack)))
        with self._lock:
            if not self._closed:
                self._packs[pack] = found
            if len(self._packs) > _OPEN:
                self._packs.popitem(last=False)
        return found

    def forget(self, pack: PackId) -> None:
        """Closes a pack, so that the next read opens what has its name then."""
        with self._lock:
            self._packs.pop(pack, None)

    def close(self) -> None:
        """Closes all packs, and reads nothing ahead any more; reads still finish. Idempotent."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, {}
        for each in threads.values():
            each.shutdown(wait=False, cancel_futures=True)
        for each in threads.values():
            each.shutdown()
        with self._lock:
            self._packs.clear()
