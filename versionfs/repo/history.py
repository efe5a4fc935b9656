"""Walks over commits: first parents, and all ancestors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from versionfs.repo.commits import CommitReader
from versionfs.types import Commit, NodeRef


def first_parents(commits: CommitReader, start: Commit) -> Iterator[Commit]:
    """Yields a commit and its first parents, newest first."""
    commit = start
    while True:
        yield commit
        if not commit.parents:
            return
        commit = commits.read(commit.parents[0])


def ancestors(commits: CommitReader, starts: Iterable[NodeRef]) -> Iterator[Commit]:
    """Yields each commit that the given ones descend from, they included, once."""
    seen: set[bytes] = set()
    queue = list(starts)
    while queue:
        ref = queue.pop()
        if ref.id in seen:
            continue
        seen.add(ref.id)
        commit = commits.read(ref)
        yield commit
        queue.extend(reversed(commit.parents))
