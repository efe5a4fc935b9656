"""Which folders of packs are as they were when they were listed, in a store in a local folder.

To list all packs takes a look at each, and a commit would do that before anything else. A folder
whose times are what they were has the names that it had. That a file was cut short it does not
tell: all are listed again within the hour, and a pack is looked at before anything is deduplicated
against it (:mod:`versionfs.chunkstore.wholepacks`).
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from versionfs.syscalls import SEEN_BYTES, UNSEEN, seen, unchanged

FOLDERS: Final = 256
FULL_SECONDS: Final = 3600.0
"""How long the folders are trusted after all packs were listed."""

_SETTLED_NS: Final = 2_000_000_000
"""An mtime may be as old as this and yet come again, with another name in the folder: clocks have
steps."""
_MISSING: Final = b"\xff" * SEEN_BYTES
_NAMES: Final = [b"%02x" % at for at in range(FOLDERS)]
_LISTED: Final = struct.Struct("<q")
_BYTES: Final = _LISTED.size + SEEN_BYTES * (1 + FOLDERS)
_WORTH: Final = 16
"""Folders that are listed anew each time before it is written down how they are: to write waits for
the disk."""


class Folders(NamedTuple):
    """How the folders were.

    ``listed_ns`` is when all packs were listed; ``top`` is what was seen of the folder that they
    are in, ``folders`` of each: UNSEEN of one that has to be listed, _MISSING of one that is not
    there.
    """

    listed_ns: int
    top: bytes
    folders: Sequence[bytes]

    def encode(self) -> bytes:
        """Returns it as bytes."""
        return b"".join((_LISTED.pack(self.listed_ns), self.top, *self.folders))

    @classmethod
    def decode(cls, value: bytes) -> Folders | None:
        """Returns what was encoded; None for anything else."""
        if len(value) != _BYTES:
            return None
        (listed_ns,) = _LISTED.unpack_from(value)
        first, *folders = range(_LISTED.size, _BYTES, SEEN_BYTES)
        parts = [value[at : at + SEEN_BYTES] for at in folders]
        return cls(listed_ns, value[first : first + SEEN_BYTES], parts)

    def are_recent(self, now_ns: int) -> bool:
        """Whether all packs were listed not long ago."""
        return 0 <= now_ns - self.listed_ns < FULL_SECONDS * 1e9

    def missing(self) -> list[int]:
        """Returns the folders that are not there."""
        return [at for at, old in enumerate(self.folders) if old == _MISSING]

    def is_worth_writing(self, now: Folders) -> bool:
        """Whether so many folders changed that they should be remembered as they are now."""
        pairs = zip(self.folders, now.folders, strict=True)
        return sum(old != new != UNSEEN for old, new in pairs) >= _WORTH


def look(packs: Path, now_ns: int) -> Folders:
    """Returns how the folders below ``packs`` are; for when all will be listed."""
    return look_again(packs, Folders(now_ns, UNSEEN, [_MISSING] * FOLDERS))[0]


def look_again(packs: Path, before: Folders) -> tuple[Folders, list[int]]:
    """Returns how the folders are now, and which are to be listed.

    One that changed just now is to be listed the next time, too.
    """
    prefix = os.fsencode(packs) + b"/"
    latest = time.time_ns() - _SETTLED_NS
    folders = list(before.folders)
    top = _seen(prefix, latest)
    there = [at for at, old in enumerate(folders) if old != _MISSING]
    others = unchanged(prefix, [_NAMES[at] for at in there], [folders[at] for at in there]).others
    changed = [there[at] for at in others]
    if top == UNSEEN or top != before.top:
        names = set()
        try:
            names = set(os.listdir(prefix))
        except FileNotFoundError:
            pass
        except OSError:
            names = set(_NAMES)  # Any may have come.
        changed += [at for at in before.missing() if _NAMES[at] in names]
    for at in changed:
        folders[at] = _seen(prefix + _NAMES[at], latest)
    return Folders(before.listed_ns, top, folders), sorted(changed)


def _seen(path: bytes, latest: int) -> bytes:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return _MISSING
    except OSError:
        return UNSEEN
    settled = stat.S_ISDIR(status.st_mode) and 0 < status.st_mtime_ns < latest
    return seen(status) if settled else UNSEEN


def folder_key(at: int) -> str:
    """Returns the prefix of the keys of the packs in a folder."""
    return f"packs/{at:02x}/"
