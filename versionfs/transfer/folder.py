"""Walks a source folder, depth first in name order, and hands what changed to the pipeline."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from typing import Final, NamedTuple

from versionfs.errors import InvalidInputError
from versionfs.index import SourceRecord
from versionfs.objectstore import LocalStore
from versionfs.repo import Store
from versionfs.syscalls import UNSEEN, seen, unchanged
from versionfs.transfer.assembler import Assembler
from versionfs.transfer.attributes import Attributes, in_range, read_xattrs, special_kind
from versionfs.transfer.pipeline import Pipeline
from versionfs.transfer.remembered import (
    FolderMemory,
    RememberedSegment,
    RememberedSource,
    content_unchanged,
    ends_segment,
)
from versionfs.transfer.sorting import external_sort
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind

_RACY_NS: Final = 2_000_000_000
"""A file written less than this before the import may be written again with the same mtime."""
_OWN: Final = "a folder that this store uses"
_NAME: Final = attrgetter("name")


class _Place(NamedTuple):
    """A folder being walked: its path with a slash, the same within the source, what it was."""

    prefix: bytes
    relative: bytes
    reference: Entry | None


class FolderWalker:
    """Imports one folder. Its state is that of one walk."""

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        assembler: Assembler,
        remembered: RememberedSource,
        failed: Callable[[bytes, str], None],
        skipped: Callable[[bytes, str], None],
    ) -> None:
        """Makes a walker.

        Args:
            store: where nodes are read.
            pipeline: reads and stores files.
            assembler: makes directories.
            remembered: what the last import of the source saw.
            failed: is told what cannot be read.
            skipped: is told what is left out on purpose.
        """
        self._store = store
        self._pipeline = pipeline
        self._assembler = assembler
        self._remembered = remembered
        self._failed = failed
        self._skipped = skipped
        self._racy_from_ns = time.time_ns() - _RACY_NS
        self._own = _own_folders(store)
        self._device = -1

    def walk(self, source: bytes) -> None:
        """Walks the folder ``source``; the assembler then has its root.

        What is as the last import saw it is taken from the tree which that import made.

        Raises:
            InvalidInputError: the folder is the store's own.
            OSError: the folder itself cannot be read.
        """
        status = os.stat(source)
        self._device = status.st_dev
        if (status.st_dev, status.st_ino) in self._own:
            raise InvalidInputError(
                f"{os.fsdecode(source)} is {_OWN}", hint="a store cannot hold itself"
            )
        # A path has at most 2,048 components, and each takes two calls.
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
        attributes = Attributes.of(status, read_xattrs(source, follow=True))
        self._folder(source, b"", b"", self._names(source), attributes, self._remembered.tree)

    def _own_kind(self, path: bytes, status: os.stat_result) -> str | None:
        """Returns what a folder is, when it is one that versions are made of or shown in."""
        if (status.st_dev, status.st_ino) in self._own:
            return _OWN
        if status.st_dev != self._device:
            # Each version would have all versions before it.
            with contextlib.suppress(OSError):
                os.getxattr(path, b"user.versionfs.ref", follow_symlinks=False)
                return "a mount of versionfs"
        return None

    @staticmethod
    def _names(path: bytes) -> Iterator[bytes]:
        """Returns the names in a folder in order; reads it at once."""
        with os.scandir(path) as found:
            return external_sort(map(_NAME, found))

    def _folder(
        self,
        path: bytes,
        relative: bytes,
        name: bytes,
        names: Iterator[bytes],
        attributes: Attributes,
        reference: Entry | None,
    ) -> None:
        pipeline, assembler = self._pipeline, self._assembler
        pipeline.then(partial(assembler.enter, reference))
        memory = FolderMemory(self._remembered, relative, trusted=reference is not None)
        place = _Place(path + b"/", relative, reference)
        records: list[list[bytes]] = []
        for child in self._same_segments(place, names, memory):
            status = self._status(place, child)
            if status is None:
                continue
            for gone in memory.before(child):
                pipeline.then(partial(assembler.remove, gone))
            records.append(self._child(place, child, status, memory.seen(child)))
            if ends_segment(child, len(records)):
                pipeline.then(partial(_keep, memory, records))
                records = []
        for gone in memory.before(None):
            pipeline.then(partial(assembler.remove, gone))
        if records:
            pipeline.then(partial(_keep, memory, records))
        pipeline.then(memory.finish)
        pipeline.then(partial(assembler.leave, name, attributes, reference))

    def _status(self, place: _Place, name: bytes) -> os.stat_result | None:
        """Returns what ``lstat`` says; None for what is to be left out, which is then told."""
        path = place.prefix + name
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None  # Removed since the folder was read; the folder is as if read later.
        except OSError as error:
            self._fail(path, name, error)
            return None
        special = self._own_kind(path, status) if stat.S_ISDIR(status.st_mode) else None
        special = special or special_kind(status.st_mode)
        if special is not None:
            self._skipped(path, special)
            return None
        return status

    def _child(
        self, place: _Place, name: bytes, status: os.stat_result, old: bytes | None
    ) -> list[bytes]:
        """Handles one name of a folder; returns its record, which may be filled in later."""
        record = [name, UNSEEN]
        if stat.S_ISDIR(status.st_mode):
            self._subfolder(place.prefix + name, place.relative, name, status, place.reference)
        else:
            self._leaf(place.prefix + name, name, status, old, record, place.reference)
        return record

    def _same_segments(
        self, place: _Place, names: Iterator[bytes], memory: FolderMemory
    ) -> Iterator[bytes]:
        """Handles the segments that have the names they had; returns the names that are left.

        This is what an import of an unchanged source does, so it is done with little: a file costs
        an ``lstat`` and a comparison.
        """
        while (segment := memory.segment()) is not None:
            count = len(segment.names)
            found = list(islice(names, count))
            if found == segment.names and not ends_segment(found[-1], count):
                found += islice(names, 1)  # It ends for want of names: is there one now?
            if found != segment.names:
                memory.put_back(segment)
                return chain(found, names)
            self._same_segment(place, segment, memory)
        return names

    def _same_segment(
        self, place: _Place, segment: RememberedSegment, memory: FolderMemory
    ) -> None:
        changed: dict[int, list[bytes] | None] = {}
        others, files, size = unchanged(place.prefix, segment.names, segment.seen)
        for at in others:
            name, old = segment.names[at], segment.seen[at]
            now = self._status(place, name)
            if now is None:
                self._pipeline.then(partial(self._assembler.remove, name))
                changed[at] = None
            else:
                record = self._child(place, name, now, old)
                if old != UNSEEN or not stat.S_ISDIR(now.st_mode):
                    changed[at] = record
        self._pipeline.count(files, size)
        if not changed:
            memory.stays(segment)
            return
        records = [
            changed.get(at, [name, old])
            for at, (name, old) in enumerate(zip(segment.names, segment.seen, strict=True))
        ]
        kept = [record for record in records if record is not None]
        if kept:
            self._pipeline.then(partial(_keep, memory, kept))

    def _subfolder(
        self,
        path: bytes,
        relative: bytes,
        name: bytes,
        status: os.stat_result,
        reference: Entry | None,
    ) -> None:
        try:
            names = self._names(path)
            xattrs = read_xattrs(path)
        except OSError as error:
            self._fail(path, name, error)
            return
        below = self._lookup(reference, name)
        if below is not None and not below.is_dir:
            self._pipeline.then(partial(self._assembler.remove, name))
            below = None
        attributes = Attributes.of(status, xattrs)
        self._folder(path, relative + name + b"/", name, names, attributes, below)

    def _lookup(self, directory: Entry | None, name: bytes) -> Entry | None:
        if directory is None:
            return None
        return self._store.trees.lookup(directory.node, name)

    def _fail(self, path: bytes, name: bytes, error: OSError) -> None:
        """Reports what cannot be read; if the import goes on, it does so without it."""
        self._failed(path, error.strerror or str(error))
        self._pipeline.then(partial(self._assembler.remove, name))

    def _leaf(
        self,
        path: bytes,
        name: bytes,
        status: os.stat_result,
        old: bytes | None,
        record: list[bytes],
        reference: Entry | None,
    ) -> None:
        """Handles a file or symlink."""
        now = seen(status)
        racy = status.st_mtime_ns >= self._racy_from_ns
        if old == now:
            record[1] = now
            self._pipeline.count(1, status.st_size)
            return
        known = None
        if content_unchanged(old, now):
            known = self._lookup(reference, name)
        is_link = stat.S_ISLNK(status.st_mode)
        if known is not None and (known.is_file if not is_link else known.kind == Kind.SYMLINK):
            try:
                attributes = Attributes.of(status, () if is_link else read_xattrs(path))
            except OSError as error:
                self._fail(path, name, error)
                return
            record[1] = now
            mode, mtime_ns, uid, gid, xattrs = attributes
            entry = known._replace(mode=mode, mtime_ns=mtime_ns, uid=uid, gid=gid, xattrs=xattrs)
            self._pipeline.count(1, status.st_size)
            if entry != known:
                self._pipeline.then(partial(self._assembler.set, entry))
        elif is_link:
            self._symlink(path, name, status, record, None if racy else now)
        else:
            self._pipeline.file(
                name,
                path,
                status.st_size,
                partial(self._read, record, None if racy else now),
                partial(self._assembler.remove, name),
                now,
            )

    def _read(self, record: list[bytes], now: bytes | None, entry: Entry, read_as: bytes) -> None:
        """Takes over a file that was read; remembers it if it is what ``lstat`` saw."""
        if now is not None and read_as == now:
            record[1] = now
        self._assembler.set(entry)

    def _symlink(
        self,
        path: bytes,
        name: bytes,
        status: os.stat_result,
        record: list[bytes],
        now: bytes | None,
    ) -> None:
        try:
            target = os.readlink(path)
        except OSError as error:
            self._fail(path, name, error)
            return
        if now is not None:
            record[1] = now
        entry = Entry(
            name,
            Kind.SYMLINK,
            0o777,
            len(target),
            1,
            NO_ID,
            target,
            (),
            in_range(status.st_mtime_ns),
            status.st_uid,
            status.st_gid,
            NO_STAMP,
            None,
        )
        self._pipeline.count(1, 0)
        self._pipeline.then(partial(self._assembler.set, entry))


def _own_folders(store: Store) -> frozenset[tuple[int, int]]:
    """Returns device and inode of the folders that an import writes to.

    They are never part of a version: each import of a home folder would add what the one before
    stored, and read files that it is writing.
    """
    folders = [store.environment.folder.parent]
    if isinstance(store.objects, LocalStore):
        folders.append(store.objects.root)
    found = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            status = os.stat(folder)
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def _keep(memory: FolderMemory, records: list[list[bytes]]) -> None:
    memory.keep([SourceRecord(name, what) for name, what in records])
