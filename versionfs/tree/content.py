"""Reads the bytes of files."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from versionfs.chunkstore import MetadataReader, PackReader
from versionfs.errors import CorruptionError
from versionfs.tree.manifest import ManifestChild, ManifestNode, read_manifest_node
from versionfs.types import NO_ID, Entry, Extent, Kind, NodeRef

_NODE_CACHE: Final = 256
"""Decoded manifest nodes kept: of about 30 KiB each at most, so under 8 MiB."""


class Contents:
    """Opens files for reading. Thread-safe."""

    def __init__(self, objects: MetadataReader, packs: PackReader) -> None:
        self._objects = objects
        self._packs = packs
        self._nodes: OrderedDict[bytes, ManifestNode] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, entry: Entry) -> FileContent:
        """Returns the content of a regular file; reads nothing yet.

        Raises:
            ValueError: the entry is not a regular file.
        """
        if not entry.is_file:
            raise ValueError(f"{entry.name!r} is not a regular file")
        return FileContent(self, entry)

    def node(self, ref: NodeRef) -> ManifestNode:
        """Returns a manifest node, cached."""
        with self._lock:
            node = self._nodes.get(ref.id)
            if node is not None:
                self._nodes.move_to_end(ref.id)
                return node
        node = read_manifest_node(self._objects, ref)
        with self._lock:
            self._nodes[ref.id] = node
            if len(self._nodes) > _NODE_CACHE:
                self._nodes.popitem(last=False)
        return node

    def extent_data(self, extent: Extent, *, scan: bool = False) -> memoryview | None:
        """Returns an extent's bytes, verified, or None for a hole.

        ``scan`` says that the file is small, and its neighbours will likely be read too.
        """
        if extent.chunk == NO_ID:
            return None
        if extent.location is None:
            raise CorruptionError("an extent has a chunk but no location")
        data = self._packs.chunk(extent.chunk, extent.location, scan=scan)
        if len(data) != extent.length:
            raise CorruptionError(
                f"an extent of {extent.length} bytes has a chunk of {len(data)}",
                pack=extent.location.pack.hex(),
            )
        return data


class FileContent:
    """The bytes of one file. Any number of threads may read at once."""

    __slots__ = ("_contents", "_entry", "_leaf", "size")

    def __init__(self, contents: Contents, entry: Entry) -> None:
        self._contents = contents
        self._entry = entry
        self._leaf: tuple[int, int, ManifestNode] | None = None
        self.size = entry.size

    def read(self, offset: int, size: int) -> bytes:
        """Returns up to ``size`` bytes at ``offset``: fewer only at the end of the file.

        Raises:
            CorruptionError: the stored bytes are damaged; it names the pack.
        """
        end = min(offset + size, self.size)
        if offset < 0 or offset >= end:
            return b""
        parts: list[bytes | memoryview] = []
        for start, extent in self.extents(offset):
            low = max(offset - start, 0)
            high = min(end - start, extent.length)
            data = self._contents.extent_data(extent, scan=self._entry.kind == Kind.FILE)
            parts.append(bytes(high - low) if data is None else data[low:high])
            if start + extent.length >= end:
                break
        if len(parts) == 1:
            return bytes(parts[0])
        result = b"".join(parts)
        if len(result) != end - offset:
            raise CorruptionError(f"the manifest of a file of {self.size} bytes is too short")
        return result

    def close(self) -> None:
        """Says that no more is read for now; it may be read again, and closed again."""

    def extents(self, offset: int = 0) -> Iterator[tuple[int, Extent]]:
        """Yields the extents from the one that holds ``offset`` on, each with its own offset."""
        entry = self._entry
        if entry.kind == Kind.FILE:
            if entry.size:
                yield 0, Extent(entry.size, entry.content, entry.location)
            return
        leaf = self._leaf
        if leaf is not None and leaf[0] <= offset < leaf[1]:
            begin, end, node = leaf
            yield from _leaf_extents(node, begin, offset)
            offset = end
        if offset < self.size:
            yield from self._below(entry.node, 0, offset)

    def _below(self, ref: NodeRef, begin: int, offset: int) -> Iterator[tuple[int, Extent]]:
        node = self._contents.node(ref)
        if node.level == 0:
            self._leaf = (begin, begin + node.ends[-1], node)
            yield from _leaf_extents(node, begin, offset)
            return
        first = bisect_right(node.ends, offset - begin) if offset > begin else 0
        for index in range(first, len(node.items)):
            child = node.items[index]
            assert isinstance(child, ManifestChild)
            yield from self._below(child.ref, begin + node.ends[index] - child.length, offset)


def _leaf_extents(node: ManifestNode, begin: int, offset: int) -> Iterator[tuple[int, Extent]]:
    first = bisect_right(node.ends, offset - begin) if offset > begin else 0
    for index in range(first, len(node.items)):
        extent = node.items[index]
        assert isinstance(extent, Extent)
        yield begin + node.ends[index] - extent.length, extent
