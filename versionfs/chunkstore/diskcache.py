"""Bytes of packs on the local disk: shared by all processes of a user, bounded, safe to lose.

``folder/<2 digits>/<pack id>`` is a sparse file: a head of 128 KiB (64 bytes of magic, version and
granule size, then one byte a granule: 1 if it is there), then the pack itself. Only the first page
of the head is ever allocated, for packs below 252 MiB. A granule is 64 KiB; only the last of a pack
may be shorter. Its bytes are written before the byte that says so, hence a process may be killed at
any time; after a power cut a granule may be zeros, which whoever reads verifies anyway.

``folder/usage`` holds the bytes in use and is locked by flock(2) while anything is written or
removed, so that the bound holds for any number of processes. Readers take no lock: they open the
file by name for each read, and what they have open stays readable when it is evicted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from versionfs.chunkstore.direct import DirectWriter
from versionfs.types import PackId

log = logging.getLogger(__name__)

GRANULE_BYTES: Final = 64 * 1024
_HEAD: Final = struct.Struct("<8sHxxI48x").pack(b"VFSCACHE", 1, GRANULE_BYTES)
_HEAD_BYTES: Final = len(_HEAD)
_DATA_AT: Final = 128 * 1024
_GRANULES: Final = _DATA_AT - _HEAD_BYTES
_FILE_BYTES: Final = 8192
"""What a file takes beside its granules: a page of its head, and one of the file system's map."""
_USAGE: Final = struct.Struct("<8sQ")
_USAGE_MAGIC: Final = b"VFSUSAGE"
_KEPT: Final = 0.9
"""Eviction goes on until this part of the bound is in use: it looks at every file."""
_LARGE_GRANULES: Final = 16
_BEHIND: Final = 4
"""Threads that wait to write: from so many on the disk is too slow to be waited for."""
_TOUCH_SECONDS: Final = 5.0
_LOCK_SECONDS: Final = 2.0
"""How long a writer waits for the others; then what it has is not kept."""
_LOCK_PAUSE_SECONDS: Final = 0.005
_TOUCHED_BOUND: Final = 10_000
_PAUSE_SECONDS: Final = 30.0
"""How long nothing is written after a write failed (a full disk, say)."""

_DEFAULT_BYTES: Final = 20 * 1024**3
_DEFAULT_PART: Final = 10


def default_cache_bytes(folder: Path) -> int:
    """Returns a cache's bound: 20 GiB or a tenth of the folder's disk, whichever is less."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            return min(_DEFAULT_BYTES, shutil.disk_usage(place).total // _DEFAULT_PART)
    return _DEFAULT_BYTES


class CacheUsage(NamedTuple):
    """Bytes on disk that a cache takes, and may take at most."""

    held_bytes: int
    bound_bytes: int


class DiskCache:
    """Bytes of packs in a folder, at most ``bound_bytes`` of them. Thread- and process-safe.

    Nothing here raises for what happens to the disk: what cannot be read is not there, and what
    cannot be written is left out, with one warning.
    """

    def __init__(self, folder: Path, bound_bytes: int) -> None:
        self._folder = folder
        self._bound = bound_bytes
        self._touched: dict[bytes, float] = {}
        self._pause_until = 0.0
        self._warned = False
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._direct = DirectWriter()
        self._writers = 0

    @property
    def is_writable(self) -> bool:
        """Whether the last write did not fail, or that was a while ago."""
        return time.monotonic() >= self._pause_until

    def read(self, pack: PackId, start: int, length: int) -> bytes | None:
        """Returns the bytes ``[start, start + length)`` of a pack, or None if any is not here."""
        first, last = start // GRANULE_BYTES, (start + max(length, 1) - 1) // GRANULE_BYTES
        with self._opened(pack) as descriptor:
            if descriptor < 0:
                return None
            here = self._presence(descriptor, pack, first, last)
            if here.count(1) != last - first + 1:
                return None
            data = _pread(descriptor, length, _DATA_AT + start)
            if len(data) != length:
                self._damaged(pack)
                return None
            self._touch(descriptor, pack)
            return data

    def granules(self, pack: PackId, first: int, last: int) -> dict[int, bytes]:
        """Returns those of the granules ``first`` to ``last`` that are here, by number."""
        found: dict[int, bytes] = {}
        with self._opened(pack) as descriptor:
            if descriptor < 0:
                return found
            here = self._presence(descriptor, pack, first, last)
            for number, present in enumerate(here, first):
                if present == 1:
                    data = _pread(descriptor, GRANULE_BYTES, _DATA_AT + number * GRANULE_BYTES)
                    if not data:
                        self._damaged(pack)
                        return found
                    found[number] = data
            if found:
                self._touch(descriptor, pack)
        return found

    def missing(self, pack: PackId, first: int, last: int) -> list[int]:
        """Returns those of the granules ``first`` to ``last`` that are not here."""
        with self._opened(pack) as descriptor:
            here = b"" if descriptor < 0 else self._presence(descriptor, pack, first, last)
        here = here.ljust(last - first + 1, b"\0")
        return [number for number, present in enumerate(here, first) if present != 1]

    def write(self, pack: PackId, start: int, data: bytes | memoryview) -> None:
        """Keeps bytes of a pack: whole granules, of which only the pack's last may be shorter."""
        first, rest = divmod(start, GRANULE_BYTES)
        count = -(-len(data) // GRANULE_BYTES)
        if rest:
            raise ValueError(f"no granule begins at {start}")
        if not count or first + count > _GRANULES or not self.is_writable:
            return
        with self._lock:
            self._writers += 1
        try:
            with self._locked() as usage:
                self._write(usage, pack, first, count, memoryview(data))
        except OSError as error:
            self._failed(error)
        finally:
            with self._lock:
                self._writers -= 1

    def adopt(self, pack: PackId, path: Path) -> None:
        """Keeps a complete pack that is in a file, which is left alone."""
        try:
            with path.open("rb", buffering=0) as file:
                at = 0
                while data := file.read(64 * GRANULE_BYTES):
                    self.write(pack, at, data)
                    at += len(data)
        except OSError as error:
            self._failed(error)

    def forget(self, pack: PackId) -> None:
        """Removes all that is here of a pack."""
        with contextlib.suppress(OSError), self._locked() as usage:
            self._path(pack).unlink()
            self._count(usage)

    def usage(self) -> CacheUsage:
        """Returns how much is in use; looks at every file if that is not written down."""
        try:
            with self._locked() as usage:
                return CacheUsage(self._held(usage), self._bound)
        except OSError:
            return CacheUsage(0, self._bound)

    # -- one pack's file -------------------------------------------------------------------------

    def _path(self, pack: PackId) -> Path:
        digits = pack.hex()
        return self._folder / digits[:2] / digits

    @contextlib.contextmanager
    def _opened(self, pack: PackId) -> Iterator[int]:
        """Opens a pack's file for reading; -1 if there is none."""
        digits = pack.hex()
        try:
            path = f"{self._folder}/{digits[:2]}/{digits}"
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            yield -1
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _presence(self, descriptor: int, pack: PackId, first: int, last: int) -> bytes:
        """Returns one byte for each granule, or for fewer; removes a file with another head."""
        if first >= _GRANULES:
            return b""
        head = _pread(descriptor, min(_HEAD_BYTES + last + 1, _DATA_AT), 0)
        if not head.startswith(_HEAD):
            # An empty one is being made by another process.
            if head:
                self._damaged(pack)
            return b""
        return head[_HEAD_BYTES + first :]

    def _damaged(self, pack: PackId) -> None:
        log.warning("a file of the cache is damaged, removing it: %s", self._path(pack))
        self.forget(pack)

    def _touch(self, descriptor: int, pack: PackId) -> None:
        """Notes that a pack was used, in the file's mtime; at most every few seconds."""
        now = time.monotonic()
        if now - self._touched.get(pack, -_TOUCH_SECONDS) < _TOUCH_SECONDS:
            return
        if len(self._touched) >= _TOUCHED_BOUND:
            self._touched.clear()
        self._touched[pack] = now
        with contextlib.suppress(OSError):
            os.utime(descriptor)

    def _write(self, usage: int, pack: PackId, first: int, count: int, data: memoryview) -> None:
        held = self._held(usage)
        path = self._path(pack)
        # First the room, then the file: it may itself be evicted.
        most = count * GRANULE_BYTES + _FILE_BYTES
        if most > self._bound:
            return
        if held + most > self._bound:
            held = self._evict(int(self._bound * _KEPT) - most)
        descriptor = _open_for_writing(path)
        try:
            head = _pread(descriptor, _HEAD_BYTES + first + count, 0)
            if head and not head.startswith(_HEAD):
                path.unlink()
                raise OSError(f"a file of the cache is damaged: {path}")
            here = head[_HEAD_BYTES + first :].ljust(count, b"\0")
            absent = [number for number in range(count) if here[number] != 1]
            if not absent:
                return
            # Counted before it is written: a kill in between counts too much, never too little.
            added = len(absent) * GRANULE_BYTES + (0 if head else _FILE_BYTES)
            self._set_held(usage, held + added)
            if not head:
                os.pwrite(descriptor, _HEAD, 0)
            begin, end = absent[0], absent[-1] + 1
            new = data[begin * GRANULE_BYTES : end * GRANULE_BYTES]
            at = _DATA_AT + (first + begin) * GRANULE_BYTES
            if end - begin >= _LARGE_GRANULES and self._writers <= _BEHIND:
                written = self._direct.write(path, new, at)
                new, at = new[written:], at + written
            _pwrite(descriptor, new, at)
            os.pwrite(descriptor, b"\1" * (end - begin), _HEAD_BYTES + first + begin)
        finally:
            os.close(descriptor)

    # -- the bound -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Excludes every other writer of this folder, in any thread or process.

        Raises:
            OSError: another holds the lock for long (a process that is stopped, say): it is only a
                cache.
        """
        until = time.monotonic() + _LOCK_SECONDS
        if not self._writing.acquire(timeout=_LOCK_SECONDS):
            raise _held_for_long()
        try:
            with self._locked_file(until) as descriptor:
                yield descriptor
        finally:
            self._writing.release()

    @contextlib.contextmanager
    def _locked_file(self, until: float) -> Iterator[int]:
        path = self._folder / "usage"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= until:
                        raise _held_for_long() from error
                    time.sleep(_LOCK_PAUSE_SECONDS)
            yield descriptor
        finally:
            os.close(descriptor)

    def _held(self, usage: int) -> int:
        data = os.pread(usage, _USAGE.size, 0)
        if len(data) == _USAGE.size:
            magic, held = _USAGE.unpack(data)
            if magic == _USAGE_MAGIC:
                return int(held)
        return self._count(usage)

    def _count(self, usage: int) -> int:
        """Looks at every file, and writes down what they take."""
        held = sum(_bytes_of(path) for path in self._files())
        self._set_held(usage, held)
        return held

    @staticmethod
    def _set_held(usage: int, held: int) -> None:
        os.pwrite(usage, _USAGE.pack(_USAGE_MAGIC, max(held, 0)), 0)

    def _files(self) -> Iterator[Path]:
        with contextlib.suppress(OSError), os.scandir(self._folder) as folders:
            for folder in folders:
                if len(folder.name) == 2 and folder.is_dir(follow_symlinks=False):
                    with contextlib.suppress(OSError), os.scandir(folder.path) as files:
                        yield from (Path(file.path) for file in files)

    def _evict(self, target: int) -> int:
        """Removes files, the least recently used first, down to a size; returns what is left."""
        found = []
        for path in self._files():
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime_ns, _bytes_of(path), path))
        held = sum(size for _, size, _ in found)
        gone = 0
        for _, size, path in sorted(found):
            if held <= target:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                held -= size
                gone += 1
        log.debug("evicted %d packs from the cache, %d bytes are left", gone, held)
        return held

    def _failed(self, error: OSError) -> None:
        with self._lock:
            self._pause_until = time.monotonic() + _PAUSE_SECONDS
            if self._warned:
                return
            self._warned = True
        log.warning("working without the disk cache in %s: %s", self._folder, error)


def _held_for_long() -> OSError:
    return BlockingIOError(errno.EAGAIN, "another writer holds its lock for long")


def _bytes_of(path: Path) -> int:
    """Returns the disk that a file of the cache takes, with what a killed writer left in it."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _open_for_writing(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    """Reads up to ``length`` bytes; fewer at the end of the file, none when the disk fails."""
    try:
        return os.pread(descriptor, length, offset)
    except OSError as error:
        log.warning("the disk cache cannot be read: %s", error)
        return b""


def _pwrite(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done
