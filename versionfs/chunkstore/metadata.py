"""Metadata objects: tree nodes, manifest nodes, commits. Framing, verification, reading.

Framing, little-endian: canonical length u32 · attributes length u32 · locations length u32 ·
canonical part · attributes · locations · stamp of the locations 16 B.

Only the canonical part is hashed into the id, the attributes into the stamp. Locations have a
checksum of their own and are part of neither, so that moving data changes no name.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from versionfs.chunking import id_of, stamp
from versionfs.chunkstore.locations import LocationColumns
from versionfs.chunkstore.reader import PackReader
from versionfs.chunkstore.source import Scan
from versionfs.errors import CorruptionError
from versionfs.types import STAMP_BYTES, Location, NodeRef, PackId, short

_FRAME: Final = struct.Struct("<III")


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
    """Reads metadata objects from packs. Thread-safe."""

    def __init__(self, packs: PackReader) -> None:
        self._packs = packs
        self.objects_read = 0

    @property
    def is_cached(self) -> bool:
        """Whether a read may be a request, which can be sent before it is needed."""
        return self._packs.source.is_cached

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Begins to fetch objects that will likely be loaded soon; returns at once."""
        self._packs.prefetch(locations)

    def load(self, kind: int, ref: NodeRef) -> MetadataObject:
        """Returns the object that a reference names.

        Raises:
            CorruptionError: the stored object is damaged or gone; the log names the pack.
            WouldBlock: see ``PackReader.read``.
        """
        self.objects_read += 1
        pack = ref.location.pack
        return self._packs.read(
            ref.location, lambda blob: unframe(kind, ref, blob, pack), scan=Scan.NEAR
        )
