"""Reads ahead of walks: the folder that is listed next, while the walker is busy with the last."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from versionfs.tree.node import Leaf
from versionfs.tree.reader import Trees
from versionfs.types import Kind, NodeRef

_WALKS: Final = 8
_CLIMBS: Final = 4
_LEAVES: Final = 2
_DIRECTORY: Final = bytes((Kind.DIRECTORY,))

Above = Iterable[tuple[NodeRef | None, bytes]]
"""From a folder upwards: the root node of the one that it is in, and its own name there."""


class Walks:
    """The last few walks over folders in the order of names, each folder before what is in it.

    A folder that is listed is a step of a walk if one was to come to it; then what that comes to
    next is read. To list one folder, or one here and one there, reads nothing more.
    """

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._expected: deque[bytes] = deque(maxlen=_WALKS)

    def listed(self, root: NodeRef | None, above: Above) -> None:
        """Takes notice that a folder was listed to its end; reads the next one if that is a step.

        Raises:
            WouldBlock: a node must be fetched.
            CorruptionError: a node is damaged or gone.
        """
        is_step = root is not None and root.id in self._expected
        # Where it is none, only where the walker has been himself.
        following = self._following(root, above, _LEAVES if is_step else 1)
        if following is None:
            return
        if root is not None and is_step:
            self._expected.remove(root.id)
        if following.id not in self._expected:
            self._expected.append(following.id)
        if is_step:
            self._trees.read_ahead(following)

    def _following(self, root: NodeRef | None, above: Above, leaves: int) -> NodeRef | None:
        """Returns the root node of the folder that a walk comes to after one; None if unknown.

        At most ``leaves`` leaves of each folder on the way there are read.
        """
        found = None if root is None else self._next_in(root, b"", leaves)
        for parent, name in islice(above, _CLIMBS):
            if found is not None or parent is None:
                break
            found = self._next_in(parent, name, leaves)
        return found

    def _next_in(self, parent: NodeRef, after: bytes, leaves: int) -> NodeRef | None:
        """Returns the root node of the first folder behind a name that has one."""
        for _, leaf in islice(self._trees.leaves(parent, after), leaves):
            found = _folder_from(leaf, bisect_right(leaf.names, after))
            if found is not None:
                return found
        return None


def _folder_from(leaf: Leaf, start: int) -> NodeRef | None:
    kinds = bytes(leaf.kinds)
    index = kinds.find(_DIRECTORY, start)
    while index >= 0:
        where = leaf.location(index)
        if where is not None:
            return NodeRef(leaf.content(index), leaf.stamp(index), where)
        index = kinds.find(_DIRECTORY, index + 1)
    return None
