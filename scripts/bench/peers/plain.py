"""The disk's own file system: the data set as it is."""

from __future__ import annotations

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


def file_system(folder: Path) -> str:
    """Returns the kind of file system that a folder is on."""
    return command("stat", "-f", "-c", "%T", folder).strip()
