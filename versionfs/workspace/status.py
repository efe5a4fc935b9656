"""What is changed in a workspace, against its base: cost follows what changed, not the tree."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from versionfs.tree import Change, Trees
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind
from versionfs.workspace.inode import ROOT, WHITEOUT, Inode, decode_name, inode_key, names_prefix
from versionfs.workspace.staging import Staging
from versionfs.workspace.table import FrozenTable

_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}


class Status:
    """The changes of a workspace as it was when its records were frozen. Blocks: for a thread."""

    def __init__(self, trees: Trees, frozen: FrozenTable, staging: Staging, root: Entry) -> None:
        """Makes it ready.

        Args:
            trees: reads the base.
            frozen: the records.
            staging: the staging files.
            root: the base's root.
        """
        self._trees = trees
        self._frozen = frozen
        self._staging = staging
        self._root = root

    def changes(self) -> Iterator[Change]:
        """Yields the paths that differ, in path order.

        A file that was written counts as changed, whatever was written; times and owners alone do
        not count. The content id of what was written is not known yet: it is all zeros. Of a
        directory that has another name now only the directory itself is told, and what was changed
        in it. Fifos, sockets and devices are left out: a commit does not hold them.
        """
        return self._below(b"", ROOT, self._root)

    def _below(self, path: bytes, number: int, base: Entry | None) -> Iterator[Change]:
        prefix = names_prefix(number)
        for key, value in self._frozen.scan(prefix):
            name = key[len(prefix) :]
            child_path = path + name
            child, _ = decode_name(value)
            old = None
            if base is not None and base.is_dir and base.location is not None:
                old = self._trees.lookup(base.node, name)
            new = None if child == WHITEOUT else self._entry(name, child)
            if old is None and new is None:
                continue
            if not _is_same(old, new):
                yield Change(child_path, old, new)
            if new is not None and new.is_dir:
                yield from self._below(child_path + b"/", child, old or self._inode(child).base)

    def _inode(self, number: int) -> Inode:
        value = self._frozen.get(inode_key(number))
        assert value is not None
        return Inode.decode(number, value)

    def _entry(self, name: bytes, number: int) -> Entry | None:
        inode = self._inode(number)
        kind = _KINDS.get(stat.S_IFMT(inode.mode))
        if kind is None:
            return None
        size, content = len(inode.target), NO_ID
        base = inode.base
        if base is not None:
            kind, size, content = Kind(base.kind), base.size, base.content
        if inode.layers:
            size, content = self._staging.status(inode.layers[0].id).size, NO_ID
        return Entry(
            name,
            kind,
            inode.mode & 0o7777,
            size,
            base.files if base is not None and inode.is_dir else 1,
            content,
            inode.target,
            inode.xattrs,
            inode.mtime_ns,
            inode.uid,
            inode.gid,
            NO_STAMP,
            None if base is None or inode.layers else base.location,
        )


def _is_same(old: Entry | None, new: Entry | None) -> bool:
    if old is None or new is None:
        return False
    if old.is_dir and new.is_dir:
        # What is in them is compared by itself.
        return (old.mode, old.xattrs) == (new.mode, new.xattrs)
    written = new.is_file and new.content == NO_ID and new.size > 0
    return not written and (old.content, old.target, old.mode, old.xattrs, old.is_file) == (
        new.content,
        new.target,
        new.mode,
        new.xattrs,
        new.is_file,
    )
