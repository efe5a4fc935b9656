"""``versionfs doctor`` and ``versionfs version``: what this installation is, and what it lacks."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import click

import versionfs
from versionfs.cli.command import command
from versionfs.cli.output import Column
from versionfs.cli.session import Session
from versionfs.errors import VersionFSError

if TYPE_CHECKING:
    from rich.text import Text

    from versionfs.fuse import Check

EXIT_MISSING = 1


@command("doctor", example="versionfs doctor")
@click.pass_obj
def doctor_command(session: Session) -> int:
    """Checks what a mount needs and says how to get what is missing; exits with 1 if anything is.

    Plain lines have the fields: ok or missing, name, what was found, what to do.
    """
    from versionfs.fuse import checks

    found = list(checks())
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
    if not session.output.json:
        _report_store(session)
    return 0 if all(check.ok for check in found) else EXIT_MISSING


def _mark(check: Check) -> Text:
    from rich.text import Text

    return Text("ok", "green") if check.ok else Text("missing", "bold red")


def _report_store(session: Session) -> None:
    # The store is no need of a mount's machinery: told on the side, never a failure.
    try:
        with session.open_store():
            pass
    except VersionFSError as error:
        session.warn(str(error))


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
