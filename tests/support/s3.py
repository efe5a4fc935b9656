"""A machine as its user has it: a home, the command line, mounts, and a store on S3."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine, Result
from tests.support.seaweed import S3Server
from versionfs import fuse
from versionfs.config import Settings, load_settings
from versionfs.errors import MountError
from versionfs.fuse import registry
from versionfs.fuse.mountpoint import mounted_at


class Machine(CommandLine):
    """A home of its own. Reaches the server at ``endpoint``, which may be a proxy."""

    def __init__(self, folder: Path, server: S3Server, store: str, endpoint: str) -> None:
        (folder / "work").mkdir(parents=True)
        super().__init__(folder / "home", folder / "work")
        self.store = store
        self.env |= server.environment
        self.env |= {"VERSIONFS_STORE": store, "AWS_ENDPOINT_URL_S3": endpoint}
        self._mountpoints: list[Path] = []
        self._daemons: set[int] = set()

    @property
    def settings(self) -> Settings:
        return load_settings(self.env)

    def start(
        self, *arguments: str | os.PathLike[str], stdin: int = subprocess.DEVNULL, **env: str
    ) -> subprocess.Popen[bytes]:
        """Starts a command; whoever started it waits for it."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.env | env,
        )

    def run_quietly(self, *arguments: str | os.PathLike[str], **env: str) -> Result:
        """Runs a command that may show a traceback, as it does with VERSIONFS_DEBUG=1."""
        with self.start(*arguments, stdin=subprocess.DEVNULL, **env) as child:
            raw, err = child.communicate(timeout=100)
        return Result(child.returncode, raw.decode("latin-1"), err.decode("latin-1"), raw)

    def bring(self, target: str, *options: str, **files: bytes) -> str:
        """Imports files, by name; returns the id of the commit."""
        source = self.folder / "source"
        source.mkdir(exist_ok=True)
        for path in source.iterdir():
            path.unlink()
        for name, data in files.items():
            (source / name).write_bytes(data)
        made = self.ok("import", "--json", source, target, *options).json
        return str(made["commit"]["id"])

    def mount(self, *options: str, spec: str | None = None, name: str = "data") -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        self._mountpoints.append(path)
        self.ok("mount", path, *([spec] if spec else []), *options)
        record = registry.read(self.settings, path)
        assert record is not None
        self._daemons.add(record.pid)
        return path

    def umount(self, path: Path) -> Result:
        return self.ok("umount", path)

    def log(self, path: Path) -> str:
        """Returns the log of a mount's daemon."""
        return registry.files_of(self.settings, path).log.read_text()

    def transfers(self, path: Path) -> dict[str, Any]:
        """Returns what a mount asked of the server, as its daemon tells."""
        reply = fuse.ask(self.settings, path, {"op": "statistics"})
        assert reply is not None
        found: dict[str, Any] = reply["transfers"]
        return found

    def requests(self, path: Path) -> int:
        """Returns how many requests a mount sent, but for the polling of refs."""
        asked = self.transfers(path)["requests"]
        return sum(asked.values())

    def close(self) -> None:
        for path in self._mountpoints:
            while mounted_at(path) is not None:
                with contextlib.suppress(MountError):
                    fuse.unmount(self.settings, path, force=True)
                subprocess.run(["fusermount3", "-uz", path], check=False, capture_output=True)
        for pid in self._daemons:
            with contextlib.suppress(OSError):
                if b"versionfs" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)


MakeMachine = Callable[..., Machine]


@pytest.fixture
def machines(s3_server: S3Server, tmp_path: Path) -> Iterator[MakeMachine]:
    """Makes machines that share one new store: ``machines("ada")``, perhaps with an endpoint."""
    place = f"s3://{s3_server.bucket()}/store"
    made: list[Machine] = []

    def make(name: str, endpoint: str | None = None) -> Machine:
        machine = Machine(tmp_path / name, s3_server, place, endpoint or s3_server.endpoint)
        if not made:
            CommandLine.ok(machine, "init", AWS_ENDPOINT_URL_S3=s3_server.endpoint)
        made.append(machine)
        return machine

    try:
        yield make
    finally:
        for machine in made:
            machine.close()


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Waits for what another process does in its own time; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def objects_below(server: S3Server, store: str, prefix: str) -> dict[str, bytes]:
    """Returns the objects of a store below a prefix, by key, as the server has them."""
    bucket, _, folder = store.removeprefix("s3://").partition("/")
    client = server.client()
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=f"{folder}/{prefix}"
    ):
        for info in page.get("Contents", ()):
            body = client.get_object(Bucket=bucket, Key=info["Key"])["Body"].read()
            found[info["Key"].removeprefix(f"{folder}/")] = body
    return found


def put_object(server: S3Server, store: str, key: str, data: bytes) -> None:
    """Overwrites an object behind the back of versionfs."""
    bucket, _, folder = store.removeprefix("s3://").partition("/")
    server.client().put_object(Bucket=bucket, Key=f"{folder}/{key}", Body=data)


__all__ = ["Machine", "MakeMachine", "machines", "objects_below", "put_object", "wait_until"]
