"""Compares directories, skipping whole subtrees of equal id: cost follows the difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from versionfs.tree.node import Child, Inner
from versionfs.tree.reader import Trees
from versionfs.types import Entry, NodeRef


class Change(NamedTuple):
    """A path whose entry differs: ``old`` is None where added, ``new`` where removed."""

    path: bytes
    old: Entry | None
    new: Entry | None


class _Side:
    """What is still to be compared of one tree: entries and unread nodes, next one last.

    A node comes with the name that all its names are greater than (None: no bound is known).
    """

    def __init__(self, trees: Trees, root: NodeRef | None) -> None:
        self._trees = trees
        self._stack: list[tuple[Entry | Child, int, bytes | None]] = []
        if root is not None:
            self._push(root, None)

    def _push(self, ref: NodeRef, low: bytes | None) -> None:
        node = self._trees.node(ref)
        if isinstance(node, Inner):
            lows = [low, *node.keys[:-1]]
            self._stack.extend(
                (child, node.level - 1, bound)
                for child, bound in zip(reversed(node.children), reversed(lows), strict=True)
            )
        else:
            self._stack.extend(
                (node.entry(index), -1, None) for index in range(node.count - 1, -1, -1)
            )

    def head(self) -> tuple[Entry | Child, int, bytes | None] | None:
        """Returns the next item, its level (-1: an entry) and its lower bound."""
        return self._stack[-1] if self._stack else None

    def pop(self) -> None:
        self._stack.pop()

    def expand(self) -> None:
        """Replaces the node at the head by what is in it."""
        item, _, low = self._stack.pop()
        assert isinstance(item, Child)
        self._push(item.ref, low)


def diff_directory(
    trees: Trees, old: NodeRef | None, new: NodeRef | None, *, attributes: bool = False
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Yields the entries of one directory that differ, in name order, as (old, new).

    Args:
        trees: where to read nodes.
        old: the root of the one directory; None stands for an empty one.
        new: the root of the other.
        attributes: whether a difference in mtime or owner alone counts.
    """
    if old is not None and new is not None and _same_node(old, new, attributes):
        return
    left, right = _Side(trees, old), _Side(trees, new)
    while True:
        a, b = left.head(), right.head()
        if a is None and b is None:
            return
        if a is None or b is None:
            side, head = (right, b) if a is None else (left, a)
            assert head is not None
            item = head[0]
            if isinstance(item, Child):
                side.expand()
            else:
                side.pop()
                yield (None, item) if a is None else (item, None)
            continue
        x, level_x, low_x = a
        y, level_y, low_y = b
        if isinstance(x, Entry) and isinstance(y, Entry):
            if x.name < y.name:
                left.pop()
                yield x, None
            elif y.name < x.name:
                right.pop()
                yield None, y
            else:
                left.pop()
                right.pop()
                if not same_entry(x, y, attributes=attributes):
                    yield x, y
        elif isinstance(x, Entry):
            if low_y is not None and x.name <= low_y:
                left.pop()
                yield x, None
            else:
                right.expand()
        elif isinstance(y, Entry):
            if low_x is not None and y.name <= low_x:
                right.pop()
                yield None, y
            else:
                left.expand()
        elif _same_node(x.ref, y.ref, attributes):
            left.pop()
            right.pop()
        elif level_x > level_y:
            left.expand()
        elif level_y > level_x:
            right.expand()
        else:
            left.expand()
            right.expand()


def _same_node(old: NodeRef, new: NodeRef, attributes: bool) -> bool:
    return old.id == new.id and (not attributes or old.stamp == new.stamp)


def same_entry(old: Entry, new: Entry, *, attributes: bool = False) -> bool:
    """Tells whether two entries are the same: all that tree ids cover, or attributes as well."""
    if old[:8] != new[:8]:
        return False
    return not attributes or old[8:12] == new[8:12]


def diff(
    trees: Trees,
    old_root: Entry | None,
    new_root: Entry | None,
    *,
    recursive: bool = True,
    attributes: bool = False,
    prefix: bytes = b"",
) -> Iterator[Change]:
    """Yields what differs between two entries (usually the roots of two commits), in path order.

    A directory that differs only in what is below it is not reported itself. ``recursive`` also
    descends into directories that exist on one side only.
    """
    old = old_root if old_root is not None and old_root.is_dir else None
    new = new_root if new_root is not None and new_root.is_dir else None
    pairs = diff_directory(
        trees,
        old.node if old is not None and old.location is not None else None,
        new.node if new is not None and new.location is not None else None,
        attributes=attributes,
    )
    for before, after in pairs:
        entry = before if before is not None else after
        assert entry is not None
        path = prefix + entry.name
        is_dir = (before is not None and before.is_dir), (after is not None and after.is_dir)
        if not (all(is_dir) and _same_directory(before, after, attributes)):
            yield Change(path, before, after)
        if any(is_dir) and (recursive or all(is_dir)):
            yield from diff(
                trees,
                before if is_dir[0] else None,
                after if is_dir[1] else None,
                recursive=recursive,
                attributes=attributes,
                prefix=path + b"/",
            )


def _same_directory(old: Entry | None, new: Entry | None, attributes: bool) -> bool:
    """Tells whether two directories differ at most in what is below them."""
    assert old is not None
    assert new is not None
    if (old.mode, old.xattrs) != (new.mode, new.xattrs):
        return False
    return not attributes or old[8:11] == new[8:11]
