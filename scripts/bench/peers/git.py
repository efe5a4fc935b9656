"""git, with its defaults, and dvc on top of it: they take a work tree in, and mount nothing."""

from __future__ import annotations

from pathlib import Path

from scripts.bench.peers.base import Peer, said_version
from scripts.bench.programs import PROGRAMS, command

IDENTITY = {
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@localhost",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@localhost",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


class Git(Peer):
    """A repository apart from the work tree that it takes in: ``git add`` and ``git commit``."""

    name = "git"
    program = "git"
    occasional = True

    def version(self) -> str:
        return said_version("git", "--version")

    def create(self, store: Path) -> None:
        super().create(store)
        command("git", "init", "-q", "--bare", store / "repository", environment=IDENTITY)
        # It would repack in the background when it has returned: while the next one is measured.
        quiet = ("git", f"--git-dir={store / 'repository'}", "config", "gc.auto", "0")
        command(*quiet, environment=IDENTITY)

    def take(self, store: Path, source: Path) -> None:
        words = ("git", f"--git-dir={store / 'repository'}", f"--work-tree={source}")
        command(*words, "add", "--all", ".", environment=IDENTITY, folder=source)
        command(*words, "commit", "-q", "--allow-empty", "-m", "version", environment=IDENTITY)


class Dvc(Peer):
    """``dvc add``; it must own the folder, so it is given a copy of hard links (not timed)."""

    name = "dvc"
    program = str(PROGRAMS / "dvc" / "bin" / "dvc")
    occasional = True

    def version(self) -> str:
        return said_version(self.program, "--version")

    def create(self, store: Path) -> None:
        super().create(store)
        command("git", "init", "-q", store, environment=IDENTITY)
        self._dvc(store, "init", "-q")
        self._dvc(store, "config", "core.analytics", "false")

    def prepare(self, store: Path, source: Path) -> None:
        """Puts the folder where ``take`` expects it; not timed."""
        command("rm", "-rf", store / "set")
        command("cp", "-a", source, store / "set")

    def take(self, store: Path, source: Path) -> None:  # noqa: ARG002 - prepare() has copied it
        self._dvc(store, "add", "-q", "set")

    def stored(self, store: Path) -> int:
        return super().stored(store / ".dvc" / "cache")

    def _dvc(self, store: Path, *words: str) -> None:
        quiet = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(store / ".site")}
        command(self.program, *words, environment=IDENTITY | quiet, folder=store)
