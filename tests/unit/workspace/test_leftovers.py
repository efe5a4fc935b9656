"""What killed writers left in the store goes with the next commit, as with the next import."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.support.stores import bring, head, home, source, store
from versionfs.objectstore.temporary import create_temporary
from versionfs.repo import Store
from versionfs.workspace import CommitRequest, Workspace, commit

__all__ = ["home", "source", "store"]


def test_a_commit_removes_what_killed_writers_left(
    store: Store, source: Path, tmp_path: Path
) -> None:
    (source / "a").write_bytes(b"a")
    bring(store, source)
    folder = store.objects.temporary()
    orphan, file = create_temporary(folder)
    file.close()
    used, writer = create_temporary(folder)
    workspace = Workspace(store, tmp_path / "workspace", head(store))
    workspace.overlay.make(1, b"new", stat.S_IFREG | 0o644, os.getuid(), os.getgid())
    made = commit(workspace, CommitRequest("photos", "main", "message", "author"))
    assert made.commit is not None
    assert not orphan.exists()
    assert used.exists()
    writer.close()
    workspace.close()
