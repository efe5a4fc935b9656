"""Reads packs of a local store through descriptors that stay open, and has the disk read ahead."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import Final

from versionfs.chunkstore.source import DirectSource, Scan
from versionfs.objectstore import LocalStore
from versionfs.pack import pack_key
from versionfs.types import PackId

_OPEN: Final = 64
"""Packs kept open: some gigabytes of data."""

_AHEAD_BYTES: Final = 4 * 1024 * 1024
_CLOSE_BYTES: Final = 1024 * 1024
"""A read that begins so little behind the last one goes on with it."""


class _OpenPack:
    """An open pack; closes itself when nobody reads it any more."""

    __slots__ = ("advised", "descriptor", "position")

    def __init__(self, path: os.PathLike[str]) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.position = -1
        """Where the last read ended."""
        self.advised = 0
        """Up to where the disk was asked to read ahead."""

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self.descriptor)

    def read(self, start: int, length: int, *, scan: bool) -> bytes:
        """Returns the bytes from ``start`` on; fewer at the end of the pack, perhaps elsewhere.

        ``scan`` says that what follows will likely be read, though nothing was before.
        """
        end = start + length
        if 0 <= start - self.position < _CLOSE_BYTES or (scan and self.position < 0):
            if end + _AHEAD_BYTES // 2 > self.advised:
                begin = max(end, self.advised)
                self.advised = end + _AHEAD_BYTES
                with suppress(OSError):  # Some file systems do not know it.
                    os.posix_fadvise(
                        self.descriptor, begin, self.advised - begin, os.POSIX_FADV_WILLNEED
                    )
        else:
            self.advised = 0
        self.position = end
        return os.pread(self.descriptor, length, start)


class OpenPackSource(DirectSource):
    """Keeps the packs that were read last open. Packs never change, so that is as good as a look.

    A pack that turns out to be damaged is opened anew: somebody may have put a whole one in place.
    """

    def __init__(self, objects: LocalStore) -> None:
        super().__init__(objects)
        self._store = objects
        self._packs: OrderedDict[bytes, _OpenPack] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self,
        pack: PackId,
        start: int,
        length: int,
        scan: int = Scan.NONE,
    ) -> bytes:
        """See ``PackSource.read``."""
        with self._lock:
            found = self._packs.get(pack)
        try:
            if found is None:
                found = self._open(pack)
            data = found.read(start, length, scan=scan != Scan.NONE)
            if len(data) == length:
                return data
        except OSError:
            pass
        # Whatever is wrong, this finds out, and says it.
        self.forget(pack)
        return self._store.get(pack_key(pack), start, length)

    def _open(self, pack: PackId) -> _OpenPack:
        found = _OpenPack(self._store.local_path(pack_key(pack)))
        with self._lock:
            self._packs[pack] = found
            if len(self._packs) > _OPEN:
                self._packs.popitem(last=False)
        return found

    def forget(self, pack: PackId) -> None:
        """Closes a pack, so that the next read opens what has its name then."""
        with self._lock:
            self._packs.pop(pack, None)

    def close(self) -> None:
        """Closes all packs; reads under way still finish. Idempotent."""
        with self._lock:
            self._packs.clear()
