"""Reads packs over a network: through memory and the disk cache, each granule fetched once."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from versionfs.chunkstore.buffers import Buffers
from versionfs.chunkstore.diskcache import GRANULE_BYTES, DiskCache
from versionfs.chunkstore.inflight import AHEAD_GRANULES, RUN_GRANULES, Data, Fetch, InFlight
from versionfs.chunkstore.recent import RecentRuns
from versionfs.chunkstore.source import VIEW_BYTES, PackRange, Scan
from versionfs.chunkstore.workers import Workers
from versionfs.errors import CorruptionError, NotFoundError, StorageError, StorageTransientError
from versionfs.objectstore import ObjectStore, ReadsInto, WouldBlock, may_block
from versionfs.pack import pack_key
from versionfs.types import PackId

log = logging.getLogger(__name__)

_HELD_BYTES: Final = 104 * 1024 * 1024
"""What is under way, and what was just fetched: enough for what is read ahead of one reader, and
what it reads, so that no byte comes back from the disk."""
_SCAN_HELD_BYTES: Final = 64 * 1024 * 1024
"""The same where no large file is read."""
_LEAST_HELD_BYTES: Final = 24 * 1024 * 1024
"""So much is kept beside any requests, and when the last reader of a large file has left."""
_BUFFERS: Final = 16
_LARGE_BYTES: Final = 2 * 1024 * 1024
"""From here on replies go into memory that is used again."""
_SCAN_GRANULES: Final = (4, 32)
"""How much the first misses of a scan bring: 256 KiB, then 2 MiB; the third brings the pack."""
_NEAR_GRANULES: Final = 17
"""So far behind where a file begins is the next one, of those that have up to 1 MiB."""
_IN_ORDER: Final = 2
"""When so many begin behind the one before, the pack is brought."""
_READERS: Final = 4
_SCANS: Final = 4096
_PLANNERS: Final = 2

_Pieces = dict[int, bytes | memoryview]
"""Granules by number."""


class FetchStatistics(NamedTuple):
    """What a source did. Reads by where they found all their bytes; requests; bytes fetched."""

    memory_hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    requests: int = 0
    fetched_bytes: int = 0
    prefetched_bytes: int = 0
    damaged: int = 0


class _Scan:
    """How often a scan missed in a pack, and where the last time.

    And of files of some chunks, for a few readers: where the last one began, where what came with
    it ends, and how many had begun behind the one before.
    """

    __slots__ = ("last", "misses", "readers")

    def __init__(self) -> None:
        self.misses = 0
        self.last = 0
        self.readers: deque[tuple[int, int, int]] = deque(maxlen=_READERS)


class FetchingSource:
    """A ``PackSource`` for stores where a read is a request. Thread-safe, and so is ``close``."""

    is_cached = True

    def __init__(self, objects: ObjectStore, cache: DiskCache, connections: int) -> None:
        self.cache = cache
        self._objects = objects
        self._read_into = objects.read_into if isinstance(objects, ReadsInto) else None
        self._buffers = Buffers(AHEAD_GRANULES * GRANULE_BYTES, _BUFFERS)
        self._recent = RecentRuns(_HELD_BYTES)
        self._in_flight = InFlight(
            self._get, self._arrived, self._recent.has, self._make_room, connections
        )
        self._planners = Workers(_PLANNERS, "prefetch")
        # Who reads large files. Weakly, as one that is not closed must not keep memory for ever.
        self._readers: WeakSet[Any] = WeakSet()
        self._gives_back = False
        self._scans: OrderedDict[bytes, _Scan] = OrderedDict()
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()
        self._memory_hits = self._disk_hits = self._misses = 0
        self._requests = self._fetched = self._prefetched = self._damaged = 0

    def statistics(self) -> FetchStatistics:
        """Returns counts since the source was made."""
        return FetchStatistics(
            self._memory_hits,
            self._disk_hits,
            self._misses,
            self._requests,
            self._fetched,
            self._prefetched,
            self._damaged,
        )

    def read(
        self, pack: PackId, start: int, length: int, scan: Scan = Scan.NONE
    ) -> bytes | memoryview:
        """See ``PackSource.read``."""
        view = self._recent.view(pack, start, length)
        if view is not None:
            self._memory_hits += 1
            return _owned(view)
        first, last = start // GRANULE_BYTES, (start + length - 1) // GRANULE_BYTES
        pieces = self._recent.pieces(pack, first, last)
        if len(pieces) == last - first + 1:
            self._memory_hits += 1
            return _join(pieces, start, length)
        data = self.cache.read(pack, start, length)
        if data is None and pieces:
            # A part is in memory only, because the disk does not take it or not yet.
            both: _Pieces = {**self.cache.granules(pack, first, last), **pieces}
            if len(both) == last - first + 1:
                data = _join(both, start, length)
        if data is not None:
            self._disk_hits += 1
            return data
        if not may_block():
            raise WouldBlock(partial(self.read, pack, start, length, scan))
        self._misses += 1
        found = self._demand(pack, first, last, scan)
        view = self._recent.view(pack, start, length)
        return _join(found, start, length) if view is None else _owned(view)

    def forget(self, pack: PackId) -> None:
        """See ``PackSource.forget``."""
        self._damaged += 1
        # First what is still to come into the caches.
        self._in_flight.forget(pack)
        self._recent.forget(pack)
        self.cache.forget(pack)
        with self._lock:
            self._sizes.pop(pack, None)

    def want(self, ranges: Iterable[PackRange]) -> None:
        """See ``PackSource.want``."""
        for pack, granules in _by_pack(ranges):
            if missing := self._missing(pack, granules):
                self._in_flight.ask(pack, missing, demand=True)

    def prefetch(
        self, ranges: Iterable[PackRange], token: object, *, scan: Scan = Scan.NONE
    ) -> None:
        """See ``PackSource.prefetch``."""
        if token is not None:
            with self._lock:
                self._readers.add(token)
        for pack, granules in _by_pack(ranges):
            missing = self._missing(pack, granules)
            if missing and scan:
                # Where the pack ends may not be known: only what is missing is a reason to ask.
                near = range(missing[0], missing[0] + _SCAN_GRANULES[0])
                missing = self._missing(pack, sorted({*missing, *near}))
            if missing:
                self._in_flight.ask(pack, missing, demand=False, token=token)

    def cancel(self, token: object) -> None:
        """See ``PackSource.cancel``."""
        self._in_flight.cancel(token)

    def leave(self, token: object) -> None:
        """See ``PackSource.leave``."""
        self._in_flight.cancel(token)
        with self._lock:
            if token not in self._readers:
                return
            self._readers.discard(token)
            self._gives_back = not self._readers
        self._in_flight.tell()

    def later(self, job: Callable[[], None]) -> None:
        """See ``PackSource.later``."""

        def work() -> None:
            try:
                job()
            except (StorageError, NotFoundError, CorruptionError) as error:
                log.debug("nothing is prefetched: %s", error)

        try:
            self._planners.submit(work)
        except StorageTransientError as error:
            log.debug("nothing is prefetched: %s", error)

    def close(self) -> None:
        """Drops what waits, lets what runs finish for a few seconds; idempotent."""
        self._in_flight.close()
        self._planners.close()

    # -- parts -----------------------------------------------------------------------------------

    def _missing(self, pack: PackId, granules: list[int]) -> list[int]:
        """Returns those of the granules, sorted, that are in no cache."""
        absent = set(self.cache.missing(pack, granules[0], granules[-1]))
        end = self._end(pack)
        return [
            number
            for number in granules
            if number in absent and number < end and not self._recent.has(pack, number)
        ]

    def _end(self, pack: PackId) -> int:
        """Returns the number behind the pack's last granule, or a large one."""
        size = self._sizes.get(pack)
        return 1 << 32 if size is None else -(-size // GRANULE_BYTES)

    def _demand(self, pack: PackId, first: int, last: int, scan: Scan) -> _Pieces:
        """Waits for granules, and returns them by number."""
        asked: list[int] = []
        while True:
            pieces: _Pieces = {**self.cache.granules(pack, first, last)}
            pieces.update(self._recent.pieces(pack, first, last))
            missing = [number for number in range(first, last + 1) if number not in pieces]
            if not missing:
                return pieces
            if not asked:
                asked = missing
                if scan is Scan.BEHIND:
                    asked = self._behind(pack, missing)
                elif scan:
                    asked = self._around(pack, missing, scan)
            fetches = self._in_flight.ask(pack, sorted({*asked, *missing}), demand=True)
            for number in missing:
                for fetch in fetches:
                    if fetch.first <= number < fetch.first + fetch.count:
                        pieces[number] = fetch.granule(number)
            if len(pieces) == last - first + 1:
                return pieces

    def _around(self, pack: PackId, missing: list[int], kind: Scan) -> list[int]:
        """Returns the granules that a scan fetches together with those that it needs."""
        first, last = missing[0], missing[-1]
        with self._lock:
            scan = self._scan_of(pack)
            before = scan.last
            misses = len(_SCAN_GRANULES) if kind is Scan.ALL else scan.misses
            # After the whole pack was brought, a miss means that it was evicted.
            scan.misses = (misses + 1) % (len(_SCAN_GRANULES) + 1)
            scan.last = first
        if misses == 0:
            # A pack of nodes is read from its end, one of files from its beginning.
            begin, count = first - 1, _SCAN_GRANULES[0]
        elif misses < len(_SCAN_GRANULES) or not self.cache.is_writable:
            count = _SCAN_GRANULES[1]
            begin = first if first >= before else last + 1 - count
        else:
            begin, count = first - first % RUN_GRANULES, RUN_GRANULES
            self.later(partial(self._whole, pack))
        begin = max(0, min(begin, first))
        around = range(begin, max(begin + count, last + 1))
        absent = {*missing, *self._missing(pack, list(around))}
        return sorted(absent)

    def _behind(self, pack: PackId, missing: list[int]) -> list[int]:
        """Returns the granules that are fetched with the beginning of a file of some chunks.

        Those behind it, if files are read in order. Who reads some here and there needs no more.
        """
        first, last = missing[0], missing[-1]
        with self._lock:
            scan = self._scan_of(pack)
            in_order = 0
            for reader in scan.readers:
                begun, end, before = reader
                if 0 < first - begun <= _NEAR_GRANULES or 0 <= first - end <= _NEAR_GRANULES:
                    scan.readers.remove(reader)
                    in_order = before + 1
                    break
            count = _SCAN_GRANULES[1] if in_order else 0
            brings_all = in_order >= _IN_ORDER and self.cache.is_writable
            if brings_all:
                in_order, count = 0, RUN_GRANULES
            stop = max(first + count, last + 1)
            scan.readers.append((first, stop, in_order))
        if brings_all:
            self.later(partial(self._whole, pack))
        return sorted({*missing, *self._missing(pack, list(range(first, stop)))})

    def _scan_of(self, pack: PackId) -> _Scan:
        """Returns what scans did in a pack; the lock is held."""
        scan = self._scans.pop(pack, None) or _Scan()
        self._scans[pack] = scan
        if len(self._scans) > _SCANS:
            self._scans.popitem(last=False)
        return scan

    def _whole(self, pack: PackId) -> None:
        """Prefetches a pack, all of it."""
        size = self._sizes.get(pack)
        if size is None:
            size = self._objects.size(pack_key(pack))
            self._note_size(pack, size)
        self.prefetch([PackRange(pack, 0, size)], None)

    def _note_size(self, pack: PackId, size: int) -> None:
        with self._lock:
            self._sizes[pack] = size
            if len(self._sizes) > _SCANS:
                self._sizes.popitem(last=False)

    def _get(self, fetch: Fetch) -> Data:
        self._requests += 1
        key = pack_key(fetch.pack)
        start, length = fetch.first * GRANULE_BYTES, fetch.count * GRANULE_BYTES
        buffer = None
        if self._read_into is not None and length >= _LARGE_BYTES:
            buffer = self._buffers.take(length)
        data: Data
        if buffer is None or self._read_into is None:
            data = self._objects.get(key, start, length)
        else:
            data = buffer[: self._read_into(key, start, buffer)].toreadonly()
        # Before those who wait hear of it: what they read next must not count as a miss.
        fetch.keep(data, self._remember)
        return data

    def _remember(self, fetch: Fetch, data: Data) -> None:
        self._recent.add(fetch.pack, fetch.first, data)

    def _make_room(self, awaited_bytes: int, is_idle: bool) -> None:
        """Bounds what was fetched by what is left beside what is on its way.

        Once the last reader of a large file has left, and what came for him has been written,
        memory goes back to the system.
        """
        with self._lock:
            bound = _HELD_BYTES if self._readers else _SCAN_HELD_BYTES
            gives_back = self._gives_back and is_idle and not self._readers
            if gives_back:
                self._gives_back = False
        if gives_back and self.cache.is_writable:
            bound = _LEAST_HELD_BYTES
        self._recent.limit(max(bound - awaited_bytes, _LEAST_HELD_BYTES))
        if gives_back:
            self._buffers.trim()

    def _arrived(self, fetch: Fetch, data: Data) -> None:
        self._fetched += len(data)
        if not fetch.is_demanded:
            self._prefetched += len(data)
        start = fetch.first * GRANULE_BYTES
        if data and len(data) < fetch.count * GRANULE_BYTES:
            self._note_size(fetch.pack, start + len(data))
        self.cache.write(fetch.pack, start, data)


def _owned(view: memoryview) -> bytes | memoryview:
    """Returns a copy of a little, so that it holds no large buffer for as long as it is kept."""
    return bytes(view) if len(view) < VIEW_BYTES else view


def _join(pieces: Mapping[int, bytes | memoryview], start: int, length: int) -> bytes:
    """Returns ``length`` bytes at ``start``; fewer if the granules end earlier."""
    first = min(pieces)
    at = start - first * GRANULE_BYTES
    if len(pieces) == 1:
        return bytes(memoryview(pieces[first])[at : at + length])
    parts = [memoryview(pieces[number]) for number in sorted(pieces)]
    rest = at + length - (len(parts) - 1) * GRANULE_BYTES
    parts[0], parts[-1] = parts[0][at:], parts[-1][:rest]
    return b"".join(parts)


def _by_pack(ranges: Iterable[PackRange]) -> Iterable[tuple[PackId, list[int]]]:
    """Returns the granules of ranges, sorted, for each pack."""
    found: dict[PackId, set[int]] = {}
    for pack, start, length in ranges:
        if length > 0:
            numbers = range(start // GRANULE_BYTES, (start + length - 1) // GRANULE_BYTES + 1)
            found.setdefault(pack, set()).update(numbers)
    return [(pack, sorted(numbers)) for pack, numbers in found.items()]
