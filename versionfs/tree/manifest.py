"""Manifests: a large file's extents as a prolly tree, split by chunk id and addressed by offset.

leaf, canonical    level u8 = 0 · 3 zero bytes · count u32 · length u64 · chunk id 32 B
inner, canonical   level u8 ≥ 1 · 3 zero bytes · count u32 · length u64 · child id 32 B

All little-endian; columns have ``count`` values. A hole has the chunk id of all zeros. A child's
length is that of the bytes below it. Nodes hold lengths, not offsets, so that inserting bytes
changes one path. Manifest nodes have no attributes; locations are one per extent or child.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Final, NamedTuple

from versionfs.chunking import stamp
from versionfs.chunkstore import MetadataObject, MetadataReader, MetadataWriter
from versionfs.errors import CorruptionError
from versionfs.tree.builder import Builder
from versionfs.tree.splitter import id_ends_node
from versionfs.types import ID_BYTES, NO_ID, Extent, NodeRef, ObjectKind

_HEAD: Final = struct.Struct("<B3xI")
EMPTY_STAMP: Final = stamp(b"")
"""The stamp of every manifest node."""


class ManifestChild(NamedTuple):
    """A manifest node as its parent sees it; ``length`` is in bytes of the file."""

    ref: NodeRef
    length: int


class ManifestNode:
    """A decoded manifest node: ``items`` are extents (level 0) or children.

    ``ends`` holds the offset behind each item, counted from the node's first byte.
    """

    __slots__ = ("ends", "items", "level")

    def __init__(self, source: MetadataObject) -> None:
        data = source.canonical
        try:
            self.level, count = _HEAD.unpack_from(data)
            lengths = struct.unpack_from(f"<{count}Q", data, _HEAD.size)
        except struct.error as error:
            raise CorruptionError(f"a manifest node is malformed: {error}") from error
        at = _HEAD.size + 8 * count
        columns = source.location_columns
        if not count or columns.count != count or len(data) != at + ID_BYTES * count:
            raise CorruptionError("a manifest node is malformed")
        ids = bytes(data[at:])
        items: list[Extent | ManifestChild] = []
        for i, length in enumerate(lengths):
            object_id = ids[ID_BYTES * i : ID_BYTES * (i + 1)]
            where = columns[i]
            if self.level == 0:
                items.append(Extent(length, object_id, where))
            elif where is None:
                raise CorruptionError("a manifest node lacks a location")
            else:
                items.append(ManifestChild(NodeRef(object_id, EMPTY_STAMP, where), length))
        self.items = items
        self.ends = list(accumulate(lengths))


def read_manifest_node(objects: MetadataReader, ref: NodeRef) -> ManifestNode:
    """Returns a manifest node.

    Raises:
        CorruptionError: it is damaged or gone.
    """
    return ManifestNode(objects.load(ObjectKind.MANIFEST, ref))


def _encode(level: int, lengths: Sequence[int], ids: Sequence[bytes]) -> bytes:
    count = len(lengths)
    return b"".join((_HEAD.pack(level, count), struct.pack(f"<{count}Q", *lengths), *ids))


class _ManifestShape:
    """Manifests, for the builder."""

    def __init__(self, read: Callable[[NodeRef], ManifestNode], writer: MetadataWriter) -> None:
        self._read = read
        self._writer = writer

    def ends_leaf(self, item: Extent) -> bool:
        return item.chunk != NO_ID and id_ends_node(item.chunk, 0)

    def ends_node(self, child: ManifestChild, level: int) -> bool:
        return id_ends_node(child.ref.id, level)

    def write_leaf(self, items: Sequence[Extent]) -> ManifestChild:
        canonical = _encode(0, [i.length for i in items], [i.chunk for i in items])
        ref = self._writer.put(ObjectKind.MANIFEST, canonical, b"", [i.location for i in items])
        return ManifestChild(ref, sum(i.length for i in items))

    def write_inner(self, level: int, children: Sequence[ManifestChild]) -> ManifestChild:
        canonical = _encode(level, [c.length for c in children], [c.ref.id for c in children])
        locations = [c.ref.location for c in children]
        ref = self._writer.put(ObjectKind.MANIFEST, canonical, b"", locations)
        return ManifestChild(ref, sum(c.length for c in children))

    def read_leaf(self, child: ManifestChild) -> Sequence[Extent]:
        items = self._read(child.ref).items
        return [item for item in items if isinstance(item, Extent)]

    def end_of_leaf(self, child: ManifestChild) -> tuple[int, bool]:
        items = self.read_leaf(child)
        return len(items), bool(items) and self.ends_leaf(items[-1])

    def read_inner(self, child: ManifestChild) -> Sequence[ManifestChild]:
        items = self._read(child.ref).items
        return [item for item in items if isinstance(item, ManifestChild)]


class ManifestBuilder:
    """Takes a file's extents in order and stores its manifest; memory follows the tree's height."""

    def __init__(
        self,
        objects: MetadataReader,
        writer: MetadataWriter,
        *,
        read: Callable[[NodeRef], ManifestNode] | None = None,
    ) -> None:
        """Makes a builder.

        Args:
            objects: where to read nodes of other manifests.
            writer: stores nodes.
            read: returns a node instead, as one who keeps them in memory can.
        """
        self._read = read if read is not None else partial(read_manifest_node, objects)
        self._builder: Builder[Extent, ManifestChild] = Builder(_ManifestShape(self._read, writer))

    def add(self, extent: Extent) -> None:
        """Adds the next extent."""
        self._builder.add(extent)

    def keep(self, root: NodeRef, start: int, end: int) -> None:
        """Adds the extents of another manifest that lie in ``[start, end)`` of its file.

        Both are offsets where extents begin or end. Nodes that can be taken over whole are not
        read: that leaves a few at either end, whatever lies between.

        Raises:
            ValueError: an extent lies across the start or the end.
            CorruptionError: a node is damaged or gone.
        """
        self._keep(self._read(root), 0, start, end, edge=True)

    def _keep(self, node: ManifestNode, begin: int, start: int, end: int, *, edge: bool) -> None:
        """Adds what lies below a node whose first byte is ``begin`` of the file.

        ``edge`` says that it is on the right edge of its tree.
        """
        last = len(node.items) - 1
        for index in range(bisect_right(node.ends, start - begin), last + 1):
            item = node.items[index]
            stop = begin + node.ends[index]
            at = stop - item.length
            if at >= end:
                return
            if isinstance(item, Extent):
                if at < start or stop > end:
                    raise ValueError(f"an extent [{at}, {stop}) lies across [{start}, {end})")
                self._builder.add(item)
            elif start <= at and stop <= end:
                rightmost = edge and index == last
                self._builder.add_child(item, node.level - 1, rightmost=rightmost)
            else:
                self._keep(self._read(item.ref), at, start, end, edge=edge and index == last)

    def finish(self) -> ManifestChild:
        """Returns the root."""
        return self._builder.finish()
