"""What changed in a file, as lines: a unified diff of files that are text."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from versionfs.cli.formats import mode_text, one_line, quote

if TYPE_CHECKING:
    from versionfs.repo import Store
    from versionfs.tree.diffing import Change
    from versionfs.types import Entry

SHOWN_BYTES: Final = 1024 * 1024
"""Files up to this size are compared by lines."""

_LOOKED_AT: Final = 8_000
"""Bytes that have no NUL if a file is text, as git has it."""


def read_entry(store: Store, entry: Entry | None) -> bytes | None:
    """Returns the bytes of a stored file that is not too large, or a symlink's target."""
    if entry is None or entry.is_dir:
        return None
    if not entry.is_file:
        return entry.target
    return store.contents.open(entry).read(0, SHOWN_BYTES + 1)


def patch_of(change: Change, old: bytes | None, new: bytes | None) -> list[str]:
    """Returns a change as lines without ends; ``old`` and ``new`` as :func:`read_entry` has them.

    A path that only came, went or has another mode is told in its first line, as is what is no
    text.
    """
    lines = [_heading(change)]
    if all(entry is None or entry.is_dir for entry in (change.old, change.new)):
        return lines
    a = old if change.old is not None and not change.old.is_dir else b""
    b = new if change.new is not None and not change.new.is_dir else b""
    if a is None or b is None:
        return [*lines, "Cannot be read from here"]
    if max(len(a), len(b)) > SHOWN_BYTES:
        return [*lines, f"Files differ (more than {SHOWN_BYTES >> 20} MiB)"]
    if b"\0" in a[:_LOOKED_AT] or b"\0" in b[:_LOOKED_AT]:
        return [*lines, "Binary files differ"] if a != b else lines
    name = quote(change.path)
    return lines + [
        line
        for text in difflib.unified_diff(
            _lines(a),
            _lines(b),
            "/dev/null" if change.old is None else f"a/{name}",
            "/dev/null" if change.new is None else f"b/{name}",
            lineterm="",
        )
        for line in text.split("\n")
    ]


def _heading(change: Change) -> str:
    name = quote(change.path)
    if change.old is None and change.new is not None:
        return f"added {mode_text(change.new)} {name}"
    if change.new is None and change.old is not None:
        return f"deleted {mode_text(change.old)} {name}"
    assert change.old is not None
    assert change.new is not None
    before, after = mode_text(change.old), mode_text(change.new)
    return f"modified {before if before == after else f'{before} to {after}'} {name}"


def _lines(data: bytes) -> list[str]:
    if not data:
        return []
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    if lines[-1] == "":
        lines.pop()
    else:
        lines[-1] += "\n\\ No newline at end of file"
    return [line if "\n" in line else _shown(line) for line in lines]


def _shown(line: str) -> str:
    # Control characters must not move the cursor; tabs are as they are.
    return "\t".join(one_line(part) for part in line.split("\t"))
