"""``versionfs fetch``: looks for what other machines committed, and lets mounts show it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from versionfs.cli.command import command
from versionfs.cli.output import Column
from versionfs.cli.session import Session
from versionfs.errors import NotFoundError
from versionfs.types import short

if TYPE_CHECKING:
    from versionfs.repo import RefMove
    from versionfs.types import NodeRef


@command(
    "fetch",
    example="""
        versionfs fetch
        versionfs fetch photos
    """,
)
@click.argument("spec", required=False)
@click.pass_obj
def fetch_command(session: Session, spec: str | None) -> None:
    """Looks at the branches and tags of the store now; with SPEC, at those of its repository.

    Tells what moved since this machine looked last, and has running mounts show it: they look by
    themselves only every few seconds. No data is fetched; that happens when it is read.

    Plain lines have the fields: repository, branch or tag, its name, the commit it was at (empty:
    it is new), the commit it is at (empty: it was deleted).
    """
    from versionfs.cli.targets import here_store, read_target

    target = None if spec is None else read_target(session, spec)
    place = here_store(session) if target is None else target.store
    named = None if target is None else target.spec
    repository = None if named is None else named.repository
    with session.open_store(place) as store:
        try:
            moves = store.refs.look(repository)
        except NotFoundError:
            if repository is not None:
                store.repository(repository)  # its error names those that look alike
            raise
        session.announce(store, repository)
    session.output.records(
        moves,
        as_json=_json,
        as_plain=lambda move: [
            move.repository, _kind(move), move.name, _short(move.old), _short(move.new)
        ],
        columns=[
            Column("REPOSITORY", "blue"), Column("KIND"), Column("NAME", "bold"),
            Column("WAS"), Column("IS"),
        ],
        as_cells=lambda move: [
            move.repository, _kind(move), move.name,
            _short(move.old) or "(new)", _short(move.new) or "(deleted)",
        ],
    )  # fmt: skip


def _json(move: RefMove) -> dict[str, Any]:
    return {
        "repository": move.repository,
        "kind": _kind(move),
        "name": move.name,
        "old": None if move.old is None else move.old.id.hex(),
        "new": None if move.new is None else move.new.id.hex(),
    }


def _kind(move: RefMove) -> str:
    return "branch" if move.kind == "branches" else "tag"


def _short(ref: NodeRef | None) -> str:
    return "" if ref is None else short(ref.id)
