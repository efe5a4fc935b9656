"""The folders above the snapshots: the store, a repository, its ``.log``.

The names in them are found by the grammar of revisions; what they show is a view. Used from one
thread only, except what :meth:`Namespace.preparation` returns.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from functools import partial

from versionfs.errors import InvalidInputError, NotFoundError
from versionfs.repo import Repository, Store, split_component
from versionfs.types import Ref, short
from versionfs.vfs.branches import Branches
from versionfs.vfs.directories import Directories
from versionfs.vfs.errnos import FileSystemError
from versionfs.vfs.history import Histories, History
from versionfs.vfs.listing import Lookup
from versionfs.vfs.nodes import (
    BRIEF_SECONDS,
    DAY_SECONDS,
    Attributes,
    Directory,
    LogBranchNode,
    LogLinkNode,
    LogNode,
    Node,
    NodeTable,
    RepositoryNode,
)
from versionfs.vfs.owner import Owner
from versionfs.vfs.resolver import Resolver
from versionfs.vfs.views import Located, View

LOG_NAME = b".log"
_FOLDER = stat.S_IFDIR | 0o555
_LINK = stat.S_IFLNK | 0o777


class Namespace:
    """Names above the snapshots to nodes."""

    def __init__(
        self, store: Store, nodes: NodeTable, directories: Directories, owner: Owner
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._directories = directories
        self._owner = owner
        self._histories = Histories()
        self.resolver = Resolver(store)
        self.branches: Branches | None = None
        """The branch folders, in a mount that can be written."""

    # -- names ---------------------------------------------------------------------------------

    def lookup(self, parent: Node, name: bytes) -> Attributes | None:
        """Returns what a name shows, and counts a lookup; None if nothing.

        Raises:
            AmbiguousError: an id prefix that several commits share.
        """
        if self.branches is not None and isinstance(parent, RepositoryNode):
            branch = self._writable(self.branches, parent, name)
            if branch is not None:
                return branch
        return self._counted(self._find(parent, name))

    def _writable(
        self, branches: Branches, parent: RepositoryNode, name: bytes
    ) -> Attributes | None:
        """Returns the attributes of a branch folder that can be written; None for another name."""
        text = name.decode("ascii", "replace")
        if "@" in text or name == LOG_NAME or not self._has_branch(parent.repository, text):
            return None
        commit = self.resolver.component(parent.repository, text)
        if commit is None:
            return None
        found = branches.enter(parent.repository, text, commit, parent.number)
        if found is None:
            return None
        return Attributes(
            found.number, found.mode, found.size, found.mtime_ns, found.uid, found.gid
        )

    def _counted(self, node: Node | None) -> Attributes | None:
        if node is None:
            return None
        attributes = self.attributes(node)
        node.lookups += 1
        return attributes

    def timeout(self, parent: Node, name: bytes | None = None) -> float:
        """Returns how long the kernel may keep a name in a folder, in seconds.

        Names in a repository are long-lived too: a refresh invalidates those that came to mean
        something else. Not so branches whose workspace another process has.
        """
        if (
            name is not None
            and self.branches is not None
            and isinstance(parent, RepositoryNode)
            and self.branches.is_elsewhere(parent.repository, name.decode("ascii", "replace"))
        ):
            return BRIEF_SECONDS
        return DAY_SECONDS if isinstance(parent, (RepositoryNode, LogBranchNode)) else BRIEF_SECONDS

    def _find(self, parent: Node, name: bytes) -> Node | None:
        if isinstance(parent, LogBranchNode):
            return self._log_link(parent, name, self._history(parent))
        try:
            text = name.decode("ascii")
        except UnicodeDecodeError:
            return None
        if isinstance(parent, RepositoryNode):
            return self._in_repository(parent, name, text)
        known = parent.children.get(name) if parent.children else None
        if isinstance(parent, LogNode):
            if not self._has_branch(parent.repository, text):
                return None
            return known or self._add(
                LogBranchNode(self._nodes.new_number(), parent, name, parent.repository, text)
            )
        if self.resolver.repository(text) is None:
            return None
        return known or self._add(RepositoryNode(self._nodes.new_number(), parent, name, text))

    def _in_repository(self, parent: RepositoryNode, name: bytes, text: str) -> Node | None:
        known = parent.children.get(name) if parent.children else None
        if name == LOG_NAME:
            return known or self._add(
                LogNode(self._nodes.new_number(), parent, name, parent.repository)
            )
        if known is not None:
            return known
        commit = self.resolver.component(parent.repository, text)
        if commit is None:
            return None
        branch, revision = split_component(text)
        spec = parent.repository + (f"/{branch}" if branch else "")
        if revision is not None:
            spec += f"@{revision}"
        locate = partial(self.resolver.locate, parent.repository, text)
        view = View(parent.repository, spec, b"", Located(commit, commit.root), locate)
        return self._directories.top(view, parent, name)

    def _log_link(self, parent: LogBranchNode, name: bytes, history: History) -> Node | None:
        link = history.find(name)
        if link is None:
            return None
        known = parent.children.get(name) if parent.children else None
        target = f"../../{parent.branch}@{short(link.commit)}".encode()
        if isinstance(known, LogLinkNode) and known.target == target:
            return known
        number = self._nodes.new_number()
        return self._add(LogLinkNode(number, parent, name, target, link.time_ns))

    def _add(self, node: Node) -> Node:
        self._nodes.add(node)
        return node

    def _has_branch(self, repository: str, branch: str) -> bool:
        found = self.resolver.repository(repository)
        if found is None:
            return False
        try:
            found.branch(branch)
        except (NotFoundError, InvalidInputError):
            return False
        return True

    def _history(self, node: LogBranchNode) -> History:
        repository = self.resolver.repository(node.repository)
        if repository is None:
            return History()
        try:
            return self._histories.get(repository, node.branch)
        except NotFoundError:
            return History()

    # -- what may take long --------------------------------------------------------------------

    def preparation(self, node: Node, name: bytes | None) -> Callable[[], object] | None:
        """Returns work that makes the next lookup of ``name`` (None: opendir) quick, if any is due.

        The work may block, and may run in any thread; it fails as the lookup would.
        """
        if isinstance(node, LogBranchNode):
            return None if self._is_history_ready(node) else partial(self._history, node)
        if isinstance(node, RepositoryNode):
            if name is None:
                return partial(self._prepare_listing, node.repository)
            if (node.children and name in node.children) or name == LOG_NAME or not name.isascii():
                return None
            text = name.decode()
            if self.resolver.is_remembered(node.repository, text):
                return None
            return partial(self.resolver.component, node.repository, text)
        return None

    def _prepare_listing(self, name: str) -> None:
        repository = self.resolver.repository(name)
        if repository is not None:
            for component in _components(repository):
                self.resolver.component(name, component)

    def listing(self, node: Node) -> tuple[list[bytes], Lookup]:
        """Returns what a folder lists, and how to look a listed name up.

        Other names than those listed are found as well.
        """
        if isinstance(node, LogBranchNode):
            history = self._history(node)

            def in_log(parent: Node, name: bytes) -> Attributes | None:
                assert isinstance(parent, LogBranchNode)
                return self._counted(self._log_link(parent, name, history))

            return [link.name for link in history.links()], in_log
        if isinstance(node, (LogNode, RepositoryNode)):
            repository = self.resolver.repository(node.repository)
            if repository is None:
                names: list[str] = []
            elif isinstance(node, LogNode):
                names = list(repository.branches())
            else:
                names = _components(repository)
        else:
            names = self._store.repositories()
        return [name.encode() for name in names], self.lookup

    def _is_history_ready(self, node: LogBranchNode) -> bool:
        repository = self.resolver.repository(node.repository)
        return repository is None or self._histories.is_ready(repository, node.branch)

    # -- attributes ----------------------------------------------------------------------------

    def attributes(self, node: Node) -> Attributes:
        """Returns the attributes of a node above the snapshots, or of the top of a view.

        Raises:
            FileSystemError: ENOENT: what it showed is gone.
        """
        if isinstance(node, Directory):
            return self._directories.directory_attributes(node)
        uid, gid = self._owner.own
        if isinstance(node, LogLinkNode):
            return Attributes(node.number, _LINK, len(node.target), node.time_ns, uid, gid)
        if isinstance(node, RepositoryNode):
            repository = self.resolver.repository(node.repository)
            if repository is None:
                raise FileSystemError(errno.ENOENT)
            version = self.resolver.version(node.repository)
            if node.refs_version != version:
                refs: list[Ref] = [*repository.branches().values(), *repository.tags().values()]
                node.time_ns = max((ref.time_ns for ref in refs), default=0)
                node.refs_version = version
            return Attributes(node.number, _FOLDER, 0, node.time_ns, uid, gid)
        return Attributes(node.number, _FOLDER, 0, 0, uid, gid)


def _components(repository: Repository) -> list[str]:
    """Returns the names that a repository's folder lists."""
    return [*repository.branches(), *(f"@{tag}" for tag in repository.tags())]
