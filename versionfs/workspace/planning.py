"""What is to be settled after a commit: the names at the cut, and where the new tree has them.

Made in a thread, from a frozen table and the store; nothing here changes the workspace.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from versionfs.tree import Trees, same_entry
from versionfs.types import Entry
from versionfs.workspace.inode import ROOT, WHITEOUT, Inode, decode_name, inode_key, names_prefix
from versionfs.workspace.names import InBase
from versionfs.workspace.table import FrozenTable


class PlannedName(NamedTuple):
    """A name as it was at the cut, its file's topmost layer then, and where the tree has it.

    ``is_theirs`` says that others changed it: then the merge took theirs, or ours was the same.
    """

    name: bytes
    number: int
    sequence: int
    layer: int
    found: InBase | None
    is_theirs: bool


class PlannedDirectory(NamedTuple):
    """A directory's new base, and its names that had records at the cut."""

    number: int
    base: Entry | None
    names: list[PlannedName]


class Cut(NamedTuple):
    """Where a commit was cut: the sequence of its last change, and the layers that belong to it.

    Layers from the number ``frozen_below`` on came after it.
    """

    sequence: int
    frozen_below: int


class Sides(NamedTuple):
    """What a commit of ours was merged with, at some directory: the base of both, and theirs."""

    base: Entry | None
    theirs: Entry | None

    def below(self, trees: Trees, name: bytes) -> Sides:
        """Returns both at a name in it."""
        return Sides(_entry(trees, self.base, name), _entry(trees, self.theirs, name))

    @property
    def differ(self) -> bool:
        """Whether others changed what a merge takes as one value, or anything below."""
        if self.base is None or self.theirs is None:
            return self.base is not self.theirs
        return not same_entry(self.base, self.theirs._replace(name=self.base.name))


ALONE: Final = Sides(None, None)
"""The sides where others changed nothing."""


def plan(
    trees: Trees,
    frozen: FrozenTable,
    cut: Cut,
    root: Entry | None,
    number: int = ROOT,
    sides: Sides = ALONE,
) -> Iterator[PlannedDirectory]:
    """Yields the directories that have records, what is below each before it.

    ``frozen`` is of the cut or later: a name that came to mean something after the cut is not what
    the commit has there, so it is left as it is, with all below it. Blocks on the store: for a
    thread.
    """
    prefix = names_prefix(number)
    names = []
    base = root if root is not None and root.is_dir else None
    for key, value in frozen.scan(prefix):
        name = key[len(prefix) :]
        child, sequence = decode_name(value)
        if sequence > cut.sequence:
            continue
        found = _find(trees, base, name)
        own_sides = sides.below(trees, name) if sides.differ else ALONE
        layer = 0
        record = None if child == WHITEOUT else frozen.get(inode_key(child))
        if record is not None:
            inode = Inode.decode(child, record)
            if inode.is_dir and ((found is not None and found.is_dir) or own_sides.differ):
                # One that others removed shows nothing any more but what was changed since the cut.
                entry = None if found is None else found.entry
                yield from plan(trees, frozen, cut, entry, child, own_sides)
            layer = next((own.id for own in inode.layers if own.id < cut.frozen_below), 0)
        names.append(PlannedName(name, child, sequence, layer, found, own_sides.differ))
    yield PlannedDirectory(number, base, names)


def _entry(trees: Trees, directory: Entry | None, name: bytes) -> Entry | None:
    found = _find(trees, directory, name)
    return None if found is None else found.entry


def _find(trees: Trees, base: Entry | None, name: bytes) -> InBase | None:
    if base is None or not base.is_dir or base.location is None:
        return None
    ref, leaf = trees.leaf_for(base.node, name)
    index = leaf.find(name)
    return None if index < 0 else InBase(ref, leaf, index)
