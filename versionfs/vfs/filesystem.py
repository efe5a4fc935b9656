"""The file system of a mount: one method for each request, by inode number.

Used from one thread only. What may block on the store for long is handed out as work, for another
thread, by ``preparation``, ``content``, ``Refresh.locate`` and ``SpaceCounter``.

On a thread that may not wait for a server, any method may raise ``WouldBlock``. Nothing was changed
or counted then: run its ``fetch`` in another thread, and call the method again. Only a listing that
gave entries before keeps them: go on behind them.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from versionfs.errors import NotFoundError
from versionfs.repo import Spec, Store
from versionfs.tree import FileContent, Pieces, Push
from versionfs.vfs.branches import Branch, Branches
from versionfs.vfs.directories import PACKS, Directories, Item
from versionfs.vfs.errnos import FileSystemError
from versionfs.vfs.files import Files
from versionfs.vfs.listing import TreeListing
from versionfs.vfs.namespace import Namespace
from versionfs.vfs.nodes import (
    BRIEF_SECONDS,
    DAY_SECONDS,
    Attributes,
    Directory,
    LogLinkNode,
    Node,
    NodeTable,
    RepositoryNode,
)
from versionfs.vfs.opened import OpenDirectories
from versionfs.vfs.owner import Owner
from versionfs.vfs.refresh import Refresh
from versionfs.vfs.resolver import version_of
from versionfs.vfs.space import NAME_MAX, Space, SpaceCounter
from versionfs.vfs.views import Located, Mover, View
from versionfs.vfs.xattrs import ExtendedAttributes

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_TRUNC


class Found(NamedTuple):
    """The answer to a lookup: attributes, or None, and how long either may be kept (seconds)."""

    attributes: Attributes | None
    timeout: float


@dataclass(frozen=True, slots=True)
class VfsStatistics:
    """What a mount did and holds: requests by kind, files and directories the kernel knows."""

    requests: Mapping[str, int]
    inodes: int
    inode_table_bytes: int
    directories: int
    leaves: int
    open_directories: int
    refreshes: int


class FileSystem:
    """A mount's file system: a whole store, a repository, or one directory of a snapshot.

    Raises:
        NotFoundError: ``spec`` names no repository, snapshot or directory.
        AmbiguousError: ``spec`` has an id prefix that several commits share.
    """

    def __init__(
        self, store: Store, spec: Spec | None, owner: Owner, *, writable: bool = False
    ) -> None:
        store.refcache.hold()
        self._store = store
        self._owner = owner
        self._nodes = NodeTable()
        self._directories = Directories(store.trees, self._nodes, owner)
        self._namespace = Namespace(store, self._nodes, self._directories, owner)
        self._mover = Mover(store.trees, self._nodes, self._directories.leaves)
        self._files = Files(self._directories, store.contents)
        self._xattrs = ExtendedAttributes(self._directories, store.settings)
        self._space = SpaceCounter(store, self._namespace.resolver)
        self.opened = OpenDirectories(self._directories, self._namespace, self._node)
        self._refreshes = 0
        self.requests: Counter[str] = Counter()
        self.branches: Branches | None = Branches(store, owner) if writable else None
        """The branch folders, in a mount that can be written."""
        self._namespace.branches = self.branches
        self._root = self._make_root(spec)

    def _make_root(self, spec: Spec | None) -> Node:
        resolver = self._namespace.resolver
        if spec is None:
            root = Node(self._nodes.new_number(), None, b"")
        else:
            # Raises the error that lists near names, if there is no such repository.
            repository = self._store.repository(spec.repository)
            if spec.branch is None and spec.revision is None and not spec.path:
                number = self._nodes.new_number()
                root = RepositoryNode(number, None, b"", spec.repository)
            else:
                located = resolver.locate_spec(spec)
                if located is None:
                    repository.resolve(*version_of(spec))
                    raise NotFoundError(
                        f"{spec} is not a directory", hint="mount a directory of a snapshot"
                    )
                branch, revision = version_of(spec)
                plain = Spec(spec.repository, branch, revision)

                def locate() -> Located | None:
                    return resolver.locate_spec(spec)

                if self.branches is not None and branch is not None and revision is None:
                    self.branches.mount_root(spec.repository, branch, located.commit, spec.path)
                view = View(spec.repository, str(plain), spec.path, located, locate)
                return self._directories.top(view, None, b"")
        self._nodes.add(root)
        return root

    # -- names -----------------------------------------------------------------------------------

    def node(self, number: int) -> Node | None:
        """Returns the node of a number; None if it is a file's or symlink's, or not known."""
        return self._nodes.get(number)

    def preparation(self, number: int, name: bytes | None) -> Callable[[], object] | None:
        """Returns work that makes ``lookup(number, name)``, or ``opendir(number)``, quick.

        The work may block, and may run in any thread; None if there is none to do.
        """
        node = self._nodes.get(number)
        if node is None or isinstance(node, Directory):
            return None
        return self._namespace.preparation(node, name)

    def lookup(self, parent: int, name: bytes) -> Found:
        """Returns what a name in a directory is, and counts a lookup of it.

        Raises:
            FileSystemError: ENOENT, ENOTDIR, ENAMETOOLONG.
            AmbiguousError: an id prefix that several commits share.
        """
        if len(name) > NAME_MAX:
            raise FileSystemError(errno.ENAMETOOLONG)
        node = self._node(parent)
        if isinstance(node, Directory):
            return Found(self._directories.lookup(node, name), DAY_SECONDS)
        found = self._namespace.lookup(node, name)
        # That a name is not there is not kept: it can come into being.
        return Found(found, 0.0 if found is None else self._namespace.timeout(node, name))

    def forget(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Takes lookups from inodes: pairs of number and count. Unknown numbers are ignored."""
        for number, lookups in pairs:
            self._directories.forget(number, lookups)

    def attributes(self, number: int) -> tuple[Attributes, float]:
        """Returns attributes and how long they may be kept, in seconds.

        Raises:
            FileSystemError: ENOENT.
        """
        node = self._nodes.get(number)
        if isinstance(node, Directory):
            return self._directories.directory_attributes(node), DAY_SECONDS
        if node is not None:
            kept = DAY_SECONDS if isinstance(node, LogLinkNode) else BRIEF_SECONDS
            return self._namespace.attributes(node), kept
        found = self._directories.file(number)
        if found is None:
            raise FileSystemError(errno.ENOENT)
        return self._directories.shown(number, *found), DAY_SECONDS

    def readlink(self, number: int) -> bytes:
        """Returns the target of a symlink.

        Raises:
            FileSystemError: ENOENT, EINVAL (not a symlink).
        """
        node = self._nodes.get(number)
        if isinstance(node, LogLinkNode):
            return node.target
        if node is not None:
            raise FileSystemError(errno.EINVAL)
        return self._files.target(number)

    def _node(self, number: int) -> Node:
        """Returns a directory."""
        node = self._nodes.get(number)
        if node is None:
            known = self._directories.inodes.find(number) >= 0
            raise FileSystemError(errno.ENOTDIR if known else errno.ENOENT)
        if isinstance(node, LogLinkNode):
            raise FileSystemError(errno.ENOTDIR)
        return node

    # -- files -----------------------------------------------------------------------------------

    def open(self, number: int, flags: int) -> int:
        """Opens a file for reading and returns its handle.

        Raises:
            FileSystemError: ENOENT, EISDIR, EROFS.
        """
        if flags & _WRITING:
            raise FileSystemError(errno.EROFS)
        if self._nodes.get(number) is not None:
            raise FileSystemError(errno.EISDIR)
        self._files.open(number)
        return number

    def open_with_bytes(self, number: int, flags: int) -> tuple[int, list[Push] | None]:
        """Opens a file; returns its handle, and what to push to the kernel's cache, if anything.

        It must be there before the kernel has the handle: a page that is being read must not be
        pushed.

        Raises:
            FileSystemError: as :meth:`open`.
        """
        if flags & _WRITING:
            raise FileSystemError(errno.EROFS)
        if self._nodes.get(number) is not None:
            raise FileSystemError(errno.EISDIR)
        return number, self._files.open_with_bytes(number)

    def push_ahead(self) -> list[Push] | None:
        """Returns what to push ahead of files that are read in order; None: nothing for now."""
        return self._files.pusher.step()

    def release(self, handle: int) -> None:
        """Closes a file that was opened."""
        self._files.release(handle)

    def content(self, handle: int) -> FileContent:
        """Returns the content of an open file, to be read in any thread."""
        return self._files.content(handle)

    def read_pieces(self, handle: int, offset: int, size: int) -> Pieces:
        """Returns bytes of an open file; fewer than ``size`` only at its end.

        Raises:
            CorruptionError: the stored bytes are damaged.
        """
        return self._files.content(handle).read_pieces(offset, size)

    # -- directories -----------------------------------------------------------------------------

    @property
    def is_snapshot(self) -> bool:
        """Whether it is one directory of a snapshot, so that all listings may be kept."""
        return self.branches is None and isinstance(self._root, Directory)

    def is_listing_kept(self, number: int) -> bool:
        """Whether the kernel may keep what a directory lists: it is told when that changes."""
        return isinstance(self._nodes.get(number), Directory)

    def opendir(self, number: int) -> int:
        """Opens a directory and returns a handle for ``readdir``.

        Raises:
            FileSystemError: ENOENT, ENOTDIR.
        """
        return self.opened.open(self._node(number))

    def readdir(self, handle: int, start: int) -> tuple[Generator[Item, None, None], float]:
        """Returns the entries from an offset on, and how long they may be kept.

        Asking for the next entry takes the one before, and counts a lookup of it; an entry that
        was yielded last before the generator is closed is not taken.

        Raises:
            FileSystemError: EBADF.
        """
        listing = self.opened.listing(handle)
        return listing.items(start), listing.timeout

    def readdir_packed(self, handle: int, start: int, room: int) -> bytes | None:
        """Returns the entries from an offset on as the kernel reads them, up to ``room`` bytes.

        Counts a lookup of each. None: they cannot be packed; ask :meth:`readdir`.

        Raises:
            FileSystemError: EBADF.
        """
        listing = self.opened.listing(handle)
        return listing.packed(start, room) if PACKS and isinstance(listing, TreeListing) else None

    def look_ahead(self, handle: int) -> None:
        """Prepares what comes behind the entries of an open directory that were given last."""
        self.opened.look_ahead(handle)

    def releasedir(self, handle: int) -> None:
        """Closes an open directory."""
        self.opened.close(handle)

    # -- attributes of the whole and of nodes ----------------------------------------------------

    def xattr(self, number: int, name: bytes) -> bytes:
        """Returns an extended attribute.

        Raises:
            FileSystemError: ENOENT, ENODATA, EOPNOTSUPP.
        """
        return self._xattrs.value(self._nodes.get(number), number, name)

    def xattrs(self, number: int) -> list[bytes]:
        """Returns the names of the stored extended attributes.

        Raises:
            FileSystemError: ENOENT.
        """
        return self._xattrs.names(self._nodes.get(number), number)

    def space(self) -> Callable[[], Space]:
        """Returns the work of finding out the space; it may block, and run in any thread."""
        root = self._root
        if isinstance(root, Directory):
            located = root.view.located
            files = 0 if located is None else located.root.files
            return lambda: self._space.space([], files)
        names = [root.repository] if isinstance(root, RepositoryNode) else None
        return lambda: self._space.space(names, None)

    # -- refs that move --------------------------------------------------------------------------

    def moved(self) -> list[str]:
        """Returns the repositories whose refs moved since the mount looked. Any thread; may block.

        Raises:
            StorageTransientError: the store cannot be reached.
        """
        return self._namespace.resolver.moved()

    def refresh(self, repository: str | None = None, *, look: bool = True) -> Refresh:
        """Begins to bring views in line with the refs, of one repository or of all (None).

        One refresh at a time. Call ``locate`` of the result, then take its ``steps``. Without
        ``look``, what :meth:`moved` found is taken for what is so now.
        """
        self._refreshes += 1
        found = Refresh(self._namespace.resolver, self._mover, self.branches, repository)
        if look:
            found.after(partial(self._store.refcache.look_again, repository))
        found.add(self._root)
        return found

    def branch_xattr(self, branch: Branch, local: int, key: bytes) -> bytes | None:
        """Returns an attribute that tells what a node of a branch folder is; None if none does."""
        return self._xattrs.of_branch(branch, local, key)

    # -- figures ---------------------------------------------------------------------------------

    def statistics(self) -> VfsStatistics:
        """Returns what the mount did and holds now."""
        inodes = self._directories.inodes
        return VfsStatistics(
            dict(self.requests),
            len(inodes),
            inodes.size_bytes,
            len(self._nodes),
            len(self._directories.leaves),
            len(self.opened),
            self._refreshes,
        )
