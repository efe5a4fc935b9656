"""Writes metadata objects into packs of their own, children before parents.

A parent names the location of its children, so their block must be written when the parent is
encoded: that is when a block of small nodes is closed, besides reaching its size. A block therefore
holds about one directory's children, which are read together too.

Until its pack is complete, and so has an id, a node's location has a *ticket* for a pack id (eight
bytes); ``resolve`` turns it into the real one. No ticket is ever written to a store.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from versionfs.chunking import BlockCodec, id_of, stamp
from versionfs.chunking.blocks import BLOCK_TARGET_BYTES
from versionfs.chunkstore.locations import THIS_PACK, encode_locations
from versionfs.chunkstore.metadata import frame
from versionfs.index import ChunkIndex, IndexDamagedError, NodeCache
from versionfs.objectstore import ObjectStore, translate
from versionfs.pack import PackKind, PackWriter, pack_key
from versionfs.types import ID_BYTES, Location, NodeRef, PackId

log = logging.getLogger(__name__)

PACK_TARGET_BYTES: Final = 8 * 1024 * 1024
"""Metadata packs are smaller than data packs: nodes stay in memory until their pack is complete."""

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
        cache: NodeCache,
        codec: BlockCodec,
        *,
        copies: bool,
    ) -> None:
        """Makes a writer; with ``copies`` the index gets a copy of each object it writes."""
        self._objects = objects
        self._index = index
        self._cache = cache
        self._codec = codec
        self._copies = copies
        self._writer: PackWriter | None = None
        self._blocks: dict[bytes, _Block] = {}
        self._in_pack: list[_Block] = []
        self._entries: list[tuple[int, bytes, bytes, _Block, int, int, bytes]] = []
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
        locations: Sequence[Location | None],
    ) -> NodeRef:
        """Stores an object unless the store has it, and returns its reference.

        The reference may hold a ticket: pass it to this writer again, or to :meth:`resolve` after
        :meth:`finish`, but nowhere else.
        """
        object_id, object_stamp = id_of(kind, canonical), stamp(attributes)
        key = object_id + object_stamp
        pending = self._pending.get(key)
        if pending is not None:
            return pending
        try:
            where = self._cache.locate(key)
        except IndexDamagedError:
            where = None
        if where is not None:
            return NodeRef(object_id, object_stamp, where)
        if (
            self._writer is not None
            and self._writer.size_bytes + self._run_bytes // 2 >= PACK_TARGET_BYTES
        ):
            self._seal()
        blob = frame(
            canonical, attributes, encode_locations([self._for_writing(w) for w in locations])
        )
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
                blob if self._copies else b"",
            )
        )
        self._run.append(blob)
        self._run_bytes += len(blob)
        self.objects_written += 1
        ref = NodeRef(object_id, object_stamp, where)
        self._pending[key] = ref
        return ref

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
        """Completes the current pack: it goes to the store, then into the index."""
        self._close_block()
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            for kind, object_id, object_stamp, block, offset, length, _ in self._entries:
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
        try:
            self._objects.put_file(pack_key(pack.id), pack.path)
        except BaseException:
            writer.abort()
            raise
        writer.close()
        self.stored_bytes += pack.size_bytes
        for block in self._in_pack:
            block.pack = pack.id
        try:
            self._index.add_pack(
                pack.id,
                (),
                ((e.id + e.stamp, e.location) for e in pack.index),
                size_bytes=pack.size_bytes,
            )
            if self._copies:
                self._cache.put(
                    [(entry[1] + entry[2], pack.id, entry[6]) for entry in self._entries]
                )
        except IndexDamagedError as error:
            log.warning("not in the index: pack %s (%s)", pack.id.hex(), error)
        self._in_pack = []
        self._entries = []
        self._pending = {}

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

    def abort(self) -> None:
        """Throws away what is not in a complete pack."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
