"""mksquashfs, and squashfuse_ll, the low-level FUSE file system in C that mounts its images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.peers.base import Peer, said_version
from scripts.bench.programs import command, foreground_mount


class Squashfs(Peer):
    """Images with zstd, at mksquashfs's own level (15) and block size (128 KiB)."""

    name = "squashfuse_ll"
    program = "squashfuse_ll"

    def available(self) -> bool:
        return super().available() and shutil.which("mksquashfs") is not None

    def version(self) -> str:
        mksquashfs = said_version("mksquashfs", "-version")
        return f"{said_version('squashfuse_ll', '--help')}, mksquashfs {mksquashfs}"

    def take(self, store: Path, source: Path, *options: str) -> None:
        (store / "image").unlink(missing_ok=True)
        command(
            "mksquashfs", source, store / "image", "-comp", "zstd", *options,
            "-quiet", "-no-progress",
        )  # fmt: skip

    @contextmanager
    def mount(self, store: Path, point: Path) -> Iterator[Path]:
        with foreground_mount("squashfuse_ll", "-f", store / "image", point, point=point):
            yield point


class FastSquashfs(Squashfs):
    """The same images, compressed as fast as versionfs does it by default: at level 3."""

    name = "mksquashfs, level 3"

    def take(self, store: Path, source: Path, *options: str) -> None:
        super().take(store, source, "-Xcompression-level", "3", *options)
