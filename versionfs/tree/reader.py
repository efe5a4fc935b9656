"""Reads directories: lookup, iteration and paths over prolly trees, with a bounded node cache."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from versionfs.chunkstore import BoundedCache, MetadataReader
from versionfs.errors import CorruptionError
from versionfs.tree.node import Child, Inner, Leaf, decode
from versionfs.tree.siblings import Siblings
from versionfs.types import Entry, NodeRef, ObjectKind, short

_RECURSION: Final = 10_000


class TreeStatistics(NamedTuple):
    """Counts since the reader was made: nodes asked for, found in the cache, and decoded.

    ``folders_ahead`` is how many folders were read ahead of walks.
    """

    nodes_read: int
    cache_hits: int
    nodes_decoded: int
    cached_bytes: int
    folders_ahead: int


class Trees:
    """Reads tree nodes. Thread-safe; what it returns is shared and must not be modified."""

    def __init__(self, objects: MetadataReader, cache_bytes: int) -> None:
        self._objects = objects
        self._siblings = Siblings(objects) if objects.is_cached else None
        self._nodes: BoundedCache[bytes, Leaf | Inner] = BoundedCache(cache_bytes)
        self._lock = threading.Lock()
        self._read = self._hits = self._decoded = self._ahead = 0
        # Folders are walked by recursion, here and in all that reads trees: a path has at most
        # 2,048 components, and each takes a few calls.
        sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION))

    def statistics(self) -> TreeStatistics:
        """Returns counts since the reader was made."""
        return TreeStatistics(self._read, self._hits, self._decoded, self._nodes.held, self._ahead)

    def node(self, ref: NodeRef) -> Leaf | Inner:
        """Returns a node.

        Raises:
            CorruptionError: it is damaged or gone.
        """
        key = ref.id + ref.stamp
        with self._lock:
            self._read += 1
            node = self._nodes.get(key)
            if node is not None:
                self._hits += 1
                return node
        siblings = self._siblings
        if siblings is not None:
            siblings.reading(ref)
        node = decode(self._objects.load(ObjectKind.TREE, ref))
        if siblings is not None:
            siblings.decoded(ref, node)
        with self._lock:
            self._decoded += 1
            self._nodes.put(key, node)
        return node

    def read_ahead(self, root: NodeRef) -> None:
        """Reads what the first look at a directory takes, as that will likely be listed next."""
        self._ahead += 1
        next(self.leaves(root), None)

    def leaf(self, ref: NodeRef) -> Leaf:
        """Returns a node that is known to be a leaf."""
        node = self.node(ref)
        if not isinstance(node, Leaf):
            raise CorruptionError(f"tree node {short(ref.id)} is not a leaf")
        return node

    def leaf_for(self, root: NodeRef, name: bytes) -> tuple[NodeRef, Leaf]:
        """Returns the leaf that has the name, if the directory has it."""
        ref = root
        node = self.node(ref)
        while isinstance(node, Inner):
            ref = node.children[node.child_for(name)].ref
            node = self.node(ref)
        return ref, node

    def lookup(self, root: NodeRef, name: bytes) -> Entry | None:
        """Returns the entry of that name in a directory, or None."""
        _, leaf = self.leaf_for(root, name)
        index = leaf.find(name)
        return leaf.entry(index) if index >= 0 else None

    def leaves(self, root: NodeRef, after: bytes | None = None) -> Iterator[tuple[NodeRef, Leaf]]:
        """Yields the leaves of a directory in order, from the one that may have a name > after."""
        node = self.node(root)
        if isinstance(node, Leaf):
            yield root, node
            return
        start = 0 if after is None else bisect_right(node.keys, after)
        for index in range(start, node.count):
            yield from self.leaves(node.children[index].ref, after if index == start else None)

    def rank(self, root: NodeRef, name: bytes) -> int:
        """Returns how many names of a directory are not behind a name."""
        passed, node = 0, self.node(root)
        while isinstance(node, Inner):
            index = node.child_for(name)
            passed += sum(child.entries for child in node.children[:index])
            node = self.node(node.children[index].ref)
        return passed + bisect_right(node.names, name)

    def name_at(self, root: NodeRef, position: int) -> bytes | None:
        """Returns the name number ``position`` of a directory; of the last if there are fewer.

        None if it is negative, or there are none.
        """
        if position < 0:
            return None
        node = self.node(root)
        while isinstance(node, Inner):
            index = 0
            while index < node.count - 1 and position >= node.children[index].entries:
                position -= node.children[index].entries
                index += 1
            node = self.node(node.children[index].ref)
        return node.names[min(position, node.count - 1)] if node.count else None

    def entries(self, root: NodeRef, after: bytes | None = None) -> Iterator[Entry]:
        """Yields the entries of a directory in name order, from the first name > after."""
        for _, leaf in self.leaves(root, after):
            start = 0 if after is None else bisect_right(leaf.names, after)
            for index in range(start, leaf.count):
                yield leaf.entry(index)

    def walk_path(self, root: Entry, path: bytes) -> Entry | None:
        """Returns the entry at a path below a directory (``b"a/b"``; ``b""`` is the root)."""
        entry = root
        for name in path.split(b"/"):
            if not name:
                continue
            if not entry.is_dir:
                return None
            found = self.lookup(entry.node, name)
            if found is None:
                return None
            entry = found
        return entry

    def summary(self, ref: NodeRef) -> Child:
        """Returns a directory's root with its totals."""
        node = self.node(ref)
        key = (node.names if isinstance(node, Leaf) else node.keys)[-1:] or [b""]
        return Child(ref, key[0], *node.totals())
