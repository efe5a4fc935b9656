"""Writes directories: from nothing, or as an edit of an existing tree in one pass in name order.

Editing k of n entries reads and writes O(k log n) nodes; the result has the id that building it
from nothing gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from versionfs.chunkstore import MetadataWriter
from versionfs.tree.builder import Builder
from versionfs.tree.encoding import encode_inner, encode_leaf
from versionfs.tree.node import Child, Inner
from versionfs.tree.reader import Trees
from versionfs.tree.replacing import Replacing
from versionfs.tree.splitter import name_ends_leaf, name_ends_node
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind, NodeRef, ObjectKind


class _TreeShape:
    """Directories, for the builder."""

    def __init__(self, trees: Trees, writer: MetadataWriter) -> None:
        self._trees = trees
        self._writer = writer

    def ends_leaf(self, item: Entry) -> bool:
        return name_ends_leaf(item.name)

    def ends_node(self, child: Child, level: int) -> bool:
        return name_ends_node(child.key, level)

    def write_leaf(self, items: Sequence[Entry]) -> Child:
        ref = self._writer.put(ObjectKind.TREE, *encode_leaf(items))
        size = sum(e.size for e in items if e.kind != Kind.SYMLINK)
        key = items[-1].name if items else b""
        return Child(ref, key, len(items), sum(e.files for e in items), size)

    def write_inner(self, level: int, children: Sequence[Child]) -> Child:
        ref = self._writer.put(ObjectKind.TREE, *encode_inner(level, children))
        return Child(
            ref,
            children[-1].key,
            sum(c.entries for c in children),
            sum(c.files for c in children),
            sum(c.size for c in children),
        )

    def read_leaf(self, child: Child) -> Sequence[Entry]:
        return self._trees.leaf(child.ref).entries()

    def end_of_leaf(self, child: Child) -> tuple[int, bool]:
        names = self._trees.leaf(child.ref).names
        return len(names), bool(names) and name_ends_leaf(names[-1])

    def read_inner(self, child: Child) -> Sequence[Child]:
        node = self._trees.node(child.ref)
        assert isinstance(node, Inner)
        return node.children


class TreeEditor:
    """Makes a directory from an old one (or none) and edits that come in name order.

    ``finish`` returns the new root. An editor that got no edit returns the old root untouched.
    """

    def __init__(self, trees: Trees, writer: MetadataWriter, old: NodeRef | None = None) -> None:
        self._trees = trees
        self._writer = writer
        self._shape = _TreeShape(trees, writer)
        self._builder: Builder[Entry, Child] = Builder(self._shape)
        self._old = old
        self._started = old is None
        # What of the old tree is still to come: (children, next, level of children, right edge).
        self._inner: list[tuple[Sequence[Child], int, int, bool]] = []
        # Of the leaf that is edited: its entries, or that they have only been replaced so far.
        self._leaf: Sequence[Entry] = ()
        self._next = 0
        self._replacing: Replacing | None = None

    @property
    def edited(self) -> bool:
        """Whether there was any edit."""
        return self._started

    def _start(self) -> None:
        self._started = True
        assert self._old is not None
        node = self._trees.node(self._old)
        if isinstance(node, Inner):
            self._inner.append((node.children, 0, node.level - 1, True))
        elif node.count:
            self._replacing = Replacing(self._trees.summary(self._old), node, is_last=True)

    def set(self, entry: Entry) -> None:
        """Adds the entry, or puts it in the place of the one of that name."""
        if not self._advance(entry.name, entry):
            self._builder.add(entry)

    def remove(self, name: bytes) -> None:
        """Removes the entry of that name; no error when there is none."""
        self._advance(name)

    def _advance(self, name: bytes, entry: Entry | None = None) -> bool:
        """Takes over all old entries before the name, and skips the one of that name.

        Returns whether ``entry``, which has that name, has taken its place where it was.
        """
        if not self._started:
            self._start()
        while True:
            replacing = self._replacing
            if replacing is not None:
                held = replacing.holds(name)
                if held and entry is not None and replacing.replace(entry):
                    return True
                self._replacing = None
                if held or replacing.is_last:
                    # What comes before or behind decides anew where leaves end.
                    self._leaf, self._next = replacing.entries(), 0
                else:
                    self._builder.add_leaf(replacing.write(self._writer))
            leaf, at = self._leaf, self._next
            while at < len(leaf) and leaf[at].name < name:
                self._builder.add(leaf[at])
                at += 1
            self._next = at
            if at < len(leaf):
                if leaf[at].name == name:
                    self._next += 1
                return False
            if not self._inner:
                return False
            children, index, level, edge = self._inner.pop()
            if index == len(children):
                continue
            child = children[index]
            edge_child = edge and index == len(children) - 1
            if child.key < name:
                self._inner.append((children, index + 1, level, edge))
                self._builder.add_child(child, level, rightmost=edge_child)
            else:
                self._inner.append((children, index + 1, level, edge))
                if level > 0:
                    self._inner.append((self._shape.read_inner(child), 0, level - 1, edge_child))
                elif (stored := self._trees.leaf(child.ref)).count and (
                    self._builder.is_between_leaves
                ):
                    self._replacing = Replacing(child, stored, is_last=edge_child)
                else:
                    self._leaf, self._next = stored.entries(), 0

    def finish(self) -> Child:
        """Returns the root of the directory as edited."""
        if not self._started:
            assert self._old is not None
            return self._trees.summary(self._old)
        for entry in self._leaf[self._next :]:
            self._builder.add(entry)
        if self._replacing is not None:
            # Nothing comes behind the last one any more: it ends where it did, too.
            self._builder.add_leaf(self._replacing.write(self._writer))
        while self._inner:
            children, index, level, edge = self._inner.pop()
            last = len(children) - 1 if edge else len(children)
            for child in children[index:last]:
                self._builder.add_child(child, level, rightmost=False)
            for child in children[max(index, last) :]:
                self._builder.add_last(child, level)
        return self._builder.finish()


def build_directory(trees: Trees, writer: MetadataWriter, entries: Iterable[Entry]) -> Child:
    """Returns the root of a directory that has these entries, which come in name order."""
    editor = TreeEditor(trees, writer)
    for entry in entries:
        editor.set(entry)
    return editor.finish()


def directory_entry(
    name: bytes, root: Child, mode: int, mtime_ns: int, uid: int = 0, gid: int = 0
) -> Entry:
    """Returns the entry of a directory with the given root."""
    return Entry(
        name=name,
        kind=Kind.DIRECTORY,
        mode=mode,
        size=root.size,
        files=root.files,
        content=root.ref.id,
        target=b"",
        xattrs=(),
        mtime_ns=mtime_ns,
        uid=uid,
        gid=gid,
        stamp=root.ref.stamp,
        location=root.ref.location,
    )


def with_root(entry: Entry, root: Child) -> Entry:
    """Returns a directory's entry with another root."""
    return entry._replace(
        size=root.size,
        files=root.files,
        content=root.ref.id,
        stamp=root.ref.stamp,
        location=root.ref.location,
    )


def edit_paths(
    trees: Trees,
    writer: MetadataWriter,
    root: Entry,
    edits: Mapping[bytes, Entry | None],
    *,
    made_ns: int,
) -> Entry:
    """Returns the root with the entries at some paths set (their names are replaced) or removed.

    Missing folders on the way to an entry are made, with mode 0755 and mtime ``made_ns``; a file
    on the way is replaced by a folder. No path may lie below another.
    """
    here: dict[bytes, Entry | None] = {}
    below: dict[bytes, dict[bytes, Entry | None]] = {}
    for path, entry in edits.items():
        head, _, rest = path.strip(b"/").partition(b"/")
        if rest:
            below.setdefault(head, {})[rest] = entry
        else:
            here[head] = entry
    editor = TreeEditor(trees, writer, root.node if root.location is not None else None)
    for name in sorted(here.keys() | below.keys()):
        if name in below:
            old = None if root.location is None else trees.lookup(root.node, name)
            if old is None or not old.is_dir:
                if all(entry is None for entry in below[name].values()):
                    continue
                old = empty_directory(name, made_ns)
            editor.set(edit_paths(trees, writer, old, below[name], made_ns=made_ns))
        else:
            entry = here[name]
            if entry is None:
                editor.remove(name)
            else:
                editor.set(entry._replace(name=name))
    return with_root(root, editor.finish())


def empty_directory(name: bytes, mtime_ns: int, mode: int = 0o755) -> Entry:
    """Returns a folder that is not stored yet: it has no location, and no entries."""
    return Entry(name, Kind.DIRECTORY, mode, 0, 0, NO_ID, b"", (), mtime_ns, 0, 0, NO_STAMP, None)
