"""Snapshots: names to inodes in the directories of a commit's tree.

Used from one thread only.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from collections.abc import Generator
from typing import Final

from versionfs.tree import Leaf, Shown, Trees, Walks, compiled, pack_leaf
from versionfs.types import Entry, Kind, NodeRef
from versionfs.vfs.inodes import (
    INDEX_MASK,
    InodeTable,
    LeafTable,
    compiled_numbers_agree,
    file_number,
    file_numbers,
    next_number,
    place,
    same_file,
    split_place,
)
from versionfs.vfs.nodes import AT_TOP, GONE, Attributes, Directory, Node, NodeTable
from versionfs.vfs.owner import Owner
from versionfs.vfs.views import View, entry_of, node_of

TYPE_BITS: Final = (0, stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
"""The file type in ``st_mode`` by ``Kind``."""

_DIRECTORY: Final = int(Kind.DIRECTORY)

PACKS: Final = compiled is not None and compiled_numbers_agree()
"""Whether entries can be packed."""

_KEPT_LEAVES: Final = 64
"""Leaves at hand by number, with what they had it for."""

_LISTED: Final = 4_096
"""Trees that a reader can go on in behind the name that he came to, though the branch moved."""

Item = tuple[bytes, int, int, int, int, int, int, int]
"""What a listing yields: name, number, mode, size, mtime in ns, uid, gid, offset of the next."""


class ListedTrees:
    """The trees that were listed last, by what offsets say of them."""

    def __init__(self) -> None:
        self._roots: OrderedDict[tuple[int, int], NodeRef] = OrderedDict()

    def add(self, key: tuple[int, int], root: NodeRef) -> None:
        """Notes the root of a tree by the number of the directory that showed it, and its tag."""
        self._roots[key] = root
        self._roots.move_to_end(key)
        if len(self._roots) > _LISTED:
            self._roots.popitem(last=False)

    def get(self, key: tuple[int, int]) -> NodeRef | None:
        """Returns the root of a tree; None if it was listed too long ago."""
        return self._roots.get(key)


class Directories:
    """The directories, files and symlinks of all snapshots of a mount that the kernel knows."""

    def __init__(self, trees: Trees, nodes: NodeTable, owner: Owner) -> None:
        self.trees = trees
        self.walks = Walks(trees)
        self.inodes = InodeTable()
        self.leaves = LeafTable()
        self.listed = ListedTrees()
        self._kept: dict[int, tuple[bytes, Leaf]] = {}
        self._nodes = nodes
        self.owner = owner

    # -- names ---------------------------------------------------------------------------------

    def top(self, view: View, parent: Node | None, name: bytes) -> Directory:
        """Returns the directory that a view begins with; makes it if the view is new."""
        if view.top is None:
            view.top = Directory(self._nodes.new_number(), parent, name, view, AT_TOP, 0)
            self._nodes.add(view.top)
        return view.top

    def lookup(self, directory: Directory, name: bytes) -> Attributes | None:
        """Returns what a name in a directory is, and counts a lookup of it; None if nothing is."""
        root = self.root_of(directory)
        if root is None:
            return None
        ref, leaf = self.trees.leaf_for(root, name)
        index = leaf.find(name)
        if index < 0:
            return None
        leaf_number = self.leaves.number(ref)
        if leaf.kinds[index] == _DIRECTORY:
            number = self._directory(directory, name, leaf_number, index)
        else:
            number = self._file(file_number(leaf, index), leaf, leaf_number, index)
        return self.shown(number, leaf, index)

    def root_of(self, directory: Directory) -> NodeRef | None:
        """Returns the root node of a directory; None if it is empty or gone."""
        entry = self.entry(directory)
        return None if entry is None else node_of(entry)

    def entry(self, directory: Directory) -> Entry | None:
        """Returns a directory's entry; None if it is gone."""
        return entry_of(directory, self.trees, self.leaves)

    def _directory(self, parent: Directory, name: bytes, leaf: int, index: int) -> int:
        child = parent.children.get(name) if parent.children else None
        if child is None:
            number = self._nodes.new_number()
            child = Directory(number, parent, name, parent.view, leaf, index)
            self.leaves.use(leaf)
            self._nodes.add(child)
        child.lookups += 1
        return child.number

    def _file(self, number: int, leaf: Leaf, leaf_number: int, index: int) -> int:
        """Counts a lookup of a file whose hash is ``number``; returns its inode number."""
        at = place(leaf_number, index)
        held = self.inodes.intern(number, at)
        return number if held == at else self._settle(number, held, leaf, leaf_number, index)

    def _settle(self, number: int, held: int, leaf: Leaf, leaf_number: int, index: int) -> int:
        """Goes on where ``intern`` found the number new (held < 0) or of another place."""
        at = place(leaf_number, index)
        while held != at:
            if held < 0:
                self.leaves.use(leaf_number)
                break
            other_leaf, other_index = split_place(held)
            try:
                other = self.trees.leaf(self.leaves.ref(other_leaf))
            except BaseException:
                # The lookup that ``intern`` counted is not one, or is counted when it is tried
                # again.
                self.inodes.forget(number, 1)
                self.leaves.sweep(leaf_number)
                raise
            if same_file(leaf, index, other, other_index):
                self.leaves.sweep(leaf_number)
                break
            # Two files with one hash: this one gets the next number that is free or its own.
            self.inodes.forget(number, 1)
            number = next_number(number)
            held = self.inodes.intern(number, at)
        return number

    def shown(self, number: int, leaf: Leaf, index: int) -> Attributes:
        """Returns the attributes of an entry under its inode number."""
        kind = leaf.kinds[index]
        uid, gid = self.owner.shown(leaf.uids[index], leaf.gids[index])
        return Attributes(
            number,
            leaf.modes[index] | TYPE_BITS[kind],
            # A directory's total would be counted twice by `du --apparent-size`: it is an
            # extended attribute (rbytes), and the size is 0.
            0 if kind == _DIRECTORY else leaf.sizes[index],
            leaf.mtimes[index],
            uid,
            gid,
        )

    def list_leaf(
        self, directory: Directory, ref: NodeRef, leaf: Leaf, start: int, offset: int
    ) -> Generator[Item, None, None]:
        """Yields the entries of a leaf from number ``start`` on; asking for the next takes one.

        Each entry taken counts as a lookup, as readdirplus has it; one that was yielded and not
        taken (the generator is closed) does not. ``offset`` is that of the entry at ``start``.
        """
        leaf_number = self.leaves.number(ref)
        # Held while listing, so that the leaf keeps its number when what is listed is forgotten.
        self.leaves.use(leaf_number)
        intern = self.inodes.intern
        fixed = self.owner.fixed
        number = 0
        at = place(leaf_number, start)
        columns = zip(
            leaf.names[start:],
            leaf.kinds[start:],
            leaf.modes[start:],
            leaf.sizes[start:],
            leaf.mtimes[start:],
            leaf.uids[start:],
            leaf.gids[start:],
            file_numbers(leaf, start),
            strict=True,
        )
        try:
            for name, kind, mode, size, mtime_ns, uid, gid, number in columns:
                if kind == _DIRECTORY:
                    number = self._directory(directory, name, leaf_number, at & INDEX_MASK)
                    size = 0
                else:
                    held = intern(number, at)
                    if held != at:
                        index = at & INDEX_MASK
                        number = self._settle(number, held, leaf, leaf_number, index)
                if fixed is not None:
                    uid, gid = fixed
                at += 1
                offset += 1
                yield (name, number, mode | TYPE_BITS[kind], size, mtime_ns, uid, gid, offset)
        except GeneratorExit:
            self.forget(number, 1)
            raise
        finally:
            self.leaves.drop(leaf_number)

    def pack_leaf(
        self,
        directory: Directory,
        ref: NodeRef,
        leaf: Leaf,
        start: int,
        offset: int,
        room: int,
        seconds: float,
    ) -> tuple[bytes, int]:
        """Takes entries as :meth:`list_leaf` does, as many as fit into ``room`` bytes.

        Returns them as the kernel reads them, to be kept for ``seconds``, and how many they are.
        Only where ``PACKS``.
        """
        leaf_number = self.leaves.number(ref)
        # Held meanwhile, so that the leaf keeps its number when nothing is found in it.
        self.leaves.use(leaf_number)

        def special(index: int, held: int) -> int:
            if leaf.kinds[index] == _DIRECTORY:
                return self._directory(directory, leaf.names[index], leaf_number, index)
            number = file_number(leaf, index)
            if held < 0:
                return self._file(number, leaf, leaf_number, index)
            return self._settle(number, held, leaf, leaf_number, index)

        shown = Shown(seconds, *(self.owner.fixed or ()))
        try:
            packed = pack_leaf(self.inodes, leaf, leaf_number, start, offset, room, shown, special)
            self.leaves.use(leaf_number, packed.fresh)
        finally:
            self.leaves.drop(leaf_number)
        return packed.data, packed.entries

    # -- numbers -------------------------------------------------------------------------------

    def file(self, number: int) -> tuple[Leaf, int] | None:
        """Returns the leaf a file or symlink is in, and its entry number; None if not known."""
        at = self.inodes.find(number)
        if at < 0:
            return None
        number, index = split_place(at)
        key = self.leaves.key(number)
        kept = self._kept.get(number)
        if kept is not None and kept[0] is key:
            return kept[1], index
        leaf = self.trees.leaf(self.leaves.ref(number))
        if len(self._kept) >= _KEPT_LEAVES:
            self._kept.clear()
        self._kept[number] = key, leaf
        return leaf, index

    def directory_attributes(self, directory: Directory) -> Attributes:
        """Returns the attributes of a directory; those of an empty one if it is gone."""
        entry = self.entry(directory)
        if entry is None:
            uid, gid = self.owner.own
            return Attributes(directory.number, stat.S_IFDIR | 0o555, 0, 0, uid, gid)
        uid, gid = self.owner.shown(entry.uid, entry.gid)
        mode = entry.mode | stat.S_IFDIR
        return Attributes(directory.number, mode, 0, entry.mtime_ns, uid, gid)

    def forget(self, number: int, lookups: int) -> None:
        """Takes lookups from a file, symlink or directory."""
        node = self._nodes.get(number)
        if node is not None:
            self.forget_node(node, lookups)
            return
        at = self.inodes.forget(number, lookups)
        if at >= 0:
            self.leaves.drop(split_place(at)[0])

    def forget_node(self, node: Node, lookups: int) -> None:
        """Takes lookups from a node and frees what is no longer needed."""
        for gone in self._nodes.forget(node, lookups):
            if not isinstance(gone, Directory):
                continue
            if gone.leaf >= 0:
                self.leaves.drop(gone.leaf)
            elif gone.leaf == AT_TOP:
                gone.view.top = None
            gone.leaf = GONE


def path_of(directory: Directory) -> bytes:
    """Returns the path of a directory in its commit, ``b""`` for the root directory."""
    names = []
    current: Node | None = directory
    while isinstance(current, Directory):
        parent = current.parent
        if not isinstance(parent, Directory):
            break
        names.append(current.name)
        current = parent
    if directory.view.path:
        names.append(directory.view.path)
    return b"/".join(reversed(names))
