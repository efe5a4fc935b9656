"""What was just fetched, in memory: for readers that waited for it, and for disks that are full."""

from __future__ import annotations

import threading
from collections import OrderedDict

from versionfs.chunkstore.diskcache import GRANULE_BYTES
from versionfs.types import PackId

_Key = tuple[bytes, int]


class RecentRuns:
    """Runs of granules, the least recently used given up beyond a bound in bytes. Thread-safe.

    A run is ``bytes`` or a view that cannot be written to.
    """

    def __init__(self, bound_bytes: int) -> None:
        self._bound = bound_bytes
        self._held = 0
        self._runs: OrderedDict[_Key, bytes | memoryview] = OrderedDict()
        self._by_granule: dict[_Key, _Key] = {}
        self._lock = threading.Lock()

    def limit(self, bound_bytes: int) -> None:
        """Changes the bound."""
        with self._lock:
            self._bound = bound_bytes
            self._shrink()

    def add(self, pack: PackId, first: int, data: bytes | memoryview) -> None:
        """Keeps a run that begins with the granule ``first``."""
        key = (pack, first)
        with self._lock:
            self._remove(key)
            self._runs[key] = data
            self._held += len(data)
            for number in _granules(first, data):
                self._by_granule[pack, number] = key
            self._shrink()

    def view(self, pack: PackId, start: int, length: int) -> memoryview | None:
        """Returns the bytes ``[start, start + length)`` of a pack if one run has them all."""
        number = start // GRANULE_BYTES
        with self._lock:
            key = self._by_granule.get((pack, number))
            if key is None:
                return None
            run = self._runs[key]
            at = start - key[1] * GRANULE_BYTES
            if at + length > len(run):
                return None
            self._runs.move_to_end(key)
            if number == key[1]:
                self._read_through(pack, number)
            return memoryview(run)[at : at + length]

    def pieces(self, pack: PackId, first: int, last: int) -> dict[int, memoryview]:
        """Returns those of the granules ``first`` to ``last`` that are here, by number."""
        found: dict[int, memoryview] = {}
        with self._lock:
            for number in range(first, last + 1):
                key = self._by_granule.get((pack, number))
                if key is not None:
                    self._runs.move_to_end(key)
                    run = self._runs[key]
                    at = (number - key[1]) * GRANULE_BYTES
                    found[number] = memoryview(run)[at : at + GRANULE_BYTES]
                    if number == key[1]:
                        self._read_through(pack, number)
                    if len(found[number]) < GRANULE_BYTES:  # the pack ends here
                        self._runs.move_to_end(key, last=False)
        return found

    def _read_through(self, pack: PackId, number: int) -> None:
        """Has the run that ends before a granule given up first: a reader has gone past it.

        Otherwise what was read would push out what was fetched for the same reader, and is next.
        """
        before = self._by_granule.get((pack, number - 1))
        if before is not None and before[1] != number:
            self._runs.move_to_end(before, last=False)

    def has(self, pack: PackId, number: int) -> bool:
        """Whether a granule is here."""
        with self._lock:
            return (pack, number) in self._by_granule

    def forget(self, pack: PackId) -> None:
        """Gives up all runs of a pack."""
        with self._lock:
            for key in [key for key in self._runs if key[0] == pack]:
                self._remove(key)

    def _shrink(self) -> None:
        while self._held > self._bound and len(self._runs) > 1:
            self._remove(next(iter(self._runs)))

    def _remove(self, key: _Key) -> None:
        data = self._runs.pop(key, None)
        if data is not None:
            self._held -= len(data)
            for number in _granules(key[1], data):
                if self._by_granule.get((key[0], number)) == key:
                    del self._by_granule[key[0], number]


def _granules(first: int, data: bytes | memoryview) -> range:
    return range(first, first - (-len(data) // GRANULE_BYTES))
