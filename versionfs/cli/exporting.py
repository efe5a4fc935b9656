"""``versionfs export``: a version becomes a plain folder or file."""

from __future__ import annotations

from pathlib import Path

import click

from versionfs.cli.command import command
from versionfs.cli.progress import shown_progress
from versionfs.cli.session import Session
from versionfs.readable import count, human_size


@command(
    "export",
    example="""
        versionfs export photos@v1.0 ~/pictures-1.0
        versionfs export photos/main@~3:2026/a.jpg old-a.jpg
    """,
)
@click.argument("spec")
@click.argument("destination", metavar="DEST")
@click.pass_obj
def export_command(session: Session, spec: str, destination: str) -> None:
    """Writes the folder or file that SPEC names to DEST, with modes, times, links and holes.

    DEST must not exist, or be an empty folder.
    """
    from versionfs.cli.targets import find_entry, format_spec, read_target, required, resolve
    from versionfs.transfer import export

    target = read_target(session, spec)
    named = required(target, "versionfs export SPEC DEST")
    with session.open_store(target.store) as store:
        _, commit = resolve(store, named)
        entry = find_entry(store, commit, named)
        with shown_progress(session, f"exporting {format_spec(named)}") as (report, warn):
            result = export(store, entry, Path(destination), progress=report, warn=warn)
    if session.output.json:
        session.output.document(
            {
                "commit": commit.id.hex(),
                "destination": destination,
                "files": result.files,
                "bytes": result.bytes,
            }
        )
        return
    session.output.line(
        f"{destination}: {count(result.files, 'file')}, {human_size(result.bytes)}"
        f" from {format_spec(named, branch=True)}"
    )
