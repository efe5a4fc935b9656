"""Builds the tree of a workspace as it was at a cut: reads what changed, nothing else.

Runs in a thread of its own, on a frozen table and on staging files that nobody writes any more.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from versionfs.errors import NotFoundError, SourceError
from versionfs.repo import Store
from versionfs.transfer.assembler import Assembler
from versionfs.transfer.attributes import Attributes
from versionfs.transfer.pipeline import Pipeline
from versionfs.transfer.reading import cut_whole
from versionfs.transfer.waiting import Done
from versionfs.tree import FileEditor, recut
from versionfs.types import NO_ID, NO_STAMP, Entry, Extent, Kind
from versionfs.workspace.content import LayeredFile, Stack
from versionfs.workspace.inode import ROOT, WHITEOUT, Inode, decode_name, inode_key, names_prefix
from versionfs.workspace.staging import Staging
from versionfs.workspace.table import FrozenTable

log = logging.getLogger(__name__)

_KINDS = {stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device"}


@dataclass(slots=True)
class Built:
    """What a build found: ``skipped`` has (path, what it is) of what a commit cannot hold."""

    files: int = 0
    skipped: list[tuple[bytes, str]] = field(default_factory=list)


class Build:
    """One build. ``read_bytes`` counts what was read of staging files and of the base."""

    def __init__(
        self, store: Store, pipeline: Pipeline, frozen: FrozenTable, staging: Staging
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._frozen = frozen
        self._staging = staging
        self._assembler = Assembler(store.trees, pipeline.metadata)
        self._linked: dict[int, Entry] = {}
        self._reading: set[int] = set()
        """Files of several names whose content is on its way to the store."""
        self._lost: dict[bytes, str] = {}
        """Paths of files whose written bytes cannot be read, and why."""
        self.built = Built()
        self.read_bytes = 0

    def run(self) -> Entry:
        """Returns the root; all chunks are in the store, nodes when the metadata is finished.

        Raises:
            CorruptionError: a base file that was changed in part cannot be read.
            StorageError: the store cannot be written.
            SourceError: what was written to some files is gone, or cannot be read.
        """
        self._directory(b"", b"", self._inode(ROOT))
        self._pipeline.flush()
        if self._lost:
            raise _unreadable(list(self._lost.items()))
        assert self._assembler.root is not None
        return self._assembler.root

    def _inode(self, number: int) -> Inode:
        value = self._frozen.get(inode_key(number))
        if value is None:
            raise NotFoundError(f"the workspace has no record of its node {number}")
        return Inode.decode(number, value)

    def _directory(self, path: bytes, name: bytes, inode: Inode) -> None:
        then = self._pipeline.then
        base = inode.base
        then(partial(self._assembler.enter, base))
        prefix = names_prefix(inode.number)
        for key, value in self._frozen.scan(prefix):
            child_name = key[len(prefix) :]
            number, _ = decode_name(value)
            if number == WHITEOUT:
                then(partial(self._assembler.remove, child_name))
                continue
            child = self._inode(number)
            child_path = path + b"/" + child_name if path else child_name
            if child.is_dir:
                self._directory(child_path, child_name, child)
            elif child.is_file:
                self._file(child_path, child_name, child)
            elif stat.S_ISLNK(child.mode):
                self.built.files += 1
                content = Entry(
                    child_name, Kind.SYMLINK, 0, len(child.target), 1, NO_ID, child.target,
                    (), 0, 0, 0, NO_STAMP, None,
                )  # fmt: skip
                then(partial(self._assembler.set, _with_attributes(content, child_name, child)))
            else:
                kind = _KINDS.get(stat.S_IFMT(child.mode), "a device")
                self.built.skipped.append((child_path, kind))
                then(partial(self._assembler.remove, child_name))
        # A directory that was renamed must be set in its new place even if nothing in it changed.
        then(partial(self._assembler.leave, name, _attributes(inode), None))

    def _file(self, path: bytes, name: bytes, inode: Inode) -> None:
        self.built.files += 1
        if inode.nlink > 1:
            # The same content under each name: read once.
            if inode.number in self._reading:
                self._pipeline.flush()
                self._reading.clear()
            linked = self._linked.get(inode.number)
            if linked is not None:
                self._set(name, inode, linked)
                return
            self._reading.add(inode.number)
        if not inode.layers:
            self._set(name, inode, inode.base or _empty())
            return
        try:
            self._changed(path, name, inode)
        except OSError as error:
            self._lost[path] = error.strerror or str(error)

    def _changed(self, path: bytes, name: bytes, inode: Inode) -> None:
        """Stores a file that was written; once one is lost, only looks whether this one is, too.

        Raises:
            OSError: what was written cannot be read.
        """
        done = partial(self._done, name, inode)
        if not self._lost and self._small(name, inode, done):
            return
        file = LayeredFile(
            Stack(inode.base, inode.layers),
            self._frozen,
            self._staging,
            self._store.contents.open,
        )
        file.check()
        if self._lost:
            return
        if file.whole_layer is None:
            self._edited(name, inode, file, done)
            return
        self.read_bytes += min(file.size, file.allocated)
        own = self._staging.own_path(file.whole_layer)
        if own is not None:
            gone = partial(self._gone, path)
            self._pipeline.file(name, os.fsencode(own), file.size, done, gone)
            return
        self._whole(name, inode, file.read(0, file.size), done)

    def _small(self, name: bytes, inode: Inode, done: Done) -> bool:
        """Stores a small file of which all is in one layer: most new ones. False: it is another."""
        if len(inode.layers) != 1 or inode.layers[0].limit:
            return False
        found = self._staging.small(inode.layers[0].id)
        if found is None:
            return False
        data, allocated = found
        self.read_bytes += min(len(data), allocated)
        self._whole(name, inode, data, done)
        return True

    def _whole(self, name: bytes, inode: Inode, data: bytes, done: Done) -> None:
        pieces = cut_whole(data, self._store.chunking)
        self._pipeline.whole(name, pieces, _attributes(inode), done)

    def _gone(self, path: bytes) -> None:
        self._lost[path] = "its staging file cannot be read"

    def _edited(self, name: bytes, inode: Inode, file: LayeredFile, done: Done) -> None:
        """Stores a file of which only parts were written: what they touch is cut anew."""
        store, base = self._store, inode.base
        old = None if base is None else store.contents.open(base)
        parameters = store.chunking

        def read(offset: int, length: int) -> bytes:
            self.read_bytes += length
            return file.read(offset, length)

        pieces = recut(
            parameters,
            old or _Nothing(),
            file.size,
            file.dirty(),
            read,
            partial(file.next_zeros, least=parameters.max_bytes),
            visible=file.base_visible,
        )
        editor = FileEditor(store.metadata, self._pipeline.metadata, store.contents, base)
        with closing(file):
            self._pipeline.edited(name, pieces, editor, done)

    def _done(self, name: bytes, inode: Inode, content: Entry, _seen: bytes) -> None:
        # In the order of the queue already: not to be put behind it.
        if inode.nlink > 1:
            self._linked[inode.number] = content
        self._assembler.set(_with_attributes(content, name, inode))

    def _set(self, name: bytes, inode: Inode, content: Entry) -> None:
        entry = _with_attributes(content, name, inode)
        self._pipeline.then(partial(self._assembler.set, entry))


def _attributes(inode: Inode) -> Attributes:
    return Attributes(inode.mode & 0o7777, inode.mtime_ns, inode.uid, inode.gid, inode.xattrs)


def _with_attributes(content: Entry, name: bytes, inode: Inode) -> Entry:
    return content._replace(
        name=name,
        mode=inode.mode & 0o7777,
        files=1,
        xattrs=inode.xattrs,
        mtime_ns=inode.mtime_ns,
        uid=inode.uid,
        gid=inode.gid,
    )


def _empty() -> Entry:
    return Entry(b"", Kind.FILE, 0, 0, 1, NO_ID, b"", (), 0, 0, 0, NO_STAMP, None)


def unread(path: bytes, why: str) -> None:
    """Logs a staging file that cannot be read: whoever commits is told the file's own path."""
    log.warning("the staging file %s cannot be read: %s", os.fsdecode(path), why)


def _unreadable(problems: list[tuple[bytes, str]]) -> SourceError:
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return SourceError(
        f"what was written to {problems[0][0].decode('utf-8', 'replace')}{more} cannot be read; "
        "nothing was committed",
        problems,
        hint="restore, empty or remove what is lost, and commit again",
    )


class _Nothing:
    """The extents of a file that has no base."""

    size = 0

    def extents(self, offset: int = 0) -> Iterator[tuple[int, Extent]]:  # noqa: ARG002
        return iter(())
