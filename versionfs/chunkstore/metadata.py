"""Metadata objects: tree nodes, manifest nodes, commits. Framing, verification, reading.

Framing, little-endian: canonical length u32 · attributes length u32 · locations length u32 ·
canonical part · attributes · locations · stamp of the locations 16 B.

Only the canonical part is hashed into the id, the attributes into the stamp. Locations have a
checksum of their own and are part of neither, so that moving data changes no name.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
from typing import Final, NamedTuple

from versionfs.chunking import id_of, stamp
from versionfs.chunkstore.locations import LocationColumns
from versionfs.chunkstore.reader import PackReader
from versionfs.errors import CorruptionError, VersionFSError
from versionfs.index import IndexDamagedError, NodeCache
from versionfs.types import STAMP_BYTES, NodeRef, PackId, short

log = logging.getLogger(__name__)

_FRAME: Final = struct.Struct("<III")
_WRITE_BEHIND: Final = 256


class MetadataObject(NamedTuple):
    """A verified metadata object; ``pack`` is the one its own locations are relative to."""

    canonical: memoryview
    attributes: memoryview
    locations: memoryview
    pack: PackId

    @property
    def location_columns(self) -> LocationColumns:
        """The decoded location section."""
        return LocationColumns(self.locations, self.pack)


def frame(canonical: bytes, attributes: bytes, locations: bytes) -> bytes:
    """Returns a metadata object as it is stored in a block."""
    return b"".join(
        (
            _FRAME.pack(len(canonical), len(attributes), len(locations)),
            canonical,
            attributes,
            locations,
            stamp(locations),
        )
    )


def unframe(kind: int, ref: NodeRef, blob: bytes | memoryview, pack: PackId) -> MetadataObject:
    """Verifies a stored metadata object and returns its parts.

    Raises:
        CorruptionError: a length, the id, the stamp or the checksum does not match.
    """
    view = memoryview(blob)
    if len(view) < _FRAME.size + STAMP_BYTES:
        raise CorruptionError(f"object {short(ref.id)} is too short")
    first, second, third = _FRAME.unpack_from(view)
    a = _FRAME.size + first
    b = a + second
    c = b + third
    if len(view) != c + STAMP_BYTES:
        raise CorruptionError(f"object {short(ref.id)} has a wrong length")
    result = MetadataObject(view[_FRAME.size : a], view[a:b], view[b:c], pack)
    if (
        id_of(kind, result.canonical) != ref.id
        or stamp(result.attributes) != ref.stamp
        or stamp(result.locations) != view[c:]
    ):
        raise CorruptionError(f"object {short(ref.id)} does not match its id")
    return result


class MetadataReader:
    """Reads metadata objects: from the index's copies, else from packs. Thread-safe.

    When ``remember`` is true, what comes from a pack is copied to the index, in batches: for stores
    where a read is a request. For a local store copies would only take disk and, as mapped pages,
    memory.
    """

    def __init__(self, packs: PackReader, cache: NodeCache, *, remember: bool) -> None:
        self._packs = packs
        self._cache = cache
        self._remember = remember
        self._behind: list[tuple[bytes, PackId, bytes]] = []
        self._lock = threading.Lock()
        self.objects_read = 0

    def load(self, kind: int, ref: NodeRef) -> MetadataObject:
        """Returns the object that a reference names.

        Raises:
            CorruptionError: the stored object is damaged or gone; the log names the pack.
        """
        self.objects_read += 1
        copy = None
        if self._remember:
            with contextlib.suppress(IndexDamagedError):
                copy = self._cache.get(ref.key)
        if copy is not None:
            try:
                return unframe(kind, ref, copy[1], copy[0])
            except CorruptionError as error:
                log.warning("a copy in the index is damaged, reading the pack: %s", error)
                self._cache.forget(ref.key)
        location = ref.location
        blob = self._packs.read(location)
        try:
            result = unframe(kind, ref, blob, location.pack)
        except CorruptionError as error:
            self._packs.drop(location)
            pack = location.pack.hex()
            message = f"damaged data in pack {pack}, block at {location.block_offset}: {error}"
            log.error("%s", message)
            raise CorruptionError(
                message, pack=pack, hint="restore the pack from a copy of the store"
            ) from error
        if self._remember:
            self._later(ref.key, location.pack, bytes(blob))
        return result

    def _later(self, key: bytes, pack: PackId, blob: bytes) -> None:
        with self._lock:
            self._behind.append((key, pack, blob))
            if len(self._behind) < _WRITE_BEHIND:
                return
        self.flush()

    def flush(self) -> None:
        """Writes what was read to the index. Never fails: the index is a cache."""
        with self._lock:
            batch, self._behind = self._behind, []
        try:
            self._cache.put(batch)
        except VersionFSError as error:
            log.warning("cannot keep copies of nodes in the index: %s", error)
