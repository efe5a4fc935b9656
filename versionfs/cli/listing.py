"""``versionfs ls``: repositories, branches and tags, or the entries of a folder."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from versionfs.cli.command import command
from versionfs.cli.formats import local_time, mode_text, quote, screen_time
from versionfs.cli.output import Column, Output
from versionfs.cli.session import Session
from versionfs.readable import human_size
from versionfs.types import Kind, short

if TYPE_CHECKING:
    from rich.text import Text

    from versionfs.repo import Repository, Store
    from versionfs.types import Entry

GRID_NAMES = 5000
"""Names that ``ls`` lays out in columns; more than that come one per line, as they are read."""


class Listed(NamedTuple):
    """An entry with its path below what is listed."""

    path: bytes
    entry: Entry


@command(
    "ls",
    example="""
        versionfs ls
        versionfs ls -l photos/main@~1:2026
        versionfs ls -R -z photos@v1.0 | xargs -0 -n 1 echo
    """,
)
@click.argument("spec", required=False)
@click.option("-l", "long", is_flag=True, help="Also mode, owner, size and time.")
@click.option("-R", "--recursive", is_flag=True, help="Also what is in subfolders, as paths.")
@click.option("-z", "--null", is_flag=True, help="End each name with a NUL byte, unquoted.")
@click.pass_obj
def ls_command(session: Session, spec: str | None, long: bool, recursive: bool, null: bool) -> None:
    """Lists the folder that SPEC names.

    Without SPEC it lists the repositories, for REPO alone its branches and tags, written as a
    mount names them: BRANCH and @TAG. The size of a folder is that of all files below it.

    Plain lines of -l have the fields: mode, uid, gid, size in bytes, time, name (with " -> TARGET"
    for a symlink); for branches and tags: kind, commit, time, name; for repositories: name, number
    of branches, number of tags.
    """
    from versionfs.cli.targets import find_entry, read_target, resolve

    if null and long:
        raise click.UsageError("-z lists names only: it cannot go with -l")
    target = read_target(session, spec)
    named = target.spec
    out = session.output
    with session.open_store(target.store) as store:
        if named is None:
            _list_repositories(out, store, long=long, null=null)
            return
        if named.branch is None and named.revision is None and not named.path:
            _list_refs(out, store.repository(named.repository), long=long, null=null)
            return
        _, commit = resolve(store, named)
        entry = find_entry(store, commit, named)
        found = _walk(store, entry, recursive=recursive)
        if null:
            for path, _ in found:
                out.raw(path + b"\0")
        else:
            _write_entries(out, found, long=long)


def _walk(store: Store, top: Entry, *, recursive: bool) -> Iterator[Listed]:
    """Yields what is in a directory, or the entry itself when it is none, in path order."""
    if not top.is_dir:
        yield Listed(top.name, top)
        return
    stack = [(b"", _entries(store, top))]
    while stack:
        prefix, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        yield Listed(prefix + entry.name, entry)
        if recursive and entry.is_dir:
            stack.append((prefix + entry.name + b"/", _entries(store, entry)))


def _entries(store: Store, directory: Entry) -> Iterator[Entry]:
    # An empty directory may have no node.
    return iter(()) if directory.location is None else store.trees.entries(directory.node)


def _write_entries(out: Output, found: Iterator[Listed], *, long: bool) -> None:
    from versionfs.cli.versions import entry_json

    if out.json:
        out.array(entry_json(entry, path) for path, entry in found)
    elif not long:
        if out.terminal:
            _grid(out, (_styled(listed) for listed in found))
        else:
            for path, _ in found:
                out.line(quote(path))
    elif out.terminal:
        columns = [
            Column("MODE"),
            Column("OWNER"),
            Column("SIZE", right=True),
            Column("MODIFIED", right=True),
            Column("NAME"),
        ]
        out.table(columns, map(_cells, found))
    else:
        for listed in found:
            out.line("\t".join(_plain(listed)))


def _plain(listed: Listed) -> list[str]:
    entry = listed.entry
    return [
        mode_text(entry),
        str(entry.uid),
        str(entry.gid),
        str(entry.size),
        local_time(entry.mtime_ns),
        quote(listed.path) + _arrow(entry),
    ]


def _cells(listed: Listed) -> list[str | Text]:
    entry = listed.entry
    name = _styled(listed)
    name.append(_arrow(entry))
    return [
        mode_text(entry),
        f"{_user(entry.uid)}:{_group(entry.gid)}",
        human_size(entry.size),
        screen_time(entry.mtime_ns),
        name,
    ]


def _arrow(entry: Entry) -> str:
    return f" -> {quote(entry.target)}" if entry.kind == Kind.SYMLINK else ""


def _styled(listed: Listed) -> Text:
    from rich.text import Text

    entry = listed.entry
    if entry.is_dir:
        return Text.assemble((quote(listed.path), "bold blue"), "/")
    if entry.kind == Kind.SYMLINK:
        return Text(quote(listed.path), "cyan")
    return Text(quote(listed.path), "green" if entry.mode & 0o111 else "")


@functools.cache
def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


@functools.cache
def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


def _grid(out: Output, names: Iterator[Text]) -> None:
    from rich.columns import Columns

    first = list(itertools.islice(names, GRID_NAMES + 1))
    if len(first) <= GRID_NAMES:
        if first:
            out.console.print(Columns(first, padding=(0, 2), column_first=True))
        return
    for name in itertools.chain(first, names):
        out.console.print(name, soft_wrap=True)


def _list_repositories(out: Output, store: Store, *, long: bool, null: bool) -> None:
    names = store.repositories()
    if null:
        out.raw(b"".join(name.encode() + b"\0" for name in names))
    elif out.json:
        out.array(repository_json(store.repository(name)) for name in names)
    elif long:
        write_repositories(out, [store.repository(name) for name in names])
    else:
        _write_names(out, names, "bold blue")


def _list_refs(out: Output, repository: Repository, *, long: bool, null: bool) -> None:
    from versionfs.cli.refs import named_commits

    branches, tags = named_commits(repository, "branch"), named_commits(repository, "tag")
    if null or not (long or out.json):
        names = [*repository.branches(), *(f"@{name}" for name in repository.tags())]
        if null:
            out.raw(b"".join(name.encode() + b"\0" for name in names))
        else:
            _write_names(out, names, "bold blue")
        return
    out.records(
        itertools.chain(branches, tags),
        as_json=lambda ref: ref.json(),
        as_plain=lambda ref: [
            ref.kind,
            short(ref.commit.id),
            local_time(ref.commit.time_ns),
            ref.folder,
        ],
        columns=[
            Column("KIND"),
            Column("COMMIT", "yellow"),
            Column("DATE", right=True),
            Column("SIZE", right=True),
            Column("NAME", "bold blue"),
        ],
        as_cells=lambda ref: [
            ref.kind,
            short(ref.commit.id),
            screen_time(ref.commit.time_ns),
            human_size(ref.commit.root.size),
            ref.folder,
        ],
    )


def _write_names(out: Output, names: Sequence[str], style: str) -> None:
    if not out.terminal:
        for name in names:
            out.line(name)
        return
    from rich.text import Text

    _grid(out, (Text(name, style) for name in names))


def repository_json(repository: Repository) -> dict[str, object]:
    """Returns a repository for --json."""
    return {
        "name": repository.name,
        "branches": list(repository.branches()),
        "tags": list(repository.tags()),
    }


def write_repositories(out: Output, repositories: Sequence[Repository]) -> None:
    """Writes repositories; plain lines have the fields: name, number of branches, of tags."""
    out.records(
        repositories,
        as_json=repository_json,
        as_plain=lambda repository: [
            repository.name,
            str(len(repository.branches())),
            str(len(repository.tags())),
        ],
        columns=[
            Column("REPOSITORY", "bold blue"),
            Column("BRANCHES", right=True),
            Column("TAGS", right=True),
        ],
        as_cells=lambda repository: [
            repository.name,
            str(len(repository.branches())),
            str(len(repository.tags())),
        ],
    )
