"""Which packs a commit needs: those that its history, trees, manifests and chunks lie in."""

from __future__ import annotations

from collections.abc import Collection

from versionfs.errors import CorruptionError
from versionfs.repo import Store
from versionfs.tree import Leaf, ManifestChild
from versionfs.tree.manifest import read_manifest_node
from versionfs.tree.node import decode
from versionfs.types import Entry, Kind, Location, NodeRef, ObjectKind


class Reachable:
    """Collects the packs that commits need. Reads metadata only, each object once.

    What was seen is told by its place, not by its id: two copies of one node may name different
    places, and a reader of a store goes by these.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[bytes, set[int]] = {}

    @property
    def packs(self) -> Collection[bytes]:
        """The packs so far."""
        return self._seen.keys()

    def add_history(self, start: NodeRef, known: Collection[NodeRef] = ()) -> None:
        """Adds a commit and what it descends from, up to commits whose own history is ``known``.

        Raises:
            CorruptionError: something is damaged or gone; what could be read was added.
        """
        stop = {(ref.id, ref.location) for ref in known}
        queue = [start]
        damage: CorruptionError | None = None
        while queue:
            ref = queue.pop()
            if not self._add(ref.location):
                continue
            try:
                commit = self._store.commits.read(ref)
                if commit.root.location is not None:
                    self._add_tree(commit.root)
                if (ref.id, ref.location) not in stop:
                    queue.extend(commit.parents)
            except CorruptionError as error:
                damage = damage or error
        if damage is not None:
            raise damage

    def _add(self, where: Location) -> bool:
        """Returns whether the place is new."""
        places = self._seen.get(where.pack)
        if places is None:
            places = self._seen[bytes(where.pack)] = set()
        place = where.block_offset << 32 | where.offset
        if place in places:
            return False
        places.add(place)
        return True

    def _add_tree(self, root: Entry) -> None:
        folders = [root.node]
        while folders:
            ref = folders.pop()
            if not self._add(ref.location):
                continue
            # Not by way of the cache of nodes, which goes by id.
            node = decode(self._store.metadata.load(ObjectKind.TREE, ref))
            if not isinstance(node, Leaf):
                folders.extend(child.ref for child in reversed(node.children))
                continue
            for index in range(node.count):
                where = node.location(index)
                if where is None:
                    continue
                kind = node.kinds[index]
                if kind == Kind.DIRECTORY:
                    folders.append(NodeRef(node.content(index), node.stamp(index), where))
                elif kind == Kind.LARGE:
                    self._add_manifest(NodeRef(node.content(index), node.stamp(index), where))
                else:
                    self._add_pack(where)

    def _add_manifest(self, root: NodeRef) -> None:
        nodes = [root]
        while nodes:
            ref = nodes.pop()
            if not self._add(ref.location):
                continue
            for item in read_manifest_node(self._store.metadata, ref).items:
                if isinstance(item, ManifestChild):
                    nodes.append(item.ref)
                elif item.location is not None:
                    self._add_pack(item.location)

    def _add_pack(self, where: Location) -> None:
        """Adds the pack of a chunk; chunks are not told apart."""
        if where.pack not in self._seen:
            self._seen[bytes(where.pack)] = set()
