"""How values look as text: names, times, sizes, modes, specs. Pure functions."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

from versionfs.readable import human_size
from versionfs.types import Entry, Kind

NANOSECONDS = 1_000_000_000

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}

_KINDS = {
    Kind.FILE: "file",
    Kind.LARGE: "file",
    Kind.DIRECTORY: "directory",
    Kind.SYMLINK: "symlink",
}

_FILE_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.LARGE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
}


def text_of(name: bytes) -> str:
    """Returns a name as text; bytes that are not UTF-8 become surrogates (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")


def quote(name: bytes) -> str:
    r"""Returns a name fit for one line of output, quoted as git does with core.quotePath=false.

    Names of printable characters stay as they are. Any other name, and one with a double quote or
    a backslash, is put in double quotes, with C escapes and ``\ooo`` for each other byte.
    """
    text = text_of(name)
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return f'"{_escape(text)}"'


def one_line(text: str) -> str:
    """Returns text with everything that could move a cursor or end a line escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in '"\\' else _escape(c) for c in text)


def _escape(text: str) -> str:
    parts: list[str] = []
    for char in text:
        if char in _ESCAPES:
            parts.append(_ESCAPES[char])
        elif char.isprintable():
            parts.append(char)
        else:
            parts.extend(f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape"))
    return "".join(parts)


def local_time(time_ns: int) -> str:
    """Returns a time in the local zone, as ISO 8601 with the zone's offset, to the second.

    A time that the calendar does not hold (before year 1, after year 9999) is ``@SECONDS``.
    """
    seconds = time_ns // NANOSECONDS
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"@{seconds}"


def screen_time(time_ns: int) -> str:
    """Returns a time for people: as ``local_time``, to the minute and without the zone's offset."""
    text = local_time(time_ns)
    return text if text.startswith("@") else text[:16].replace("T", " ")


def signed_size(size_bytes: int) -> str:
    """Returns a difference of bytes for people, with its sign."""
    sign = "-" if size_bytes < 0 else "+"
    return sign + human_size(abs(size_bytes))


def ratio(part: int, whole: int) -> float | None:
    """Returns ``whole / part``, rounded to hundredths; None when nothing was stored."""
    return round(whole / part, 2) if part > 0 else None


def kind_name(kind: int) -> str:
    """Returns what an entry is, as a word: ``file``, ``directory`` or ``symlink``."""
    return _KINDS[Kind(kind)]


def full_mode(entry: Entry) -> int:
    """Returns the entry's permission bits together with its file type, as ``st_mode`` has them."""
    return stat.S_IMODE(entry.mode) | _FILE_TYPES[Kind(entry.kind)]


def mode_text(entry: Entry) -> str:
    """Returns the mode as ``ls -l`` writes it."""
    return stat.filemode(full_mode(entry))
