"""One repository: its branches, tags and history."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from versionfs.digests import blake2b
from versionfs.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    VersionFSError,
)
from versionfs.objectstore import Version
from versionfs.repo.history import first_parents
from versionfs.repo.refs import RefKind
from versionfs.repo.revisions import Resolver
from versionfs.repo.spec import TIME, validate_name
from versionfs.types import Commit, NodeRef, Ref, short

if TYPE_CHECKING:
    from versionfs.repo.store import Store


class Repository:
    """A named history in a store. Holds no state of its own; thread-safe."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self._resolver = Resolver(store.refs, store.commits)

    def branches(self) -> dict[str, Ref]:
        """Returns the branches, sorted by name."""
        return self._refs(RefKind.BRANCH)

    def tags(self) -> dict[str, Ref]:
        """Returns the tags, sorted by name."""
        return self._refs(RefKind.TAG)

    def _refs(self, kind: RefKind) -> dict[str, Ref]:
        return self.store.refs.read_all(self.name, kind)

    def branch(self, name: str) -> Ref:
        """Returns a branch.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._resolver.ref(self.name, RefKind.BRANCH, name)

    def tag(self, name: str) -> Ref:
        """Returns a tag.

        Raises:
            NotFoundError: there is none of that name.
        """
        return self._resolver.ref(self.name, RefKind.TAG, name)

    def create_branch(self, name: str, commit: Commit) -> Ref:
        """Makes a branch whose head is the commit; costs one small object.

        Raises:
            AlreadyExistsError: the name is taken.
            InvalidInputError: it is not a branch name.
        """
        return self._create(RefKind.BRANCH, name, commit)

    def create_tag(self, name: str, commit: Commit) -> Ref:
        """Makes a tag for the commit.

        Raises:
            AlreadyExistsError: the name is taken.
            InvalidInputError: it is not a tag name.
        """
        return self._create(RefKind.TAG, name, commit)

    def _create(self, kind: RefKind, name: str, commit: Commit) -> Ref:
        what = "branch" if kind is RefKind.BRANCH else "tag"
        validate_name(what, name)
        if kind is RefKind.TAG and (name == "head" or re.fullmatch(TIME, name)):
            raise InvalidInputError(
                f"a tag cannot be called {name!r}", hint="that means something else behind an @"
            )
        try:
            return self.store.refs.move(
                self.name, kind, name, commit.ref, None, reason=f"create {what}"
            )
        except ConflictError as error:
            raise AlreadyExistsError(
                f"{self.name} has a {what} {name!r} already",
                hint=f"choose another name, or delete it with `versionfs {what} -d`",
            ) from error

    def delete_branch(self, name: str, expected: Version | None = None) -> None:
        """Removes a branch; its commits stay until they are collected.

        Who looked at its head before passes the ``expected`` version, so that nothing else goes.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it moved meanwhile.
        """
        self._resolver.ref(self.name, RefKind.BRANCH, name)
        self.store.refs.delete(self.name, RefKind.BRANCH, name, expected)

    def delete_tag(self, name: str, expected: Version | None = None) -> None:
        """Removes a tag; see :meth:`delete_branch`.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it was made anew meanwhile.
        """
        self._resolver.ref(self.name, RefKind.TAG, name)
        self.store.refs.delete(self.name, RefKind.TAG, name, expected)

    def commit(self, ref: NodeRef) -> Commit:
        """Returns the commit that a reference names."""
        return self.store.commits.read(ref)

    def history(self, start: Commit | NodeRef) -> Iterator[Commit]:
        """Yields a commit and its first parents, newest first."""
        commit = start if isinstance(start, Commit) else self.commit(start)
        return first_parents(self.store.commits, commit)

    def resolve(self, branch: str | None, revision: str | None) -> Commit:
        """Returns the commit that ``BRANCH@REVISION`` means; see :mod:`versionfs.repo.revisions`.

        Raises:
            NotFoundError: there is no such branch, tag or commit.
            AmbiguousError: an id prefix fits several commits.
            InvalidInputError: the text is not a revision, or needs a branch.
        """
        return self._resolver.resolve(self.name, branch, revision)

    def advance(
        self,
        branch: str,
        commit: NodeRef,
        expected: Version | None,
        *,
        old: NodeRef | None,
        reason: str,
    ) -> Ref:
        """Moves a branch to a new commit, if nobody moved it since ``expected`` was read.

        Raises:
            ConflictError: somebody did; it says who, when and where to.
        """
        try:
            return self.store.refs.move(
                self.name, RefKind.BRANCH, branch, commit, expected, reason=reason, old=old
            )
        except ConflictError as conflict:
            # The reply may have been lost, and somebody may have committed on top since.
            is_new = old is None or commit.id != old.id
            won = self._if_in_history(branch, commit) if is_new else None
            if won is not None:
                return won
            raise self._told(conflict, branch, old) from conflict

    def _if_in_history(self, branch: str, commit: NodeRef) -> Ref | None:
        """Returns a branch if the commit is below its head, along first parents.

        That it is the head says nothing: another may have moved the branch there.
        """
        try:
            head, _ = self.store.refs.read(self.name, RefKind.BRANCH, branch, fresh=True)
            if head.commit.id == commit.id:
                return None
            number = self.commit(commit).number
            for found in self.history(head.commit):
                if found.number <= number:
                    return head if found.id == commit.id else None
        except NotFoundError:
            pass
        return None

    def _told(self, conflict: ConflictError, branch: str, old: NodeRef | None) -> ConflictError:
        """Returns a conflict as people can act on it."""
        where = f"{self.name}/{branch}"
        what = "was made at" if old is None else f"moved from {short(old.id)} to"
        try:
            commit = self.commit(self.branch(branch).commit)
        except NotFoundError:
            return ConflictError(
                f"{where} was deleted by somebody else meanwhile; nothing was published",
                hint="run the command again to make it anew",
            )
        except VersionFSError:
            return conflict
        moment = datetime.fromtimestamp(commit.time_ns // 1_000_000_000, UTC).astimezone()
        return ConflictError(
            f"{where} {what} {short(commit.id)} meanwhile ({commit.author}, "
            f"{moment:%Y-%m-%d %H:%M:%S}); nothing was published",
            hint=f"look at `versionfs log {where}`, then run the command again",
        )

    def refs_version(self) -> str:
        """Returns a token that changes when any branch or tag of the repository changes."""
        refcache = self.store.refcache
        if refcache.holds:
            return str(refcache.changes(self.name))
        digest = blake2b(digest_size=16)
        for kind in RefKind:
            for info in self.store.objects.list(f"repos/{self.name}/{kind.value}/"):
                digest.update(f"{info.key}\0{info.size}\0{info.mtime_ns}\n".encode())
        return digest.hexdigest()

    def describe(self) -> Mapping[bytes, list[str]]:
        """Returns the names (branches, then ``@tags``) that each commit id has."""
        names: dict[bytes, list[str]] = {}
        for name, ref in self.branches().items():
            names.setdefault(ref.commit.id, []).append(name)
        for name, ref in self.tags().items():
            names.setdefault(ref.commit.id, []).append(f"@{name}")
        return names
