"""borgbackup: a deduplicating store, and a FUSE mount in Python (pyfuse3)."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.peers.base import Peer, said_version
from scripts.bench.programs import PROGRAMS, command, foreground_mount


class Borg(Peer):
    """A repository without encryption, zstd level 3."""

    name = "borg"
    program = "borg"

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def version(self) -> str:
        return said_version("borg", "--version")

    def create(self, store: Path) -> None:
        super().create(store)
        self._borg(store, "init", "--encryption", "none", store / "repository")

    def take(self, store: Path, source: Path) -> None:
        name = f"{store / 'repository'}::v{os.getpid()}-{next(self._numbers)}"
        self._borg(store, "create", "--compression", "zstd,3", name, ".", folder=source)

    def stored(self, store: Path) -> int:
        data = store / "repository"
        return super().stored(data)

    @contextmanager
    def mount(self, store: Path, point: Path) -> Iterator[Path]:
        archives = self._borg(store, "list", "--short", store / "repository").split()
        with foreground_mount(
            *self._words(), "mount", "--foreground", f"{store / 'repository'}::{archives[-1]}",
            point, point=point, environment=self._environment(store),
        ):  # fmt: skip
            yield point

    def _words(self) -> list[str]:
        # Debian's borg has no FUSE binding of its own: it finds pyfuse3 in this environment.
        python = PROGRAMS / "borg" / "bin" / "python"
        found = shutil.which("borg") or "borg"
        return [str(python), found] if python.exists() else [found]

    def _environment(self, store: Path) -> dict[str, str]:
        return {
            "BORG_BASE_DIR": str(store / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_FUSE_IMPL": "pyfuse3",
        }

    def _borg(self, store: Path, *words: str | Path, folder: Path | None = None) -> str:
        return command(
            *self._words(), *words, environment=self._environment(store), folder=folder
        )  # fmt: skip
