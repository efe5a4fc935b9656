"""Folders on disk: made from a description, and described."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.stores import LONG_AGO_NS


class Seen(NamedTuple):
    """What a backup must bring back of one path."""

    kind: int
    mode: int
    mtime_ns: int
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]


def describe(root: Path, *, mtimes: bool = True) -> dict[bytes, Seen]:
    """Returns what is in a folder, by relative path; ``b""`` is the folder itself."""
    found: dict[bytes, Seen] = {}
    top = os.fsencode(root)

    def visit(path: bytes, relative: bytes) -> None:
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        data = b""
        if kind == stat.S_IFLNK:
            data = os.readlink(path)
        elif kind == stat.S_IFREG:
            with open(path, "rb") as file:
                data = file.read()
        xattrs = tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
            if name.startswith("user.")
        )
        found[relative] = Seen(
            kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns if mtimes else 0, data, xattrs
        )
        if kind == stat.S_IFDIR:
            for name in os.listdir(path):
                visit(path + b"/" + name, (relative + b"/" if relative else b"") + name)

    visit(top, b"")
    return found


def fill(root: Path, files: Mapping[str, bytes | None], *, age: bool = True) -> None:
    """Makes files (None: a folder), with an mtime of long ago unless told otherwise."""
    for name, data in files.items():
        path = root / name
        if data is None:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if age:
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def write(path: Path, data: bytes, *, mtime_ns: int = LONG_AGO_NS) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
