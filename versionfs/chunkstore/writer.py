"""Writes chunks: deduplicates, groups small ones into blocks, compresses in threads, fills packs.

The order in a pack is the order of ``add``: files of a folder lie together, as they are read.

One thread calls; worker threads compress and put complete packs. Memory is bounded by the bytes in
compression, plus a placement for each chunk whose pack is not complete.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Final, NamedTuple

from versionfs.chunking import BlockCodec
from versionfs.chunking.blocks import BLOCK_TARGET_BYTES, Stored
from versionfs.chunkstore.segments import SegmentWriter
from versionfs.chunkstore.wholepacks import WholePacks
from versionfs.index import ChunkIndex, IndexDamagedError
from versionfs.objectstore import ObjectStore, translate
from versionfs.pack import PackKind, PackWriter, pack_key
from versionfs.types import Location, ObjectKind, PackId

log = logging.getLogger(__name__)

PACK_TARGET_BYTES: Final = 32 * 1024 * 1024
_RUN_BOUND_BYTES: Final = BLOCK_TARGET_BYTES + BLOCK_TARGET_BYTES // 8
"""Small chunks share a block up to this size: that makes blocks of ``BLOCK_TARGET_BYTES``."""
_COMPRESSING_BOUND_BYTES: Final = 24 * 1024 * 1024
_GROUP_BYTES: Final = 2 * 1024 * 1024
"""Blocks are handed to the compressing threads in groups of about this size."""

_SEALING_BOUND: Final = 2
_UPLOADING_BOUND: Final = 6
"""Complete packs that wait for the network: each is a temporary file of 32 MiB."""
_WRITE_BYTES: Final = 1024 * 1024
"""Blocks are hashed and written to the pack file in pieces of about this size."""
_WRITING_BOUND: Final = 16

Data = bytes | memoryview


class WriteStatistics(NamedTuple):
    """What a writer did. Bytes of plaintext, and as stored."""

    chunks_new: int
    chunks_known: int
    bytes_new: int
    bytes_known: int
    stored_bytes: int
    packs: int


class _Pack:
    """A pack being filled; ``id`` is None until it is in the store."""

    __slots__ = ("chunks", "id", "unwritten", "unwritten_bytes", "writer", "writing")

    def __init__(self, writer: PackWriter) -> None:
        self.writer = writer
        self.id: PackId | None = None
        self.chunks: list[bytes] = []
        self.unwritten: list[Stored] = []
        self.unwritten_bytes = 0
        self.writing: deque[Future[None]] = deque()


class _Block:
    """A block between ``add`` and the store."""

    __slots__ = ("chunks", "offset", "pack", "size", "stored_length")

    def __init__(self) -> None:
        self.pack: _Pack | None = None
        self.offset = 0
        self.stored_length = 0
        self.size = 0
        self.chunks: list[tuple[bytes, int, int]] = []


class Placement:
    """Where a chunk will lie: known at once for old chunks, when its pack is complete for new."""

    __slots__ = ("_block", "_location", "length", "offset")

    def __init__(self, block: _Block | None, offset: int, length: int) -> None:
        self._block = block
        self._location: Location | None = None
        self.offset = offset
        self.length = length

    @classmethod
    def known(cls, location: Location) -> Placement:
        """Returns the placement of a chunk that is in the store."""
        placement = cls(None, location.offset, location.length)
        placement._location = location
        return placement

    @property
    def location(self) -> Location | None:
        """The location, or None while the chunk's pack is not in the store."""
        if self._location is None:
            block = self._block
            if block is None or block.pack is None or block.pack.id is None:
                return None
            self._location = Location(
                block.pack.id, block.offset, block.stored_length, self.offset, self.length
            )
            self._block = None
        return self._location


class ChunkWriter:
    """Stores chunks that the store does not have. Its methods are for one thread."""

    def __init__(
        self,
        objects: ObjectStore,
        index: ChunkIndex,
        codec: BlockCodec,
        executor: Executor,
        pack_executor: Executor,
        *,
        seals: Executor | None = None,
        segments: SegmentWriter | None = None,
    ) -> None:
        """Makes a writer.

        Args:
            objects: where packs go.
            index: what is stored already.
            codec: compresses blocks.
            executor: runs the compression, in any number of threads.
            pack_executor: writes pack files; has exactly one thread, because order matters.
            seals: completes packs and puts them, as many at once as it has threads. It waits for
                the disk or the network, so it is not the one that compresses; None takes that.
            segments: is told of each pack that is in the store.
        """
        self._objects = objects
        self._index = index
        self._whole = WholePacks(objects, index)
        self._codec = codec
        self._executor = executor
        self._pack_executor = pack_executor
        self._seals = seals or executor
        self._segments = segments
        self._sealing_bound = _SEALING_BOUND if objects.is_local else _UPLOADING_BOUND
        self._run = _Block()
        self._run_data: list[Data] = []
        self._group: list[tuple[_Block, Data]] = []
        self._group_bytes = 0
        self._compressing: deque[tuple[Future[list[tuple[Stored, Stored]]], list[_Block]]] = deque()
        self._compressing_bytes = 0
        self._pack: _Pack | None = None
        self._sealing: deque[tuple[Future[tuple[PackId, int]], _Pack]] = deque()
        self._pending: dict[bytes, Placement] = {}
        self._new = self._known = self._new_bytes = self._known_bytes = 0
        self._stored = self._packs = 0

    def statistics(self) -> WriteStatistics:
        """Returns counts since the writer was made."""
        return WriteStatistics(
            self._new,
            self._known,
            self._new_bytes,
            self._known_bytes,
            self._stored,
            self._packs,
        )

    def add(self, chunks: Sequence[tuple[bytes, Data]]) -> list[Placement]:
        """Takes chunks, as id and plaintext, and returns where each is or will be.

        Waits when too much is being compressed or put.

        Raises:
            StorageError: the store cannot be written.
        """
        pending = self._pending
        ask = [chunk for chunk, _ in chunks if chunk not in pending]
        known: dict[bytes, Location] = {}
        if ask:
            try:
                found = self._index.locate(ask)
            except IndexDamagedError:
                found = [None] * len(ask)
            known = {
                chunk: where
                for chunk, where in zip(ask, found, strict=True)
                if where is not None and self._whole.has(where.pack)
            }
        placements = []
        for chunk, data in chunks:
            placement = pending.get(chunk)
            if placement is None and (where := known.get(chunk)) is not None:
                placement = Placement.known(where)
            if placement is None:
                placement = pending[chunk] = self._add_new(chunk, data)
            else:
                self._known += 1
                self._known_bytes += len(data)
            placements.append(placement)
        self.pump()
        return placements

    def _add_new(self, chunk: bytes, data: Data) -> Placement:
        size = len(data)
        self._new += 1
        self._new_bytes += size
        if size >= BLOCK_TARGET_BYTES:
            block = _Block()
            block.size = size
            block.chunks.append((chunk, 0, size))
            self._compress(block, data)
            return Placement(block, 0, size)
        if self._run.size and self._run.size + size > _RUN_BOUND_BYTES:
            self._close_run()
        run = self._run
        placement = Placement(run, run.size, size)
        run.chunks.append((chunk, run.size, size))
        run.size += size
        self._run_data.append(data)
        return placement

    def _close_run(self) -> None:
        if self._run_data:
            self._compress(self._run, b"".join(self._run_data))
        self._run = _Block()
        self._run_data = []

    def _compress(self, block: _Block, data: Data) -> None:
        self._group.append((block, data))
        self._group_bytes += block.size
        if self._group_bytes >= _GROUP_BYTES:
            self._close_group()

    def _close_group(self) -> None:
        """Hands the blocks collected so far to the threads that compress."""
        if self._group:
            blocks = [block for block, _ in self._group]
            data = [data for _, data in self._group]
            self._compressing.append((self._executor.submit(self._codec.encode_many, data), blocks))
            self._compressing_bytes += self._group_bytes
            self._group = []
            self._group_bytes = 0

    def _compressed(self) -> None:
        """Takes over the first group that is being compressed, waiting for it."""
        future, blocks = self._compressing.popleft()
        for block, stored in zip(blocks, future.result(), strict=True):
            self._compressing_bytes -= block.size
            self._append(block, stored)

    def pump(self) -> None:
        """Moves on what is ready; waits only while the bounds are exceeded."""
        queue = self._compressing
        while queue and (queue[0][0].done() or self._compressing_bytes > _COMPRESSING_BOUND_BYTES):
            self._compressed()
        while self._sealing and self._sealing[0][0].done():
            self._sealed()

    def _append(self, block: _Block, stored: tuple[Stored, Stored]) -> None:
        pack = self._pack
        try:
            if pack is None:
                writer = PackWriter(self._objects.temporary(), PackKind.DATA)
                pack = self._pack = _Pack(writer)
        except OSError as error:
            raise translate(error, self._objects.url, "packs/", writing=True) from error
        length = len(stored[0]) + len(stored[1])
        block.offset = pack.writer.reserve(length)
        block.stored_length = length
        block.pack = pack
        pack.unwritten += stored
        pack.unwritten_bytes += length
        if pack.unwritten_bytes >= _WRITE_BYTES:
            self._write(pack)
        pack.writer.add_block(ObjectKind.CHUNK, block.offset, length, block.chunks)
        pack.chunks += [chunk for chunk, _, _ in block.chunks]
        block.chunks = []
        if pack.writer.size_bytes >= PACK_TARGET_BYTES:
            self._start_sealing()

    def _write(self, pack: _Pack) -> None:
        """Hands the blocks that are not written yet to the thread that writes packs."""
        blocks, pack.unwritten, pack.unwritten_bytes = pack.unwritten, [], 0
        pack.writing.append(self._pack_executor.submit(pack.writer.write_reserved, blocks))
        while pack.writing and (len(pack.writing) > _WRITING_BOUND or pack.writing[0].done()):
            self._written(pack)

    def _written(self, pack: _Pack) -> None:
        try:
            pack.writing.popleft().result()
        except OSError as error:
            raise translate(error, self._objects.url, "packs/", writing=True) from error

    def seal(self) -> None:
        """Completes the current pack early, so that its chunks get their locations."""
        self._close_run()
        self._close_group()
        while self._compressing:
            self._compressed()
        self._start_sealing()
        while self._sealing:
            self._sealed()

    def _start_sealing(self) -> None:
        pack = self._pack
        if pack is not None:
            if pack.unwritten:
                self._write(pack)
            self._pack = None
            self._sealing.append((self._seals.submit(self._seal, pack), pack))
            while len(self._sealing) > self._sealing_bound:
                self._sealed()

    def _seal(self, pack: _Pack) -> tuple[PackId, int]:
        """Completes a pack: it goes to the store, then into the index. Runs in a worker thread."""
        while pack.writing:
            self._written(pack)
        try:
            finished = pack.writer.finish()
        except OSError as error:
            raise translate(error, self._objects.url, "packs/", writing=True) from error
        self._objects.put_file(pack_key(finished.id), finished.path)
        pack.writer.close()
        try:
            self._index.add_pack(
                finished.id,
                finished.index.places(),
                size_bytes=finished.size_bytes,
            )
        except IndexDamagedError as error:
            log.warning("not in the index: pack %s (%s)", finished.id.hex(), error)
        if self._segments is not None:
            self._segments.add(finished.index, finished.size_bytes)
        return finished.id, finished.size_bytes

    def _sealed(self) -> None:
        """Takes over the first of the packs that are being put, waiting for it."""
        future, pack = self._sealing[0]
        try:
            pack_id, size = future.result()
        except BaseException:
            _discard(pack)
            self._sealing.popleft()
            raise
        self._sealing.popleft()
        pack.id = pack_id
        self._stored += size
        self._packs += 1
        for chunk in pack.chunks:
            self._pending.pop(chunk, None)
        pack.chunks = []

    def abort(self) -> None:
        """Throws away what is not in a complete pack; waits for the threads."""
        for future, _ in self._compressing:
            future.cancel()
        self._compressing.clear()
        self._group = []
        if self._pack is not None:
            _discard(self._pack)
            self._pack = None
        for future_pack, _ in self._sealing:
            future_pack.cancel()
        while self._sealing:
            future_pack, pack = self._sealing.popleft()
            if future_pack.cancelled() or future_pack.exception() is not None:
                _discard(pack)


def _discard(pack: _Pack) -> None:
    """Throws an unfinished pack away, once nothing writes to it any more."""
    for writing in pack.writing:
        writing.exception()
    pack.writer.abort()
