"""Decoded tree nodes. What their bytes mean: ``tree/encoding.py``."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable
from itertools import repeat
from operator import lt
from typing import Final, NamedTuple

from versionfs.chunkstore import LocationColumns, MetadataObject
from versionfs.errors import CorruptionError
from versionfs.tree.encoding import COUNT, EXTRA, HEAD, decode_xattrs
from versionfs.types import (
    ID_BYTES,
    STAMP_BYTES,
    Entry,
    Kind,
    Location,
    NodeRef,
    Xattrs,
)

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
        _, count, names_length = HEAD.unpack_from(data)
        at = HEAD.size
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
        (count,) = COUNT.unpack_from(data, at)
        if not count:
            return {}
        extras = {}
        table = at + COUNT.size
        at = table + count * EXTRA.size
        for row in range(count):
            index, target, xattrs = EXTRA.unpack_from(data, table + row * EXTRA.size)
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

    @property
    def stamps(self) -> memoryview:
        """The column of stamps, 16 bytes each."""
        return self._stamps

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
        return self.locations[index]

    @property
    def locations(self) -> LocationColumns:
        """Where the entries' chunks and root nodes lie."""
        if self._locations is None:
            columns = self._source.location_columns
            if columns.count != self.count:
                raise CorruptionError("a tree leaf's locations are malformed")
            self._locations = columns
        return self._locations

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

    def entries(self) -> list[Entry]:
        """Returns all entries, whole, in half the time that :meth:`entry` takes for each."""
        count, contents, stamps = self.count, bytes(self._contents), bytes(self._stamps)
        return list(
            map(
                Entry,
                self.names,
                self.kinds,
                self.modes,
                self.sizes,
                self.files,
                [contents[at : at + ID_BYTES] for at in range(0, len(contents), ID_BYTES)],
                map(self.target, range(count)) if self._extras else repeat(b""),
                map(self.xattrs, range(count)) if self._extras else repeat(()),
                self.mtimes,
                self.uids,
                self.gids,
                [
                    stamps[at : at + STAMP_BYTES]
                    for at in range(0, STAMP_BYTES * count, STAMP_BYTES)
                ],
                self.locations.all(),
            )
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
        level, count, names_length = HEAD.unpack_from(data)
        self.level: int = level
        at = HEAD.size + names_length
        names = bytes(data[HEAD.size : at])
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
