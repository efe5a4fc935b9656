"""Merges two versions of a directory that have a common base; cost follows the differences.

An entry is one value: kind, content, permission bits and extended attributes together. The side
that changed it wins; when both did, differently, that is a conflict. Directories on both sides are
merged in two parts: their own permission bits and extended attributes, which are one value, and
their entries, each by itself. Times and owners are never a conflict: of those, what ours changed
is ours, the rest is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from versionfs.chunkstore import MetadataWriter
from versionfs.tree.diffing import diff_directory, same_entry
from versionfs.tree.edit import TreeEditor, with_root
from versionfs.tree.reader import Trees
from versionfs.types import Entry, Kind, NodeRef, Xattrs


class Conflict(NamedTuple):
    """A path that both sides changed, each in its own way; None where it does not exist.

    When all of ``ours`` and ``theirs`` are directories, it is their permission bits or extended
    attributes that differ: what is below has conflicts of its own. A directory that one side
    changed anything in and the other removed or replaced is one conflict.
    """

    path: bytes
    base: Entry | None
    ours: Entry | None
    theirs: Entry | None


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The merged root, or None when there are conflicts, which are in path order."""

    root: Entry | None
    conflicts: list[Conflict]


def merge_trees(
    trees: Trees, writer: MetadataWriter, base: Entry | None, ours: Entry, theirs: Entry
) -> MergeResult:
    """Merges two directories.

    Args:
        trees: where to read nodes.
        writer: stores the nodes of the result; its caller finishes it, and then resolves the
            location of the root. What it was given before a conflict was met is not needed.
        base: the directory that both sides began from. None stands for nothing: then all that is
            in both and not the same is a conflict.
        ours: a directory.
        theirs: the other.

    Raises:
        CorruptionError: a node is damaged or gone.
    """
    merge = _Merge(trees, writer)
    root = merge.directory(b"", base, ours, theirs)
    return MergeResult(None if merge.conflicts else root, merge.conflicts)


class _Merge:
    """One merge: where it reads and writes, and the conflicts so far."""

    def __init__(self, trees: Trees, writer: MetadataWriter) -> None:
        self._trees = trees
        self._writer = writer
        self.conflicts: list[Conflict] = []

    def directory(self, path: bytes, base: Entry | None, ours: Entry, theirs: Entry) -> Entry:
        """Returns two directories merged; ``base`` is one too, or None."""
        own = _decide(_own(base), _own(ours), _own(theirs))
        if own is None:
            self.conflicts.append(Conflict(path, base, ours, theirs))
            own = _own(ours)
        assert own is not None
        merged = ours._replace(mode=own[0], xattrs=own[1])
        merged = self._with_entries(path, merged, base, ours, theirs)
        return merged if base is None else _with_attributes(merged, base, ours, theirs)

    def _with_entries(
        self, path: bytes, merged: Entry, base: Entry | None, ours: Entry, theirs: Entry
    ) -> Entry:
        """Returns a directory with the entries of both sides."""
        nodes = _node(base), _node(ours), _node(theirs)
        keys = [node and node.key for node in nodes]
        if keys[1] == keys[2] or keys[0] == keys[2]:
            return merged
        if keys[0] == keys[1] and base is not None:
            return _with_content_of(merged, theirs)
        prefix = path + b"/" if path else b""
        editor = TreeEditor(self._trees, self._writer, nodes[1])
        for name, before, mine, other in self._changed_by_theirs(base is None, *nodes):
            result = self._entry(prefix + name, before, mine, other)
            if result is mine:
                continue
            if result is None:
                editor.remove(name)
            else:
                editor.set(result)
        return with_root(merged, editor.finish())

    def _changed_by_theirs(
        self,
        is_added: bool,
        base: NodeRef | None,
        ours: NodeRef | None,
        theirs: NodeRef | None,
    ) -> Iterator[tuple[bytes, Entry | None, Entry | None, Entry | None]]:
        """Yields name, base, ours and theirs of what theirs changed, and maybe more, in order."""
        if is_added:
            # Comparing the two with each other costs less than listing both.
            for mine, other in diff_directory(self._trees, ours, theirs, attributes=True):
                if other is not None:
                    yield other.name, None, mine, other
            return
        changed = diff_directory(self._trees, base, ours, attributes=True)
        by_ours = next(changed, None)
        for before, other in diff_directory(self._trees, base, theirs, attributes=True):
            name = _name(before, other)
            while by_ours is not None and _name(*by_ours) < name:
                by_ours = next(changed, None)
            if by_ours is not None and _name(*by_ours) == name:
                yield name, before, by_ours[1], other
            else:
                yield name, before, before, other

    def _entry(
        self, path: bytes, base: Entry | None, ours: Entry | None, theirs: Entry | None
    ) -> Entry | None:
        """Returns an entry merged: ``ours`` itself where nothing of theirs is taken."""
        if ours is not None and theirs is not None and ours.is_dir and theirs.is_dir:
            below = base if base is not None and base.is_dir else None
            merged = self.directory(path, below, ours, theirs)
            return ours if merged == ours else merged
        if _same(base, ours):
            chosen = theirs
        elif _same(base, theirs) or _same(ours, theirs):
            chosen = ours
        else:
            self.conflicts.append(Conflict(path, base, ours, theirs))
            return ours
        if chosen is None or base is None or ours is None or theirs is None:
            return chosen
        if not _form(base) == _form(ours) == _form(theirs):
            return chosen
        merged = _with_attributes(chosen, base, ours, theirs)
        return ours if merged == ours else merged


def _decide(
    base: tuple[int, Xattrs] | None,
    ours: tuple[int, Xattrs] | None,
    theirs: tuple[int, Xattrs] | None,
) -> tuple[int, Xattrs] | None:
    """Returns the value of the side that changed it, or None when both did, differently."""
    if ours in (base, theirs):
        return theirs
    return ours if base == theirs else None


def _own(directory: Entry | None) -> tuple[int, Xattrs] | None:
    """Returns what a directory has beside its entries."""
    return None if directory is None else (directory.mode, directory.xattrs)


def _node(directory: Entry | None) -> NodeRef | None:
    return None if directory is None or directory.location is None else directory.node


def _name(*entries: Entry | None) -> bytes:
    return next(entry.name for entry in entries if entry is not None)


def _same(one: Entry | None, other: Entry | None) -> bool:
    if one is None or other is None:
        return one is other
    return same_entry(one, other)


def _form(entry: Entry) -> int:
    return Kind.FILE if entry.is_file else entry.kind


def _with_content_of(entry: Entry, other: Entry) -> Entry:
    return entry._replace(
        size=other.size,
        files=other.files,
        content=other.content,
        stamp=other.stamp,
        location=other.location,
    )


def _with_attributes(entry: Entry, base: Entry, ours: Entry, theirs: Entry) -> Entry:
    """Returns an entry with times and owners: ours where ours changed them, else theirs."""
    return entry._replace(
        mtime_ns=theirs.mtime_ns if ours.mtime_ns == base.mtime_ns else ours.mtime_ns,
        uid=theirs.uid if ours.uid == base.uid else ours.uid,
        gid=theirs.gid if ours.gid == base.gid else ours.gid,
    )
