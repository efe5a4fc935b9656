"""``versionfs import``: a folder, file or tar becomes a commit."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from versionfs.cli.command import command, metadata_option
from versionfs.cli.formats import one_line, ratio, text_of
from versionfs.cli.progress import shown_progress
from versionfs.cli.session import Session
from versionfs.errors import InvalidInputError, NotFoundError, ReadOnlyError
from versionfs.readable import count, human_size
from versionfs.types import short

if TYPE_CHECKING:
    from versionfs.transfer import ImportResult


@command(
    "import",
    example="""
        versionfs import ~/pictures photos -m "first pictures"
        versionfs import new.jpg photos/main:2026/new.jpg
        curl -s https://example.org/set.tar | versionfs import - photos/dev --keep
    """,
)
@click.argument("source")
@click.argument("target", metavar="REPO[/BRANCH][:PATH]")
@click.option("-m", "--message", help='The commit message; "Import SOURCE" without it.')
@click.option("--keep", is_flag=True, help="Add and overwrite; remove nothing below PATH.")
@click.option("--checksum", is_flag=True, help="Read every file, even if it looks unchanged.")
@click.option("--skip-errors", is_flag=True, help="Leave out files that cannot be read.")
@click.option("--author", help="Who made the commit; USER@HOST without it.")
@metadata_option
@click.pass_obj
def import_command(
    session: Session,
    source: str,
    target: str,
    message: str | None,
    keep: bool,
    checksum: bool,
    skip_errors: bool,
    author: str | None,
    metadata: dict[str, str],
) -> None:
    """Stores SOURCE as a new commit on a branch.

    SOURCE is a folder, a file or a tar (- reads a tar from standard input). PATH (the root without
    it) then has exactly the content of SOURCE; with --keep, what was there and is not in SOURCE
    stays. The repository, the branch and the default store are made when they do not exist. A
    SOURCE that changes nothing makes no commit.

    Prints one line: files and bytes of SOURCE, bytes that were new, bytes stored for them
    (compressed), and the ratio of SOURCE to these.
    """
    from versionfs.cli.targets import format_spec, read_target, required
    from versionfs.repo.spec import DEFAULT_BRANCH
    from versionfs.transfer import import_source

    place = read_target(session, target)
    spec = required(place, "versionfs import SOURCE REPO[/BRANCH][:PATH]")
    if spec.revision is not None:
        raise ReadOnlyError(
            f"{format_spec(spec)} is a version of the past, which never changes",
            hint="import to a branch: REPO[/BRANCH][:PATH]",
        )
    if source != "-" and not os.path.lexists(source):
        raise NotFoundError(
            f"SOURCE {source} does not exist", hint="name a folder, a file or a tar"
        )
    if source == "-" and sys.stdin.isatty():
        raise InvalidInputError("- reads a tar from standard input, which is a terminal")
    branch = spec.branch or DEFAULT_BRANCH
    # Entries and ids by the ten thousand, and no cycles: looking for these takes 4 % of an import.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    with session.open_or_make_store(place.store) as store:
        with shown_progress(session, f"importing {spec.repository}/{branch}") as (report, warn):
            result = import_source(
                store,
                spec.repository,
                branch,
                spec.path,
                source,
                message=message or f"Import {one_line(source)}",
                author=author or session.settings.author,
                keep=keep,
                checksum=checksum,
                skip_errors=skip_errors,
                metadata=metadata,
                progress=report,
                stdin=sys.stdin.buffer if source == "-" else None,
                warn=warn,
            )
        if result.commit is not None:
            session.announce(store, spec.repository)
    _summarise(session, f"{spec.repository}/{branch}", result)


def _summarise(session: Session, branch: str, result: ImportResult) -> None:
    from versionfs.cli.versions import commit_json

    overall = ratio(result.stored_bytes, result.size_bytes)
    commit = result.commit or result.head
    if session.output.json:
        value: dict[str, Any] = {
            "branch": branch,
            "changed": result.commit is not None,
            "commit": commit_json(commit) if commit else None,
            "files": result.files,
            "bytes": result.size_bytes,
            "files_read": result.files_read,
            "new_bytes": result.new_bytes,
            "stored_bytes": result.stored_bytes,
            "ratio": overall,
            "skipped": [
                {"path": text_of(path), "reason": reason} for path, reason in result.skipped
            ],
            "seconds": round(result.seconds, 3),
        }
        session.output.document(value)
        return
    size = f"{count(result.files, 'file')}, {human_size(result.size_bytes)}"
    skipped = f", {len(result.skipped):,} skipped" if result.skipped else ""
    at = f" {short(commit.id)}" if commit else ""
    if result.commit is None:
        session.output.line(f"{branch}{at} unchanged: {size}{skipped}")
        return
    stored = f"{human_size(result.new_bytes)} new, {human_size(result.stored_bytes)} stored"
    times = f", ratio {overall:.2f}" if overall is not None else ""
    session.output.line(f"{branch}{at}: {size}, {stored}{times}{skipped} ({result.seconds:.1f} s)")
