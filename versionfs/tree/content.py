"""Reads the bytes of files."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import takewhile
from typing import Final, NamedTuple

from versionfs.chunkstore import MetadataReader, PackRange, PackReader, Scan
from versionfs.errors import CorruptionError
from versionfs.objectstore import WouldBlock, may_block
from versionfs.tree.decodeahead import DecodeAhead
from versionfs.tree.manifest import ManifestChild, ManifestNode, read_manifest_node
from versionfs.tree.nextpack import NextPack
from versionfs.tree.node import Leaf
from versionfs.tree.readahead import Readahead
from versionfs.types import NO_ID, Entry, Extent, Kind, NodeRef

PUSHED_BYTES: Final = 128 * 1024
"""The largest file whose bytes a mount gives the kernel with the answer to ``open``."""

_FILE: Final = int(Kind.FILE)

_NODE_CACHE: Final = 512
"""Decoded manifest nodes kept: of some 126 extents, and about 40 KiB, in the mean."""

_FEW_CHUNKS_BYTES: Final = 1024 * 1024
"""Files up to this size may be some of many that are read one after the other."""

_IN_ORDER_BYTES: Final = range(256 * 1024, 1024 * 1024 + 1)
"""Reads of a large file that others are expected after. The kernel asks for no more."""

_READERS: Final = 4
"""Of one open file, so many may read one after the other, each in another place."""

_DEPTH: Final = 3
"""Reads that are decoded ahead of a reader."""

_BATCH: Final = 128
_BATCH_BYTES: Final = 16 * 1024 * 1024
"""Extents that one read fetches at a time."""

MOST_PIECES: Final = 32
"""A read of more pieces than these is joined: the kernel takes each by itself."""

Pieces = list[bytes | memoryview]
"""Bytes that follow each other in a file, as they are in memory."""


class ContentStatistics(NamedTuple):
    """Blocks that were decoded; small files whose bytes the kernel got before it asked for them.

    ``pushed_ahead`` of what is read in order, ``pushed_along`` with another one of the same block.
    """

    blocks_read: int
    pushed_ahead: int
    pushed_along: int


def joined(pieces: Pieces) -> bytes:
    """Returns pieces as one; one alone that is bytes is not copied."""
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


class Contents:
    """Opens files for reading. Thread-safe."""

    def __init__(self, objects: MetadataReader, packs: PackReader) -> None:
        self.source = packs.source
        self._objects = objects
        self._packs = packs
        self.decoded = DecodeAhead()
        self._nodes: OrderedDict[bytes, ManifestNode] = OrderedDict()
        self._lock = threading.Lock()
        self.pushed_ahead = self.pushed_along = 0

    def statistics(self) -> ContentStatistics:
        """Returns counts since this was made."""
        return ContentStatistics(self.blocks_read, self.pushed_ahead, self.pushed_along)

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

    @property
    def blocks_read(self) -> int:
        """How many blocks were read and decoded so far."""
        return self._packs.blocks_read

    def to_push(self, leaf: Leaf, index: int, *, once: bool = False) -> memoryview | None:
        """Returns the bytes of a small file for the kernel's cache, verified; None if it is none.

        ``once`` says that those that share its block are pushed with it, or soon after.

        Raises:
            CorruptionError: the stored bytes are damaged; it names the pack.
            WouldBlock: they must be fetched, and this thread may not block.
        """
        size, where = leaf.sizes[index], leaf.location(index)
        if not 0 < size <= PUSHED_BYTES or leaf.kinds[index] != _FILE or where is None:
            return None
        data = self._packs.chunk(leaf.content(index), where, scan=Scan.NEAR, once=once)
        return data if len(data) == size else None

    def want(self, extents: Iterable[Extent]) -> None:
        """Begins to fetch the bytes of extents, in parallel; does not wait for them."""
        self._packs.want(e.location for e in extents if e.location is not None)

    def extent_data(
        self, extent: Extent, *, scan: Scan = Scan.NONE, once: bool = False
    ) -> memoryview | None:
        """Returns an extent's bytes, verified, or None for a hole.

        ``scan`` says what will likely be read next: NEAR of a small file, BEHIND where one of a few
        chunks begins. ``once`` says that whoever reads it has no use for it afterwards.
        """
        if extent.chunk == NO_ID:
            return None
        if extent.location is None:
            raise CorruptionError("an extent has a chunk but no location")
        data = self._packs.chunk(extent.chunk, extent.location, scan=scan, once=once)
        if len(data) != extent.length:
            raise CorruptionError(
                f"an extent of {extent.length} bytes has a chunk of {len(data)}",
                pack=extent.location.pack.hex(),
            )
        return data


class FileContent:
    """The bytes of one file. Any number of threads may read at once.

    From a store behind a network, what a read needs is fetched in parallel, and large files are
    read ahead of a sequential reader.
    """

    __slots__ = (
        "_ahead",
        "_contents",
        "_ends",
        "_entry",
        "_is_compressed",
        "_is_one_of_many",
        "_leaf",
        "_next_pack",
        "size",
    )

    def __init__(self, contents: Contents, entry: Entry) -> None:
        self._contents = contents
        self._entry = entry
        self._leaf: _Leaf | None = None
        self._ahead: Readahead | None = None
        self.size = entry.size
        self._is_one_of_many = entry.kind == Kind.LARGE and entry.size <= _FEW_CHUNKS_BYTES
        # Where reads ended that others may follow; None if nothing is decoded ahead.
        self._ends: deque[int] | None = None
        self._is_compressed = False  # what was read last
        if entry.kind == Kind.LARGE:
            if contents.source.is_cached:
                ranges = partial(_ranges, contents, entry)
                self._ahead = Readahead(contents.source, entry.size, ranges)
            else:
                self._ends = deque((0,), _READERS)
                self._next_pack = NextPack(contents.source, self.extents)

    def read(self, offset: int, size: int) -> bytes:
        """Returns up to ``size`` bytes at ``offset``: fewer only at the end of the file.

        Raises:
            CorruptionError: the stored bytes are damaged; it names the pack.
            WouldBlock: they must be fetched, and this thread may not block.
        """
        return joined(self.read_pieces(offset, size))

    def read_pieces(self, offset: int, size: int) -> Pieces:
        """Returns what :meth:`read` does in 32 pieces at most, not copied where that is possible.

        They are for who sends them on at once: each keeps a whole block in memory.

        Raises:
            CorruptionError, WouldBlock: as :meth:`read`.
        """
        end = min(offset + size, self.size)
        if offset < 0 or offset >= end:
            return []
        if self._ends is None:
            return self._read(offset, end)
        return self._in_order(self._ends, offset, end)

    def _in_order(self, ends: deque[int], offset: int, end: int) -> Pieces:
        """Reads, and has decoded what will be read next, if reads follow each other.

        What is not compressed is left: handing it over costs what it saves.
        """
        decoded = self._contents.decoded
        size = end - offset
        data = decoded.take(self, offset, end)
        goes_on = size in _IN_ORDER_BYTES and (data is not None or offset in ends)
        if data is None:
            data = self._read(offset, end, once=goes_on)
        ends.append(end)
        if goes_on:
            self._next_pack.note(end)
        if goes_on and self._is_compressed:
            for _ in range(_DEPTH):
                offset, end = end, min(end + size, self.size)
                if offset < end:
                    decoded.begin(self, offset, end, partial(self._read_ahead, offset, end))
        return data

    def _read_ahead(self, offset: int, end: int) -> Pieces:
        """Reads what will wait until it is asked for: a little keeps no large block meanwhile."""
        pieces = self._read(offset, end, once=True)
        return [bytes(piece) if _is_little(piece) else piece for piece in pieces]

    def _read(self, offset: int, end: int, *, once: bool = False) -> Pieces:
        entry = self._entry
        parts: Pieces = []
        try:
            if entry.kind == Kind.FILE:
                extent = Extent(self.size, entry.content, entry.location)
                data = self._contents.extent_data(extent, scan=Scan.NEAR)
                return [bytes(end - offset) if data is None else data[offset:end]]
            extents = self.extents(offset)
            if self._ahead is not None:
                extents = self._fetched(self._ahead, extents, offset, end)
            for start, extent in extents:
                low = max(offset - start, 0)
                high = min(end - start, extent.length)
                data = self._contents.extent_data(extent, scan=self._scan_at(start), once=once)
                parts.append(bytes(high - low) if data is None else data[low:high])
                if start + extent.length >= end:
                    where = extent.location
                    self._is_compressed = where is not None and where.stored_length < extent.length
                    break
        except WouldBlock as absent:
            raise WouldBlock(partial(self._read, offset, end)) from absent
        if sum(map(len, parts)) != end - offset:
            raise CorruptionError(f"the manifest of a file of {self.size} bytes is too short")
        return parts if len(parts) <= MOST_PIECES else [b"".join(parts)]

    def pieces(self) -> Iterator[tuple[int, Extent, memoryview | None]]:
        """Yields the whole file: offset, extent and its bytes, which are None for a hole.

        Raises:
            CorruptionError: the stored bytes are damaged; it names the pack.
        """
        extents = self.extents()
        if self._ahead is not None:
            extents = self._fetched(self._ahead, extents, 0, self.size)
        try:
            for offset, extent in extents:
                scan = self._scan_at(offset)
                yield offset, extent, self._contents.extent_data(extent, scan=scan)
        finally:
            self.close()

    def _scan_at(self, offset: int) -> Scan:
        """Returns what a read of the extent at an offset tells of those that will follow."""
        if self._entry.kind == Kind.FILE:
            return Scan.NEAR
        return Scan.BEHIND if offset == 0 and self._is_one_of_many else Scan.NONE

    def extents(self, offset: int = 0) -> Iterator[tuple[int, Extent]]:
        """Yields the extents from the one that holds ``offset`` on, each with its own offset."""
        entry = self._entry
        if entry.kind == Kind.FILE:
            if entry.size:
                yield 0, Extent(entry.size, entry.content, entry.location)
            return
        leaf = self._leaf
        if leaf is not None and leaf.begin <= offset < leaf.end:
            yield from leaf.since(offset)
            offset = leaf.end
        if offset < self.size:
            for leaf in _leaves(self._contents, entry.node, 0, offset):
                self._leaf = leaf
                yield from leaf.since(offset)

    def close(self) -> None:
        """Ends what is read ahead. The file may be read again, and closed again."""
        if self._ahead is not None:
            self._ahead.close()
        if self._ends is not None:
            self._contents.decoded.drop(self)

    def _fetched(
        self, ahead: Readahead, extents: Iterator[tuple[int, Extent]], offset: int, end: int
    ) -> Iterator[tuple[int, Extent]]:
        """Yields the extents before ``end``, whose bytes are on their way by then."""
        needed = takewhile(lambda item: item[0] < end, extents)
        for batch in _batches(needed):
            if may_block():
                self._contents.want(extent for _, extent in batch)
            last, extent = batch[-1]
            ahead.note(max(offset, batch[0][0]), min(last + extent.length, end))
            yield from batch


def _batches(extents: Iterable[tuple[int, Extent]]) -> Iterator[list[tuple[int, Extent]]]:
    """Yields extents, as many together as are fetched at a time."""
    batch: list[tuple[int, Extent]] = []
    size = 0
    for item in extents:
        batch.append(item)
        size += item[1].length if item[1].location is not None else 0
        if size >= _BATCH_BYTES or len(batch) >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _is_little(piece: bytes | memoryview) -> bool:
    """Whether a piece is less than a quarter of what it is a part of."""
    return isinstance(piece, memoryview) and 4 * len(piece) < len(piece.obj)  # type: ignore[arg-type]


class _Leaf(NamedTuple):
    """A leaf of a manifest: the bytes ``[begin, end)`` of the file."""

    begin: int
    end: int
    node: ManifestNode

    def since(self, offset: int) -> Iterator[tuple[int, Extent]]:
        """Yields the extents from the one that holds ``offset`` on, each with its own offset."""
        node, begin = self.node, self.begin
        first = bisect_right(node.ends, offset - begin) if offset > begin else 0
        for index in range(first, len(node.items)):
            extent = node.items[index]
            assert isinstance(extent, Extent)
            yield begin + node.ends[index] - extent.length, extent


def _ranges(
    contents: Contents, entry: Entry, start: int, end: int
) -> Iterator[tuple[int, PackRange | None]]:
    """Yields where the bytes ``[start, end)`` of a large file lie, and where each range ends."""
    for leaf in _leaves(contents, entry.node, 0, start):
        for offset, extent in leaf.since(start):
            if offset >= end:
                return
            at, where = offset + extent.length, extent.location
            if where is None:
                yield at, None
            else:
                yield at, PackRange(where.pack, where.block_offset, where.stored_length)


def _leaves(contents: Contents, ref: NodeRef, begin: int, offset: int) -> Iterator[_Leaf]:
    """Yields the leaves below a manifest's node from the one that holds ``offset`` on."""
    node = contents.node(ref)
    if node.level == 0:
        yield _Leaf(begin, begin + node.ends[-1], node)
        return
    first = bisect_right(node.ends, offset - begin) if offset > begin else 0
    for index in range(first, len(node.items)):
        child = node.items[index]
        assert isinstance(child, ManifestChild)
        yield from _leaves(contents, child.ref, begin + node.ends[index] - child.length, offset)
