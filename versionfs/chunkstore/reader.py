"""Reads blocks and verified chunks from packs, with a cache of decoded blocks bounded in bytes."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from versionfs.chunking import chunk_id, decode_block
from versionfs.errors import CorruptionError, NotFoundError
from versionfs.objectstore import ObjectStore
from versionfs.pack import pack_key
from versionfs.types import Location, short

log = logging.getLogger(__name__)

_MAX_STORED_BYTES: Final = 64 * 1024 * 1024 + 1024


@dataclass(frozen=True, slots=True)
class ReadStatistics:
    """What a reader did so far. Counts, and bytes as stored."""

    blocks_read: int
    bytes_read: int
    cache_hits: int
    chunks_verified: int


class _Block:
    """A decoded block and the offsets of the chunks in it that were verified."""

    __slots__ = ("data", "verified")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.verified: set[int] = set()


class PackReader:
    """Reads what locations point to. Thread-safe."""

    def __init__(self, objects: ObjectStore, cache_bytes: int) -> None:
        self._objects = objects
        self._bound = cache_bytes
        self._held = 0
        self._blocks: OrderedDict[tuple[bytes, int], _Block] = OrderedDict()
        self._lock = threading.Lock()
        self._blocks_read = self._bytes_read = self._hits = self._verified = 0

    def statistics(self) -> ReadStatistics:
        """Returns counts since the reader was made."""
        return ReadStatistics(self._blocks_read, self._bytes_read, self._hits, self._verified)

    def read(self, location: Location) -> memoryview:
        """Returns the bytes at a location, decoded but not verified against an id.

        Raises:
            CorruptionError: the pack is gone, too short, or the block does not decode; the error
                and a log line name the pack.
        """
        return self._slice(self._block(location), location)

    def chunk(self, expected: bytes, location: Location) -> memoryview:
        """Returns a chunk's plaintext, verified against its id.

        Raises:
            CorruptionError: as :meth:`read`, or the bytes are not those of the chunk.
        """
        block = self._block(location)
        data = self._slice(block, location)
        if location.offset not in block.verified:
            if chunk_id(data) != expected:
                self.drop(location)
                raise self._damaged(location, f"chunk {short(expected)} does not match its id")
            block.verified.add(location.offset)
            self._verified += 1
        return data

    def drop(self, location: Location) -> None:
        """Drops a block from the cache, so that the next read fetches it again."""
        with self._lock:
            block = self._blocks.pop((location.pack, location.block_offset), None)
            if block is not None:
                self._held -= len(block.data)

    def _slice(self, block: _Block, location: Location) -> memoryview:
        data = block.data[location.offset : location.offset + location.length]
        if len(data) != location.length:
            raise self._damaged(location, "a block is shorter than its location says")
        return data

    def _block(self, location: Location) -> _Block:
        key = (location.pack, location.block_offset)
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
                self._hits += 1
                return block
        block = _Block(self._load(location))
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self._held += len(block.data)
                while self._held > self._bound and len(self._blocks) > 1:
                    _, old = self._blocks.popitem(last=False)
                    self._held -= len(old.data)
        return block

    def _load(self, location: Location) -> memoryview:
        if not 0 < location.stored_length <= _MAX_STORED_BYTES:
            raise self._damaged(location, f"a location claims {location.stored_length} bytes")
        try:
            stored = self._objects.get(
                pack_key(location.pack), location.block_offset, location.stored_length
            )
        except NotFoundError as error:
            raise self._damaged(location, "the pack is missing from the store") from error
        self._blocks_read += 1
        self._bytes_read += len(stored)
        if len(stored) != location.stored_length:
            raise self._damaged(location, "the pack is truncated")
        try:
            return memoryview(decode_block(stored))
        except CorruptionError as error:
            raise self._damaged(location, str(error)) from error

    def _damaged(self, location: Location, what: str) -> CorruptionError:
        pack = location.pack.hex()
        message = f"damaged data in pack {pack}, block at {location.block_offset}: {what}"
        log.error("%s", message)
        return CorruptionError(message, pack=pack, hint="restore the pack from a copy of the store")
