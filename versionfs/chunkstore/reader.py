"""Reads blocks and verified chunks from packs, with a cache of decoded blocks bounded in bytes."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple, TypeVar

from versionfs.chunking import chunk_id, decode_block
from versionfs.chunking.blocks import RAW
from versionfs.chunkstore.boundedcache import BoundedCache
from versionfs.chunkstore.source import VIEW_BYTES, PackRange, PackSource, Scan
from versionfs.errors import CorruptionError, NotFoundError
from versionfs.objectstore import WouldBlock
from versionfs.types import Location, PackId, short

log = logging.getLogger(__name__)

T = TypeVar("T")

_FAILURES: Final = (CorruptionError, NotFoundError, WouldBlock)
_MAX_STORED_BYTES: Final = 64 * 1024 * 1024 + 1024
_PASSING_BLOCKS: Final = 4
"""Blocks that are kept though they are views of large buffers, or are had again for little."""
_ONCE_BYTES: Final = 4 * 1024 * 1024
"""What is kept of blocks of small files that are read once, of all who read in order at the same
time; and as much of those of large files."""
_MANY_READS: Final = 64
"""A scan that read so many blocks of one pack will read as many of the next: some 4 MiB."""


class ReadStatistics(NamedTuple):
    """What a reader did so far. Counts, and bytes as stored."""

    blocks_read: int
    bytes_read: int
    cache_hits: int
    chunks_verified: int


_Key = tuple[bytes, int]
"""The pack that a block lies in, and where it begins there."""


class Block:
    """A decoded block and the offsets of the chunks in it that were verified."""

    __slots__ = ("data", "size_bytes", "verified")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.size_bytes = len(data)
        self.verified: set[int] = set()


class PackReader:
    """Reads what locations point to. Thread-safe.

    Bytes that came from a cache and turn out to be damaged are fetched again, once, with a warning:
    only what the store itself has wrong is an error.
    """

    def __init__(self, source: PackSource, cache_bytes: int) -> None:
        self.source = source
        self._kept: BoundedCache[_Key, Block] = BoundedCache(cache_bytes)
        # Of those who read in order. Among the others each would take new memory, and the place of
        # one that is read again. Large files would soon push out the small ones' blocks.
        self._once_small: BoundedCache[_Key, Block] = BoundedCache(_ONCE_BYTES)
        self._once_large: BoundedCache[_Key, Block] = BoundedCache(_ONCE_BYTES)
        # Views of large buffers, which they keep from being used again: a few, as a chunk is read
        # by two or three requests of the kernel.
        self._passing: OrderedDict[_Key, Block] = OrderedDict()
        self._lock = threading.Lock()
        self.blocks_read = 0
        """Counts blocks since the reader was made."""
        self._bytes_read = self._hits = self._verified = 0
        # Of a scan: the pack that it is in, the blocks it read there, and what it will need.
        self._scanned: bytes = b""
        self._scanned_blocks = 0
        self._scan = Scan.NEAR

    def statistics(self) -> ReadStatistics:
        """Returns counts since the reader was made."""
        return ReadStatistics(self.blocks_read, self._bytes_read, self._hits, self._verified)

    def read(
        self, location: Location, verify: Callable[[memoryview], T], *, scan: Scan = Scan.NONE
    ) -> T:
        """Returns what ``verify`` makes of the bytes at a location.

        ``verify`` raises CorruptionError for bytes that are not what they should be. ``scan`` says
        what will likely be read next: NONE, NEAR (whether that is ALL is found out here) or BEHIND.

        Raises:
            CorruptionError: the pack is gone, too short, the block does not decode, or ``verify``
                said so; the error and a log line name the pack.
            WouldBlock: see ``PackSource.read``; its fetch does what this method does.
        """
        try:
            return self._read(location, verify, scan)
        except _FAILURES as error:
            return self._again(location, partial(self._read, location, verify, scan), error)

    def chunk(
        self,
        expected: bytes,
        location: Location,
        *,
        scan: Scan = Scan.NONE,
        once: bool = False,
    ) -> memoryview:
        """Returns a chunk's plaintext, verified against its id.

        ``scan`` is as in :meth:`read`; ``once`` says that the chunk's block will not be read again
        soon, but for the rest of it.

        Raises:
            CorruptionError: as :meth:`read`, or the bytes are not those of the chunk.
            WouldBlock: as :meth:`read`.
        """
        try:
            return self._chunk(expected, location, scan, once)
        except _FAILURES as error:
            work = partial(self._chunk, expected, location, scan, once)
            return self._again(location, work, error)

    def want(self, locations: Iterable[Location]) -> None:
        """Begins to fetch, in parallel, the blocks that will be read at once; does not wait."""
        with self._lock:
            absent = [w for w in locations if (w.pack, w.block_offset) not in self._kept]
        if len(absent) > 1:
            self.source.want(PackRange(w.pack, w.block_offset, w.stored_length) for w in absent)

    def prefetch(self, locations: Iterable[Location]) -> None:
        """Begins to fetch blocks, with as much as a scan would; returns at once."""
        ranges = [PackRange(w.pack, w.block_offset, w.stored_length) for w in locations]
        self.source.later(lambda: self.source.prefetch(ranges, None, scan=Scan.NEAR))

    # -- parts -----------------------------------------------------------------------------------

    def _settle(self, location: Location, work: Callable[[], T]) -> T:
        """Does a read, and what follows when it fails."""
        try:
            return work()
        except _FAILURES as error:
            return self._again(location, work, error)

    def _again(self, location: Location, work: Callable[[], T], error: Exception) -> T:
        """Does a read again whose bytes are damaged, if a cache may be to blame; else raises."""
        if isinstance(error, CorruptionError):
            self._drop(location)
            self.source.forget(location.pack)
            if self.source.is_cached:
                pack = location.pack.hex()
                log.warning("fetching damaged data again, pack %s: %s", pack, error)
                try:
                    return work()
                except _FAILURES as second:
                    self._drop(location)
                    error = second
        try:
            if isinstance(error, WouldBlock):
                raise WouldBlock(partial(self._settle, location, work)) from error
            missing = isinstance(error, NotFoundError)
            what = "the pack is missing from the store" if missing else str(error)
            raise self._damaged(location, what) from error
        finally:
            del error  # It may hold this frame, and with it blocks.

    def _read(self, location: Location, verify: Callable[[memoryview], T], scan: Scan) -> T:
        return verify(self._slice(self._block(location, scan), location))

    def _chunk(self, expected: bytes, location: Location, scan: Scan, once: bool) -> memoryview:
        block = self._block(location, scan, once)
        data = self._slice(block, location)
        if location.offset not in block.verified:
            if chunk_id(data) != expected:
                raise CorruptionError(f"chunk {short(expected)} does not match its id")
            block.verified.add(location.offset)
            self._verified += 1
        return data

    def _drop(self, location: Location) -> None:
        """Drops a block from the cache, so that the next read fetches it again."""
        key = (location.pack, location.block_offset)
        with self._lock:
            self._passing.pop(key, None)
            for blocks in (self._kept, self._once_small, self._once_large):
                blocks.drop(key)

    @staticmethod
    def _slice(block: Block, location: Location) -> memoryview:
        data = block.data[location.offset : location.offset + location.length]
        if len(data) != location.length:
            raise CorruptionError("a block is shorter than its location says")
        return data

    def _block(self, location: Location, scan: Scan, once: bool = False) -> Block:
        key = (location.pack, location.block_offset)
        with self._lock:
            block = (
                self._kept.get(key)
                or self._once_small.get(key)
                or self._once_large.get(key)
                or self._passing.get(key)
            )
            if block is not None:
                self._hits += 1
                return block
        data, is_passing = self._load(location, scan)
        block = Block(data)
        with self._lock:
            if is_passing:
                self._passing[key] = block
                if len(self._passing) > _PASSING_BLOCKS:
                    self._passing.popitem(last=False)
            elif not once:
                self._kept.put(key, block)
            else:
                (self._once_small if scan is Scan.NEAR else self._once_large).put(key, block)
        return block

    def _load(self, location: Location, scan: Scan) -> tuple[memoryview, bool]:
        """Returns a decoded block, and whether it is a view, or had again for little."""
        if not 0 < location.stored_length <= _MAX_STORED_BYTES:
            raise CorruptionError(f"a location claims {location.stored_length} bytes")
        is_scan = scan is Scan.NEAR
        if is_scan:
            scan = self._scans(location.pack)
        stored = self.source.read(
            location.pack, location.block_offset, location.stored_length, scan
        )
        self.blocks_read += 1
        self._scanned_blocks += is_scan
        self._bytes_read += len(stored)
        if len(stored) != location.stored_length:
            raise CorruptionError("the pack is truncated")
        data = memoryview(decode_block(stored))
        if not isinstance(stored, memoryview) or data.obj is not stored.obj:
            # Its own bytes. What is large and was not compressed is had again for little.
            passing = self.source.is_cached and stored[0] == RAW and len(stored) >= VIEW_BYTES
            return data, passing and not is_scan
        if is_scan:
            return memoryview(bytes(data)), False
        return data, True

    def _scans(self, pack: PackId) -> Scan:
        """Returns how much of a pack a scan that reads there will likely need."""
        if pack != self._scanned:
            self._scan = Scan.ALL if self._scanned_blocks >= _MANY_READS else Scan.NEAR
            self._scanned, self._scanned_blocks = pack, 0
        return self._scan

    def _damaged(self, location: Location, what: str) -> CorruptionError:
        pack = location.pack.hex()
        message = f"damaged data in pack {pack}, block at {location.block_offset}: {what}"
        log.error("%s", message)
        return CorruptionError(message, pack=pack, hint="restore the pack from a copy of the store")
