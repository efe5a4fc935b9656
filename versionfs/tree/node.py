"""The codec of tree nodes. Columns, little-endian, so that a lookup decodes nothing but the names.

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
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import lt
from typing import Final, NamedTuple

from versionfs.chunkstore import LocationColumns, MetadataObject
from versionfs.errors import CorruptionError
from versionfs.types import (
    ID_BYTES,
    STAMP_BYTES,
    Entry,
    Kind,
    Location,
    NodeRef,
    Xattrs,
)

if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("versionfs runs on little-endian machines only")

_HEAD: Final = struct.Struct("<B3xII")
_EXTRA: Final = struct.Struct("<III")
_XATTR: Final = struct.Struct("<HI")
_COUNT: Final = struct.Struct("<I")
_KINDS: Final = frozenset(int(kind) for kind in Kind)
_OBJECT_BYTES: Final = 2_500
"""What a leaf takes beside its data: eleven memoryviews of 184 bytes, and itself."""


class Child(NamedTuple):
    """A node as its parent sees it. ``key`` is the last name in it; totals are of its entries."""

    ref: NodeRef
    key: bytes
    entries: int
    files: int
    size: int


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
    names = b"\0".join([e.name for e in entries])
    extras = bytearray()
    payload = bytearray()
    extra_count = 0
    for index, entry in enumerate(entries):
        if entry.target or entry.xattrs:
            attributes = encode_xattrs(entry.xattrs)
            extras += _EXTRA.pack(index, len(entry.target), len(attributes))
            payload += entry.target
            payload += attributes
            extra_count += 1
    canonical = b"".join(
        (
            _HEAD.pack(0, count, len(names)),
            names,
            bytes([e.kind for e in entries]),
            struct.pack(f"<{count}H", *[e.mode for e in entries]),
            struct.pack(f"<{count}Q", *[e.size for e in entries]),
            struct.pack(f"<{count}Q", *[e.files for e in entries]),
            b"".join([e.content for e in entries]),
            _COUNT.pack(extra_count),
            extras,
            payload,
        )
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


def encode_inner(
    level: int, children: Sequence[Child]
) -> tuple[bytes, bytes, list[Location | None]]:
    """Returns an inner node's canonical part, attributes and locations."""
    count = len(children)
    names = b"\0".join([c.key for c in children])
    canonical = b"".join(
        (
            _HEAD.pack(level, count, len(names)),
            names,
            struct.pack(f"<{count}Q", *[c.entries for c in children]),
            struct.pack(f"<{count}Q", *[c.files for c in children]),
            struct.pack(f"<{count}Q", *[c.size for c in children]),
            b"".join([c.ref.id for c in children]),
        )
    )
    attributes = b"".join([c.ref.stamp for c in children])
    return canonical, attributes, [c.ref.location for c in children]


def _valid_names(names: list[bytes]) -> bool:
    """Tells whether names without a slash are sorted, distinct, and none of them is special.

    What a store holds may have been made to harm: an export must not follow ``..``.
    """
    return all(map(lt, names, names[1:])) and not (
        names and (names[0] == b"" or b"." in names or b".." in names)
    )


class Leaf:
    """A decoded leaf: columns indexed by entry number. Do not modify.

    ``names`` is sorted; ``kinds``, ``modes``, ``sizes``, ``files``, ``mtimes``, ``uids`` and
    ``gids`` are parallel to it (bytes, nanoseconds).
    """

    __slots__ = (
        "_contents",
        "_extras",
        "_locations",
        "_source",
        "_stamps",
        "count",
        "files",
        "gids",
        "kinds",
        "modes",
        "mtimes",
        "names",
        "size_bytes",
        "sizes",
        "uids",
    )

    level: Final = 0

    def __init__(self, source: MetadataObject) -> None:
        data = source.canonical
        _, count, names_length = _HEAD.unpack_from(data)
        at = _HEAD.size
        names = bytes(data[at : at + names_length])
        self.names: list[bytes] = names.split(b"\0") if count else []
        at += names_length
        if b"/" in names or not _valid_names(self.names):
            raise CorruptionError("a tree leaf has a name that is none")
        if len(self.names) != count or len(data) < at + count * (1 + 2 + 8 + 8 + ID_BYTES) + 4:
            raise CorruptionError("a tree leaf is malformed")
        self.count = count
        self.kinds = data[at : at + count]
        if count and not _KINDS.issuperset(self.kinds):
            raise CorruptionError("a tree leaf has an entry of unknown kind")
        at += count
        self.modes = data[at : at + 2 * count].cast("H")
        at += 2 * count
        self.sizes = data[at : at + 8 * count].cast("Q")
        at += 8 * count
        self.files = data[at : at + 8 * count].cast("Q")
        at += 8 * count
        self._contents = data[at : at + ID_BYTES * count]
        at += ID_BYTES * count
        self._extras = self._decode_extras(data, at)
        data = source.attributes
        if len(data) != count * (8 + 4 + 4 + STAMP_BYTES):
            raise CorruptionError("a tree leaf's attributes are malformed")
        self.mtimes = data[: 8 * count].cast("q")
        self.uids = data[8 * count : 12 * count].cast("I")
        self.gids = data[12 * count : 16 * count].cast("I")
        self._stamps = data[16 * count :]
        self._source = source
        self._locations: LocationColumns | None = None
        self.size_bytes = (
            (len(source.canonical) + len(source.attributes) + len(source.locations) + len(names))
            + 64 * count
            + _OBJECT_BYTES
        )
        """About what it takes in memory."""

    @staticmethod
    def _decode_extras(data: memoryview, at: int) -> dict[int, tuple[bytes, bytes]]:
        (count,) = _COUNT.unpack_from(data, at)
        if not count:
            return {}
        extras = {}
        table = at + _COUNT.size
        at = table + count * _EXTRA.size
        for row in range(count):
            index, target, xattrs = _EXTRA.unpack_from(data, table + row * _EXTRA.size)
            middle = at + target
            extras[index] = (bytes(data[at:middle]), bytes(data[middle : middle + xattrs]))
            at = middle + xattrs
        return extras

    def find(self, name: bytes) -> int:
        """Returns the number of the entry of that name, or -1."""
        index: int = bisect_left(self.names, name)
        return index if index < self.count and self.names[index] == name else -1

    @property
    def contents(self) -> memoryview:
        """The column of content ids, 32 bytes each."""
        return self._contents

    @property
    def columns(self) -> tuple[memoryview, ...]:
        """The columns of kinds, modes, sizes, mtimes, uids, gids and content ids."""
        return (
            self.kinds, self.modes, self.sizes, self.mtimes, self.uids, self.gids, self._contents
        )  # fmt: skip

    @property
    def extras(self) -> dict[int, tuple[bytes, bytes]]:
        """Targets and encoded extended attributes by the number of the entry that has any."""
        return self._extras

    def content(self, index: int) -> bytes:
        """Returns the content id of an entry."""
        return bytes(self._contents[ID_BYTES * index : ID_BYTES * (index + 1)])

    def stamp(self, index: int) -> bytes:
        """Returns the stamp of an entry's root node."""
        return bytes(self._stamps[STAMP_BYTES * index : STAMP_BYTES * (index + 1)])

    def target(self, index: int) -> bytes:
        """Returns the target of a symlink, b"" for anything else."""
        extra = self._extras.get(index)
        return extra[0] if extra else b""

    def xattrs(self, index: int) -> Xattrs:
        """Returns the extended attributes of an entry."""
        extra = self._extras.get(index)
        return decode_xattrs(extra[1]) if extra else ()

    def with_extras(self) -> Iterable[int]:
        """Returns the numbers of the entries that have a target or extended attributes."""
        return self._extras.keys()

    def raw_xattrs(self, index: int) -> bytes:
        """Returns the extended attributes of an entry, encoded: equal bytes, equal attributes."""
        extra = self._extras.get(index)
        return extra[1] if extra else b""

    def location(self, index: int) -> Location | None:
        """Returns where an entry's chunk or root node lies."""
        if self._locations is None:
            columns = self._source.location_columns
            if columns.count != self.count:
                raise CorruptionError("a tree leaf's locations are malformed")
            self._locations = columns
        return self._locations[index]

    def entry(self, index: int) -> Entry:
        """Returns an entry, whole."""
        return Entry(
            self.names[index],
            self.kinds[index],
            self.modes[index],
            self.sizes[index],
            self.files[index],
            self.content(index),
            self.target(index),
            self.xattrs(index),
            self.mtimes[index],
            self.uids[index],
            self.gids[index],
            self.stamp(index),
            self.location(index),
        )

    def totals(self) -> tuple[int, int, int]:
        """Returns the entries, the files and the bytes of the subtree."""
        symlink = Kind.SYMLINK
        size = sum(s for s, k in zip(self.sizes, self.kinds, strict=True) if k != symlink)
        return self.count, sum(self.files), size


class Inner:
    """A decoded inner node. ``keys`` are the last names of the children, sorted."""

    __slots__ = ("children", "count", "keys", "level", "size_bytes")

    def __init__(self, source: MetadataObject) -> None:
        data = source.canonical
        level, count, names_length = _HEAD.unpack_from(data)
        self.level: int = level
        at = _HEAD.size + names_length
        names = bytes(data[_HEAD.size : at])
        self.keys: list[bytes] = names.split(b"\0") if count else []
        columns = source.location_columns
        if (
            not count
            or len(self.keys) != count
            or columns.count != count
            or len(data) != at + count * (3 * 8 + ID_BYTES)
            or len(source.attributes) != count * STAMP_BYTES
        ):
            raise CorruptionError("an inner tree node is malformed")
        self.count: int = count
        entries = data[at : at + 8 * count].cast("Q")
        files = data[at + 8 * count : at + 16 * count].cast("Q")
        sizes = data[at + 16 * count : at + 24 * count].cast("Q")
        ids = bytes(data[at + 24 * count :])
        stamps = bytes(source.attributes)
        children = []
        for i, key in enumerate(self.keys):
            where = columns[i]
            if where is None:
                raise CorruptionError("an inner tree node lacks a location")
            ref = NodeRef(
                ids[ID_BYTES * i : ID_BYTES * (i + 1)],
                stamps[STAMP_BYTES * i : STAMP_BYTES * (i + 1)],
                where,
            )
            children.append(Child(ref, key, entries[i], files[i], sizes[i]))
        self.children: list[Child] = children
        self.size_bytes = 500 * count

    def child_for(self, name: bytes) -> int:
        """Returns the number of the child that has the name, if any has; the last for the rest."""
        return min(bisect_left(self.keys, name), self.count - 1)

    def totals(self) -> tuple[int, int, int]:
        """Returns the entries, the files and the bytes of the subtree."""
        return (
            sum(c.entries for c in self.children),
            sum(c.files for c in self.children),
            sum(c.size for c in self.children),
        )


def decode(source: MetadataObject) -> Leaf | Inner:
    """Returns a tree node from its verified bytes.

    Raises:
        CorruptionError: the parts do not fit together.
    """
    try:
        return Inner(source) if source.canonical[0] else Leaf(source)
    except (struct.error, IndexError) as error:
        raise CorruptionError(f"a tree node is malformed: {error}") from error
