"""The disk's own file system: the data set as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.peers.base import Peer
from scripts.bench.programs import command


class Plain(Peer):
    """A folder; a store is a link to the data set."""

    name = "ext4"
    program = "cp"

    def version(self) -> str:
        return command("uname", "-r").strip()

    def take(self, store: Path, source: Path) -> None:
        (store / "set").unlink(missing_ok=True)
        (store / "set").symlink_to(source)

    @contextmanager
    def mount(self, store: Path, point: Path) -> Iterator[Path]:  # noqa: ARG002 - nothing to mount
        yield (store / "set").resolve()


def is_ext4(folder: Path) -> bool:
    """Returns whether a folder is on ext4; else the rows about ext4 are about what it is on."""
    return shutil.which("stat") is not None and file_system(folder).startswith("ext")


def file_system(folder: Path) -> str:
    """Returns the kind of file system that a folder is on."""
    return command("stat", "-f", "-c", "%T", folder).strip()
