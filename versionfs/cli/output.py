r"""Where results go: tables on a terminal, plain lines in a pipe, one JSON document with --json.

Plain lines are stable: fields are separated by tabs, names are quoted by ``formats.quote`` and free
text by ``formats.one_line``. JSON is ASCII: a byte of a name that is not UTF-8 is the escape
``\udcXX``, which Python's ``os.fsencode`` turns back into the byte.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

T = TypeVar("T")
Color = Literal["auto", "always", "never"]

TABLE_ROWS = 2000
"""Rows that are laid out together on a terminal; longer results come as several tables."""


class Column(NamedTuple):
    """One column of a table on a terminal."""

    title: str
    style: str = ""
    right: bool = False
    shorten: bool = False
    """Whether a cell too wide ends in an ellipsis; otherwise it is folded."""


class Output:
    """Standard output, in the form that the user asked for."""

    def __init__(self, *, as_json: bool, color: Color) -> None:
        self.json = as_json
        self._color = color
        self.terminal = not as_json and (color == "always" or sys.stdout.isatty())
        """Whether to write for people: tables, colours, rounded sizes."""

    @cached_property
    def console(self) -> Console:
        """The rich console of standard output."""
        return make_console(self._color, stderr=False)

    def line(self, text: str = "") -> None:
        """Writes one line as it is."""
        sys.stdout.write(text + "\n")

    def raw(self, data: bytes | memoryview) -> None:
        """Writes bytes as they are."""
        sys.stdout.buffer.write(data)

    def document(self, value: object) -> None:
        """Writes one JSON value."""
        sys.stdout.write(json.dumps(value, indent=2) + "\n")

    def array(self, values: Iterable[object]) -> None:
        """Writes one JSON array as the values come, each on a line of its own."""
        write = sys.stdout.write
        separator = "["
        for value in values:
            write(separator + "\n  " + json.dumps(value))
            separator = ","
        write("[]\n" if separator == "[" else "\n]\n")

    def records(
        self,
        items: Iterable[T],
        *,
        as_json: Callable[[T], object],
        as_plain: Callable[[T], Sequence[str]],
        columns: Sequence[Column],
        as_cells: Callable[[T], Sequence[str | Text]],
    ) -> None:
        """Writes like items: a JSON array, tab-separated lines, or a table with a heading."""
        if self.json:
            self.array(map(as_json, items))
        elif self.terminal:
            self.table(columns, map(as_cells, items))
        else:
            for item in items:
                self.line("\t".join(as_plain(item)))

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
        """Writes a table, streaming: memory is bounded however many rows there are."""
        from rich.table import Table
        from rich.text import Text

        remaining = iter(rows)
        heading = any(column.title for column in columns)
        while batch := list(itertools.islice(remaining, TABLE_ROWS)):
            table = Table(box=None, pad_edge=False, show_header=heading, header_style="bold")
            for column in columns:
                table.add_column(
                    column.title,
                    style=column.style,
                    justify="right" if column.right else "left",
                    no_wrap=column.shorten or column.right,
                    overflow="ellipsis" if column.shorten else "fold",
                )
            for row in batch:
                table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
            self.console.print(table)
            heading = False

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Writes named values: aligned on a terminal, ``name<TAB>value`` in a pipe."""
        if self.terminal:
            self.table([Column("", "bold"), Column("")], pairs)
        else:
            for name, value in pairs:
                self.line(f"{name}\t{value}")


def make_console(color: Color, *, stderr: bool) -> Console:
    """Returns a rich console that obeys ``--color``; markup and highlighting are off."""
    from rich.console import Console

    return Console(
        stderr=stderr,
        force_terminal=True if color == "always" else None,
        no_color=True if color == "never" else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
