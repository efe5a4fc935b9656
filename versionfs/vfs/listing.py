"""Open directories: a cursor each, with offsets that stay good for telldir and seekdir.

An offset is the number of the entry that comes next, 0 and 1 for ``.`` and ``..``; above that it
names the tree that it counts in. Going on where the last reply ended costs nothing; going elsewhere
costs the nodes on the way there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from typing import Final, Protocol

from versionfs.tree import Leaf, pack_dot
from versionfs.types import NodeRef
from versionfs.vfs.directories import Directories, Item
from versionfs.vfs.nodes import ROOT_NUMBER, Attributes, Directory, Node

DOTS: Final = 2
"""Entries that every directory begins with."""

_POSITION_BITS: Final = 40
_POSITION: Final = (1 << _POSITION_BITS) - 1
_TAG_BYTES: Final = 3


class Listing(Protocol):
    """An open directory. ``timeout`` is how long the kernel may keep what it lists, in seconds."""

    timeout: float

    def items(self, start: int) -> Generator[Item, None, None]:
        """Yields entries from an offset on; asking for the next takes the one before."""
        ...


class TreeListing:
    """An open directory of a snapshot: holds one leaf at a time, whatever the number of entries.

    If the directory moves to another commit meanwhile, the listing goes on in the new tree behind
    the last name it gave, so nothing is given twice and nothing that stays is left out. So it does
    after an error, or after a leaf that had to be fetched first.

    Where the kernel opens no directories, all that read one have the same listing. An offset names
    the tree that it was given of, so each goes on behind its own last name.
    """

    def __init__(self, directories: Directories, directory: Directory, timeout: float) -> None:
        self.timeout = timeout
        self._directories = directories
        self._directory = directory
        self._at: tuple[int, int, object] | None = None
        self._leaves: Iterator[tuple[NodeRef, Leaf]] = iter(())
        self._ref: NodeRef | None = None
        self._leaf: Leaf | None = None
        self._next: tuple[NodeRef, Leaf] | None = None
        """What was read ahead."""
        self._index = 0
        self._offset = DOTS
        self._last: bytes | None = None

    def items(self, start: int) -> Generator[Item, None, None]:
        """Yields entries from an offset on; asking for the next takes the one before."""
        directory = self._directory
        for offset, node in ((0, directory), (1, directory.parent)):
            if start == offset:
                yield _dot(self._directories, node or directory, offset)
                start += 1
        self._seek(start)
        while self._leaf is not None or self._next_leaf():
            leaf, ref = self._leaf, self._ref
            assert leaf is not None
            assert ref is not None
            entries = self._directories.list_leaf(directory, ref, leaf, self._index, self._offset)
            try:
                for item in entries:
                    yield item
                    self._index += 1
                    self._offset += 1
            finally:
                entries.close()
                if self._index:
                    self._last = leaf.names[self._index - 1]
            self._leaf = None

    def packed(self, start: int, room: int) -> bytes:
        """Takes entries from an offset on, as many as fit into ``room`` bytes, and packs them."""
        directory = self._directory
        parts = []
        for offset, node in ((0, directory), (1, directory.parent)):
            if start == offset:
                name, number, mode, *_ = _dot(self._directories, node or directory, offset)
                dot = pack_dot(name, number, mode, offset + 1)
                parts.append(dot)
                room -= len(dot)
                start += 1
        try:
            self._seek(start)
            while self._leaf is not None or self._next_leaf():
                leaf, ref = self._leaf, self._ref
                assert leaf is not None
                assert ref is not None
                data, taken = self._directories.pack_leaf(
                    directory, ref, leaf, self._index, self._offset, room, self.timeout
                )
                parts.append(data)
                room -= len(data)
                self._index += taken
                self._offset += taken
                if self._index:
                    self._last = leaf.names[self._index - 1]
                if self._index < leaf.count:
                    break
                self._leaf = None
        except BaseException:
            # The kernel asks again for what is behind the entries that it gets.
            if not any(parts):
                raise
        return b"".join(parts)

    def look_ahead(self) -> None:
        """Reads what comes behind the entries that were given last: a leaf, or the next folder.

        Raises:
            WouldBlock: it must be fetched.
        """
        if self._at is None or self._at != self._state():
            return
        if self._next is None:
            self._next = self._take_leaf()
        if self._next is None and self._leaf is None:
            directories, directory = self._directories, self._directory
            directories.walks.listed(directories.root_of(directory), self._above())

    def _above(self) -> Iterator[tuple[NodeRef | None, bytes]]:
        directory = self._directory
        while isinstance(directory.parent, Directory):
            yield self._directories.root_of(directory.parent), directory.name
            directory = directory.parent

    def _state(self) -> tuple[int, int, object]:
        """Returns what changes when the directory moves."""
        directory = self._directory
        return directory.leaf, directory.index, directory.view.located

    def _seek(self, start: int) -> None:
        if start == DOTS:
            self._open(None)
        elif start != self._offset:
            self._open(self._name_before(start))
        elif self._at != self._state():
            self._open(self._last)

    def _name_before(self, offset: int) -> bytes | None:
        """Returns the name that an offset is behind, in the tree that it was given of."""
        directories, directory = self._directories, self._directory
        root = directories.listed.get((directory.number, offset >> _POSITION_BITS))
        if root is None:  # It was long ago: taken for one of the tree that is there now.
            root = directories.root_of(directory)
        position = (offset & _POSITION) - DOTS
        return None if root is None else directories.trees.name_at(root, position - 1)

    def _open(self, after: bytes | None) -> None:
        """Begins to read the directory as it is now, behind a name."""
        directories, directory = self._directories, self._directory
        state = self._state()
        root = directories.root_of(directory)
        position = tag = 0
        if root is not None:
            position = 0 if after is None else directories.trees.rank(root, after)
            tag = _tag(root)
            directories.listed.add((directory.number, tag), root)
        self._at = state
        self._leaves = iter(()) if root is None else directories.trees.leaves(root, after)
        self._leaf = self._ref = self._next = None
        self._offset = tag << _POSITION_BITS | position + DOTS
        self._last = after
        self._index = 0

    def _next_leaf(self) -> bool:
        self._leaf = None
        found, self._next = self._next or self._take_leaf(), None
        if found is None:
            return False
        self._ref, self._leaf = found
        self._index = 0 if self._last is None else bisect_right(self._leaf.names, self._last)
        return True

    def _take_leaf(self) -> tuple[NodeRef, Leaf] | None:
        try:
            return next(self._leaves, None)
        except BaseException:
            self._at = None  # That ended the iterator: who tries again opens it anew.
            raise


class NodeListing:
    """An open directory that is not of a snapshot: what it lists was settled when it was opened.

    ``names`` are its names; ``lookup`` counts a lookup of one and returns its attributes.
    """

    def __init__(
        self,
        directories: Directories,
        node: Node,
        names: Sequence[bytes],
        timeout: float,
        lookup: Lookup,
    ) -> None:
        self.timeout = timeout
        self._directories = directories
        self._node = node
        self._names = names
        self._lookup = lookup

    def items(self, start: int) -> Generator[Item, None, None]:
        """Yields entries from an offset on; asking for the next takes the one before."""
        for offset, node in ((0, self._node), (1, self._node.parent)):
            if start == offset:
                yield _dot(self._directories, node or self._node, offset)
                start += 1
        for index in range(start - DOTS, len(self._names)):
            name = self._names[index]
            found = self._lookup(self._node, name)
            if found is None:
                continue
            try:
                yield (name, *found, index + DOTS + 1)
            except GeneratorExit:
                self._directories.forget(found.number, 1)
                raise


class Lookup(Protocol):
    """Finds a name in a node and counts a lookup."""

    def __call__(self, node: Node, name: bytes, /) -> Attributes | None:
        """Returns the attributes of what has the name, or None."""
        ...


def _dot(directories: Directories, node: Node, offset: int) -> Item:
    """Returns ``.`` or ``..``; the kernel takes nothing but the number and the type from it."""
    name = b"." if not offset else b".."
    number = node.number or ROOT_NUMBER
    uid, gid = directories.owner.own
    return (name, number, 0o040555, 0, 0, uid, gid, offset + 1)


def _tag(root: NodeRef) -> int:
    """Returns a number of 23 bits for a tree, not 0: the same for the same entries."""
    return int.from_bytes(root.id[:_TAG_BYTES], "little") >> 1 | 1
