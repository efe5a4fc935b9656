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
from versionfs.types import Entry, NodeRef
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


def follow(
    names: Names, folder: Folder, before: NodeRef | None, after: NodeRef | None
) -> Generator[Step, None, None]:
    """Moves a folder, and the unchanged ones known below it, from one base to another.

    The folder's own ``base`` is set here too, together with those of its children.
    """
    work = [(folder, before, after)]
    while work:
        current, old, new = work.pop()
        if current.gone:
            continue
        if old == new:
            current.base = new
            continue
        changes = yield from fetched(partial(_changes, names, old, new))
        places = yield from fetched(partial(_places, names, current, new, changes))
        dropped = [Dropped(current.number, None)]
        current.base = new
        current.version += 1
        for a, b in changes:
            entry = b or a
            assert entry is not None
            name = entry.name
            key = name_key(current.number, name)
            if current.overlaid and names.table.get(key) is not None:
                continue
            child = current.children.get(name) if current.children else None
            found = places.get(name)
            if child is not None and found is not None and a is not None and a.is_dir:
                place_folder(names, child, found)
                assert b is not None
                base = None if b.location is None else b.node
                work.append((child, child.base, base))
                continue
            if child is not None:
                dropped.extend(_remove(child))
            names.unpin(current, name)
            dropped.append(Dropped(current.number, name))
        yield dropped


def _changes(
    names: Names, old: NodeRef | None, new: NodeRef | None
) -> list[tuple[Entry | None, Entry | None]]:
    return list(diff_directory(names.trees, old, new, attributes=True))


def _places(
    names: Names,
    folder: Folder,
    base: NodeRef | None,
    changes: list[tuple[Entry | None, Entry | None]],
) -> dict[bytes, InBase]:
    """Finds the known directories below a folder that are directories still."""
    places: dict[bytes, InBase] = {}
    children = folder.children or {}
    if base is None:
        return places
    for _, entry in changes:
        if entry is not None and entry.is_dir and entry.name in children:
            ref, leaf = names.trees.leaf_for(base, entry.name)
            places[entry.name] = InBase(ref, leaf, leaf.find(entry.name))
    return places


def place_folder(names: Names, folder: Folder, found: InBase) -> None:
    """Lets an unchanged folder be found where the base has it now."""
    number = names.leaves.number(found.ref)
    names.leaves.use(number)
    if folder.leaf >= 0:
        names.leaves.drop(folder.leaf)
    folder.leaf, folder.index = number, found.position
    folder.recorded = False


def _remove(folder: Folder) -> list[Dropped]:
    """Marks a folder that the base has no longer, and all below it."""
    dropped = []
    stack = [folder]
    folder.detach()
    while stack:
        current = stack.pop()
        current.gone = True
        current.base = None
        dropped.append(Dropped(current.number, None))
        stack.extend((current.children or {}).values())
    return dropped
