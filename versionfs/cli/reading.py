"""``versionfs cat``: the bytes of files."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from versionfs.cli.command import command
from versionfs.cli.formats import quote
from versionfs.cli.session import Session
from versionfs.errors import InvalidInputError

if TYPE_CHECKING:
    from versionfs.repo import Store
    from versionfs.types import Entry

PIECE_BYTES: Final = 3 << 19
"""Bytes read at a time: a multiple of 3, so that pieces of base64 join without padding."""


@command(
    "cat",
    example="""
        versionfs cat photos@~1:2026/notes.txt
        versionfs cat photos:a.csv photos:b.csv > both.csv
    """,
)
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@click.pass_obj
def cat_command(session: Session, specs: tuple[str, ...]) -> None:
    """Writes the bytes of files to standard output, one after the other.

    With --json, an array of objects with the fields of `ls --json` and "base64", the content.
    """
    from versionfs.cli.targets import find_entry, read_target, required, resolve
    from versionfs.cli.versions import entry_json

    targets = [read_target(session, text) for text in specs]
    out = session.output
    separator = "["
    for target, text in zip(targets, specs, strict=True):
        named = required(target, "versionfs cat REPO[/BRANCH][@REV]:PATH")
        with session.open_store(target.store) as store:
            _, commit = resolve(store, named)
            entry = _file(find_entry(store, commit, named), text)
            if not out.json:
                for piece in _pieces(store, entry):
                    out.raw(piece)
                continue
            fields = json.dumps(entry_json(entry, named.path))
            sys.stdout.write(f'{separator}\n  {fields[:-1]}, "base64": "')
            for piece in _pieces(store, entry):
                sys.stdout.write(base64.b64encode(piece).decode("ascii"))
            sys.stdout.write('"}')
            separator = ","
    if out.json:
        out.line("\n]")


def _file(entry: Entry, text: str) -> Entry:
    if entry.is_dir:
        raise InvalidInputError(f"{text} is a folder", hint=f"`versionfs ls {text}` lists it")
    if not entry.is_file:
        raise InvalidInputError(
            f"{text} is a symlink to {quote(entry.target)}", hint="name the file it leads to"
        )
    return entry


def _pieces(store: Store, entry: Entry) -> Iterator[bytes]:
    content = store.contents.open(entry)
    offset = 0
    while piece := content.read(offset, PIECE_BYTES):
        offset += len(piece)
        yield piece
