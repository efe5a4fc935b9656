"""From a revision in a repository to the commit that it means."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from versionfs.errors import AmbiguousError, InvalidInputError, NotFoundError
from versionfs.repo.commits import CommitReader
from versionfs.repo.history import ancestors, first_parents
from versionfs.repo.refs import RefKind, Refs
from versionfs.repo.spec import NAME, TIME, Revision, parse_revision
from versionfs.types import Commit, NodeRef, Ref, short

_PREFIX: Final = re.compile(r"[0-9a-fA-F]{4,64}", re.ASCII)
_TIME: Final = re.compile(TIME, re.ASCII)


class Resolver:
    """Resolves revisions. Thread-safe."""

    def __init__(self, refs: Refs, commits: CommitReader) -> None:
        self._refs = refs
        self._commits = commits

    def resolve(self, repository: str, branch: str | None, revision: str | None) -> Commit:
        """Returns the commit that ``BRANCH@REV`` means.

        Args:
            repository: the name of an existing repository.
            branch: the branch; None for a tag or commit of any branch.
            revision: the text behind the ``@``; None for the head.

        Raises:
            NotFoundError: there is no such branch, tag or commit.
            AmbiguousError: an id prefix fits several commits.
            InvalidInputError: the text is not a revision, or needs a branch.
        """
        parsed = Revision(None, 0) if revision is None else parse_revision(revision)
        if branch is None:
            commit = self._of_repository(repository, parsed, revision)
        else:
            head = self.ref(repository, RefKind.BRANCH, branch).commit
            where = f"{repository}/{branch}"
            if parsed.base is None:
                commit = self._commits.read(head)
            else:
                commit = self._of_branch(repository, branch, head, parsed.base, where)
        return self._back(commit, parsed.back, f"{repository}/{branch or ''}@{revision}")

    def ref(self, repository: str, kind: RefKind, name: str) -> Ref:
        """Returns a branch or tag.

        Raises:
            NotFoundError: there is none of that name; says which there are.
        """
        try:
            return self._refs.read(repository, kind, name)[0]
        except NotFoundError as error:
            what = "branch" if kind is RefKind.BRANCH else "tag"
            names = self._refs.names(repository, kind)
            raise NotFoundError(
                f"{repository} has no {what} {name!r}", hint=suggest(what, name, names)
            ) from error

    def _back(self, commit: Commit, steps: int, what: str) -> Commit:
        if not steps:
            return commit
        found = None
        if steps < commit.number:
            found = next(islice(first_parents(self._commits, commit), steps, None), None)
        if found is None:
            raise NotFoundError(
                f"{what}: commit {short(commit.id)} has only {commit.number - 1} before it"
            )
        return found

    def _of_branch(
        self, repository: str, branch: str, head: NodeRef, base: str, where: str
    ) -> Commit:
        tagged = None
        if NAME.fullmatch(base):  # A time is none: its colon is not fit for a tag.
            with contextlib.suppress(NotFoundError):
                tagged = self._refs.read(repository, RefKind.TAG, base)[0].commit
        if tagged is not None:
            for commit in ancestors(self._commits, [head]):
                if commit.id == tagged.id:
                    return commit
            if _PREFIX.fullmatch(base) is None:
                raise NotFoundError(
                    f"the tag {base} is not on the branch {branch}",
                    hint=f"use {repository}@{base}",
                )
        if _TIME.fullmatch(base):
            return self._at_time(head, base, where)
        return self._by_prefix([head], base, where)

    def _of_repository(self, repository: str, parsed: Revision, revision: str | None) -> Commit:
        base = parsed.base
        if base is None or _TIME.fullmatch(base):
            raise InvalidInputError(
                f"{repository}@{revision} needs a branch",
                hint=f"write {repository}/main@{revision}",
            )
        try:
            return self._commits.read(self._refs.read(repository, RefKind.TAG, base)[0].commit)
        except NotFoundError:
            pass
        heads = [
            ref.commit for kind in RefKind for ref in self._refs.read_all(repository, kind).values()
        ]
        if _PREFIX.fullmatch(base) is None:
            names = self._refs.names(repository, RefKind.TAG)
            raise NotFoundError(
                f"{repository} has no tag {base!r}", hint=suggest("tag", base, names)
            )
        return self._by_prefix(heads, base, repository)

    def _by_prefix(self, heads: Iterable[NodeRef], base: str, where: str) -> Commit:
        if _PREFIX.fullmatch(base) is None:
            raise NotFoundError(
                f"{where} has no revision {base!r}",
                hint="use head, ~N, a tag, a date like 2026-11-01, or 4 or more digits of a "
                "commit id; `versionfs log` lists the commits",
            )
        prefix = base.lower()
        found = {c.id: c for c in ancestors(self._commits, heads) if c.id.hex().startswith(prefix)}
        if not found:
            raise NotFoundError(
                f"{where} has no commit {base}", hint="`versionfs log` lists the commits"
            )
        if len(found) > 1:
            some = ", ".join(short(commit) for commit in sorted(found)[:4])
            raise AmbiguousError(
                f"{base} is ambiguous in {where}: {some}", hint="write more digits"
            )
        return next(iter(found.values()))

    def _at_time(self, head: NodeRef, text: str, where: str) -> Commit:
        limit = end_of(text)
        limit_ns = int(limit.timestamp()) * 1_000_000_000
        oldest = None
        for oldest in first_parents(self._commits, self._commits.read(head)):
            if oldest.time_ns < limit_ns:
                return oldest
        assert oldest is not None
        first = datetime.fromtimestamp(oldest.time_ns / 1e9).astimezone()
        raise NotFoundError(
            f"{where} has no commit as old as {text}",
            hint=f"its first is of {first:%Y-%m-%d %H:%M}",
        )


def end_of(text: str) -> datetime:
    """Returns the first instant after the day, minute or second that a time names.

    Without a zone it is local time.

    Raises:
        InvalidInputError: there is no such day or time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not a date or time: {error}") from error
    if "T" not in text:
        step = timedelta(days=1)
    else:
        clock = re.split(r"Z|[+-]", text.partition("T")[2])[0]
        step = timedelta(minutes=1) if clock.count(":") == 1 else timedelta(seconds=1)
    try:
        if moment.tzinfo is None:
            # Local midnight first, then the zone: days of 23 or 25 hours end when they end.
            return (moment + step).astimezone()
        return moment + step
    except (OverflowError, ValueError) as error:
        raise InvalidInputError(f"{text!r} is out of range: {error}") from error


def suggest(what: str, name: str, names: list[str]) -> str:
    """Returns a hint that names near or all existing names."""
    if not names:
        return f"there is no {what} yet"
    import difflib  # only for a hint

    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    plural = f"{what}es" if what.endswith("h") else f"{what}s"
    if what == "repository":
        plural = "repositories"
    if near:
        return f"did you mean {' or '.join(near)}?"
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"its {plural} are: {listed}" if what != "repository" else f"there are: {listed}"
