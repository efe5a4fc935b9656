"""One refresh of a mount: what its views show is looked up, then they are moved in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from versionfs.types import Commit
from versionfs.vfs.branches import Branches
from versionfs.vfs.nodes import Directory, LogBranchNode, Node, RepositoryNode
from versionfs.vfs.resolver import Resolver
from versionfs.vfs.views import Invalidation, Located, Mover, Step, View


class Refresh:
    """Brings what a mount shows in line with the refs, in steps: see :meth:`FileSystem.refresh`."""

    def __init__(
        self, resolver: Resolver, mover: Mover, branches: Branches | None, repository: str | None
    ) -> None:
        """Begins one, of a repository or of all (None)."""
        resolver.forget(repository)
        self._resolver = resolver
        self._mover = mover
        self._branches = branches
        self._repository = repository
        self._look: Callable[[], object] | None = None
        self._views: list[View] = []
        self._others: list[Invalidation] = []
        self._names = [] if branches is None else [(one.repository, one.name) for one in branches]
        self._heads: dict[tuple[str, str], Commit | None] = {}
        self._found: list[tuple[View, Located | None]] = []

    def after(self, look: Callable[[], object]) -> None:
        """Has something done first that asks the store for its refs."""
        self._look = look

    def add(self, root: Node) -> None:
        """Takes what is known below the root of a mount."""
        if isinstance(root, Directory):
            if self._is_of(root.view.repository):
                self._views.append(root.view)
            return
        repository = self._repository
        if repository is not None and not isinstance(root, RepositoryNode):
            name = repository.encode()
            if name not in (root.children or {}):
                # If it is new, the kernel may still have it that there is none.
                self._others.append(Invalidation(root.number, name))
        for node in (root, *(root.children or {}).values()):
            if not isinstance(node, RepositoryNode) or not self._is_of(node.repository):
                continue
            self._others.append(Invalidation(node.number, None))
            for child in list((node.children or {}).values()):
                if isinstance(child, Directory):
                    self._views.append(child.view)
                else:
                    self._others.extend(_log_changes(child))

    def _is_of(self, repository: str) -> bool:
        return self._repository in (None, repository)

    def locate(self) -> None:
        """Asks the store what each view shows now. May block, may run in any thread.

        Raises:
            StorageTransientError: the store cannot be reached.
        """
        if self._look is not None:
            self._look()
        for view in self._views:
            self._found.append((view, view.locate()))
        for key in self._names:
            if self._is_of(key[0]):
                self._heads[key] = self._resolver.component(*key)

    def steps(self) -> Iterator[Step]:
        """Moves the views; after each step the kernel must drop what it yields.

        In the thread of the file system; each step is short. What it yields may also be work that
        must be done before the next step; that blocks, and may run in any thread.
        """
        yield self._others
        for view, located in self._found:
            old = view.located
            if old is None or (located is not None and old.commit.ref == located.commit.ref):
                continue
            yield from self._mover.move(view, located)
        if self._branches is not None:
            yield from self._branches.steps(self._repository, self._heads)


def _log_changes(log: Node) -> list[Invalidation]:
    """Returns the names below ``.log`` that the kernel knows: a reset may take any away."""
    found = []
    for branch in (log.children or {}).values():
        if isinstance(branch, LogBranchNode):
            found.append(Invalidation(log.number, branch.name))
            found.extend(Invalidation(branch.number, n) for n in list(branch.children or ()))
    return found
