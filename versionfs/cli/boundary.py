"""The error boundary: every failure becomes one line, a hint and an exit code; never a traceback.

The traceback of what nobody expected goes to a file below ``state_dir/logs``, or to the screen
with VERSIONFS_DEBUG=1.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from versionfs.cli.formats import one_line, quote
from versionfs.cli.session import Session
from versionfs.errors import MountError, OverlapError, SourceError, VersionFSError

EXIT_USAGE = 2
EXIT_SYSTEM = 71
"""An operating system error outside the store (EX_OSERR of sysexits.h)."""
EXIT_BUG = 70
"""An error in versionfs itself (EX_SOFTWARE of sysexits.h)."""
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
EXIT_PIPE = 141
"""128 + SIGPIPE, as a shell reports it."""


def run(session: Session, body: Callable[[], int]) -> int:
    """Runs ``body`` and returns the exit code; whatever it raises is reported on standard error."""
    try:
        code = body()
        session.tell_errors()
        sys.stdout.flush()  # here, so that a full disk or a closed pipe is reported too
    except BrokenPipeError:
        _abandon_stdout()
        return EXIT_PIPE
    except Exception as error:  # noqa: BLE001 (this is the boundary)
        code = _report(session, error)
    except KeyboardInterrupt:
        _say("interrupted")
        code = EXIT_INTERRUPTED
    return code


def _report(session: Session, error: Exception) -> int:
    _flush_stdout()
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if session.debug and not isinstance(error, click.ClickException):
        import traceback

        traceback.print_exception(error)
    session.tell_errors(getattr(error, "message", None))
    if isinstance(error, VersionFSError):
        problems = error.problems if isinstance(error, SourceError | OverlapError) else []
        _say(error.message, error.hint, [f"{quote(path)}: {why}" for path, why in problems])
        return error.exit_code
    if isinstance(error, ImportError) and error.name in ("pyfuse3", "pyfuse3.asyncio"):
        missing = MountError(
            f"a mount needs pyfuse3, which cannot be loaded: {error}",
            hint="install libfuse3 and its headers, pkg-config and gcc, then `pip install pyfuse3`",
        )
        _say(missing.message, missing.hint)
        return missing.exit_code
    if isinstance(error, click.Abort):
        _say("interrupted")
        return EXIT_INTERRUPTED
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    if isinstance(error, click.UsageError):
        context = error.ctx
        _say(
            error.format_message(),
            f"`{context.command_path} --help` shows how it is used" if context else None,
        )
        return EXIT_USAGE
    if isinstance(error, click.ClickException):
        _say(error.format_message())
        return error.exit_code
    log = _write_traceback(session, error)
    details = f"details are in {log}" if log else "VERSIONFS_DEBUG=1 shows the details"
    if isinstance(error, OSError):
        name = error.filename if isinstance(error.filename, str | bytes) else ""
        _say(": ".join(filter(None, (os.fsdecode(name), error.strerror or str(error)))), details)
        return EXIT_SYSTEM
    _say(f"this is a bug in versionfs: {type(error).__name__}: {error}", f"{details}; report it")
    return EXIT_BUG


def _say(message: str, hint: str | None = None, details: list[str] | None = None) -> None:
    lines = [f"versionfs: {one_line(message)}"]
    lines.extend(f"  {one_line(detail)}" for detail in details or [])
    if hint:
        lines.append(f"  hint: {one_line(hint)}")
    with contextlib.suppress(OSError):  # if nobody can read it, the exit code has to do
        click.echo("\n".join(lines), err=True)


def _flush_stdout() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _abandon_stdout()


def _abandon_stdout() -> None:
    # The interpreter flushes standard output when it ends: give it somewhere to go.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _write_traceback(session: Session, error: Exception) -> Path | None:
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    name = f"versionfs-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    try:
        folder = session.settings.state_dir / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except (OSError, VersionFSError):
        path = Path(tempfile.gettempdir()) / name
        try:
            with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            return None
    return path
