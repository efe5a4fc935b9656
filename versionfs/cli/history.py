"""``versionfs log``: the commits of a branch, newest first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from versionfs.cli.command import command
from versionfs.cli.formats import local_time, one_line, screen_time
from versionfs.cli.output import Column
from versionfs.cli.session import Session
from versionfs.types import short

if TYPE_CHECKING:
    from rich.text import Text

    from versionfs.repo import Repository, Store
    from versionfs.types import Commit, Entry


@command(
    "log",
    example="""
        versionfs log photos
        versionfs log photos/dev@v1.0 -n 10 --oneline
        versionfs log photos:2026/a.jpg
    """,
)
@click.argument("spec", required=False)
@click.option("-n", "limit", type=click.IntRange(min=0), help="At most so many commits.")
@click.option("--oneline", is_flag=True, help="Only id, names and subject.")
@click.pass_obj
def log_command(session: Session, spec: str | None, limit: int | None, oneline: bool) -> None:
    """Lists the commits that lead to SPEC along first parents, newest first.

    With a PATH, only those that changed it. Plain lines have the fields: number, id, time, author,
    the branches and tags at it (separated by ", "), subject.
    """
    from versionfs.cli.targets import read_target, required, resolve
    from versionfs.cli.versions import commit_json, decorations

    target = read_target(session, spec)
    named = required(target, "versionfs log REPO[/BRANCH][@REV][:PATH]")
    with session.open_store(target.store) as store:
        repository, start = resolve(store, named)
        names = decorations(repository)
        commits = repository.history(start)
        if named.path:
            commits = _touching(store, repository, commits, named.path)
        commits = itertools.islice(commits, limit)
        out = session.output
        if oneline and not out.json:
            for commit in commits:
                at = names.get(commit.id)
                refs = f" ({', '.join(at)})" if at else ""
                if out.terminal:
                    out.console.print(_oneline(commit, refs), soft_wrap=True)
                else:
                    out.line(f"{short(commit.id)}{refs} {one_line(commit.subject)}")
            return
        out.records(
            commits,
            as_json=lambda commit: commit_json(commit, names),
            as_plain=lambda commit: [
                str(commit.number),
                short(commit.id),
                local_time(commit.time_ns),
                one_line(commit.author),
                ", ".join(names.get(commit.id, [])),
                one_line(commit.subject),
            ],
            columns=[
                Column("#", right=True),
                Column("COMMIT", "yellow", right=True),
                Column("DATE", right=True),
                Column("AUTHOR", "cyan", shorten=True),
                Column("SUBJECT"),
            ],
            as_cells=lambda commit: [
                str(commit.number),
                short(commit.id),
                screen_time(commit.time_ns),
                one_line(commit.author),
                _subject(commit, names.get(commit.id, [])),
            ],
        )


def _oneline(commit: Commit, refs: str) -> Text:
    from rich.text import Text

    subject = one_line(commit.subject)
    return Text.assemble((short(commit.id), "yellow"), (refs, "green"), f" {subject}")


def _subject(commit: Commit, names: list[str]) -> Text:
    from rich.text import Text

    refs = f"({', '.join(names)}) " if names else ""
    return Text.assemble((refs, "green"), one_line(commit.subject))


def _touching(
    store: Store, repository: Repository, commits: Iterator[Commit], path: bytes
) -> Iterator[Commit]:
    """Yields the commits in which ``path`` is not what it is in their first parent.

    Raises:
        NotFoundError: no commit of them ever had it.
    """
    from versionfs.errors import NotFoundError
    from versionfs.tree.diffing import same_entry

    known: dict[bytes, Entry | None] = {}

    def at(commit: Commit) -> Entry | None:
        if commit.id not in known:
            known.clear()  # only a commit and its parent are ever compared
            known[commit.id] = store.trees.walk_path(commit.root, path)
        return known[commit.id]

    seen = False
    for commit in commits:
        here = at(commit)
        before = at(repository.commit(commit.parents[0])) if commit.parents else None
        seen = seen or here is not None or before is not None
        if here is None or before is None:
            changed = here is not before
        else:
            changed = not same_entry(here, before)
        if changed:
            yield commit
    if not seen:
        raise NotFoundError(
            f"no commit of {repository.name} has {path.decode('utf-8', 'backslashreplace')!r}"
        )
