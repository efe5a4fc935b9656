"""``versionfs doctor`` and ``versionfs version``: what this installation is, and what it lacks."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import click

import versionfs
from versionfs.cli.command import command
from versionfs.cli.output import Column
from versionfs.cli.session import Session

if TYPE_CHECKING:
    from rich.text import Text

    from versionfs.fuse import Check

EXIT_MISSING = 1


@command("doctor", example="versionfs doctor")
@click.pass_obj
def doctor_command(session: Session) -> int:
    """Checks what a mount needs, and says how to get what is missing; then it exits with 1.

    Plain lines have the fields: ok or missing, name, what was found, what to do.
    """
    from versionfs.fuse import checks

    # The default store need not be there yet: the first import makes it.
    found = checks(session.settings if _has_store(session) else None)
    session.output.records(
        found,
        as_json=lambda check: {
            "name": check.name,
            "ok": check.ok,
            "detail": check.detail,
            "remedy": check.remedy or None,
        },
        as_plain=lambda check: [
            "ok" if check.ok else "missing",
            check.name,
            check.detail,
            check.remedy or "",
        ],
        columns=[Column(""), Column("CHECK"), Column("FOUND"), Column("WHAT TO DO")],
        as_cells=lambda check: [_mark(check), check.name, check.detail, check.remedy or ""],
    )
    return 0 if all(check.ok for check in found) else EXIT_MISSING


def _mark(check: Check) -> Text:
    from rich.text import Text

    return Text("ok", "green") if check.ok else Text("missing", "bold red")


def _has_store(session: Session) -> bool:
    settings = session.settings
    return not settings.default_store or Path(settings.store).exists()


@command("version", example="versionfs version --json")
@click.pass_obj
def version_command(session: Session) -> None:
    """Shows the version of versionfs; with --json, also of Python and of the system."""
    if session.output.json:
        session.output.document(
            {
                "version": versionfs.__version__,
                "python": platform.python_version(),
                "system": platform.platform(),
            }
        )
    else:
        session.output.line(f"versionfs {versionfs.__version__}")
