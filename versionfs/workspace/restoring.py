"""Discards changes: names show the base again. What is open stays readable until it is closed."""

from __future__ import annotations

import stat
from collections.abc import Generator
from typing import TYPE_CHECKING

from versionfs.errors import NotFoundError
from versionfs.types import Entry
from versionfs.workspace.changes import Changes
from versionfs.workspace.folders import Folder
from versionfs.workspace.following import Dropped, Step, fetched, place_folder
from versionfs.workspace.inode import (
    ROOT,
    WHITEOUT,
    Inode,
    decode_name,
    name_key,
    names_prefix,
)
from versionfs.workspace.names import InBase

if TYPE_CHECKING:
    from versionfs.workspace.workspace import Workspace


def restore(workspace: Workspace, paths: list[bytes]) -> Generator[Step, None, int]:
    """Discards what was changed at and below some paths; ``b""`` is everything.

    Returns how many names were restored.

    Raises:
        NotFoundError: neither the workspace nor its base has anything at a path.
        OSError: the disk is full; what was restored before stays restored.
    """
    count = 0
    for path in paths:
        count += yield from _Restoring(workspace).path(path)
    return count


class _Restoring:
    """One path."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._names = workspace.names
        self._count = 0

    def path(self, path: bytes) -> Generator[Step, None, int]:
        parts = [part for part in path.split(b"/") if part]
        names = self._names
        if not parts:
            yield from self._below(names.root)
            return self._count
        held: list[int] = []
        try:
            folder = names.root
            for part in parts[:-1]:
                found = yield from fetched(lambda f=folder, n=part: names.find(f, n))  # type: ignore[misc]
                if found is None:
                    raise self._nothing(path)
                number = names.enter(folder, part, found)
                held.append(number)
                child = names.folders.get(number)
                if child is None:
                    raise self._nothing(path)
                folder = child
            name = parts[-1]
            if names.table.get(name_key(folder.number, name)) is None:
                found = yield from fetched(lambda: names.find(folder, name))
                if found is None:
                    raise self._nothing(path)
            else:
                yield from self._name(folder, name)
        finally:
            for number in reversed(held):
                self._workspace.forget(number, 1)
        return self._count

    def _nothing(self, path: bytes) -> NotFoundError:
        return NotFoundError(
            f"there is nothing at {path.decode('utf-8', 'replace')}, changed or not",
            hint="`versionfs status` lists what is changed",
        )

    def _below(self, folder: Folder) -> Generator[Step, None, None]:
        """Restores all names in a directory of the base, then its attributes."""
        prefix = names_prefix(folder.number)
        for key, _ in self._names.table.scan(prefix):
            yield from self._name(folder, key[len(prefix) :])
        if folder.number == ROOT:
            changes = self._workspace.overlay.changes()
            inode = changes.inode(ROOT)
            _reset(inode, self._workspace.base.root)
            changes.apply(frees=True)
            folder.overlaid = False
            yield [Dropped(ROOT, None)]

    def _name(self, folder: Folder, name: bytes) -> Generator[Step, None, None]:
        """Restores one name that has a record."""
        names = self._names
        value = names.table.get(name_key(folder.number, name))
        if value is None:
            return
        number, _ = decode_name(value)
        found = yield from fetched(lambda: names.find_in_base(folder, name))
        inode = None if number == WHITEOUT else names.inode(number)
        if inode is not None and inode.is_dir:
            child = names.recorded_folder(folder, name, inode)
            child.lookups += 1
            try:
                if found is not None and found.is_dir and _is_of(inode, found):
                    yield from self._below(child)
                    self._to_base(folder, name, child, found)
                    yield [Dropped(folder.number, None), Dropped(child.number, None)]
                    return
                yield from self._discard_tree(child)
            finally:
                self._workspace.forget(child.number, 1)
        changes = self._workspace.overlay.changes()
        lost = None
        if inode is not None and not inode.is_dir:
            lost = changes.inode(number)
            lost.nlink -= 1
            if not lost.nlink:
                changes.remove(lost)
        changes.name(folder, name, None)
        changes.apply(frees=True)
        names.unpin(folder, name)
        if lost is not None and not lost.nlink and number not in names.orphans:
            self._workspace.files.discard(lost)
        self._count += 1
        yield [Dropped(folder.number, name), Dropped(folder.number, None)]

    def _to_base(self, parent: Folder, name: bytes, child: Folder, found: InBase) -> None:
        """Takes the record of a directory away in which nothing is changed any more."""
        names = self._names
        changes: Changes = self._workspace.overlay.changes()
        inode = changes.inode(child.number)
        changes.remove(inode)
        changes.name(parent, name, None)
        changes.apply(frees=True)
        names.orphans.pop(child.number, None)
        names.pin(parent.number, name, child.number)
        place_folder(names, child, found)
        child.overlaid = False
        self._count += 1

    def _discard_tree(self, folder: Folder) -> Generator[Step, None, None]:
        """Throws away a directory that is not the base's: its records and those below."""
        names, workspace = self._names, self._workspace
        prefix = names_prefix(folder.number)
        for key, value in names.table.scan(prefix):
            number, _ = decode_name(value)
            name = key[len(prefix) :]
            inode = None if number == WHITEOUT else names.inode(number)
            if inode is not None and inode.is_dir:
                child = names.recorded_folder(folder, name, inode)
                child.lookups += 1
                yield from self._discard_tree(child)
                workspace.forget(child.number, 1)
                continue
            changes = workspace.overlay.changes()
            changes.put(key, None)
            lost = None
            if inode is not None:
                lost = changes.inode(number)
                lost.nlink -= 1
                if not lost.nlink:
                    changes.remove(lost)
            changes.apply(frees=True)
            if lost is not None and not lost.nlink and number not in names.orphans:
                workspace.files.discard(lost)
            self._count += 1
        changes = workspace.overlay.changes()
        inode = changes.inode(folder.number)
        inode.nlink = 0
        changes.remove(inode)
        if folder.parent is not None:
            changes.put(name_key(folder.parent.number, folder.name), None)
        changes.apply(frees=True)
        folder.gone = True
        folder.base = None
        folder.overlaid = False
        dropped = [Dropped(folder.number, None)]
        if folder.parent is not None:
            dropped.append(Dropped(folder.parent.number, folder.name))
        folder.detach()
        yield dropped


def _is_of(inode: Inode, found: InBase) -> bool:
    """Whether a changed directory is the one that the base has, and not another of its name."""
    entry = found.leaf.entry(found.position)
    return inode.base is not None and (inode.base.content, inode.base.stamp) == (
        entry.content,
        entry.stamp,
    )


def _reset(inode: Inode, entry: Entry) -> None:
    inode.mode = stat.S_IFMT(inode.mode) | entry.mode
    inode.uid, inode.gid, inode.xattrs = entry.uid, entry.gid, entry.xattrs
    inode.mtime_ns = inode.ctime_ns = entry.mtime_ns
