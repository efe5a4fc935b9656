"""The mounts of this user, one file each: ``<state>/mounts/<id>.json``.

An id is made from the mount point, so that a mount point has one file. Beside it are the control
socket of the daemon, and its log in ``<state>/logs``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from versionfs.config import Settings
from versionfs.digests import blake2b


class MountRecord(NamedTuple):
    """A mount as its daemon wrote it down. ``pid_started`` tells a reused process id apart.

    ``commits_at_end`` says that it commits when it was unmounted, however long that takes.
    """

    mountpoint: str
    spec: str | None
    store: str
    store_id: str
    pid: int
    pid_started: int
    started_ns: int
    read_only: bool = False
    commits_at_end: bool = False

    @property
    def is_running(self) -> bool:
        """Whether the daemon's process still exists."""
        return process_started(self.pid) == self.pid_started


class MountInfo(NamedTuple):
    """A mount as shown to people."""

    mountpoint: Path
    spec: str | None
    store: str
    pid: int
    started_ns: int
    alive: bool


class MountFiles(NamedTuple):
    """Where the files of one mount are."""

    record: Path
    socket: Path
    log: Path


def files_of(settings: Settings, mountpoint: Path) -> MountFiles:
    """Returns where the files of a mount point's mount are; makes nothing."""
    name = blake2b(os.fsencode(mountpoint), digest_size=8).hexdigest()
    mounts, logs = settings.state_dir / "mounts", settings.state_dir / "logs"
    return MountFiles(
        mounts / f"{name}.json",
        mounts / f"{name}.sock",
        logs / f"{name}.log",
    )


def process_started(pid: int) -> int | None:
    """Returns when a process started, in clock ticks since boot; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def write(settings: Settings, record: MountRecord) -> None:
    """Writes a mount down."""
    path = files_of(settings, Path(record.mountpoint)).record
    text = json.dumps(record._asdict())
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text + "\n", "ascii")
    part.replace(path)


def read(settings: Settings, mountpoint: Path) -> MountRecord | None:
    """Returns what is written down of a mount point; None if nothing is."""
    return _read(files_of(settings, mountpoint).record)


def remove(settings: Settings, mountpoint: Path) -> None:
    """Forgets a mount; no error if it is not there."""
    files = files_of(settings, mountpoint)
    for path in (files.record, files.socket):
        with suppress(FileNotFoundError):
            path.unlink()


def records(settings: Settings) -> Iterator[MountRecord]:
    """Yields all mounts that are written down, whether they live or not."""
    folder = settings.state_dir / "mounts"
    for path in sorted(folder.glob("*.json")):
        record = _read(path)
        if record is not None:
            yield record


def _read(path: Path) -> MountRecord | None:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        return MountRecord(**value)
    except (OSError, ValueError, TypeError):
        return None
