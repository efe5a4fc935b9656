"""Extended attributes: those stored, and those that tell what a node is.

``user.versionfs.*`` are answered to whoever asks by name but not listed, as cephfs does with its
``ceph.*``: tools that copy every attribute listed (``cp -a``, ``rsync -X``, ``tar --xattrs``) would
otherwise carry them to places where they are not true, and see a difference where there is none.

===========  =====================  ========================================================
``.ref``     directories            the SPEC of the directory; empty for the root of a store
``.store``   directories            the store, as the mount was told
``.commit``  dirs of a snapshot     the id of the commit
``.id``      dirs, files, symlinks  the id of the tree or of the content
``.rfiles``  directories            files and symlinks below
``.rbytes``  directories            bytes of the regular files below
===========  =====================  ========================================================

A file has no ``.ref``: it is the same inode in all snapshots that have it.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from versionfs.config import Settings
from versionfs.repo import Spec, format_spec, parse_spec
from versionfs.types import Entry
from versionfs.vfs.branches import Branch
from versionfs.vfs.directories import Directories, path_of
from versionfs.vfs.errnos import ENOATTR, FileSystemError
from versionfs.vfs.nodes import Directory, LogBranchNode, LogLinkNode, LogNode, Node, RepositoryNode

PREFIX: Final = b"user.versionfs."
_USER: Final = b"user."


class ExtendedAttributes:
    """Answers for the attributes of all nodes of a mount."""

    def __init__(self, directories: Directories, settings: Settings) -> None:
        self._directories = directories
        self._store = settings.store.encode("utf-8", "surrogateescape")
        self._state = os.fsencode(settings.state_dir)

    def names(self, node: Node | None, number: int) -> list[bytes]:
        """Returns the names to list: those stored."""
        return [name for name, _ in self._stored(node, number)]

    def value(self, node: Node | None, number: int, name: bytes) -> bytes:
        """Returns one attribute.

        Raises:
            FileSystemError: ENODATA: there is none of that name. EOPNOTSUPP: not in the namespace
                ``user``, which tells `ls -l` to ask no more for ACLs here.
        """
        if not name.startswith(_USER):
            raise FileSystemError(errno.EOPNOTSUPP)
        for stored, value in self._stored(node, number):
            if stored == name:
                return value
        if name.startswith(PREFIX):
            key = name[len(PREFIX) :]
            virtual = self._of_file(number, key) if node is None else self._of_node(node, key)
            if virtual is not None:
                return virtual
        raise FileSystemError(ENOATTR)

    def of_branch(self, branch: Branch, local: int, key: bytes) -> bytes | None:
        """Returns an attribute that tells what a node of a branch folder is; None if none does."""
        workspace = branch.workspace
        if key in (b"id", b"rfiles", b"rbytes"):
            entry = workspace.unchanged(local)
            return None if entry is None else told_of_entry(entry, key)
        if local not in workspace.names.folders:
            return None
        if key == b"store":
            return self._store
        if key == b"state":
            return self._state
        if key == b"commit":
            return workspace.base.id.hex().encode()
        if key == b"ref":
            spec = Spec(branch.repository, branch.name, None, workspace.path(local))
            return format_spec(spec).encode("utf-8", "surrogateescape")
        return None

    def _stored(self, node: Node | None, number: int) -> tuple[tuple[bytes, bytes], ...]:
        if node is None:
            found = self._directories.file(number)
            if found is None:
                raise FileSystemError(errno.ENOENT)
            return found[0].xattrs(found[1])
        entry = self._directories.entry(node) if isinstance(node, Directory) else None
        return () if entry is None else entry.xattrs

    def _of_file(self, number: int, key: bytes) -> bytes | None:
        found = self._directories.file(number)
        if found is None or key != b"id":
            return None
        return found[0].content(found[1]).hex().encode()

    def _of_node(self, node: Node, key: bytes) -> bytes | None:
        if isinstance(node, LogLinkNode):
            return None
        if key == b"store":
            return self._store
        if not isinstance(node, Directory):
            return _ref_above(node) if key == b"ref" else None
        if key == b"ref":
            return _ref(node)
        located, entry = node.view.located, self._directories.entry(node)
        if located is None or entry is None:
            return None
        if key == b"commit":
            return located.commit.id.hex().encode()
        return told_of_entry(entry, key)


def told_of_entry(entry: Entry, key: bytes) -> bytes | None:
    """Returns what an attribute tells of an entry; files tell their id only."""
    if key == b"id":
        return entry.content.hex().encode()
    if not entry.is_dir:
        return None
    if key == b"rfiles":
        return b"%d" % entry.files
    if key == b"rbytes":
        return b"%d" % entry.size
    return None


def _ref(directory: Directory) -> bytes:
    base = parse_spec(directory.view.spec)
    spec = Spec(base.repository, base.branch, base.revision, path_of(directory))
    return format_spec(spec).encode("utf-8", "surrogateescape")


def _ref_above(node: Node) -> bytes:
    if isinstance(node, (RepositoryNode, LogNode, LogBranchNode)):
        return node.repository.encode()
    return b""
