"""Imports a tar, from a file or standard input, in one pass.

A tar may name files in any order, twice, and without their folders; entries are therefore sorted
(on disk when there are many) before directories are made. Of a name given twice the last counts.
Hard links are resolved at the end, in the tree made of all else.
"""

from __future__ import annotations

import os
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, Final

from versionfs.errors import InvalidInputError
from versionfs.repo import Store
from versionfs.transfer.assembler import Assembler
from versionfs.transfer.attributes import MODE_BITS, Attributes, in_range
from versionfs.transfer.pipeline import Pipeline
from versionfs.transfer.reading import WHOLE_BYTES, Piece, cut_whole, stream_file
from versionfs.transfer.sorting import external_sort
from versionfs.transfer.tarstream import UNREADABLE, open_tar
from versionfs.tree import edit_paths
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind, Location, PackId, Xattrs

_SORTED_AT_ONCE: Final = 100_000
_XATTR_PREFIX: Final = "SCHILY.xattr."
_NAME_BYTES: Final = 255
_NOBODY: Final = 65534
_DECIMAL: Final = re.compile(r"-?\d{1,18}(\.\d*)?", re.ASCII)
_Row = tuple[Any, ...]


class TarImport:
    """Imports one tar."""

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline,
        assembler: Assembler,
        failed: Callable[[bytes, str], None],
        skipped: Callable[[bytes, str], None],
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._assembler = assembler
        self._failed = failed
        self._skipped = skipped
        self._links: dict[bytes, bytes] = {}
        self._now_ns = time.time_ns()

    def run(self, source: BinaryIO, name: str) -> Entry:
        """Reads the tar and returns the root directory. Compression is found out by itself.

        Raises:
            InvalidInputError: it is not a tar, or ends too early.
        """
        sorter = _RowSorter()
        try:
            with open_tar(source) as archive:
                for order, member in enumerate(archive):
                    self._member(archive, member, order, sorter)
                    # Else it keeps every member it has passed.
                    archive.members = []  # type: ignore[attr-defined]
        except UNREADABLE as error:
            raise InvalidInputError(
                f"cannot read {name} as a tar: {error}",
                hint="SOURCE is a folder, a file, or a tar; nothing was imported",
            ) from error
        self._pipeline.flush()
        self._assemble(sorter.sorted(self._skipped))
        root = self._assembler.root
        assert root is not None
        return self._with_links(root)

    def _member(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, order: int, sorter: _RowSorter
    ) -> None:
        path = _path(member.name)
        problem = "its path leads out of the tar" if path is None else _problem(path, member)
        if path is None or problem is not None:
            self._failed(_encode(member.name), problem or "")
            return
        # Of a name given twice the last counts.
        self._links.pop(path, None)
        attributes = Attributes(
            member.mode & MODE_BITS,
            _mtime_ns(member),
            _owner(member.uid),
            _owner(member.gid),
            _xattrs(member),
        )
        if member.isdir():
            sorter.add(path, order, _row(_entry(b"", Kind.DIRECTORY, attributes)))
        elif member.issym():
            target = _encode(member.linkname)
            link = _entry(b"", Kind.SYMLINK, attributes)._replace(
                mode=0o777, target=target, size=len(target), xattrs=()
            )
            sorter.add(path, order, _row(link))
        elif member.islnk():
            target_path = _path(member.linkname)
            if target_path is None:
                self._failed(path, "it links to a path outside of the tar")
            else:
                self._links[path] = target_path
        elif member.isreg():
            stream = archive.extractfile(member)
            assert stream is not None
            done = partial(_store_row, sorter, path, order)
            pieces = self._pieces(stream, member.size)
            self._pipeline.content(b"", pieces, attributes, done)
        else:
            self._skipped(path, "a device or fifo")

    def _pieces(self, stream: Any, size: int) -> Iterator[list[Piece]]:
        if size <= WHOLE_BYTES:
            data = stream.read()
            if len(data) != size:
                raise tarfile.ReadError("unexpected end of data")
            yield cut_whole(data, self._store.chunking)
        else:
            yield from stream_file(stream, self._store.chunking)

    def _assemble(self, rows: Iterator[tuple[list[bytes], Entry]]) -> None:
        """Makes directories of entries that come sorted by path, parents first."""
        made = Attributes(0o755, self._now_ns, os.getuid(), os.getgid())
        open_folders: list[tuple[bytes, Attributes]] = []
        root = made
        self._assembler.enter(None)
        for parts, entry in rows:
            if not parts:
                root = _attributes_of(entry)
                continue
            *folders, name = parts
            shared = 0
            while (
                shared < min(len(folders), len(open_folders))
                and open_folders[shared][0] == folders[shared]
            ):
                shared += 1
            while len(open_folders) > shared:
                self._assembler.leave(*open_folders.pop(), None)
            for folder in folders[shared:]:
                self._assembler.enter(None)
                open_folders.append((folder, made))
            if entry.is_dir:
                self._assembler.enter(None)
                open_folders.append((name, _attributes_of(entry)))
            else:
                self._assembler.set(entry._replace(name=name))
        while open_folders:
            self._assembler.leave(*open_folders.pop(), None)
        self._assembler.leave(b"", root, None)

    def _with_links(self, root: Entry) -> Entry:
        if not self._links:
            return root
        # The new nodes must be readable before they can be looked up.
        self._pipeline.metadata.finish()
        root = root._replace(location=self._pipeline.metadata.resolve(root.node).location)
        edits: dict[bytes, Entry | None] = {}
        for path, target_path in self._links.items():
            target = edits.get(target_path) or self._store.trees.walk_path(root, target_path)
            if target is None or target.is_dir:
                self._failed(path, "it is a hard link to a file that is not in the tar")
            else:
                edits[path] = target
        return edit_paths(
            self._store.trees, self._pipeline.metadata, root, edits, made_ns=self._now_ns
        )


class _RowSorter:
    """Sorts rows by path, depth first; of rows with the same path the last one counts."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._runs: list[Iterator[_Row]] = []

    def add(self, path: bytes, order: int, row: _Row) -> None:
        """Takes a row. ``order`` is its number in the tar."""
        self._rows.append((path.split(b"/") if path else [], order, row))
        if len(self._rows) >= _SORTED_AT_ONCE:
            self._runs.append(external_sort(self._rows, _SORTED_AT_ONCE))
            self._rows = []

    def sorted(self, skipped: Callable[[bytes, str], None]) -> Iterator[tuple[list[bytes], Entry]]:
        """Yields path components and entry; ``skipped`` is told what can have no place."""
        rows = external_sort(_chain([*self._runs, iter(self._rows)]), _SORTED_AT_ONCE)
        last: _Row | None = None
        file: list[bytes] | None = None
        for row in _with_end(rows):
            complete = last is not None and (row is None or last[0] != row[0])
            # What lies below a path that is a file in the end has no folder to be in.
            if last is not None and complete and file is not None and last[0][: len(file)] == file:
                skipped(b"/".join(last[0]), "below a path that is a file in the same tar")
            elif last is not None and complete:
                entry = _from_row(last[2])
                file = None if entry.is_dir else last[0]
                yield last[0], entry
            last = row


def _with_end(rows: Iterator[_Row]) -> Iterator[_Row | None]:
    yield from rows
    yield None


def _chain(runs: list[Iterator[_Row]]) -> Iterator[_Row]:
    for run in runs:
        yield from run


def _store_row(sorter: _RowSorter, path: bytes, order: int, entry: Entry, _seen: bytes) -> None:
    sorter.add(path, order, _row(entry))


def _row(entry: Entry) -> _Row:
    where = entry.location
    values = (entry.name, int(entry.kind), *entry[2:12])
    return (*values, None if where is None else tuple(where))


def _from_row(row: _Row) -> Entry:
    where = row[12]
    location = None if where is None else Location(PackId(where[0]), *where[1:])
    entry = Entry(*row[:12], location)  # type: ignore[call-arg]
    return entry._replace(xattrs=tuple((name, value) for name, value in entry.xattrs))


def _entry(name: bytes, kind: Kind, attributes: Attributes) -> Entry:
    mode, mtime_ns, uid, gid, xattrs = attributes
    return Entry(name, kind, mode, 0, 1, NO_ID, b"", xattrs, mtime_ns, uid, gid, NO_STAMP, None)


def _attributes_of(entry: Entry) -> Attributes:
    return Attributes(entry.mode, entry.mtime_ns, entry.uid, entry.gid, entry.xattrs)


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _path(name: str) -> bytes | None:
    """Returns a member's path without ``.`` components, or None when it leads out of the tar."""
    parts = [part for part in _encode(name).split(b"/") if part not in (b"", b".")]
    return None if b".." in parts else b"/".join(parts)


def _problem(path: bytes, member: tarfile.TarInfo) -> str | None:
    """Returns why no file system could hold the member, or None."""
    if not path and not member.isdir():
        return "it is in the place of the root folder, and is none"
    if b"\0" in path or "\0" in member.linkname:
        return "its name or target has a NUL byte"
    if any(len(part) > _NAME_BYTES for part in path.split(b"/")):
        return f"a name in its path is longer than {_NAME_BYTES} bytes"
    if any(len(name) > _NAME_BYTES or name == b"user." for name, _ in _xattrs(member)):
        return "an extended attribute has an impossible name"
    return None


def _owner(number: int) -> int:
    """Returns a user or group id; a number that can be none is nobody's."""
    return number if 0 <= number < 1 << 32 else _NOBODY


def _mtime_ns(member: tarfile.TarInfo) -> int:
    """Returns the mtime, or the nearest that there is."""
    try:
        mtime_ns = _exact_mtime_ns(member)
    except (ValueError, OverflowError):
        mtime_ns = 0
    return in_range(mtime_ns)


def _exact_mtime_ns(member: tarfile.TarInfo) -> int:
    text = member.pax_headers.get("mtime")
    if text is not None and _DECIMAL.fullmatch(text):
        seconds, _, fraction = text.partition(".")
        whole = int(seconds) * 1_000_000_000
        part = int(fraction.ljust(9, "0")[:9])
        return whole - part if seconds.startswith("-") else whole + part
    return int(member.mtime * 1_000_000_000)


def _xattrs(member: tarfile.TarInfo) -> Xattrs:
    found = []
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR_PREFIX + "user."):
            found.append((_encode(key[len(_XATTR_PREFIX) :]), _encode(value)))
    return tuple(sorted(found))
