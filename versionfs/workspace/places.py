"""Where the workspaces of this machine are, and who has one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from versionfs.config import Settings

if TYPE_CHECKING:
    from versionfs.repo import Store

LOCK_FILE: Final = "lock"


def folder_of(store: Store, repository: str, branch: str) -> Path:
    """Returns the folder of a branch's workspace, whether it exists or not."""
    return folder_in(store.settings, store.id, repository, branch)


def folder_in(settings: Settings, store_id: str, repository: str, branch: str) -> Path:
    """Returns what :func:`folder_of` does, for a store that need not be open."""
    return settings.state_dir / "workspaces" / store_id / repository / branch


def existing(store: Store) -> Iterator[tuple[str, str, Path]]:
    """Yields repository, branch and folder of each workspace of a store that has or had changes."""
    top = store.settings.state_dir / "workspaces" / store.id
    for table in sorted(top.glob("*/*/table")):
        yield table.parent.parent.name, table.parent.name, table.parent


def owner_of(folder: Path) -> int | None:
    """Returns the process that owns a workspace's folder, None if none does."""
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 64, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None
