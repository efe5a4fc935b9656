"""Real mounts: each in a fresh home, always unmounted, its daemon always ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.support import commit, settings_at
from versionfs import fuse
from versionfs.errors import MountError
from versionfs.fuse import registry
from versionfs.fuse.mountpoint import mounted_at
from versionfs.repo import Repository, Store, parse_spec


class World:
    """A home with a store, and the mounts made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = settings_at(folder / "home")
        self.store = Store.create(self.settings)
        self.mountpoints: list[Path] = []
        self.daemons: list[registry.MountRecord] = []

    def commit(self, changes, **more):
        made = commit(self.store, changes, **more)
        fuse.notify_moved(self.settings, self.store.id, more.get("repository", "photos"))
        return made

    @property
    def photos(self) -> Repository:
        return self.store.repository("photos")

    def folder_for_mount(self, name: str = "data") -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        self.mountpoints.append(path)
        return path

    def mount(self, spec: str | None = None, *, name: str = "data", **more) -> Path:
        path = self.folder_for_mount(name)
        fuse.mount(self.settings, path, parse_spec(spec) if spec else None, **more)
        record = registry.read(self.settings, path)
        assert record is not None
        self.daemons.append(record)
        return path

    def record(self, path: Path) -> registry.MountRecord:
        record = registry.read(self.settings, path)
        assert record is not None
        return record

    def statistics(self, path: Path) -> dict:
        reply = fuse.ask(self.settings, path, {"op": "statistics"})
        assert reply is not None
        found: dict = reply["statistics"]
        return found

    def log(self, path: Path) -> str:
        return registry.files_of(self.settings, path).log.read_text()

    def kill(self, path: Path) -> None:
        """Kills the daemon as a crash would, and waits until it is gone."""
        record = self.record(path)
        os.kill(record.pid, signal.SIGKILL)
        self.wait_for_end(record)

    def wait_for_end(self, record: registry.MountRecord) -> None:
        for _ in range(1000):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(record.pid, os.WNOHANG)
            if not record.is_running:
                return
            time.sleep(0.01)
        raise AssertionError(f"the daemon {record.pid} has not ended")

    def close(self) -> None:
        for path in self.mountpoints:
            while mounted_at(path) is not None:
                with contextlib.suppress(MountError):
                    fuse.unmount(self.settings, path, force=True)
                subprocess.run(["fusermount3", "-uz", path], check=False, capture_output=True)
        for record in self.daemons:
            if record.is_running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(record.pid, 0)
        self.store.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A home with an empty store."""
    made = World(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def photos(world: World) -> World:
    """A world with a repository of three commits and a tag."""
    first = world.commit({b"a.txt": b"one\n", b"sub/b.bin": b"\0\1\2", b"same": b"same\n"})
    world.photos.create_tag("v1.0", first)
    world.commit({b"a.txt": b"two\n"})
    world.commit({b"a.txt": b"three\n", b"sub/new": b"new\n"})
    return world
