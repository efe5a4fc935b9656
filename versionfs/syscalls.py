"""System calls that Python makes one at a time, or not at all; compiled where that was possible."""

from __future__ import annotations

import importlib
import os
import struct
from typing import Any, Final, NamedTuple

SWITCH: Final = "VERSIONFS_ACCELERATOR"
"""The environment variable that, at 0, leaves what is compiled unused."""

SEEN_BYTES: Final = 32
UNSEEN: Final = bytes(SEEN_BYTES)
"""Stands for a file that must be read again whatever ``lstat`` says."""

_VERSION: Final = 2
_LONGEST: Final = 4096
"""No path is longer than this, in bytes."""
_SEEN: Final = struct.Struct("<QqQq")
_SEEN_MASKED: Final = struct.Struct("<QQQQ")
_MASK: Final = (1 << 64) - 1


class Unchanged(NamedTuple):
    """What a look at files found: those that are not as they were, by position; the others' sum."""

    others: list[int]
    same: int
    size_bytes: int


def seen(status: os.stat_result) -> bytes:
    """Returns 32 bytes: size, mtime, inode, ctime. The first 24 say whether content changed."""
    try:
        return _SEEN.pack(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)
    except struct.error:  # a time before 1677 or after 2262
        return _SEEN_MASKED.pack(
            status.st_size,
            status.st_mtime_ns & _MASK,
            status.st_ino,
            status.st_ctime_ns & _MASK,
        )


def unchanged(prefix: bytes, names: list[bytes], seen_of: list[bytes]) -> Unchanged:
    """Tells which files are as they were: an ``lstat`` and a comparison for each.

    Args:
        prefix: the path that the names are behind, with its slash.
        names: the names.
        seen_of: what :func:`seen` returned for each; UNSEEN for what is not to be looked at.

    Returns:
        The positions of all that differ, cannot be looked at or are UNSEEN, in order; how many are
        the same, and their sizes in bytes.
    """
    if _compiled is not None and len(prefix) < _LONGEST:
        return Unchanged(*_compiled.unchanged(prefix, names, seen_of))
    others: list[int] = []
    same = size = 0
    lstat = os.lstat
    for at, (name, old) in enumerate(zip(names, seen_of, strict=True)):
        if old != UNSEEN:
            try:
                status = lstat(prefix + name)
                if seen(status) == old:
                    same += 1
                    size += status.st_size
                    continue
            except OSError:
                pass
        others.append(at)
    return Unchanged(others, same, size)


class Read(NamedTuple):
    """A file that was read whole: its bytes, ``st_mode``, mtime in nanoseconds, and owner."""

    data: bytes
    mode: int
    mtime_ns: int
    uid: int
    gid: int


def reads_at_once() -> bool:
    """Whether :func:`read_unchanged` reads anything."""
    return _compiled is not None


def read_unchanged(files: list[tuple[bytes, int, bytes]], most_bytes: int) -> list[Read | None]:
    """Reads small files that are as they were seen, and without extended attributes.

    The disk is asked for all of them before the first is read. The interpreter lock is given up
    once: to get it back after each of five calls a file is what an import would wait for.

    Args:
        files: path, size in bytes, and what :func:`seen` returned for it or ``b""``, of each.
        most_bytes: the size of the largest file to read.

    Returns:
        What was read of each; None for others, and for all where nothing is compiled.
    """
    if _compiled is None:
        return [None] * len(files)
    found = _compiled.read_unchanged(files, most_bytes)
    return [None if each is None else Read(*each) for each in found]


def pread_all(descriptor: int, length: int, offset: int) -> bytes:
    """Returns ``length`` bytes of a file at an offset; fewer only where it ends.

    One call may give less: at the kernel's 2 GiB, and on some file systems anywhere.

    Raises:
        OSError: they cannot be read.
    """
    data = os.pread(descriptor, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    done = len(data)
    while done < length and (data := os.pread(descriptor, length - done, offset + done)):
        parts.append(data)
        done += len(data)
    return b"".join(parts)


def syncfs(descriptor: int) -> None:
    """Writes back what the kernel has of the file system that a descriptor is in; waits for it.

    Raises:
        OSError: it failed.
    """
    if _compiled is not None:
        _compiled.syncfs(descriptor)
        return
    import ctypes  # takes as long as a short command needs for all of its own

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def load_compiled(name: str, version: int = 0) -> Any:
    """Returns a compiled module.

    None if it was not compiled, is of another version, or what is compiled is not to be used.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    return module if getattr(module, "VERSION", 0) == version else None


_compiled: Any = load_compiled("versionfs._syscalls", _VERSION)
