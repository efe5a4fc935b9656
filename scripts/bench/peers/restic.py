"""restic: a deduplicating, encrypting store, and a FUSE mount in Go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.peers.base import Peer, said_version
from scripts.bench.programs import command, foreground_mount


class Restic(Peer):
    """A repository of version 2, with restic's own compression (zstd)."""

    name = "restic"
    program = "restic"
    occasional = True

    def version(self) -> str:
        return said_version("restic", "version")

    def create(self, store: Path) -> None:
        super().create(store)
        self._restic(store, "init", "--repository-version", "2")

    def take(self, store: Path, source: Path) -> None:
        (store / "source").write_text(str(source))
        self._restic(store, "backup", "--host", "bench", source)

    def stored(self, store: Path) -> int:
        return super().stored(store / "repository")

    @contextmanager
    def mount(self, store: Path, point: Path) -> Iterator[Path]:
        with foreground_mount(
            *self._words(store), "mount", point, point=point, environment=self._environment()
        ):
            # A snapshot has the whole path of what was taken in.
            source = (store / "source").read_text()
            yield point / "snapshots" / "latest" / source.lstrip("/")

    def _words(self, store: Path) -> list[str | Path]:
        return [
            "restic", "-q", "-r", store / "repository", "--cache-dir", store / "cache",
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {"RESTIC_PASSWORD": "benchmark"}

    def _restic(self, store: Path, *words: str | Path) -> None:
        command(*self._words(store), *words, environment=self._environment())
