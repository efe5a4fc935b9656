"""``versionfs show``: one commit, or one entry of it, in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from versionfs.cli.command import command
from versionfs.cli.formats import (
    kind_name,
    local_time,
    mode_text,
    one_line,
    quote,
    signed_size,
    text_of,
)
from versionfs.cli.session import Session
from versionfs.readable import count, human_size
from versionfs.types import Kind, short

if TYPE_CHECKING:
    from versionfs.cli.changes import Totals
    from versionfs.repo import Repository, Store
    from versionfs.types import Commit, Entry


@command(
    "show",
    example="""
        versionfs show photos@~1
        versionfs show photos/dev:2026/a.jpg
    """,
)
@click.argument("spec", required=False)
@click.pass_obj
def show_command(session: Session, spec: str | None) -> None:
    """Shows a commit and what it changed; with a PATH, what is known of that file or folder.

    Plain lines are NAME<TAB>VALUE; of a commit, then an empty line and its message.
    """
    from versionfs.cli.targets import find_entry, read_target, required, resolve

    target = read_target(session, spec)
    named = required(target, "versionfs show REPO[/BRANCH][@REV][:PATH]")
    with session.open_store(target.store) as store:
        repository, commit = resolve(store, named)
        if named.path:
            _show_entry(session, commit, find_entry(store, commit, named), named.path)
        else:
            _show_commit(session, store, repository, commit)


def _show_commit(session: Session, store: Store, repository: Repository, commit: Commit) -> None:
    from versionfs.cli.changes import parent_of, total
    from versionfs.cli.versions import commit_json, decorations

    names = decorations(repository)
    parent = parent_of(repository, commit)
    totals = total(store, parent.root if parent else None, commit.root)
    out = session.output
    if out.json:
        value = {"repository": repository.name, **commit_json(commit, names)}
        value["changes"] = {
            "added": totals.added,
            "deleted": totals.deleted,
            "modified": totals.modified,
            "type_changed": totals.retyped,
            "delta_bytes": totals.delta_bytes,
        }
        out.document(value)
        return
    pairs = [
        ("commit", commit.id.hex() if out.terminal else short(commit.id)),
        ("repository", repository.name),
        ("names", ", ".join(names.get(commit.id, []))),
        ("number", str(commit.number)),
        ("date", local_time(commit.time_ns)),
        ("author", one_line(commit.author)),
        ("parents", " ".join(short(parent.id) for parent in commit.parents)),
        ("tree", short(commit.root.content)),
        ("files", f"{commit.root.files:,}" if out.terminal else str(commit.root.files)),
        ("size", human_size(commit.root.size) if out.terminal else str(commit.root.size)),
        ("changes", _changes_text(totals, terminal=out.terminal)),
        *((f"metadata {one_line(k)}", one_line(v)) for k, v in sorted(commit.metadata.items())),
    ]
    out.pairs([(name, value) for name, value in pairs if value or not out.terminal])
    out.line()
    for line in commit.message.rstrip("\n").split("\n"):
        out.line(one_line(line))


def _changes_text(totals: Totals, *, terminal: bool) -> str:
    grown = signed_size(totals.delta_bytes) if terminal else f"{totals.delta_bytes:+d} bytes"
    return f"{totals.text()}; {grown}"


def _show_entry(session: Session, commit: Commit, entry: Entry, path: bytes) -> None:
    from versionfs.cli.versions import entry_json

    out = session.output
    if out.json:
        out.document({"commit": commit.id.hex(), **entry_json(entry, path)})
        return
    size = human_size(entry.size) if out.terminal else str(entry.size)
    if out.terminal and entry.size >= 1024:
        size += f" ({count(entry.size, 'byte')})"
    pairs = [
        ("path", quote(path)),
        ("commit", short(commit.id)),
        ("kind", kind_name(entry.kind)),
        ("mode", mode_text(entry)),
        ("owner", f"{entry.uid}:{entry.gid}"),
        ("size", size),
        ("modified", local_time(entry.mtime_ns)),
    ]
    if entry.is_dir:
        pairs.append(("files", str(entry.files)))
    if entry.kind == Kind.SYMLINK:
        pairs.append(("target", quote(entry.target)))
    else:
        pairs.append(("id", short(entry.content)))
    pairs.extend((f"xattr {one_line(text_of(n))}", quote(v)) for n, v in entry.xattrs)
    out.pairs(pairs)
