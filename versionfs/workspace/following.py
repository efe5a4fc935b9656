"""Lets the folders that the kernel knows show another base, and says what it must drop.

What has a record is not touched: it hides what the base has. A step is a list of what the kernel
must drop, or work that must be done first, in a thread that may block.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import NamedTuple, TypeVar

from versionfs.objectstore import WouldBlock
from versionfs.tree import diff_directory
from versionfs.types import NodeRef
from versionfs.workspace.folders import Folder
from versionfs.workspace.inode import name_key
from versionfs.workspace.names import InBase, Names

T = TypeVar("T")


class Dropped(NamedTuple):
    """What the kernel must drop: a name in a directory, or the directory's attributes (None)."""

    number: int
    name: bytes | None


Step = list[Dropped] | Callable[[], object]


def fetched(work: Callable[[], T]) -> Generator[Step, None, T]:
    """Does work again and again, yielding what must be fetched for it; returns its result."""
    while True:
        try:
            return work()
        except WouldBlock as wait:
            yield wait.fetch


def finished(steps: Generator[Step, None, T]) -> T:
    """Does steps one after the other, where it may wait, and returns what they come to.

    Nobody is told what the kernel must drop: this is for workspaces without a mount.
    """
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if callable(step):
            step()


class _Changed(NamedTuple):
    """A name that differs: whether it was and is a directory, and the tree of that, if any."""

    name: bytes
    was_dir: bool
    is_dir: bool
    base: NodeRef | None


class _Move(NamedTuple):
    """What is to be done with one folder."""

    folder: Folder
    base: NodeRef | None
    placed: list[tuple[Folder, InBase]]
    gone: list[Folder]
    names: list[bytes]


class Moves:
    """Moves a folder, and the unchanged ones known below it, from one base to another.

    ``planned`` fetches all that this needs, and changes nothing. What it found is good until the
    workspace's thread does something else: then ``switch`` does all at once. So there is never a
    moment at which some folders show the one base and some the other, and whatever fails, nothing
    has changed.
    """

    def __init__(self, names: Names, number: int) -> None:
        """Begins with the folder that has a number."""
        self._names = names
        self._number = number
        self._changes: dict[tuple[NodeRef | None, NodeRef | None], list[_Changed]] = {}
        self._places: dict[tuple[NodeRef, bytes], InBase] = {}
        self._moves: list[_Move] = []

    def planned(self, before: NodeRef | None, after: NodeRef | None) -> Generator[Step, None, None]:
        """Finds out what changes between two bases; yields only work that fetches."""
        while True:
            fetch = self._plan(before, after)
            if fetch is None:
                return
            yield fetch

    def _plan(self, before: NodeRef | None, after: NodeRef | None) -> Callable[[], object] | None:
        """Plans for what is known now; returns work that must be done first, None if none."""
        self._moves = []
        top = self._names.folders.get(self._number)
        work = [] if top is None else [(top, before, after)]
        while work:
            folder, old, new = work.pop()
            if folder.gone:
                continue
            if old == new:
                self._moves.append(_Move(folder, new, [], [], []))
                continue
            if (old, new) not in self._changes:
                try:
                    self._compare(old, new)
                except WouldBlock:
                    return partial(self._compare, old, new)
            missing = self._plan_folder(folder, old, new, work)
            if missing is not None:
                return missing
        return None

    def _plan_folder(
        self,
        folder: Folder,
        old: NodeRef | None,
        new: NodeRef | None,
        work: list[tuple[Folder, NodeRef | None, NodeRef | None]],
    ) -> Callable[[], object] | None:
        table = self._names.table
        move = _Move(folder, new, [], [], [])
        for changed in self._changes[old, new]:
            name = changed.name
            if folder.overlaid and table.get(name_key(folder.number, name)) is not None:
                continue
            child = folder.children.get(name) if folder.children else None
            if child is not None and changed.was_dir and changed.is_dir and new is not None:
                if (new, name) not in self._places:
                    try:
                        self._find(new, name)
                    except WouldBlock:
                        return partial(self._find, new, name)
                move.placed.append((child, self._places[new, name]))
                work.append((child, child.base, changed.base))
                continue
            if child is not None:
                move.gone.append(child)
            move.names.append(name)
        self._moves.append(move)
        return None

    def _compare(self, old: NodeRef | None, new: NodeRef | None) -> None:
        found = []
        for a, b in diff_directory(self._names.trees, old, new, attributes=True):
            entry = b or a
            assert entry is not None
            base = b.node if b is not None and b.is_dir and b.location is not None else None
            was_dir, is_dir = a is not None and a.is_dir, b is not None and b.is_dir
            found.append(_Changed(entry.name, was_dir, is_dir, base))
        self._changes[old, new] = found

    def _find(self, base: NodeRef, name: bytes) -> None:
        ref, leaf = self._names.trees.leaf_for(base, name)
        self._places[base, name] = InBase(ref, leaf, leaf.find(name))

    def switch(self) -> list[list[Dropped]]:
        """Shows the new base; returns what the kernel must drop. Does not fail."""
        names = self._names
        told = []
        for folder, base, placed, gone, dropped_names in self._moves:
            if folder.base == base and not (placed or gone or dropped_names):
                folder.base = base
                continue
            dropped = [Dropped(folder.number, None)]
            folder.base = base
            folder.version += 1
            for child, found in placed:
                place_folder(names, child, found)
                dropped.append(Dropped(child.number, None))
            for child in gone:
                dropped.extend(removed(child))
            for name in dropped_names:
                names.unpin(folder, name)
                dropped.append(Dropped(folder.number, name))
            told.append(dropped)
        self._moves = []
        return told


def place_folder(names: Names, folder: Folder, found: InBase) -> None:
    """Lets an unchanged folder be found where the base has it now."""
    number = names.leaves.number(found.ref)
    names.leaves.use(number)
    if folder.leaf >= 0:
        names.leaves.drop(folder.leaf)
    folder.leaf, folder.index = number, found.position
    folder.recorded = False


def removed(folder: Folder) -> list[Dropped]:
    """Marks a folder that is gone, and all known below it; those have no records."""
    dropped = []
    stack = [folder]
    folder.detach()
    while stack:
        current = stack.pop()
        current.gone = True
        current.base = None
        current.overlaid = False
        dropped.append(Dropped(current.number, None))
        stack.extend((current.children or {}).values())
    return dropped
