"""Names and numbers of a workspace: what the kernel knows, what has a record, what the base has.

Reading the base may raise ``WouldBlock``: always before anything was counted or changed. Used from
one thread only.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from typing import Final, NamedTuple

from versionfs.errors import FileSystemError
from versionfs.tree import InodeTable, Leaf, LeafTable, Trees, Walks, place, split_place
from versionfs.types import Entry, Kind, NodeRef
from versionfs.workspace.folders import Folder, hashed_number, next_number
from versionfs.workspace.inode import (
    ROOT,
    WHITEOUT,
    Inode,
    decode_name,
    inode_key,
    name_key,
    names_prefix,
)
from versionfs.workspace.records import Records

_CACHED: Final = 4_096

_KEPT_LEAVES: Final = 64
"""Leaves at hand by number, with what they had it for."""


class InBase(NamedTuple):
    """An unchanged name: entry number ``position`` of ``leaf``, which ``ref`` names."""

    ref: NodeRef
    leaf: Leaf
    position: int

    @property
    def kind(self) -> int:
        """What it is: a ``Kind``."""
        return int(self.leaf.kinds[self.position])

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.kind == Kind.DIRECTORY

    @property
    def entry(self) -> Entry:
        """The entry itself."""
        return self.leaf.entry(self.position)


class Names:
    """The tree of a workspace as the kernel sees it, for reading."""

    def __init__(self, table: Records, trees: Trees) -> None:
        self.table = table
        self.trees = trees
        self.walks = Walks(trees)
        self.leaves = LeafTable()
        self.known = InodeTable(parents=True)
        """Unchanged files and symlinks that the kernel knows."""
        self.lookups: dict[int, int] = {}
        """Lookups of files that have a record, or are orphans."""
        self.orphans: dict[int, Inode] = {}
        """Files without a name that the kernel still knows."""
        self.unsaved: dict[int, Inode] = {}
        """Files whose times are newer than their record: they were written, and are open."""
        self._kept: dict[int, tuple[bytes, Leaf]] = {}
        self._pins: dict[tuple[int, bytes], int] = {}
        self._absent: tuple[bytes, int, Folder, NodeRef | None] | None = None
        """The last name that was not found: most are made next."""
        self._cache: OrderedDict[int, Inode] = OrderedDict()
        root = self.inode(ROOT)
        self.root = Folder(ROOT, None, b"", base_of(root), recorded=True)
        self.root.overlaid = self.has_names(ROOT)
        self.folders: dict[int, Folder] = {ROOT: self.root}

    # -- records ---------------------------------------------------------------------------------

    def inode(self, number: int) -> Inode:
        """Returns the inode that a record tells of; do not modify it.

        Raises:
            FileSystemError: ENOENT: there is no such record.
        """
        inode = self.unsaved.get(number) or self._cache.get(number) or self.orphans.get(number)
        if inode is not None:
            return inode
        value = self.table.get(inode_key(number))
        if value is None:
            raise FileSystemError(errno.ENOENT)
        inode = Inode.decode(number, value)
        self.remember(inode)
        return inode

    @property
    def is_plain(self) -> bool:
        """Whether all names and numbers are those of the base: nothing was changed or moved."""
        return not (self._pins or self.orphans or self.table.has_names)

    def remember(self, inode: Inode) -> None:
        """Keeps an inode, as it is in its record, for the next time."""
        self._cache[inode.number] = inode
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)

    def drop(self, number: int) -> None:
        """Forgets an inode whose record is gone."""
        self._cache.pop(number, None)

    def is_recorded(self, number: int) -> bool:
        """Whether a number has a record, or had one and is still known."""
        return (
            number in self._cache
            or number in self.orphans
            or self.table.get(inode_key(number)) is not None
        )

    def has_names(self, number: int) -> bool:
        """Whether any name in a directory has a record."""
        return next(iter(self.table.scan(names_prefix(number))), None) is not None

    # -- finding ---------------------------------------------------------------------------------

    def folder(self, number: int) -> Folder:
        """Returns a directory that the kernel knows.

        Raises:
            FileSystemError: ENOTDIR: it is something else; ENOENT: it is not known.
        """
        folder = self.folders.get(number)
        if folder is None:
            is_file = self.known.find(number) >= 0 or number in self.lookups
            raise FileSystemError(errno.ENOTDIR if is_file else errno.ENOENT)
        return folder

    def find(self, folder: Folder, name: bytes) -> int | InBase | None:
        """Returns what has a name: the number of a record, or where the base has it, or None."""
        absent = self._absent
        if absent is not None and absent == (name, folder.version, folder, folder.base):
            return None
        found: int | InBase | None = None
        value = self.table.get(name_key(folder.number, name)) if folder.overlaid else None
        if value is not None:
            number, _ = decode_name(value)
            found = None if number == WHITEOUT else number
        else:
            found = self.find_in_base(folder, name)
        if found is None:
            self._absent = name, folder.version, folder, folder.base
        return found

    def find_in_base(self, folder: Folder, name: bytes) -> InBase | None:
        """Returns where the base has a name, whatever was changed."""
        if folder.base is None:
            return None
        ref, leaf = self.trees.leaf_for(folder.base, name)
        index = leaf.find(name)
        return None if index < 0 else InBase(ref, leaf, index)

    def enter(self, folder: Folder, name: bytes, found: int | InBase) -> int:
        """Counts a lookup of what ``find`` found, and returns its number."""
        if isinstance(found, InBase):
            if found.is_dir:
                child = self.base_folder(folder, name, found)
                child.lookups += 1
                return child.number
            leaf_number = self.leaves.number(found.ref)
            number = hashed_number(folder.number, name)
            return self.enter_file(folder, name, number, found.leaf, leaf_number, found.position)
        if found in self.lookups:
            self.lookups[found] += 1
            return found
        inode = self.inode(found)
        if inode.is_dir:
            self.recorded_folder(folder, name, inode).lookups += 1
        else:
            self.lookups[found] = 1
        return found

    def recorded_folder(self, parent: Folder, name: bytes, inode: Inode) -> Folder:
        """Returns the folder of a directory that has a record; makes it known."""
        folder = self.folders.get(inode.number)
        if folder is None:
            folder = Folder(inode.number, None, name, base_of(inode), recorded=True)
            folder.overlaid = self.has_names(inode.number)
            folder.attach(parent, name)
            self.folders[inode.number] = folder
        return folder

    def base_folder(self, parent: Folder, name: bytes, found: InBase) -> Folder:
        """Returns the folder of an unchanged directory; makes it known."""
        child = parent.children.get(name) if parent.children else None
        if child is not None:
            return child
        entry = found.entry
        base = None if entry.location is None else entry.node
        leaf_number = self.leaves.number(found.ref)
        self.leaves.use(leaf_number)
        number = self._pins.get((parent.number, name), 0)
        if not number or not self._is_free(number):
            # What was pinned and then forgotten by the kernel may be the number of another node.
            number = self.free_number(parent.number, name)
        child = Folder(number, None, name, base, leaf=leaf_number, index=found.position)
        child.attach(parent, name)
        self.folders[number] = child
        return child

    def enter_file(
        self, folder: Folder, name: bytes, number: int, leaf: Leaf, leaf_number: int, index: int
    ) -> int:
        """Counts a lookup of an unchanged file whose hash is ``number``; returns its number."""
        if self._pins:
            number = self._pins.get((folder.number, name), number)
        at = place(leaf_number, index)
        known = self.known
        while True:
            held = known.intern(number, at, folder.number)
            if held == at and known.parent(number) == folder.number:
                return number
            if held < 0:
                if number not in self.folders and not self.is_recorded(number):
                    self.leaves.use(leaf_number)
                    folder.known += 1
                    return number
            elif known.parent(number) == folder.number:
                try:
                    same = self._is_same(held, leaf, index)
                except BaseException:
                    known.forget(number, 1)
                    raise
                if same:
                    known.move(number, at)
                    self.leaves.use(leaf_number)
                    self.leaves.drop(split_place(held)[0])
                    return number
            known.forget(number, 1)
            number = next_number(number)

    def _is_same(self, held: int, leaf: Leaf, index: int) -> bool:
        """Whether the file at a place is the one in a leaf, as far as a reader could tell."""
        old_leaf, old_index = split_place(held)
        old = self.trees.leaf(self.leaves.ref(old_leaf))
        return (
            old.names[old_index] == leaf.names[index]
            and old.content(old_index) == leaf.content(index)
            and old.kinds[old_index] == leaf.kinds[index]
            and old.sizes[old_index] == leaf.sizes[index]
        )

    def number_of(self, folder: Folder, name: bytes, found: InBase) -> int:
        """Returns the number of an unchanged file, by which the kernel knows it if it does."""
        leaf_number = self.leaves.number(found.ref)
        number = self.enter_file(
            folder,
            name,
            hashed_number(folder.number, name),
            found.leaf,
            leaf_number,
            found.position,
        )
        self.forget(number, 1)
        return number

    def free_number(self, parent: int, name: bytes) -> int:
        """Returns a number that nothing has, by preference that which the name always gets."""
        number = hashed_number(parent, name)
        while not self._is_free(number):
            number = next_number(number)
        return number

    def _is_free(self, number: int) -> bool:
        return (
            number not in self.folders
            and self.known.find(number) < 0
            and not self.is_recorded(number)
        )

    def pin(self, parent: int, name: bytes, number: int) -> None:
        """Lets an unchanged name keep a number that is not its hash, while this process runs."""
        if number != hashed_number(parent, name):
            self._pins[parent, name] = number

    def unpin(self, folder: Folder, name: bytes) -> None:
        """Undoes ``pin``: the name stands for something else now."""
        if self._pins:
            self._pins.pop((folder.number, name), None)

    # -- what is known ---------------------------------------------------------------------------

    def base_file(self, number: int) -> tuple[Folder, Leaf, int] | None:
        """Returns where an unchanged file that the kernel knows is; None for anything else."""
        at = self.known.find(number)
        if at < 0:
            return None
        leaf_number, index = split_place(at)
        folder = self.folders[self.known.parent(number)]
        key = self.leaves.key(leaf_number)
        kept = self._kept.get(leaf_number)
        if kept is not None and kept[0] is key:
            return folder, kept[1], index
        leaf = self.trees.leaf(self.leaves.ref(leaf_number))
        if len(self._kept) >= _KEPT_LEAVES:
            self._kept.clear()
        self._kept[leaf_number] = key, leaf
        return folder, leaf, index

    def check(self, number: int) -> None:
        """Finds out, before an unchanged file is changed, that it is what the base has there now.

        The base may have moved since it was opened. If its name means something else now, or
        nothing, it has no name any more: it lives on as an orphan, as if it had been unlinked.
        """
        at = self.known.find(number)
        if at < 0:
            return
        folder = self.folders[self.known.parent(number)]
        leaf_number, index = split_place(at)
        old_ref = self.leaves.ref(leaf_number)
        old = self.trees.leaf(old_ref)
        if not folder.is_gone:
            found = self.find(folder, old.names[index])
            if isinstance(found, InBase):
                if (found.ref.id, found.ref.stamp, found.position) == (
                    old_ref.id,
                    old_ref.stamp,
                    index,
                ):
                    return
                if self._is_same(at, found.leaf, found.position):
                    new_number = self.leaves.number(found.ref)
                    self.leaves.use(new_number)
                    self.known.move(number, place(new_number, found.position))
                    self.leaves.drop(leaf_number)
                    return
        inode = Inode.of_entry(number, old.entry(index))
        inode.nlink = 0
        self.lookups[number] = self.leave_base(number)
        self.orphans[number] = inode
        self.release(folder)

    def folder_entry(self, folder: Folder) -> Entry:
        """Returns the entry of an unchanged directory."""
        return self.trees.leaf(self.leaves.ref(folder.leaf)).entry(folder.index)

    def forget(self, number: int, lookups: int) -> Inode | None:
        """Takes lookups; returns an orphan that nobody can reach any more, to be thrown away."""
        folder = self.folders.get(number)
        if folder is not None:
            folder.lookups = max(0, folder.lookups - lookups)
            self.release(folder)
            return None
        held = self.lookups.get(number)
        if held is not None:
            if held > lookups:
                self.lookups[number] = held - lookups
                return None
            del self.lookups[number]
            return self.orphans.pop(number, None)
        parent = self.known.parent(number)
        at = self.known.forget(number, lookups)
        if at >= 0:
            self.leaves.drop(split_place(at)[0])
            folder = self.folders[parent]
            folder.known -= 1
            self.release(folder)
        return None

    def release(self, folder: Folder) -> None:
        """Frees a folder that is no longer needed, and those above it that then are not."""
        current: Folder | None = folder
        # What was above a folder that is gone may have been freed before it.
        while (
            current is not None
            and not current.is_needed
            and self.folders.get(current.number) is current
        ):
            parent = current.parent
            del self.folders[current.number]
            self.orphans.pop(current.number, None)
            if current.leaf >= 0:
                self.leaves.drop(current.leaf)
            current.detach()
            current = parent

    def leave_base(self, number: int) -> int:
        """Takes an unchanged file out of those known, because it gets a record now.

        Returns its count of lookups.
        """
        lookups = self.known.lookups(number)
        parent = self.known.parent(number)
        at = self.known.forget(number, lookups)
        if at >= 0:
            self.leaves.drop(split_place(at)[0])
            self.folders[parent].known -= 1
        return lookups


def base_of(inode: Inode) -> NodeRef | None:
    """Returns the root of a directory's base tree, None if it has none or it is empty."""
    base = inode.base
    return None if base is None or base.location is None else base.node
