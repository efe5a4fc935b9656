"""A leaf some of whose entries are replaced, by others of the same names.

Names decide where a leaf ends, so it stays the leaf it was, and all else of it is copied as it is.
To make every entry of it an object, and columns of them again, took most of a small commit.
"""

from __future__ import annotations

from struct import pack_into

from versionfs.chunkstore import ChangedLocations, MetadataWriter
from versionfs.tree.encoding import encode_canonical, encode_xattrs
from versionfs.tree.node import Child, Leaf
from versionfs.types import ID_BYTES, STAMP_BYTES, Entry, Kind, ObjectKind


class Replacing:
    """A stored leaf, and the entries that take the place of others in it."""

    __slots__ = ("_child", "_leaf", "_replaced", "is_last")

    def __init__(self, child: Child, leaf: Leaf, *, is_last: bool) -> None:
        """Replaces nothing yet.

        Args:
            child: the leaf as its parent sees it.
            leaf: that leaf, which is not empty.
            is_last: whether it is the last one of its tree, which may end for want of entries.
        """
        self._child = child
        self.is_last = is_last
        self._leaf = leaf
        self._replaced: dict[int, Entry] = {}

    def holds(self, name: bytes) -> bool:
        """Whether an entry of that name would be in this leaf."""
        return name <= self._leaf.names[-1]

    def replace(self, entry: Entry) -> bool:
        """Puts an entry in the place of the one of its name; false if there is none."""
        index = self._leaf.find(entry.name)
        if index < 0:
            return False
        self._replaced[index] = entry
        return True

    def entries(self) -> list[Entry]:
        """Returns all entries as they are now."""
        entries = self._leaf.entries()
        for index, entry in self._replaced.items():
            entries[index] = entry
        return entries

    def write(self, writer: MetadataWriter) -> Child:
        """Stores the leaf as it is now: the same bytes as if it were made of its entries."""
        if not self._replaced:
            return self._child
        old = self._leaf
        # Not those of the child: whatever its parent says, it is put right here.
        count, files, size = old.totals()
        for index, entry in self._replaced.items():
            files += entry.files - old.files[index]
            size += _counted(entry.kind, entry.size) - _counted(old.kinds[index], old.sizes[index])
        ref = writer.put(
            ObjectKind.TREE,
            self._canonical(),
            self._attributes(),
            ChangedLocations(old.locations, {at: e.location for at, e in self._replaced.items()}),
        )
        return Child(ref, old.names[-1], count, files, size)

    def _canonical(self) -> bytes:
        leaf = self._leaf
        columns = leaf.kinds, leaf.modes, leaf.sizes, leaf.files, leaf.contents
        kinds, modes, sizes, files, contents = map(bytearray, columns)
        extras = {at: extra for at, extra in leaf.extras.items() if at < leaf.count}
        for index, entry in self._replaced.items():
            kinds[index] = entry.kind
            pack_into("<H", modes, 2 * index, entry.mode)
            pack_into("<Q", sizes, 8 * index, entry.size)
            pack_into("<Q", files, 8 * index, entry.files)
            contents[ID_BYTES * index : ID_BYTES * (index + 1)] = entry.content
            extras.pop(index, None)
            if entry.target or entry.xattrs:
                extras[index] = entry.target, encode_xattrs(entry.xattrs)
        extras = dict(sorted(extras.items()))
        return encode_canonical(leaf.names, kinds, modes, sizes, files, contents, extras)

    def _attributes(self) -> bytes:
        leaf = self._leaf
        columns = leaf.mtimes, leaf.uids, leaf.gids, leaf.stamps
        mtimes, uids, gids, stamps = map(bytearray, columns)
        for index, entry in self._replaced.items():
            pack_into("<q", mtimes, 8 * index, entry.mtime_ns)
            pack_into("<I", uids, 4 * index, entry.uid)
            pack_into("<I", gids, 4 * index, entry.gid)
            stamps[STAMP_BYTES * index : STAMP_BYTES * (index + 1)] = entry.stamp
        return b"".join((mtimes, uids, gids, stamps))


def _counted(kind: int, size: int) -> int:
    """Returns what an entry adds to the bytes of a subtree."""
    return 0 if kind == Kind.SYMLINK else size
