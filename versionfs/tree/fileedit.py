"""Writes regular files: from extents, or as an edit of an old file that keeps its manifest's nodes.

A file with no extents, or with one that is a chunk, has no manifest; any other has one.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from versionfs.chunkstore import MetadataReader, MetadataWriter
from versionfs.tree.content import Contents
from versionfs.tree.manifest import ManifestBuilder
from versionfs.types import NO_ID, NO_STAMP, Entry, Extent, Kind, Location


class StoredFile(NamedTuple):
    """What a directory entry says of a regular file's content."""

    kind: int
    size: int
    content: bytes
    stamp: bytes
    location: Location | None

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """Returns the content of a regular file."""
        return cls(entry.kind, entry.size, entry.content, entry.stamp, entry.location)

    def put_into(self, entry: Entry) -> Entry:
        """Returns a regular file's entry with this content."""
        return entry._replace(
            kind=self.kind,
            size=self.size,
            content=self.content,
            stamp=self.stamp,
            location=self.location,
        )


EMPTY_FILE = StoredFile(Kind.FILE, 0, NO_ID, NO_STAMP, None)


class FileEditor:
    """Makes a regular file of extents, in order: new ones, and ranges kept of an old file.

    The result is what storing the whole file gives. Keeping most of a large file reads and writes
    the few manifest nodes on the way to what is new. Not thread-safe.
    """

    def __init__(
        self,
        objects: MetadataReader,
        writer: MetadataWriter,
        contents: Contents,
        old: Entry | None = None,
    ) -> None:
        """Makes an editor.

        Args:
            objects: where metadata is read.
            writer: stores manifest nodes.
            contents: reads the old file.
            old: the old file's entry. None when nothing is kept.
        """
        self._objects = objects
        self._writer = writer
        self._contents = contents
        self._old = old
        self._size = 0
        # What was added, while it is no more than one of the three.
        self._extent: Extent | None = None
        self._unchanged = False
        self._manifest: ManifestBuilder | None = None

    def add(self, extent: Extent) -> None:
        """Adds the next extent; its chunk is in the store."""
        if self._size:
            self._builder().add(extent)
        else:
            self._extent = extent
        self._size += extent.length

    def keep(self, start: int, end: int) -> None:
        """Adds the extents that the old file has in ``[start, end)``.

        Both are offsets of the old file where extents begin or end.

        Raises:
            ValueError: there is no old file, or an extent lies across the start or the end.
            CorruptionError: a node of its manifest is damaged or gone.
        """
        old = self._old
        if old is None:
            raise ValueError("there is no old file to keep anything of")
        if not 0 <= start < end <= old.size:
            raise ValueError(f"the old file has no extents in [{start}, {end})")
        if start == 0 and end == old.size and not self._size:
            self._unchanged = True
        else:
            at, extent = next(self._contents.open(old).extents(start))
            if old.kind != Kind.LARGE or (at == start and at + extent.length == end):
                if (at, at + extent.length) != (start, end):
                    raise ValueError(f"the old file has no extents in [{start}, {end})")
                self.add(extent)
                return
            self._builder().keep(old.node, start, end)
        self._size += end - start

    def _builder(self) -> ManifestBuilder:
        """Returns the builder of the manifest, which has all that was added so far."""
        if self._manifest is None:
            read = self._contents.node
            self._manifest = ManifestBuilder(self._objects, self._writer, read=read)
            if self._extent is not None:
                self._manifest.add(self._extent)
            elif self._unchanged:
                assert self._old is not None
                if self._old.kind == Kind.LARGE:
                    self._manifest.keep(self._old.node, 0, self._old.size)
                else:
                    self._manifest.add(next(self._contents.open(self._old).extents())[1])
        return self._manifest

    def finish(self) -> StoredFile:
        """Returns the content. Its location may be a ticket of the metadata writer."""
        if not self._size:
            return EMPTY_FILE
        if self._manifest is None:
            if self._unchanged:
                assert self._old is not None
                return StoredFile.of(self._old)
            extent = self._extent
            assert extent is not None
            if extent.chunk != NO_ID:
                return StoredFile(Kind.FILE, extent.length, extent.chunk, NO_STAMP, extent.location)
        root = self._builder().finish()
        assert root.length == self._size
        return StoredFile(Kind.LARGE, root.length, root.ref.id, root.ref.stamp, root.ref.location)
