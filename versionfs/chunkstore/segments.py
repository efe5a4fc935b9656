"""Index segments: copies of the indexes of many packs in one object, for writers on other machines.

Layout, little-endian: ``VFSSEGM`` · format version u8 = 1 · packs u32 · 4 zero bytes, then for each
pack: pack id 32 B · size of the pack u64 · pack kind u8 · 3 zero bytes · objects u32 · index length
u64 · stamp of the index 16 B · the index as it is in the pack (pack/format.py); at the end the
stamp of all before, 16 B.

A segment is written when its packs are in the store, and before the ref that needs them. It is a
hint: what it says counts only for packs that are there, and a pack in no segment has its own index.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from versionfs.chunking import stamp
from versionfs.errors import CorruptionError, UnsupportedFormatError
from versionfs.index import ChunkIndex
from versionfs.objectstore import ObjectStore
from versionfs.objectstore.naming import new_ulid
from versionfs.pack import PackIndex, PackKind, entry_bytes
from versionfs.types import ID_BYTES, STAMP_BYTES, PackId

SEGMENT_PREFIX: Final = "index/"
SEGMENT_TARGET_BYTES: Final = 8 * 1024 * 1024
"""A writer that has collected as much puts a segment; its reader holds a few of them in memory."""

_MAGIC: Final = b"VFSSEGM"
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<7sBI4x")
_PACK: Final = struct.Struct(f"<{ID_BYTES}sQB3xIQ{STAMP_BYTES}s")


class SegmentPack(NamedTuple):
    """A pack as a segment tells of it; ``size_bytes`` is that of the whole pack."""

    listing: PackIndex
    size_bytes: int


def encode_segment(packs: Sequence[SegmentPack]) -> bytes:
    """Returns the segment that tells of these packs."""
    parts = [_HEADER.pack(_MAGIC, _VERSION, len(packs))]
    for index, size in packs:
        data = index.data
        parts.append(
            _PACK.pack(index.pack, size, index.kind, index.count, len(data), stamp(data)) + data
        )
    body = b"".join(parts)
    return body + stamp(body)


def decode_segment(data: bytes, name: str) -> Iterator[SegmentPack]:
    """Yields the packs of a segment, each verified; ``name`` is for messages.

    Raises:
        CorruptionError: it is truncated or does not match its checksums.
        UnsupportedFormatError: it is of a newer format.
    """
    view = memoryview(data)
    try:
        magic, version, count = _HEADER.unpack_from(view)
    except struct.error as error:
        raise CorruptionError(f"the index segment {name} is truncated") from error
    if magic != _MAGIC or not version:
        raise CorruptionError(f"{name} is not an index segment")
    if version > _VERSION:
        raise UnsupportedFormatError(
            f"the index segment {name} has format version {version}, this versionfs reads "
            f"{_VERSION}",
            hint="upgrade versionfs",
        )
    end = len(view) - STAMP_BYTES
    if end < _HEADER.size or stamp(view[:end]) != view[end:]:
        raise CorruptionError(f"the index segment {name} does not match its checksum")
    at = _HEADER.size
    for _ in range(count):
        if at + _PACK.size > end:
            raise CorruptionError(f"the index segment {name} is malformed")
        pack, size, kind, objects, length, checksum = _PACK.unpack_from(view, at)
        at += _PACK.size
        index = bytes(view[at : min(at + length, end)])
        at += length
        try:
            pack_kind = PackKind(kind)
        except ValueError as error:
            raise CorruptionError(f"{name} tells of a pack of unknown kind {kind}") from error
        if (
            len(index) != length
            or length != objects * entry_bytes(pack_kind)
            or stamp(index) != checksum
        ):
            raise CorruptionError(f"the index segment {name} is malformed")
        yield SegmentPack(PackIndex(PackId(pack), pack_kind, objects, index), size)


class SegmentWriter:
    """Collects the indexes of packs that are in the store, and puts them as segments. Thread-safe.

    Memory is bounded: what reaches ``SEGMENT_TARGET_BYTES`` is put at once.
    """

    def __init__(self, objects: ObjectStore, index: ChunkIndex | None) -> None:
        """Makes a writer; ``index`` is told which segments it need not read, as it has the rows."""
        self._objects = objects
        self._index = index
        self._packs: list[SegmentPack] = []
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, index: PackIndex, size_bytes: int) -> None:
        """Takes the index of a pack that is durable in the store.

        Raises:
            StorageError: a segment was due, and cannot be written.
        """
        with self._lock:
            self._packs.append(SegmentPack(index, size_bytes))
            self._bytes += len(index.data)
            packs = self._take() if self._bytes >= SEGMENT_TARGET_BYTES else []
        self._put(packs)

    def publish(self) -> None:
        """Puts what was collected; nothing when that is nothing. Comes before the ref.

        Raises:
            StorageError: it cannot be written.
        """
        with self._lock:
            packs = self._take()
        self._put(packs)

    def _take(self) -> list[SegmentPack]:
        packs, self._packs, self._bytes = self._packs, [], 0
        return packs

    def _put(self, packs: list[SegmentPack]) -> None:
        if not packs:
            return
        name = new_ulid()
        self._objects.put(SEGMENT_PREFIX + name, encode_segment(packs))
        if self._index is not None:
            self._index.add_own_segment(name)
