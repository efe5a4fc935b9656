"""The pack format: ``[header][block]*[index][trailer]``, all integers little-endian.

header   16 bytes: ``VFSPACK``, format version u8 = 1, pack kind u8, 7 zero bytes
block    codec u8 (0 raw, 1 zstd), then the payload (see chunking/blocks.py)
index    columns, one value for each object in the order of writing:
         id 32 B · stamp 16 B (metadata packs only) · kind u8 ·
         block offset u32 · stored length u32 · offset in block u32 · length u32
trailer  48 bytes: index offset u64, index length u64, objects u32, 4 zero bytes,
         stamp of the index 16 B, ``VFSPEND`` and format version u8

The pack id is the plain BLAKE3-256 of all of it, and its key is ``packs/<first 2 digits>/<id>``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain, repeat
from operator import add
from typing import Final, NamedTuple

from versionfs.chunking import stamp
from versionfs.errors import CorruptionError, UnsupportedFormatError
from versionfs.types import ID_BYTES, NO_STAMP, STAMP_BYTES, Location, PackId

FORMAT_VERSION: Final = 1
HEADER_BYTES: Final = 16
_HEADER: Final = struct.Struct("<7sBB7x")
_MAGIC: Final = b"VFSPACK"
TRAILER_BYTES: Final = 48
_TRAILER: Final = struct.Struct("<QQI4x16s7sB")
_END_MAGIC: Final = b"VFSPEND"


class PackKind(IntEnum):
    """What a pack holds; the value is the byte in its header."""

    DATA = 0
    """Chunks of file content."""
    METADATA = 1
    """Tree nodes, manifest nodes and commits."""


class PackEntry(NamedTuple):
    """One object of a pack."""

    kind: int
    id: bytes
    stamp: bytes
    location: Location


def pack_key(pack: bytes) -> str:
    """Returns the key of a pack in the object store."""
    digits = pack.hex()
    return f"packs/{digits[:2]}/{digits}"


def encode_header(kind: PackKind) -> bytes:
    """Returns the 16 bytes that a pack begins with."""
    return _HEADER.pack(_MAGIC, FORMAT_VERSION, kind)


def encode_trailer(index_offset: int, index: bytes, count: int) -> bytes:
    """Returns the 48 bytes that a pack ends with."""
    return _TRAILER.pack(index_offset, len(index), count, stamp(index), _END_MAGIC, FORMAT_VERSION)


def entry_bytes(kind: PackKind) -> int:
    """Returns the size of one object's row in the index."""
    return ID_BYTES + (STAMP_BYTES if kind is PackKind.METADATA else 0) + 1 + 4 * 4


@dataclass(frozen=True, slots=True)
class PackIndex:
    """A pack's index, as read from its end. Iterates as :class:`PackEntry`."""

    pack: PackId
    kind: PackKind
    count: int
    data: bytes

    def __iter__(self) -> Iterator[PackEntry]:
        """Yields the objects in the order of writing."""
        kinds = self.data[self._kinds_at : self._kinds_at + self.count]
        return map(PackEntry, kinds, self._ids(), self._stamps(), self._locations())

    def places(self) -> Iterator[tuple[bytes, Location]]:
        """Yields the key of each object (chunk id, or id and stamp) and where it lies."""
        if self.kind is PackKind.METADATA:
            return zip(map(add, self._ids(), self._stamps()), self._locations(), strict=True)
        return zip(self._ids(), self._locations(), strict=True)

    @property
    def _kinds_at(self) -> int:
        stamps = STAMP_BYTES if self.kind is PackKind.METADATA else 0
        return (ID_BYTES + stamps) * self.count

    def _ids(self) -> Iterator[bytes]:
        ids = struct.iter_unpack(f"{ID_BYTES}s", self.data[: ID_BYTES * self.count])
        return chain.from_iterable(ids)

    def _stamps(self) -> Iterator[bytes]:
        if self.kind is not PackKind.METADATA:
            return repeat(NO_STAMP, self.count)
        stamps = self.data[ID_BYTES * self.count : self._kinds_at]
        return chain.from_iterable(struct.iter_unpack(f"{STAMP_BYTES}s", stamps))

    def _locations(self) -> Iterator[Location]:
        count = self.count
        numbers = struct.unpack_from(f"<{4 * count}I", self.data, self._kinds_at + count)
        columns = (numbers[at * count : (at + 1) * count] for at in range(4))
        return map(Location._make, zip(repeat(self.pack), *columns, strict=False))


def read_index(pack: PackId, size_bytes: int, read: Callable[[int, int], bytes]) -> PackIndex:
    """Reads a pack's index with at most three ranged reads: header, trailer, index.

    Args:
        pack: the pack's id, for the locations and the messages.
        size_bytes: the size of the whole object.
        read: returns ``length`` bytes at ``start`` of the object.

    Raises:
        CorruptionError: the pack is truncated or its index does not match its checksum.
        UnsupportedFormatError: the pack is of a newer format.
    """
    name = pack.hex()
    if size_bytes < HEADER_BYTES + TRAILER_BYTES:
        raise CorruptionError(f"pack {name} is truncated to {size_bytes} bytes", pack=name)
    header, trailer = read(0, HEADER_BYTES), read(size_bytes - TRAILER_BYTES, TRAILER_BYTES)
    if len(header) != HEADER_BYTES or len(trailer) != TRAILER_BYTES:
        raise CorruptionError(f"pack {name} is truncated", pack=name)
    magic, version, kind = _HEADER.unpack(header)
    if magic != _MAGIC or not version:
        raise CorruptionError(f"{name} is not a pack (its header is damaged)", pack=name)
    if version > FORMAT_VERSION:
        raise UnsupportedFormatError(
            f"pack {name} has format version {version}, this versionfs reads {FORMAT_VERSION}",
            hint="upgrade versionfs",
        )
    offset, length, count, checksum, end, _ = _TRAILER.unpack(trailer)
    if end != _END_MAGIC or offset + length + TRAILER_BYTES != size_bytes:
        raise CorruptionError(f"pack {name} is truncated or its trailer is damaged", pack=name)
    data = read(offset, length)
    if len(data) != length or stamp(data) != checksum:
        raise CorruptionError(f"the index of pack {name} does not match its checksum", pack=name)
    try:
        pack_kind = PackKind(kind)
    except ValueError as error:
        raise CorruptionError(f"pack {name} is of unknown kind {kind}", pack=name) from error
    if length != count * entry_bytes(pack_kind):
        raise CorruptionError(f"the index of pack {name} has a wrong length", pack=name)
    return PackIndex(pack, pack_kind, count, data)
