"""Temporary files that tell by a lock whether their writer lives.

A writer holds an exclusive flock(2) on its file, which the kernel drops when the writer ends in any
way, kill -9 included. So whoever gets the lock of a temporary file knows that nobody needs it.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import BinaryIO, Final

_NAME_BYTES: Final = 12
_NAME: Final = re.compile(f"[0-9a-f]{{{2 * _NAME_BYTES}}}")


def is_temporary(name: str) -> bool:
    """Tells whether ``create_temporary`` may have made a file of that name, without a prefix."""
    return _NAME.fullmatch(name) is not None


def create_temporary(folder: Path, prefix: str = "") -> tuple[Path, BinaryIO]:
    """Makes a new empty file in the folder, locked for as long as the returned file stays open.

    The file is open for reading and writing, unbuffered. Safe against a ``clean_temporary`` at the
    same time. The lock follows the file through a rename, and is shared with forked children.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        path = folder / f"{prefix}{os.urandom(_NAME_BYTES).hex()}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between open and flock a cleaner may have taken the file for an orphan.
            if os.fstat(descriptor).st_nlink:
                return path, os.fdopen(descriptor, "r+b", buffering=0)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        os.close(descriptor)


def clean_temporary(folder: Path) -> int:
    """Removes the files of dead writers from the folder; returns how many.

    A folder that does not exist has none. Files whose writer lives are left alone.

    Raises:
        OSError: the folder cannot be read, or a file not removed.
    """
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return 0
    return sum(_remove_if_orphan(folder / name) for name in names)


def _remove_if_orphan(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The writer may have finished, and moved the file away, since it was listed: then the name
        # is gone, for names are never used twice.
        path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True
