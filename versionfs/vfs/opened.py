"""The directories of snapshots and of the namespace that are open: a listing each, by handle."""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from versionfs.vfs.directories import Directories
from versionfs.vfs.errnos import FileSystemError
from versionfs.vfs.listing import Listing, NodeListing, TreeListing
from versionfs.vfs.namespace import Namespace
from versionfs.vfs.nodes import DAY_SECONDS, Directory, Node

_UNOPENED: Final = 256
"""Directories that are read without being opened, and whose cursors are kept."""


class OpenDirectories:
    """Listings by handle. Where the kernel opens no directories, their numbers are the handles."""

    def __init__(
        self, directories: Directories, namespace: Namespace, find: Callable[[int], Node]
    ) -> None:
        """Makes it ready; ``find`` returns the directory of a number, or raises."""
        self._directories = directories
        self._namespace = namespace
        self._find = find
        self._listings: dict[int, Listing] = {}
        self._next_handle = 1
        self._unopened: OrderedDict[int, Listing] = OrderedDict()
        self.by_number = False
        """Whether the kernel opens none; then all of them are of snapshots."""

    def __len__(self) -> int:
        return len(self._listings)

    def open(self, node: Node) -> int:
        """Returns a new handle."""
        handle = self._next_handle
        self._next_handle += 1
        self._listings[handle] = self._list(node)
        return handle

    def close(self, handle: int) -> None:
        """Forgets a handle; unknown ones are ignored."""
        self._listings.pop(handle, None)

    def listing(self, handle: int) -> Listing:
        """Returns the listing of a handle.

        Raises:
            FileSystemError: EBADF; of a number that is a handle ENOENT, ENOTDIR.
        """
        if not self.by_number:
            listing = self._listings.get(handle)
            if listing is None:
                raise FileSystemError(errno.EBADF)
            return listing
        listing = self._unopened.get(handle)
        if listing is None:
            listing = self._unopened[handle] = self._list(self._find(handle))
            if len(self._unopened) > _UNOPENED:
                self._unopened.popitem(last=False)
        self._unopened.move_to_end(handle)
        return listing

    def look_ahead(self, handle: int) -> None:
        """Prepares what comes behind the entries that were given last, if anything is known."""
        opened = self._unopened if self.by_number else self._listings
        listing = opened.get(handle)
        if isinstance(listing, TreeListing):
            listing.look_ahead()

    def _list(self, node: Node) -> Listing:
        if isinstance(node, Directory):
            return TreeListing(self._directories, node, DAY_SECONDS)
        names, lookup = self._namespace.listing(node)
        kept = self._namespace.timeout(node)
        return NodeListing(self._directories, node, names, kept, lookup)
