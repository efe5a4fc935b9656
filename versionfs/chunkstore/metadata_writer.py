"""Writes metadata objects into packs of their own, children before parents.

A parent names the location of its children, so their block must be written when the parent is
encoded: that is when a block of small nodes is closed, besides reaching its size. A block therefore
holds about one directory's children, which are read together too.

Until its pack is complete, and so has an id, a node's location has a *ticket* for a pack id (eight
bytes); ``resolve`` turns it into the real one. No ticket is ever written to a store.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Final

from versionfs.chunking import BlockCodec, id_of, stamp
from versionfs.chunking.blocks import BLOCK_TARGET_BYTES
from versionfs.chunkstore.locations import THIS_PACK, ChangedLocations, encode_locations
from versionfs.chunkstore.metadata import frame
from versionfs.chunkstore.segments import SegmentWriter
from versionfs.chunkstore.wholepacks import WholePacks
from versionfs.index import ChunkIndex, IndexDamagedError, NodePlaces
from versionfs.objectstore import ObjectStore, translate
from versionfs.pack import FinishedPack, PackKind, PackWriter, pack_key
from versionfs.types import ID_BYTES, Location, NodeRef, PackId

log = logging.getLogger(__name__)

PACK_TARGET_BYTES: Final = 8 * 1024 * 1024
"""Metadata packs are smaller than data packs: nodes stay in memory until their pack is complete."""

_UPLOADING_BOUND: Final = 4
"""Complete packs that wait for the network."""

_OPEN: Final = PackId(b"open")


class _Block:
    """A block of the pack being written; ``pack`` is ``_OPEN`` until that has its id."""

    __slots__ = ("offset", "pack", "stored_length")

    def __init__(self) -> None:
        self.pack = _OPEN
        self.offset = -1
        self.stored_length = -1


class MetadataWriter:
    """Writes metadata objects, each once. Not thread-safe."""

    def __init__(
        self,
        objects: ObjectStore,
        index: ChunkIndex,
        places: NodePlaces,
        codec: BlockCodec,
        *,
        uploads: Executor | None = None,
        segments: SegmentWriter | None = None,
        adopt: Callable[[PackId, Path], None] | None = None,
    ) -> None:
        """Makes a writer.

        Args:
            objects: where packs go.
            index: is told of each pack.
            places: knows what is stored already.
            codec: compresses blocks.
            uploads: puts complete packs, for stores where that takes long: one after the other,
                because what is in the store must name nothing that is not. None waits for each.
            segments: is told of each pack that is in the store.
            adopt: is given each complete pack, in a file, to keep in a cache: what one import
                writes, the next one reads.
        """
        self._objects = objects
        self._index = index
        self._places = places
        self._whole = WholePacks(objects, index)
        self._codec = codec
        self._uploads = uploads
        self._segments = segments
        self._adopt = adopt
        self._uploading: deque[tuple[Future[None], PackWriter, dict[bytes, NodeRef]]] = deque()
        self._writer: PackWriter | None = None
        self._blocks: dict[bytes, _Block] = {}
        self._in_pack: list[_Block] = []
        self._entries: list[tuple[int, bytes, bytes, _Block, int, int]] = []
        self._pending: dict[bytes, NodeRef] = {}
        self._block = _Block()
        self._ticket = PackId(b"")
        self._run: list[bytes] = []
        self._run_bytes = 0
        self._open_block()
        self.objects_written = 0
        self.stored_bytes = 0

    def _open_block(self) -> None:
        self._block = _Block()
        self._ticket = PackId(len(self._blocks).to_bytes(8, "little"))
        self._blocks[self._ticket] = self._block
        self._run = []
        self._run_bytes = 0

    def put(
        self,
        kind: int,
        canonical: bytes,
        attributes: bytes,
        locations: Sequence[Location | None] | ChangedLocations,
    ) -> NodeRef:
        """Stores an object unless the store has it, and returns its reference.

        The reference may hold a ticket: pass it to this writer again, or to :meth:`resolve` after
        :meth:`finish`, but nowhere else.
        """
        object_id, object_stamp = id_of(kind, canonical), stamp(attributes)
        key = object_id + object_stamp
        pending = self._find_pending(key)
        if pending is not None:
            return pending
        try:
            where = self._places.locate(key)
        except IndexDamagedError:
            where = None
        if where is not None and self._whole.has(where.pack):
            return NodeRef(object_id, object_stamp, where)
        if (
            self._writer is not None
            and self._writer.size_bytes + self._run_bytes // 2 >= PACK_TARGET_BYTES
        ):
            self._seal()
        blob = frame(canonical, attributes, self._encode(locations))
        if self._run_bytes and self._run_bytes + len(blob) > BLOCK_TARGET_BYTES:
            self._close_block()
        where = Location(self._ticket, -1, -1, self._run_bytes, len(blob))
        self._entries.append(
            (
                kind,
                object_id,
                object_stamp,
                self._block,
                self._run_bytes,
                len(blob),
            )
        )
        self._run.append(blob)
        self._run_bytes += len(blob)
        self.objects_written += 1
        ref = NodeRef(object_id, object_stamp, where)
        self._pending[key] = ref
        return ref

    def _find_pending(self, key: bytes) -> NodeRef | None:
        """Returns an object of a pack that is not in the index yet."""
        found = self._pending.get(key)
        if found is None:
            for _, _, pending in self._uploading:
                if (found := pending.get(key)) is not None:
                    break
        return found

    def _encode(self, locations: Sequence[Location | None] | ChangedLocations) -> bytes:
        """Returns a location section as it is to be written."""
        written = self._for_writing
        if isinstance(locations, ChangedLocations):
            return locations.encode({at: written(w) for at, w in locations.changed.items()})
        return encode_locations([written(w) for w in locations])

    def _for_writing(self, where: Location | None) -> Location | None:
        """Returns a location as it is to be written into an object of the current pack."""
        if where is None or len(where.pack) == ID_BYTES:
            return where
        block = self._blocks[where.pack]
        if block.offset < 0:
            self._close_block()
        pack = THIS_PACK if block.pack is _OPEN else block.pack
        return Location(pack, block.offset, block.stored_length, where.offset, where.length)

    def _close_block(self) -> None:
        """Compresses and writes the current block, if there is anything in it."""
        if not self._run:
            return
        try:
            if self._writer is None:
                self._writer = PackWriter(self._objects.temporary(), PackKind.METADATA)
            stored = self._codec.encode(b"".join(self._run))
            self._block.offset = self._writer.append(stored)
        except OSError as error:
            raise translate(error, self._objects.url, "packs/", writing=True) from error
        self._block.stored_length = len(stored)
        self._in_pack.append(self._block)
        self._open_block()

    def _seal(self) -> None:
        """Completes the current pack, which goes to the store and then into the index."""
        self._close_block()
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            for kind, object_id, object_stamp, block, offset, length in self._entries:
                writer.add(
                    kind,
                    object_id,
                    object_stamp,
                    block.offset,
                    block.stored_length,
                    offset,
                    length,
                )
            pack = writer.finish()
        except OSError as error:
            writer.abort()
            raise translate(error, self._objects.url, "packs/", writing=True) from error
        self.stored_bytes += pack.size_bytes
        for block in self._in_pack:
            block.pack = pack.id
        self._entries, self._in_pack = [], []
        if self._uploads is None:
            try:
                self._put_pack(writer, pack)
            except BaseException:
                writer.abort()
                raise
            self._pending = {}
            return
        # Until the pack is in the index, what it holds is found here.
        pending, self._pending = self._pending, {}
        before = self._uploading[-1][0] if self._uploading else None
        future = self._uploads.submit(self._put_in_turn, before, writer, pack)
        self._uploading.append((future, writer, pending))
        while self._uploading and (
            self._uploading[0][0].done() or len(self._uploading) > _UPLOADING_BOUND
        ):
            self._uploaded()

    def _put_in_turn(
        self, before: Future[None] | None, writer: PackWriter, pack: FinishedPack
    ) -> None:
        """Puts a pack when the one before is in the store, and not at all if that failed.

        A parent without its children would be found by whoever writes the same folder again.
        """
        if before is not None:
            before.result()
        self._put_pack(writer, pack)

    def _put_pack(self, writer: PackWriter, pack: FinishedPack) -> None:
        """Puts a complete pack into the store, then into the index. May run in another thread."""
        if self._adopt is not None:
            self._adopt(pack.id, pack.path)
        self._objects.put_file(pack_key(pack.id), pack.path)
        writer.close()
        try:
            self._index.add_pack(
                pack.id,
                (),
                pack.index.places(),
                size_bytes=pack.size_bytes,
                is_metadata=True,
            )
        except IndexDamagedError as error:
            log.warning("not in the index: pack %s (%s)", pack.id.hex(), error)
        if self._segments is not None:
            self._segments.add(pack.index, pack.size_bytes)

    def _uploaded(self) -> None:
        """Waits for the first of the packs that are being put."""
        future, writer, _ = self._uploading[0]
        try:
            future.result()
        except BaseException:
            writer.abort()
            self._uploading.popleft()
            raise
        self._uploading.popleft()

    def resolve(self, ref: NodeRef) -> NodeRef:
        """Returns the reference with its real location, once its pack is complete."""
        where = ref.location
        if len(where.pack) == ID_BYTES:
            return ref
        block = self._blocks[where.pack]
        if block.pack is _OPEN:
            raise ValueError("the pack of this object is not complete; call finish() first")
        return ref._replace(
            location=Location(
                block.pack, block.offset, block.stored_length, where.offset, where.length
            )
        )

    def finish(self) -> None:
        """Completes the last pack. All objects are durable on return."""
        self._seal()
        while self._uploading:
            self._uploaded()

    def abort(self) -> None:
        """Throws away what is not in a complete pack; waits for what is being put."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        for future, _, _ in self._uploading:
            future.cancel()
        while self._uploading:
            future, writer, _ = self._uploading.popleft()
            if future.cancelled() or future.exception() is not None:
                writer.abort()
