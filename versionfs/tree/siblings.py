"""Fetches the nodes that a walk will read next, where each lies in a pack of its own.

An import writes the nodes of a tree into one pack, and a scan fetches that as a whole. After a long
history of small commits, a folder's children lie in as many packs, and a walk would wait for one
after the other.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from versionfs.chunkstore import MetadataReader
from versionfs.tree.node import Inner, Leaf
from versionfs.types import Kind, Location, NodeRef, PackId

_KNOWN_PACKS: Final = 4096
_FIRST_PACKS: Final = 8
_MOST_PACKS: Final = 64
"""How many packs are fetched ahead: of each 256 KiB at most."""
_NEAR: Final = 4
"""A walk by several threads is a little out of order."""


@dataclass(slots=True)
class _Row:
    """Children of one node, the first in each pack that is not the node's, as a walk meets them."""

    children: list[Location]
    last: int = -_NEAR - 1
    """Which was read last; at first one that none is near to."""
    asked: int = 0
    """All before it were fetched or passed."""
    window: int = _FIRST_PACKS

    def read(self, at: int) -> list[Location]:
        """Takes notice of a read; returns what is to be fetched of those behind it."""
        is_walk = 0 < at - self.last <= _NEAR
        self.last = at
        if not is_walk:
            self.window = _FIRST_PACKS
            return []
        begin, end = max(self.asked, at + 1), at + 1 + self.window
        if end - begin < self.window // 2:
            return []
        self.asked = end
        self.window = min(2 * self.window, _MOST_PACKS)
        return self.children[begin:end]


class Siblings:
    """The children of nodes that were read last, and how far walks are. Thread-safe.

    The second of two that are read in order makes a walk: to look names up costs nothing.
    """

    def __init__(self, objects: MetadataReader) -> None:
        self._objects = objects
        self._places: OrderedDict[PackId, tuple[_Row, int]] = OrderedDict()
        self._lock = threading.Lock()

    def reading(self, ref: NodeRef) -> None:
        """Takes notice that a node will be read, and begins to fetch what a walk needs next."""
        with self._lock:
            place = self._places.pop(ref.location.pack, None)
            if place is None:
                return
            row, at = place
            wanted = row.read(at)
        if wanted:
            self._objects.prefetch(wanted)

    def decoded(self, ref: NodeRef, node: Leaf | Inner) -> None:
        """Takes notice of a node's children."""
        children: dict[PackId, Location] = {}
        for where in _children(node):
            if where.pack != ref.location.pack:
                children.setdefault(where.pack, where)
        if len(children) < 2:
            return
        row = _Row(list(children.values()))
        with self._lock:
            for at, where in enumerate(row.children):
                self._places[where.pack] = row, at
            while len(self._places) > _KNOWN_PACKS:
                self._places.popitem(last=False)


def _children(node: Leaf | Inner) -> list[Location]:
    if isinstance(node, Inner):
        return [child.ref.location for child in node.children]
    directory = int(Kind.DIRECTORY)
    if directory not in node.kinds:
        return []
    found = (node.location(at) for at, kind in enumerate(node.kinds) if kind == directory)
    return [where for where in found if where is not None]
