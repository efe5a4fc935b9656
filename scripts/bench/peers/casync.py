"""casync: content-defined chunks in files of their own, and a FUSE mount in C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.peers.base import Peer, said_version
from scripts.bench.programs import command, foreground_mount


class Casync(Peer):
    """A chunk store and an index of a directory tree, zstd."""

    name = "casync"
    program = "casync"
    occasional = True

    def version(self) -> str:
        return said_version("casync", "--version")

    def take(self, store: Path, source: Path) -> None:
        command(
            "casync", "make", "--compression=zstd", f"--store={store / 'chunks'}",
            store / "index.caidx", source,
        )  # fmt: skip

    @contextmanager
    def mount(self, store: Path, point: Path) -> Iterator[Path]:
        with foreground_mount(
            "casync", "mount", f"--store={store / 'chunks'}", store / "index.caidx", point,
            point=point,
        ):  # fmt: skip
            yield point
