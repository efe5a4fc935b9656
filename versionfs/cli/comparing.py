"""``versionfs diff``: what changed between two versions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from versionfs.cli.command import command
from versionfs.cli.formats import quote, signed_size, text_of
from versionfs.cli.output import Column, Output
from versionfs.cli.session import Session
from versionfs.errors import InvalidInputError, NotFoundError
from versionfs.readable import human_size
from versionfs.tree.diffing import Change

if TYPE_CHECKING:
    from versionfs.cli.changes import Totals
    from versionfs.cli.targets import Target
    from versionfs.fuse.access import WorkspaceAccess
    from versionfs.repo import Store
    from versionfs.repo.spec import Spec
    from versionfs.types import Entry

EXIT_DIFFERENT = 1

_STYLES = {"A": "green", "D": "red", "M": "yellow", "T": "magenta"}


@command(
    "diff",
    example="""
        versionfs diff photos
        versionfs diff photos@~3 photos --stat
        versionfs diff photos/main@~3..dev:2026 --name-status
        cd ~/data/photos/main && versionfs diff -p
    """,
)
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--stat", is_flag=True, help="By how many bytes each file grew, and totals.")
@click.option("--name-status", is_flag=True, help="Only a letter and the path.")
@click.option("-z", "--null", is_flag=True, help="As --name-status, each field ended by NUL.")
@click.option("-p", "--patch", is_flag=True, help="The changed lines of files that are text.")
@click.option(
    "-w",
    "--workspace",
    is_flag=True,
    help="What is changed in a branch folder and not committed; A is a branch.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are differences.")
@click.pass_obj
def diff_command(
    session: Session,
    a: str | None,
    b: str | None,
    stat: bool,
    name_status: bool,
    null: bool,
    patch: bool,
    workspace: bool,
    exit_code: bool,
) -> int:
    """Shows what changed from A to B; with A alone, what A changed from its first parent.

    In a branch folder, without A or with a path in it as A: what is changed there and not
    committed. Anywhere else -w shows that of a branch: REPO[/BRANCH][:PATH].

    A and B are SPECs, of one repository or two; B may be short: @REV and :PATH are of A's branch.
    In A..B[:PATH], B is @REV or BRANCH[@REV] of A's repository, and PATH is compared in both.

    Plain lines have the fields: letter (A added, D deleted, M modified, T of another type), old
    size, new size (bytes; - for anything but a regular file), path. A folder's path ends in a
    slash. With --stat: letter, by how many bytes it grew, path; then an empty line and the totals.
    """
    if stat and (name_status or null):
        raise click.UsageError("--stat cannot go with --name-status or -z")
    if patch and (stat or name_status or null):
        raise click.UsageError("-p cannot go with --stat, --name-status or -z")
    if workspace and b is not None:
        raise click.UsageError("-w goes with one branch")
    left, right = _read_sides(session, a, b)
    shape = _Shape(stat=stat, name_status=name_status, null=null)
    if workspace or (left.is_workspace and right is None):
        number = _diff_workspace(session, left, shape, patch=patch)
    else:
        with session.open_store(left.store) as store:
            old, new = _entries(store, left, right)
            from versionfs.cli.changes import changes

            count = _Counted(changes(store, old, new))
            patches = _stored_patches(store) if patch else None
            _write(session.output, count, shape, patches)
            number = count.number
    return EXIT_DIFFERENT if exit_code and number else 0


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which form is asked for."""

    stat: bool
    name_status: bool
    null: bool


def _diff_workspace(session: Session, target: Target, shape: _Shape, *, patch: bool) -> int:
    """Writes what is changed in a branch folder; returns how many paths are."""
    from versionfs.cli.patches import SHOWN_BYTES, patch_of, read_entry
    from versionfs.cli.targets import required
    from versionfs.fuse.access import with_workspace
    from versionfs.repo.spec import DEFAULT_BRANCH

    spec = required(target, "versionfs diff -w [REPO[/BRANCH][:PATH]]")
    if spec.revision is not None:
        raise InvalidInputError(
            f"{spec} is a version of the past: nothing is changed in it", hint="leave out -w"
        )
    branch = spec.branch or DEFAULT_BRANCH
    with session.open_store(target.store, target.state) as store:

        def write(workspace: WorkspaceAccess) -> int:
            workspace.flush()
            found = _below(workspace.changes(full=True), spec.path)
            first = next(found, None)  # From here on the mount has answered.
            base = store.commits.read(workspace.status())

            def patches(change: Change) -> list[str]:
                assert isinstance(change, _Placed)
                whole = change.whole
                stored = store.trees.walk_path(base.root, whole) if change.old else None
                old = None if change.old is None else read_entry(store, stored)
                new: bytes | None = None
                if change.new is not None and change.new.is_file:
                    new = workspace.read(whole, SHOWN_BYTES + 1)
                elif change.new is not None:
                    new = change.new.target
                return patch_of(change, old, new)

            count = _Counted(() if first is None else chain([first], found))
            _write(session.output, count, shape, patches if patch else None)
            return count.number

        return with_workspace(store, spec.repository, branch, write)


class _Placed(Change):
    """A change below the path that is looked at, and where it is in the branch."""

    whole = b""


def _below(changes: Iterable[Change], top: bytes) -> Iterator[Change]:
    """Yields the changes at and below a path, with paths relative to it; its name if it is it."""
    for change in changes:
        path = change.path
        if top and change.path == top:
            is_dir = all(entry is None or entry.is_dir for entry in (change.old, change.new))
            path = b"." if is_dir else top.rpartition(b"/")[2]
        elif top and not change.path.startswith(top + b"/"):
            continue
        elif top:
            path = change.path[len(top) + 1 :]
        placed = _Placed(path, change.old, change.new)
        placed.whole = change.path
        yield placed


def _stored_patches(store: Store) -> Callable[[Change], list[str]]:
    from versionfs.cli.patches import patch_of, read_entry

    def patches(change: Change) -> list[str]:
        return patch_of(change, read_entry(store, change.old), read_entry(store, change.new))

    return patches


class _Counted:
    """Passes changes on and counts them."""

    def __init__(self, found: Iterable[Change]) -> None:
        from versionfs.cli.changes import Totals

        self._found = found
        self.number = 0
        self.totals: Totals = Totals()

    def __iter__(self) -> Iterator[Change]:
        for change in self._found:
            self.number += 1
            self.totals.add(change)
            yield change


def _read_sides(session: Session, a: str | None, b: str | None) -> tuple[Target, Target | None]:
    """Returns what A and B name; None for B when only A is given."""
    from versionfs.cli.targets import Target, is_short, read_target, required

    usage = "versionfs diff A [B], each REPO[/BRANCH][@REV][:PATH]"
    if a is not None and b is None and (parts := _split_range(a)) is not None:
        left = _read_start(session, parts[0])
        base = required(left, usage)
        other = _same_repository(parts[1], base)
        # A..B:PATH is about PATH in both.
        return left._replace(spec=base._replace(path=other.path)), Target(other, left.store)
    left = read_target(session, a)
    base = required(left, usage)
    if b is None:
        return left, None
    if is_short(b):
        return left, Target(_same_repository(b, base), left.store)
    right = read_target(session, b)
    if right.store != left.store:
        raise InvalidInputError("A and B are in two stores", hint="compare exports of them")
    required(right, usage)
    return left, right


def _split_range(text: str) -> tuple[str, str] | None:
    """Splits ``A..B``; None when it is none. Path syntax (./x, ../x) is never a range."""
    from versionfs.cli.targets import is_short
    from versionfs.repo.spec import parse_spec

    first, dots, second = text.partition("..")
    if not dots or not first or not second or text.startswith((".", "/")):
        return None
    if os.path.lexists(text) or parse_spec("r" * is_short(first) + first).path:
        return None
    return first, second


def _read_start(session: Session, text: str) -> Target:
    """Reads the A of ``A..B``: in a mount, a branch alone is one of the current repository."""
    from versionfs.cli.targets import read_target, relative_spec

    if "/" in text or text.startswith("@"):
        return read_target(session, text)
    here = read_target(session, None)
    if here.spec is None:
        return read_target(session, text)
    return here._replace(spec=relative_spec(text, here.spec))


def _same_repository(text: str, base: Spec) -> Spec:
    """Reads the B of ``A..B``: short, or a whole SPEC when it names a repository with a slash."""
    from versionfs.cli.targets import relative_spec
    from versionfs.repo.spec import parse_spec

    if "/" in re.split("[@:]", text, maxsplit=1)[0]:
        spec = parse_spec(text)
        return spec if ":" in text else spec._replace(path=base.path)
    return relative_spec(text, base)


def _entries(store: Store, left: Target, right: Target | None) -> tuple[Entry | None, Entry | None]:
    """Returns the two entries to compare.

    Raises:
        NotFoundError: a version or path that does not exist. With A alone, only if neither A nor
            its parent has the path.
    """
    from versionfs.cli.changes import parent_of
    from versionfs.cli.targets import find_entry, required, resolve

    spec = required(left, "")
    repository, commit = resolve(store, spec)
    if right is not None:
        other = required(right, "")
        _, other_commit = resolve(store, other)
        return find_entry(store, commit, spec), find_entry(store, other_commit, other)
    parent = parent_of(repository, commit)
    before = store.trees.walk_path(parent.root, spec.path) if parent and spec.path else None
    if not spec.path:
        return (parent.root if parent else None), commit.root
    try:
        return before, find_entry(store, commit, spec)
    except NotFoundError:
        if before is None:
            raise
        return before, None


def _write(
    out: Output,
    found: _Counted,
    shape: _Shape,
    patches: Callable[[Change], list[str]] | None,
) -> None:
    from versionfs.cli.changes import delta, letter

    if out.json and patches is not None:
        out.array(_change_json(change) | {"patch": patches(change)} for change in found)
    elif out.json:
        out.array(map(_change_json, found))
    elif patches is not None:
        _write_patches(out, found, patches)
    elif shape.null:
        for change in found:
            out.raw(letter(change).encode() + b"\0" + change.path + b"\0")
    elif shape.name_status:
        if out.terminal:
            out.table([Column(""), Column("")], ([letter_cell(c), shown_path(c)] for c in found))
        else:
            for change in found:
                out.line(f"{letter(change)}\t{shown_path(change)}")
    elif shape.stat:
        _write_stat(out, found)
    else:
        out.records(
            found,
            as_json=_change_json,
            as_plain=lambda change: [
                letter(change),
                _size(change.old),
                _size(change.new),
                shown_path(change),
            ],
            columns=[
                Column(""),
                Column("OLD", right=True),
                Column("NEW", right=True),
                Column("CHANGE", right=True),
                Column("PATH"),
            ],
            as_cells=lambda change: [
                letter_cell(change),
                _size(change.old, human=True),
                _size(change.new, human=True),
                signed_size(delta(change)) if delta(change) else "",
                shown_path(change),
            ],
        )


_PATCH_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def _write_patches(
    out: Output, found: Iterable[Change], patches: Callable[[Change], list[str]]
) -> None:
    for change in found:
        for line in patches(change):
            if not out.terminal:
                out.line(line)
                continue
            style = "bold" if line.startswith(("+++ ", "--- ")) else _PATCH_STYLES.get(line[:1])
            out.console.print(line, style=style, soft_wrap=True)


def _write_stat(out: Output, found: _Counted) -> None:
    from versionfs.cli.changes import delta, letter

    if out.terminal:
        out.table(
            [Column(""), Column("CHANGE", right=True), Column("PATH")],
            ([letter_cell(c), signed_size(delta(c)), shown_path(c)] for c in found),
        )
    else:
        for change in found:
            out.line(f"{letter(change)}\t{delta(change):+d}\t{shown_path(change)}")
    _write_totals(out, found.totals)


def _write_totals(out: Output, totals: Totals) -> None:
    grown = signed_size(totals.delta_bytes) if out.terminal else f"{totals.delta_bytes:+d} bytes"
    out.line()
    out.line(f"{totals.text()}; {grown}")


def letter_cell(change: Change) -> Any:
    """Returns the letter of a change, in its colour."""
    from rich.text import Text

    from versionfs.cli.changes import letter

    return Text(letter(change), _STYLES[letter(change)])


def shown_path(change: Change) -> str:
    """Returns the path of a change; a folder's ends in a slash."""
    entry = change.new or change.old
    return quote(change.path + (b"/" if entry is not None and entry.is_dir else b""))


def _size(entry: Entry | None, *, human: bool = False) -> str:
    from versionfs.cli.changes import size_of

    size = size_of(entry)
    if size is None:
        return "-"
    return human_size(size) if human else str(size)


def _change_json(change: Change) -> dict[str, Any]:
    from versionfs.cli.changes import delta, letter
    from versionfs.cli.versions import entry_json

    return {
        "status": letter(change),
        "path": text_of(change.path),
        "delta_bytes": delta(change),
        "old": entry_json(change.old) if change.old else None,
        "new": entry_json(change.new) if change.new else None,
    }
