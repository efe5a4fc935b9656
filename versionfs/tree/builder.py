"""Builds prolly trees from items in order, bottom up, holding one unfinished node per level.

One builder serves directories and manifests; a *shape* says how items are encoded and where nodes
end. The result depends only on the sequence of items: not on whether they came one by one or as
whole nodes of another tree (``add_child``), which is what makes edits cheap and ids canonical.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from versionfs.tree.splitter import MAX_ITEMS, MIN_ITEMS

Item = TypeVar("Item")
ChildT = TypeVar("ChildT")


class Shape(Protocol[Item, ChildT]):
    """How a kind of tree is encoded and split."""

    def ends_leaf(self, item: Item) -> bool:
        """Tells whether a leaf may end behind the item."""

    def ends_node(self, child: ChildT, level: int) -> bool:
        """Tells whether a node of the level (≥ 1) may end behind the child."""

    def write_leaf(self, items: Sequence[Item]) -> ChildT:
        """Stores a leaf."""

    def write_inner(self, level: int, children: Sequence[ChildT]) -> ChildT:
        """Stores an inner node."""

    def read_leaf(self, child: ChildT) -> Sequence[Item]:
        """Returns the items of a stored leaf."""

    def end_of_leaf(self, child: ChildT) -> tuple[int, bool]:
        """Returns how many items a stored leaf has, and if a leaf may end behind its last one."""

    def read_inner(self, child: ChildT) -> Sequence[ChildT]:
        """Returns the children of a stored inner node."""


class Builder(Generic[Item, ChildT]):
    """Takes the items of one tree in order; ``finish`` returns its root. Not thread-safe."""

    def __init__(self, shape: Shape[Item, ChildT]) -> None:
        self._shape = shape
        self._items: list[Item] = []
        self._levels: list[list[ChildT]] = []
        """Unfinished inner nodes: ``_levels[0]`` is of level 1."""

    def add(self, item: Item) -> None:
        """Adds one item behind all others."""
        items = self._items
        items.append(item)
        count = len(items)
        if count >= MIN_ITEMS and (count >= MAX_ITEMS or self._shape.ends_leaf(item)):
            self._close_leaf()

    @property
    def is_between_leaves(self) -> bool:
        """Whether a leaf begins with the next item."""
        return not self._items

    def add_leaf(self, child: ChildT) -> None:
        """Adds a leaf that is known to end where a leaf of this tree does; one begins with it."""
        assert not self._items
        self._append(child, 1)

    def add_child(self, child: ChildT, level: int, *, rightmost: bool) -> None:
        """Adds a stored node of another tree, of the given level, with all that is in it.

        The node is taken over unread when it begins and ends where a node of this tree does. Only
        on the right edge of its tree (``rightmost``) may a node end for want of items, not because
        the splitter said so; there its last items are looked at.
        """
        if self._at_boundary(level) and not (rightmost and self._is_open(child, level)):
            self._append(child, level + 1)
        elif level == 0:
            for item in self._shape.read_leaf(child):
                self.add(item)
        else:
            children = self._shape.read_inner(child)
            last = len(children) - 1
            for index, below in enumerate(children):
                self.add_child(below, level - 1, rightmost=rightmost and index == last)

    def add_last(self, child: ChildT, level: int) -> None:
        """Adds a stored node from the right edge of another tree, behind which nothing comes.

        It ends where the tree ends, here as there, so its last items need no look.
        """
        # An inner node alone might not be the lowest one that holds everything.
        if self._at_boundary(level) and (level == 0 or any(self._levels[level:])):
            self._append(child, level + 1)
        else:
            self.add_child(child, level, rightmost=True)

    def _at_boundary(self, level: int) -> bool:
        return not self._items and not any(self._levels[:level])

    def _is_open(self, child: ChildT, level: int) -> bool:
        """Tells whether a node of the right edge would take in an item that follows."""
        if level == 0:
            return not self._closes(*self._shape.end_of_leaf(child))
        children = self._shape.read_inner(child)
        last = children[-1]
        closes = self._closes(len(children), self._shape.ends_node(last, level))
        return not closes or self._is_open(last, level - 1)

    @staticmethod
    def _closes(count: int, ends: bool) -> bool:
        return count >= MIN_ITEMS and (ends or count >= MAX_ITEMS)

    def _close_leaf(self) -> None:
        items, self._items = self._items, []
        self._append(self._shape.write_leaf(items), 1)

    def _append(self, child: ChildT, level: int) -> None:
        while len(self._levels) < level:
            self._levels.append([])
        pending = self._levels[level - 1]
        pending.append(child)
        count = len(pending)
        if count >= MIN_ITEMS and (count >= MAX_ITEMS or self._shape.ends_node(child, level)):
            self._levels[level - 1] = []
            self._append(self._shape.write_inner(level, pending), level + 1)

    def finish(self) -> ChildT:
        """Returns the root: the lowest node that holds everything (an empty leaf for nothing)."""
        if self._items or not any(self._levels):
            self._close_leaf()
        level = 1
        while True:
            pending = self._levels[level - 1]
            if len(pending) == 1 and not any(self._levels[level:]):
                return pending[0]
            if pending:
                self._levels[level - 1] = []
                node = self._shape.write_inner(level, pending)
                # Not through _append: the last node of a level ends where the tree ends.
                if len(self._levels) == level:
                    self._levels.append([])
                self._levels[level].append(node)
            level += 1
