"""Which folders of packs are as they were when they were listed, in a store in a local folder.

To list all packs takes a look at each, and a commit would do that before anything else. A folder
whose mtime is what it was has the names that it had. That a file was cut short it does not tell:
all are listed again within the hour, and a pack is looked at before anything is deduplicated
against it (:mod:`versionfs.chunkstore.wholepacks`).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

FOLDERS: Final = 256
FULL_SECONDS: Final = 3600.0
"""How long the folders are trusted after all packs were listed."""

_SETTLED_NS: Final = 2_000_000_000
"""An mtime may be as old as this and yet come again, with another name in the folder: clocks have
steps."""
_NAME_LENGTH: Final = 2
_MISSING: Final = -1
_RECENT: Final = 0
_FORMAT: Final = struct.Struct(f"<q{FOLDERS}q")
_WORTH: Final = 16
"""Folders that are listed anew each time before it is written down how they are: to write waits for
the disk."""

Times = tuple[int, ...]
"""The mtime in ns of each folder; _MISSING, or _RECENT for one that has to be listed."""


class Folders(NamedTuple):
    """What is remembered: when all packs were listed, in ns, and the times since."""

    listed_ns: int
    times: Times

    def encode(self) -> bytes:
        """Returns it as bytes."""
        return _FORMAT.pack(self.listed_ns, *self.times)

    @classmethod
    def decode(cls, value: bytes) -> Folders | None:
        """Returns what was encoded; None for anything else."""
        if len(value) != _FORMAT.size:
            return None
        listed_ns, *times = _FORMAT.unpack(value)
        return cls(listed_ns, tuple(times))

    def are_recent(self, now_ns: int) -> bool:
        """Whether all packs were listed not long ago."""
        return 0 <= now_ns - self.listed_ns < FULL_SECONDS * 1e9

    def changed(self, now: Times) -> list[int]:
        """Returns the folders that are not as they were."""
        return [at for at, old in enumerate(self.times) if old != now[at] or old == _RECENT]

    def is_worth_writing(self, now: Times) -> bool:
        """Whether so many folders changed that they should be remembered as they are now."""
        pairs = zip(self.times, now, strict=True)
        return sum(old != new != _RECENT for old, new in pairs) >= _WORTH


def times_of(packs: Path) -> Times:
    """Returns the times of the folders below ``packs``; before they are listed.

    One that changed just now has to be listed again.
    """
    latest = time.time_ns() - _SETTLED_NS
    times = [_MISSING] * FOLDERS
    with suppress(OSError), _opened(packs) as descriptor, os.scandir(descriptor) as entries:
        for entry in entries:
            if len(entry.name) == _NAME_LENGTH:
                with suppress(ValueError):
                    times[int(entry.name, 16)] = _time_of(entry, latest)
    return tuple(times)


def _time_of(entry: os.DirEntry[str], latest: int) -> int:
    try:
        changed = entry.stat().st_mtime_ns
    except OSError:
        return _RECENT
    return changed if 0 < changed < latest else _RECENT


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    # Below a descriptor the kernel looks up one name, not a path.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def folder_key(at: int) -> str:
    """Returns the prefix of the keys of the packs in a folder."""
    return f"packs/{at:02x}/"
