"""versionfs itself: its command line, from this checkout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.bench.peers.base import Peer
from scripts.bench.programs import PROGRAMS, ROOT, ProgramError, command
from versionfs.fuse import control

_PYTHON = PROGRAMS / "versionfs" / "bin" / "python"
_SCRIPT = ROOT / "scripts" / "bench" / "bin" / "versionfs"


class Versionfs(Peer):
    """A store is a home of its own, with one repository, ``set``."""

    name = "versionfs"
    program = sys.executable

    def __init__(self, code: Path = ROOT) -> None:
        self.code = code

    def version(self) -> str:
        environment = {"PYTHONPATH": str(self.code)}
        return command(*self.words("--version"), environment=environment).strip()

    def run(self, store: Path, *words: str | Path) -> str:
        """Runs the command line."""
        return self.run_in(self.code, store, *words)

    def run_in(self, folder: Path, store: Path, *words: str | Path) -> str:
        """Runs the command line in a folder."""
        return command(*self.words(*words), environment=self.environment(store), folder=folder)

    def words(self, *words: str | Path) -> list[str | Path]:
        """Returns how the command line is called."""
        return [_PYTHON if _PYTHON.exists() else sys.executable, _SCRIPT, *words]

    def environment(self, store: Path) -> dict[str, str]:
        """Returns the environment that makes a store the one that is used."""
        return {"VERSIONFS_HOME": str(store), "PYTHONPATH": str(self.code)}

    def take(self, store: Path, source: Path) -> None:
        self.run(store, "import", source, "set", "-m", "version")

    def stored(self, store: Path) -> int:
        """Returns the bytes of the store; what is only on this machine (an index) is not counted.

        It is rebuilt when it is gone, as restic's and borg's caches are, which do not count either.
        """
        return super().stored(store / "store")

    @contextmanager
    def mount(self, store: Path, point: Path) -> Iterator[Path]:
        with self.ordinary(store, point) as daemon:
            yield daemon.branch

    @contextmanager
    def ordinary(self, store: Path, point: Path) -> Iterator[Daemon]:
        """Mounts the store: branch folders can be written."""
        self.run(store, "mount", point)
        try:
            yield Daemon(store, point)
        finally:
            self.run(store, "umount", point)

    @contextmanager
    def read_only(self, store: Path, point: Path) -> Iterator[Daemon]:
        """Mounts the branch, read-only."""
        self.run(store, "mount", "--read-only", point, "set/main")
        try:
            yield Daemon(store, point)
        finally:
            self.run(store, "umount", point)


class Daemon:
    """The process that serves a mount."""

    def __init__(self, store: Path, point: Path) -> None:
        self.point = point
        self.branch = point / "set" / "main"
        self.snapshot = point / "set" / "main@head"
        for path in (store / "state" / "mounts").glob("*.json"):
            record = json.loads(path.read_bytes())
            if record["mountpoint"] == os.fspath(point):
                self.pid = int(record["pid"])
                self._socket = path.with_suffix(".sock")

    def commit(self, message: str) -> None:
        """Commits the branch, by asking for it as the command line does."""
        request = {"op": "workspace-commit", "repository": "set", "branch": "main"}
        reply = control.ask(
            self._socket, request | {"message": message, "author": "bench", "metadata": {}}, 600
        )
        if not reply or not reply.get("ok") or not reply.get("owned"):
            raise ProgramError(f"the daemon did not commit: {reply}")

    def statistics(self) -> dict[str, Any]:
        """Returns what the daemon counted since it began."""
        reply = control.ask(self._socket, {"op": "statistics"}, 10) or {}
        return dict(reply.get("statistics", {}))
