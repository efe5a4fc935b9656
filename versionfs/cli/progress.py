"""How far a long transfer is, on standard error: files, bytes, rate, time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from versionfs.cli.formats import one_line
from versionfs.cli.output import make_console

if TYPE_CHECKING:
    from versionfs.cli.session import Session


class Progress(Protocol):
    """What a transfer reports; totals are None while they are not known."""

    @property
    def files(self) -> int:
        """Files done."""

    @property
    def bytes(self) -> int:
        """Bytes done."""

    @property
    def files_total(self) -> int | None:
        """Files there are."""

    @property
    def bytes_total(self) -> int | None:
        """Bytes there are."""


Report = Callable[[Progress], None]
Warn = Callable[[str], None]


@contextmanager
def shown_progress(
    session: Session, title: str, *, unit: str = "file"
) -> Iterator[tuple[Report | None, Warn]]:
    """Shows progress on a terminal while the body runs; yields where to report and to warn.

    ``unit`` is what the files of a report are. Both may be called from any thread. Standard error
    that is no terminal gets warnings only.
    """
    if not sys.stderr.isatty():
        yield None, session.warn
        return
    from rich import progress as bars
    from rich.text import Text

    display = bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=24),
        bars.TextColumn("{task.fields[files]}", markup=False),
        bars.DownloadColumn(binary_units=True),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
        console=make_console(session.color, stderr=True),
        transient=True,
    )
    task = display.add_task(title, total=None, files="")

    def report(state: Progress) -> None:
        done, total = state.files, state.files_total
        of = f" of {total:,}" if total is not None else ""
        files = f"{done:,}{of} {unit}s"
        display.update(task, completed=state.bytes, total=state.bytes_total, files=files)

    def warn(message: str) -> None:
        display.console.print(Text(f"versionfs: warning: {one_line(message)}"), soft_wrap=True)

    with display:
        yield report, warn
