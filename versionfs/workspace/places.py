"""Where the workspaces of this machine are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from versionfs.repo import Store


def folder_of(store: Store, repository: str, branch: str) -> Path:
    """Returns the folder of a branch's workspace, whether it exists or not."""
    return store.settings.state_dir / "workspaces" / store.id / repository / branch


def existing(store: Store) -> Iterator[tuple[str, str, Path]]:
    """Yields repository, branch and folder of each workspace of a store that has or had changes."""
    top = store.settings.state_dir / "workspaces" / store.id
    for table in sorted(top.glob("*/*/table")):
        yield table.parent.parent.name, table.parent.name, table.parent
