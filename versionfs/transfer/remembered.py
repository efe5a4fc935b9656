"""What the last import of a source saw, and what this one sees, for the next.

The header names the tree that the last import made; the segments say what ``lstat`` said of each
file in it. They belong together: the header is removed before the first segment changes and written
after the last one, when the tree is durable. A crash between leaves no header, and so a full read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final, NamedTuple, Self

from versionfs.digests import blake2b
from versionfs.errors import CorruptionError, VersionFSError
from versionfs.index import (
    IndexDamagedError,
    SegmentChange,
    SourceCache,
    SourceRecord,
    SourceSegment,
)
from versionfs.repo import Store
from versionfs.syscalls import UNSEEN
from versionfs.transfer.attributes import CONTENT_SEEN_BYTES
from versionfs.tree.splitter import MAX_ITEMS, MIN_ITEMS, name_ends_leaf
from versionfs.types import Entry, Kind, Location, PackId

log = logging.getLogger(__name__)

_BUFFERED_BYTES: Final = 32 * 1024 * 1024


class RememberedSource:
    """The memory of one source, for the length of one import.

    Only one import of a source at a time has it; another one finds it busy and works without.
    """

    def __init__(self, store: Store, source: bytes) -> None:
        self._cache: SourceCache = store.sources
        self._source = blake2b(source, digest_size=16).digest()
        self._changes: list[SegmentChange] = []
        self._changed_bytes = 0
        self._header_removed = False
        self.usable = False
        self.tree: Entry | None = None
        """The root folder that the last import made, or None."""
        self._lock = store.environment.folder / "sources"
        self._store = store
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._lock.mkdir(parents=True, exist_ok=True)
        path = self._lock / self._source.hex()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.usable = True
        if self.usable:
            header = self._cache.header(self._source)
            self.tree = None if header is None else self._readable(_decode(header))
        return self

    def _readable(self, tree: Entry | None) -> Entry | None:
        """Returns the tree if the store still has it."""
        if tree is None:
            return None
        try:
            self._store.trees.node(tree.node)
        except CorruptionError:
            log.warning("the tree of the last import of this source is gone; reading all of it")
            return None
        return tree

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def segments(self, folder: bytes) -> Iterator[SourceSegment]:
        """Yields what is remembered of a folder (a path relative to the source)."""
        if self.usable:
            yield from self._cache.segments(self._source, folder_id(folder))

    def change(self, folder: bytes, first: bytes, value: bytes | None) -> None:
        """Takes a segment to be written (or removed); kept in memory while there is room."""
        if not self.usable:
            return
        self._changes.append(SegmentChange(folder_id(folder), first, value))
        self._changed_bytes += 64 + len(first) + len(value or b"")
        if self._changed_bytes > _BUFFERED_BYTES:
            self._flush()

    def forget(self) -> None:
        """Forgets the source: the next import of it reads all."""
        self._cache.set_header(self._source, None)

    def _flush(self) -> None:
        if not self._header_removed:
            self._cache.set_header(self._source, None)
            self._header_removed = True
        self._cache.change(self._source, self._changes)
        self._changes = []
        self._changed_bytes = 0

    def commit(self, tree: Entry) -> None:
        """Remembers the tree, which is durable now. Never fails: all this is a cache."""
        if not self.usable:
            return
        try:
            if self._changes:
                self._flush()
            if self._header_removed or tree != self.tree:
                self._cache.set_header(self._source, _encode(tree))
        except VersionFSError as error:
            log.warning("cannot remember this source for the next import: %s", error)


class RememberedSegment(NamedTuple):
    """Consecutive names of a folder, what was seen of each, and the key that they are under."""

    first: bytes
    names: list[bytes]
    seen: list[bytes]


class FolderMemory:
    """Compares the names of a folder, in order, with what is remembered; collects what is seen."""

    def __init__(self, remembered: RememberedSource, folder: bytes, *, trusted: bool) -> None:
        """Begins with a folder.

        ``trusted`` is false when the tree of the last import does not have the folder: what is
        remembered of it then is of an earlier time, and only good for being replaced.
        """
        self._remembered = remembered
        self._folder = folder
        self._old_segments: dict[bytes, bytes] = {}
        self._last: SourceSegment | None = None
        """The segment that was read last; most stay, and need no digest."""
        self._segments = self._read_segments()
        self._old: Iterator[SourceRecord] | None = None
        """The records one by one, once somebody asks for them so."""
        self._next: SourceRecord | None = None
        if not trusted:
            for _ in self.before(None):
                pass

    def _read_segments(self) -> Iterator[RememberedSegment]:
        for segment in self._remembered.segments(self._folder):
            self._digest_last()
            self._last = segment
            names, seen = segment.decode()
            if not names:
                # Without its names, those that are gone from the source could not be told.
                self._remembered.forget()
                raise IndexDamagedError("what was remembered of the source is damaged")
            yield RememberedSegment(segment.first, names, seen)

    def segment(self) -> RememberedSegment | None:
        """Returns the next segment, if no name was asked for yet; a whole one, to be compared."""
        return next(self._segments, None) if self._old is None else None

    def put_back(self, segment: RememberedSegment) -> None:
        """Takes the last segment back: its names are asked for one by one, as all that follow."""
        self._segments = chain((segment,), self._segments)

    def stays(self, segment: RememberedSegment) -> None:
        """Takes note that all of a segment is as it was."""
        if self._last is not None and self._last.first == segment.first:
            self._last = None
            return
        self._old_segments.pop(segment.first, None)

    def _digest_last(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._old_segments[last.first] = _digest(last)

    def _begin(self) -> Iterator[SourceRecord]:
        if self._old is None:
            self._old = chain.from_iterable(
                map(SourceRecord, segment.names, segment.seen) for segment in self._segments
            )
            self._next = next(self._old, None)
        return self._old

    def before(self, name: bytes | None) -> Iterator[bytes]:
        """Yields the remembered names before this one: they are gone from the source."""
        old = self._begin()
        while self._next is not None and (name is None or self._next.name < name):
            yield self._next.name
            self._next = next(old, None)

    def seen(self, name: bytes) -> bytes | None:
        """Returns what was seen of this name, or None; names come in order."""
        old = self._begin()
        if self._next is None or self._next.name != name:
            return None
        result = self._next.seen
        self._next = next(old, None)
        return result

    def keep(self, records: list[SourceRecord]) -> None:
        """Takes a whole segment of what is seen now."""
        segment = SourceSegment.encode(records)
        self._digest_last()
        old = self._old_segments.pop(segment.first, None)
        if old != _digest(segment):
            self._remembered.change(self._folder, segment.first, segment.value)

    def finish(self) -> None:
        """Forgets the segments that no longer begin where they did."""
        self._digest_last()
        for first in self._old_segments:
            self._remembered.change(self._folder, first, None)


def ends_segment(name: bytes, count: int) -> bool:
    """Tells whether a segment of ``count`` records ends behind this name."""
    return count >= MIN_ITEMS and (count >= MAX_ITEMS or name_ends_leaf(name))


def content_unchanged(old: bytes | None, new: bytes) -> bool:
    """Tells whether size, mtime and inode are those seen last time."""
    return (
        old is not None and old != UNSEEN and old[:CONTENT_SEEN_BYTES] == new[:CONTENT_SEEN_BYTES]
    )


def _digest(segment: SourceSegment) -> bytes:
    return blake2b(segment.value, digest_size=16).digest()


def folder_id(folder: bytes) -> bytes:
    """Returns the 16 bytes that stand for a folder of a source."""
    return blake2b(folder, digest_size=16).digest()


def _encode(tree: Entry) -> bytes:
    where = tree.location
    assert where is not None
    value = {
        "tree": tree.content.hex(),
        "stamp": tree.stamp.hex(),
        "location": [where.pack.hex(), *where[1:]],
        "mode": tree.mode,
        "size": tree.size,
        "files": tree.files,
        "mtime_ns": tree.mtime_ns,
        "uid": tree.uid,
        "gid": tree.gid,
        "xattrs": [[name.hex(), value.hex()] for name, value in tree.xattrs],
    }
    return json.dumps(value).encode()


def _decode(header: bytes) -> Entry | None:
    try:
        value: Any = json.loads(header)
        pack, *numbers = value["location"]
        return Entry(
            name=b"",
            kind=Kind.DIRECTORY,
            mode=value["mode"],
            size=value["size"],
            files=value["files"],
            content=bytes.fromhex(value["tree"]),
            target=b"",
            xattrs=tuple((bytes.fromhex(n), bytes.fromhex(v)) for n, v in value["xattrs"]),
            mtime_ns=value["mtime_ns"],
            uid=value["uid"],
            gid=value["gid"],
            stamp=bytes.fromhex(value["stamp"]),
            location=Location(PackId(bytes.fromhex(pack)), *numbers),
        )
    except (ValueError, KeyError, TypeError):
        return None
