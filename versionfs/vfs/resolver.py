"""Names to commits, remembered until the refs of the repository move. May block; thread-safe."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import Final

from versionfs.errors import AmbiguousError, InvalidInputError, NotFoundError
from versionfs.repo import Repository, Spec, Store, split_component
from versionfs.repo.spec import DEFAULT_BRANCH, TIME, parse_revision
from versionfs.types import Commit
from versionfs.vfs.views import Located

_REMEMBERED: Final = 1_024


def version_of(spec: Spec) -> tuple[str | None, str | None]:
    """Returns the branch and the revision that a SPEC names.

    Without a branch, a revision that counts or dates is of the default branch; a tag or an id is of
    the whole repository.
    """
    if spec.branch is not None or spec.revision is None:
        return spec.branch or DEFAULT_BRANCH, spec.revision
    base = parse_revision(spec.revision).base
    if base is None or re.fullmatch(TIME, base):
        return DEFAULT_BRANCH, spec.revision
    return None, spec.revision


class Resolver:
    """Finds what the names in a repository's folder show."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # With the version of the refs from before anything was found in the repository.
        self._repositories: dict[str, tuple[Repository, str]] = {}
        self._epoch = 0
        self._found: OrderedDict[tuple[str, str], Commit] = OrderedDict()
        self._lock = threading.Lock()

    def repository(self, name: str) -> Repository | None:
        """Returns a repository, None if there is none of that name."""
        known = self._repositories.get(name)
        if known is not None:
            return known[0]
        epoch = self._epoch
        try:
            repository = self._store.repository(name)
            version = repository.refs_version()
        except (NotFoundError, InvalidInputError):
            return None
        with self._lock:
            if epoch == self._epoch:
                self._repositories[name] = (repository, version)
        return repository

    def version(self, name: str) -> str:
        """Returns the version of a repository's refs when it was looked at; "" if it was not."""
        known = self._repositories.get(name)
        return "" if known is None else known[1]

    def moved(self) -> list[str]:
        """Returns the repositories whose refs are not as they were when they were looked at.

        Raises:
            StorageTransientError: the store cannot be reached.
        """
        refs = self._store.refcache
        if refs.holds:
            return sorted(refs.poll())
        with self._lock:
            known = list(self._repositories.items())
        return [name for name, (repo, version) in known if _version(repo) != version]

    def is_remembered(self, repository: str, component: str) -> bool:
        """Whether :meth:`component` answers without blocking."""
        return (repository, component) in self._found

    def component(self, repository: str, component: str) -> Commit | None:
        """Returns the commit of ``main``, ``main@REV`` or ``@REV``; None if there is none.

        Raises:
            AmbiguousError: an id prefix that several commits share.
        """
        key = (repository, component)
        with self._lock:
            commit = self._found.get(key)
            if commit is not None:
                self._found.move_to_end(key)
                return commit
            epoch = self._epoch
        found = self.repository(repository)
        if found is None:
            return None
        try:
            commit = found.resolve(*split_component(component))
        except AmbiguousError:
            raise
        except (NotFoundError, InvalidInputError):
            return None
        with self._lock:
            if epoch == self._epoch:
                self._found[key] = commit
            if len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        return commit

    def locate(self, repository: str, component: str) -> Located | None:
        """Returns what a component shows now, asking the store."""
        with self._lock:
            self._found.pop((repository, component), None)
        commit = self.component(repository, component)
        return None if commit is None else Located(commit, commit.root)

    def locate_spec(self, spec: Spec) -> Located | None:
        """Returns what a SPEC shows now: a directory, or None."""
        repository = self.repository(spec.repository)
        if repository is None:
            return None
        try:
            commit = repository.resolve(*version_of(spec))
        except AmbiguousError:
            raise
        except (NotFoundError, InvalidInputError):
            return None
        root = self._store.trees.walk_path(commit.root, spec.path)
        if root is None or not root.is_dir:
            return None
        return Located(commit, root)

    def forget(self, repository: str | None) -> None:
        """Forgets what was found, in one repository or in all (None): refs have moved."""
        with self._lock:
            self._epoch += 1
            if repository is None:
                self._found.clear()
                self._repositories.clear()
                return
            self._repositories.pop(repository, None)
            for key in [key for key in self._found if key[0] == repository]:
                del self._found[key]


def _version(repository: Repository) -> str:
    try:
        return repository.refs_version()
    except NotFoundError:
        return ""
