"""``versionfs clone``: a repository or a whole store, copied to another store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from versionfs.cli.command import command
from versionfs.cli.progress import shown_progress
from versionfs.cli.session import Session
from versionfs.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    UnsupportedFormatError,
)
from versionfs.readable import count, human_size
from versionfs.types import short

if TYPE_CHECKING:
    from versionfs.repo import Store
    from versionfs.transfer import ClonedRef, CloneResult


@command(
    "clone",
    example="""
        versionfs clone ~/versions s3://bucket/versions
        versionfs clone s3://bucket/versions/photos /mnt/disk/versions
        versionfs clone --repo photos s3://bucket/versions /mnt/disk/versions
    """,
)
@click.argument("source", metavar="SRC_STORE[/REPO]")
@click.argument("target", metavar="DST_STORE")
@click.option("--repo", "repository", metavar="NAME", help="Copy this repository only.")
@click.option(
    "--force", is_flag=True, help="Move branches and tags of DST_STORE that have diverged too."
)
@click.pass_obj
def clone_command(
    session: Session, source: str, target: str, repository: str | None, force: bool
) -> None:
    """Copies a repository, or a whole store, into another store, which is made if it is missing.

    What is behind the last / of SRC_STORE is a repository when the whole is no store and the rest
    is one. Run again, it copies what is new, also after it was cut off.

    A branch that DST_STORE lacks is made, and one that is behind is moved forward. One that has
    commits of its own there, or a tag of another commit, is left alone (exit code 5).

    Plain lines have the fields: outcome (created, moved, same, ahead, diverged, damaged),
    REPO/BRANCH or REPO@TAG, commit; then one line of totals.
    """
    from versionfs.transfer import clone

    opened, named = _open_source(session, source, repository)
    with opened, _open_target(session, target, opened) as destination:
        with shown_progress(session, f"cloning {source}", unit="pack") as (report, warn):
            if opened.chunking != destination.chunking:
                warn(_cut_differently(destination))
            result = clone(opened, destination, named, force=force, progress=report)
        moved = {ref.repository for ref in result.refs if ref.outcome in ("created", "moved")}
        for name in sorted(moved):
            session.announce(destination, name)
        _write(session, destination, result)
        _raise_for(opened, destination, result)


def _open_source(session: Session, text: str, repository: str | None) -> tuple[Store, str | None]:
    """Opens the source; the last component of the text may name a repository."""
    from versionfs.config import with_store
    from versionfs.repo import Store

    try:
        return Store.open(with_store(session.settings, text)), repository
    except (NotFoundError, UnsupportedFormatError) as error:
        base, slash, last = text.rstrip("/").rpartition("/")
        if repository is not None or not slash or not last or base.endswith((":/", ":")):
            raise
        try:
            opened = Store.open(with_store(session.settings, base or "/"))
        except (NotFoundError, UnsupportedFormatError, InvalidInputError):
            raise error from None
    try:
        opened.repository(last)
    except BaseException:
        opened.close()
        raise
    return opened, last


def _open_target(session: Session, text: str, source: Store) -> Store:
    """Opens the target, making it with the source's chunk sizes when it is missing."""
    from versionfs.config import with_store
    from versionfs.objectstore import open_object_store
    from versionfs.repo import Store

    settings = with_store(session.settings, text)
    if open_object_store(settings).url == source.url:
        raise InvalidInputError(f"source and target are the same store, {source.url}")
    try:
        return Store.open(settings)
    except NotFoundError:
        pass
    try:
        return Store.create(settings, source.chunking)
    except AlreadyExistsError:
        return Store.open(settings)  # somebody else has just made it


def _cut_differently(target: Store) -> str:
    return (
        f"{target.url} cuts files in other places: what is imported or committed there again "
        "has other ids, and is stored again"
    )


def _spec(ref: ClonedRef) -> str:
    return f"{ref.repository}{'/' if ref.kind == 'branches' else '@'}{ref.name}"


def _write(session: Session, target: Store, result: CloneResult) -> None:
    if session.output.json:
        session.output.document(
            {
                "store": target.url,
                "store_id": target.id,
                "packs_copied": result.packs_copied,
                "packs_present": result.packs_present,
                "bytes_copied": result.bytes_copied,
                "damaged": result.damaged,
                "refs": [_as_json(ref) for ref in result.refs],
                "seconds": round(result.seconds, 3),
            }
        )
        return
    for ref in result.refs:
        session.output.line(f"{ref.outcome.value}\t{_spec(ref)}\t{short(ref.new.id)}")
    session.output.line(
        f"{target.url}: {count(result.packs_copied, 'pack')} copied, "
        f"{human_size(result.bytes_copied)}, {result.packs_present:,} there already "
        f"({result.seconds:.1f} s)"
    )


def _as_json(ref: ClonedRef) -> dict[str, Any]:
    return {
        "outcome": ref.outcome.value,
        "repository": ref.repository,
        "kind": "branch" if ref.kind == "branches" else "tag",
        "name": ref.name,
        "old": None if ref.old is None else ref.old.id.hex(),
        "new": ref.new.id.hex(),
    }


def _raise_for(source: Store, target: Store, result: CloneResult) -> None:
    """Raises when something of the source is not in the target.

    Raises:
        CorruptionError: because it is damaged.
        ConflictError: because the target has diverged.
    """
    damaged = [_spec(ref) for ref in result.refs if ref.outcome == "damaged"]
    if damaged or result.damaged:
        packs = f"{count(len(result.damaged), 'pack')} of {source.url} damaged or missing"
        names = f"; not published: {', '.join(damaged)}" if damaged else ""
        raise CorruptionError(
            packs + names,
            pack=result.damaged[0] if result.damaged else None,
            hint="restore the packs from another copy of the store, then clone again",
        )
    diverged = [_spec(ref) for ref in result.refs if ref.outcome == "diverged"]
    if diverged:
        raise ConflictError(
            f"{target.url} has other commits in {', '.join(diverged)}, which stay as they are",
            hint="--force moves them to where the source has them; the reflog keeps what was",
        )
