"""Views: what one name in a repository shows (``main``, ``main@~3``, ``@v1.0``), now.

Most names can come to mean another commit: a branch moves, and ``main@~3``, ``main@head``, a date
or a tag with it. So every name is a view that can be moved, and its directories keep their inode
numbers while it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from versionfs.objectstore import WouldBlock
from versionfs.tree import Trees, diff_directory
from versionfs.types import Commit, Entry, NodeRef
from versionfs.vfs.inodes import LeafTable
from versionfs.vfs.nodes import AT_TOP, GONE, Directory, NodeTable

_STEP: Final = 2_000
"""Names in one step of a move: about 10 ms of work."""

_FETCHED: Final = 20_000
"""Changes that another thread finds at a time, where nodes must be fetched: about 10 MB."""


class Located(NamedTuple):
    """What a view shows: the commit, and the directory of it that the view begins with."""

    commit: Commit
    root: Entry


_COUNTING_BITS: Final = 61


class Invalidation(NamedTuple):
    """What the kernel must drop: the entry ``name`` of a directory, or attributes (None).

    ``is_branch_folder`` says that these are those of a directory in a branch folder.
    """

    number: int
    name: bytes | None
    is_branch_folder: bool = False

    @property
    def is_listing(self) -> bool:
        """Whether they are those of a directory, whose names may have changed with them."""
        # Whatever is told of snapshots is a directory; their numbers count up.
        return self.name is None and (self.is_branch_folder or not self.number >> _COUNTING_BITS)


_Pair = tuple[Entry | None, Entry | None]

Step = list[Invalidation] | Callable[[], object]
"""What a move yields: what the kernel must drop, or work that must be done before it goes on."""


class View:
    """One name that shows a directory of a commit.

    ``spec`` is the name as a SPEC without path, ``path`` that of the directory it begins with.
    ``locate`` finds out what it shows now, None if nothing; it may block, and be called from any
    thread.
    """

    __slots__ = ("locate", "located", "path", "repository", "spec", "top")

    def __init__(
        self,
        repository: str,
        spec: str,
        path: bytes,
        located: Located,
        locate: Callable[[], Located | None],
    ) -> None:
        self.repository = repository
        self.spec = spec
        self.path = path
        self.located: Located | None = located
        self.locate = locate
        self.top: Directory | None = None


def node_of(entry: Entry) -> NodeRef | None:
    """Returns the root node of a directory, None if it is empty and nothing is stored."""
    return None if entry.location is None else entry.node


def entry_of(directory: Directory, trees: Trees, leaves: LeafTable) -> Entry | None:
    """Returns a directory's entry, None if it is gone."""
    if directory.leaf >= 0:
        return trees.leaf(leaves.ref(directory.leaf)).entry(directory.index)
    located = directory.view.located
    if directory.leaf == GONE or located is None:
        return None
    return located.root


class Mover:
    """Moves views from one commit to another, in place."""

    def __init__(self, trees: Trees, nodes: NodeTable, leaves: LeafTable) -> None:
        self._trees = trees
        self._nodes = nodes
        self._leaves = leaves

    def move(self, view: View, located: Located | None) -> Iterator[Step]:
        """Makes a view show something else; yields what the kernel must drop, in bounded steps.

        Only directories that the kernel knows are compared, and what is equal in both trees is
        skipped. Between two steps requests may be served: each directory is either old or new.
        Where nodes must be fetched first, it yields the work that does it; it blocks, and may run
        in any thread.
        """
        old, top = view.located, view.top
        if old is None or top is None:
            return
        if located is None:
            view.located = None
            yield [Invalidation(top.number, None)]
            for directory in self._remove(top):
                yield [Invalidation(directory.number, None)]
            if top.parent is not None:
                yield [Invalidation(top.parent.number, top.name)]
            return
        view.located = located
        work = [(top, old.root, located.root)]
        while work:
            directory, before, after = work.pop()
            if directory.leaf == GONE or (before[1:12] == after[1:12]):
                continue
            yield from self._compare(directory, before, after, work)

    def _compare(
        self,
        directory: Directory,
        before: Entry,
        after: Entry,
        work: list[tuple[Directory, Entry, Entry]],
    ) -> Iterator[Step]:
        found = [Invalidation(directory.number, None)]
        root = node_of(after)
        done = 0

        def changes(begin: int, end: int | None) -> Iterator[_Pair]:
            pairs = diff_directory(self._trees, node_of(before), root, attributes=True)
            return islice(pairs, begin, end)

        fetched: list[_Pair] | None = None
        while fetched is None or fetched:
            fetch = None
            try:
                for old, new in changes(done, None) if fetched is None else fetched:
                    self._change(directory, root, old, new, found, work)
                    done += 1
                    if len(found) >= _STEP:
                        yield found
                        found = []
                if fetched is None:
                    break
            except WouldBlock as wait:
                fetch = wait.fetch
            if fetch is not None:
                yield fetch
            # From here on another thread compares, many names at a time.
            fetched = []
            yield partial(_extend, fetched, partial(changes, done, done + _FETCHED))
        yield found

    def _change(
        self,
        directory: Directory,
        root: NodeRef | None,
        old: Entry | None,
        new: Entry | None,
        found: list[Invalidation],
        work: list[tuple[Directory, Entry, Entry]],
    ) -> None:
        """Takes over one change in a directory whose new root is given."""
        entry = new or old
        assert entry is not None
        name = entry.name
        child = (directory.children or {}).get(name)
        if isinstance(child, Directory) and child.leaf != GONE:
            if old is not None and new is not None and new.is_dir and root is not None:
                self._replace(child, root)
                work.append((child, old, new))
                return
            found.extend(Invalidation(gone.number, None) for gone in self._remove(child))
        if child is None and old is not None and new is not None and old.is_dir and new.is_dir:
            return
        found.append(Invalidation(directory.number, name))

    def _replace(self, child: Directory, parent_root: NodeRef) -> None:
        """Lets a known directory be found where the parent's new tree has it."""
        ref, leaf = self._trees.leaf_for(parent_root, child.name)
        number = self._leaves.number(ref)
        self._leaves.use(number)
        if child.leaf >= 0:
            self._leaves.drop(child.leaf)
        child.leaf, child.index = number, leaf.find(child.name)

    def _remove(self, directory: Directory) -> list[Directory]:
        """Marks a directory and all below it as gone; a new one of its name is another one."""
        self._nodes.detach(directory)
        removed = []
        stack: list[Directory] = [directory]
        while stack:
            current = stack.pop()
            if current.leaf >= 0:
                self._leaves.drop(current.leaf)
            elif current.leaf == AT_TOP:
                current.view.top = None
            current.leaf = GONE
            removed.append(current)
            stack.extend(c for c in (current.children or {}).values() if isinstance(c, Directory))
        return removed


def _extend(pairs: list[_Pair], changes: Callable[[], Iterator[_Pair]]) -> None:
    pairs.extend(changes())
