"""Whole trees as values: of files, folders and symlinks, and what a merge of two makes of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple


class Node(NamedTuple):
    """What a path is: the content of a file or target of a symlink, and the permission bits."""

    kind: str
    content: bytes
    mode: int

    def __repr__(self) -> str:
        shown = self.content if len(self.content) < 30 else f"{len(self.content)} bytes"
        return f"{self.kind} {self.mode:o} {shown!r}"


Tree = dict[str, Node]
"""All paths of a version; ``""`` is its root."""


def is_folder(node: Node | None) -> bool:
    return node is not None and node.kind == "folder"


def join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def is_below(path: str, top: str) -> bool:
    """Whether a path is ``top`` or below it."""
    return not top or path == top or path.startswith(top + "/")


def below(tree: Tree, top: str) -> Tree:
    """Returns a path and all below it."""
    return {path: node for path, node in tree.items() if is_below(path, top)}


def names_in(tree: Tree, folder: str) -> set[str]:
    prefix = folder + "/" if folder else ""
    return {
        path[len(prefix) :].partition("/")[0]
        for path in tree
        if path.startswith(prefix) and path != folder
    }


def merge(base: Tree, ours: Tree, theirs: Tree) -> tuple[Tree, list[str]]:
    """Returns both joined, and the paths that overlap.

    A folder that both have is its own permission bits, and its names, each by itself. Anything else
    is one value, with all that is below it.
    """
    merged: Tree = {}
    overlaps: list[str] = []

    def at(path: str) -> None:
        before, mine, other = base.get(path), ours.get(path), theirs.get(path)
        if is_folder(mine) and is_folder(other):
            assert mine is not None
            assert other is not None
            common = before if is_folder(before) else None
            if mine in (common, other):
                merged[path] = other
            else:
                merged[path] = mine
                if other != common:
                    overlaps.append(path)
            for name in sorted(names_in(ours, path) | names_in(theirs, path)):
                at(join(path, name))
            return
        below_base, below_ours, below_theirs = (below(tree, path) for tree in (base, ours, theirs))
        if below_ours == below_base:
            merged.update(below_theirs)
            return
        merged.update(below_ours)
        if below_theirs not in (below_base, below_ours):
            overlaps.append(path)

    at("")
    return merged, overlaps


def changed(base: Tree, other: Tree) -> set[str]:
    return {path for path in base.keys() | other.keys() if base.get(path) != other.get(path)}


def may_overlap(base: Tree, ours: Tree, theirs: Tree) -> bool:
    """Whether a path was changed by both differently, or one lies below what the other changed."""
    mine, others = changed(base, ours), changed(base, theirs)
    return any(
        ours.get(one) != theirs.get(two) if one == two else is_below(one, two) or is_below(two, one)
        for one in mine
        for two in others
    )


def check_joined(base: Tree, ours: Tree, theirs: Tree, new: Tree) -> None:
    """Each path in the new head is as who changed it has it."""
    for path in base.keys() | ours.keys() | theirs.keys() | new.keys():
        source = ours if base.get(path) != ours.get(path) else theirs
        assert new.get(path) == source.get(path), path


def node_at(path: str) -> Node:
    found = os.lstat(path)
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        return Node("folder", b"", mode)
    if stat.S_ISLNK(found.st_mode):
        return Node("symlink", os.fsencode(os.readlink(path)), mode)
    content = Path(path).read_bytes()
    assert found.st_size == len(content), path
    return Node("file", content, mode)


def tree_at(top: Path) -> Tree:
    """Returns everything below a folder, as programs see it."""
    found = {"": node_at(str(top))}
    work = [""]
    while work:
        folder = work.pop()
        for name in os.listdir(top / folder):
            path = join(folder, name)
            found[path] = node_at(f"{top}/{path}")
            if is_folder(found[path]):
                work.append(path)
    return found


def difference(found: Tree, expected: Tree) -> str:
    lines = [
        f"    {path!r}: {found.get(path)}, expected {expected.get(path)}"
        for path in sorted(changed(found, expected))
    ]
    return "\n".join(lines[:20])
