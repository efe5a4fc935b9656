"""The nodes the kernel knows by a sequential number: every directory, and the links in ``.log``.

A node lives while the kernel knows it (its lookup count is above zero) or knows one below it, and
holds its parent, so that paths can be told. Files and symlinks of snapshots are not here: see
``inodes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from versionfs.vfs.views import View

ROOT_NUMBER: Final = 1

DAY_SECONDS: Final = 86_400.0
"""How long the kernel may keep what cannot change, or what is invalidated when it does."""

BRIEF_SECONDS: Final = 1.0
"""How long it may keep what nobody would tell it of: the repositories of the store."""

AT_TOP: Final = -1
"""``Directory.leaf`` of the directory that a view begins with: its entry is the view's root."""

GONE: Final = -2
"""``Directory.leaf`` of a directory that the view's current commit no longer has."""


class Attributes(NamedTuple):
    """What stat tells of a node. ``mode`` has the file type; ``size`` is in bytes."""

    number: int
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int


class Node:
    """A node by itself: used as such for the root of a whole store."""

    __slots__ = ("children", "lookups", "name", "number", "parent")

    def __init__(self, number: int, parent: Node | None, name: bytes) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.lookups = 0
        self.children: dict[bytes, Node] | None = None


class RepositoryNode(Node):
    """The folder of a repository: its branches and tags. ``time_ns`` is that of its last move."""

    __slots__ = ("refs_version", "repository", "time_ns")

    def __init__(self, number: int, parent: Node | None, name: bytes, repository: str) -> None:
        super().__init__(number, parent, name)
        self.repository = repository
        self.refs_version = ""
        self.time_ns = 0


class LogNode(Node):
    """``.log`` of a repository: a folder for each branch."""

    __slots__ = ("repository",)

    def __init__(self, number: int, parent: Node | None, name: bytes, repository: str) -> None:
        super().__init__(number, parent, name)
        self.repository = repository


class LogBranchNode(Node):
    """``.log/<branch>``: a symlink for each commit."""

    __slots__ = ("branch", "repository")

    def __init__(
        self, number: int, parent: Node | None, name: bytes, repository: str, branch: str
    ) -> None:
        super().__init__(number, parent, name)
        self.repository = repository
        self.branch = branch


class LogLinkNode(Node):
    """A symlink in ``.log/<branch>`` to the snapshot of a commit made at ``time_ns``."""

    __slots__ = ("target", "time_ns")

    def __init__(
        self, number: int, parent: Node | None, name: bytes, target: bytes, time_ns: int
    ) -> None:
        super().__init__(number, parent, name)
        self.target = target
        self.time_ns = time_ns


class Directory(Node):
    """A directory of a snapshot: entry ``index`` of leaf node ``leaf`` (see ``LeafTable``).

    There is one for each path of each view. When the view moves to another commit, ``leaf`` and
    ``index`` are replaced in place and the number stays.
    """

    __slots__ = ("index", "leaf", "view")

    def __init__(
        self, number: int, parent: Node | None, name: bytes, view: View, leaf: int, index: int
    ) -> None:
        super().__init__(number, parent, name)
        self.view = view
        self.leaf = leaf
        self.index = index


class NodeTable:
    """All nodes by number. Numbers are never used twice in a mount."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._next = ROOT_NUMBER

    def __len__(self) -> int:
        return len(self._nodes)

    def new_number(self) -> int:
        """Returns the next free number; the first is that of the root."""
        number = self._next
        self._next += 1
        return number

    def add(self, node: Node) -> None:
        """Makes a node known, to its parent as well."""
        self._nodes[node.number] = node
        parent = node.parent
        if parent is not None:
            if parent.children is None:
                parent.children = {}
            parent.children[node.name] = node

    def get(self, number: int) -> Node | None:
        """Returns the node that has a number."""
        return self._nodes.get(number)

    def forget(self, node: Node, lookups: int) -> list[Node]:
        """Takes lookups from a node's count; returns the nodes that are no longer needed now."""
        node.lookups = max(0, node.lookups - lookups)
        gone: list[Node] = []
        current: Node | None = node
        while (
            current is not None
            and not current.lookups
            and not current.children
            and current.number != ROOT_NUMBER
        ):
            gone.append(current)
            self._nodes.pop(current.number, None)
            parent = current.parent
            self.detach(current)
            current = parent
        return gone

    def detach(self, node: Node) -> None:
        """Takes a node out of its parent's children, if it is there."""
        parent = node.parent
        if parent is not None and parent.children is not None:
            if parent.children.get(node.name) is node:
                del parent.children[node.name]
            if not parent.children:
                parent.children = None
