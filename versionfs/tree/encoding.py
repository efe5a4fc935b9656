"""The layout of tree nodes: columns, little-endian, so that a lookup decodes only the names.

leaf, canonical    level u8 = 0 · 3 zero bytes · count u32 · names length u32 · names joined by NUL
                   · kind u8 · mode u16 · size u64 · files u64 · content 32 B (each ``count`` times)
                   · extras u32 · per extra: index u32, target length u32, xattrs length u32 ·
                   the extras' bytes
leaf, attributes   mtime i64 · uid u32 · gid u32 · stamp 16 B (each ``count`` times)
inner, canonical   level u8 ≥ 1 · 3 zero bytes · count u32 · names length u32 · last name of each
                   child joined by NUL · entries u64 · files u64 · bytes u64 · child id 32 B
inner, attributes  stamp 16 B (``count`` times)

Locations are one per entry or child (chunkstore/locations.py). An extra holds a symlink's target
and the extended attributes: per attribute name length u16, value length u32, name, value.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from versionfs.types import Entry, Location, Xattrs

if TYPE_CHECKING:
    from versionfs.tree.node import Child

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("versionfs runs on little-endian machines only")

HEAD: Final = struct.Struct("<B3xII")
EXTRA: Final = struct.Struct("<III")
COUNT: Final = struct.Struct("<I")
_XATTR: Final = struct.Struct("<HI")

Buffer = bytes | bytearray | memoryview


def encode_xattrs(xattrs: Xattrs) -> bytes:
    """Returns extended attributes as they are in an extra."""
    return b"".join(_XATTR.pack(len(name), len(value)) + name + value for name, value in xattrs)


def decode_xattrs(data: bytes) -> Xattrs:
    """Returns the extended attributes of an extra."""
    result = []
    at = 0
    while at < len(data):
        name_length, value_length = _XATTR.unpack_from(data, at)
        at += _XATTR.size
        middle = at + name_length
        result.append((data[at:middle], data[middle : middle + value_length]))
        at = middle + value_length
    return tuple(result)


def encode_leaf(entries: Sequence[Entry]) -> tuple[bytes, bytes, list[Location | None]]:
    """Returns a leaf's canonical part, attributes and locations. Names are sorted and distinct."""
    count = len(entries)
    canonical = encode_canonical(
        [e.name for e in entries],
        bytes([e.kind for e in entries]),
        struct.pack(f"<{count}H", *[e.mode for e in entries]),
        struct.pack(f"<{count}Q", *[e.size for e in entries]),
        struct.pack(f"<{count}Q", *[e.files for e in entries]),
        b"".join([e.content for e in entries]),
        {
            index: (entry.target, encode_xattrs(entry.xattrs))
            for index, entry in enumerate(entries)
            if entry.target or entry.xattrs
        },
    )
    attributes = b"".join(
        (
            struct.pack(f"<{count}q", *[e.mtime_ns for e in entries]),
            struct.pack(f"<{count}I", *[e.uid for e in entries]),
            struct.pack(f"<{count}I", *[e.gid for e in entries]),
            b"".join([e.stamp for e in entries]),
        )
    )
    return canonical, attributes, [e.location for e in entries]


def encode_canonical(
    names: Sequence[bytes],
    kinds: Buffer,
    modes: Buffer,
    sizes: Buffer,
    files: Buffer,
    contents: Buffer,
    extras: Mapping[int, tuple[bytes, bytes]],
) -> bytes:
    """Returns a leaf's canonical part from its columns, encoded.

    ``extras`` are targets and encoded attributes by the number of the entry, in that order.
    """
    joined = b"\0".join(names)
    table = [EXTRA.pack(at, len(target), len(xattrs)) for at, (target, xattrs) in extras.items()]
    payload = [part for extra in extras.values() for part in extra]
    head = HEAD.pack(0, len(names), len(joined))
    columns = (kinds, modes, sizes, files, contents)
    return b"".join((head, joined, *columns, COUNT.pack(len(extras)), *table, *payload))


def encode_inner(
    level: int, children: Sequence[Child]
) -> tuple[bytes, bytes, list[Location | None]]:
    """Returns an inner node's canonical part, attributes and locations."""
    count = len(children)
    names = b"\0".join([c.key for c in children])
    canonical = b"".join(
        (
            HEAD.pack(level, count, len(names)),
            names,
            struct.pack(f"<{count}Q", *[c.entries for c in children]),
            struct.pack(f"<{count}Q", *[c.files for c in children]),
            struct.pack(f"<{count}Q", *[c.size for c in children]),
            b"".join([c.ref.id for c in children]),
        )
    )
    attributes = b"".join([c.ref.stamp for c in children])
    return canonical, attributes, [c.ref.location for c in children]
