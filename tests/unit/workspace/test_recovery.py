"""A workspace after a kill: strays removed, its own commit known, times of writes kept."""

from __future__ import annotations

import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import ROOT, make_store
from versionfs.repo import Store
from versionfs.transfer import import_source
from versionfs.types import Commit
from versionfs.workspace import CommitRequest, Workspace, commit, folder_of, recover_now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with make_store(tmp_path / "home") as made:
        source = tmp_path / "source"
        source.mkdir()
        (source / "a").write_bytes(b"first")
        (source / "b").write_bytes(b"second")
        import_source(made, "set", "main", b"", source, message="m", author="a")
        yield made


def head(store: Store) -> Commit:
    return store.commits.read(store.repository("set").branch("main").commit)


def opened(store: Store) -> Workspace:
    return Workspace(store, folder_of(store, "set", "main"), head(store))


def killed(home: Path, work: str) -> None:
    """Runs ``work`` with ``workspace`` in another process, which then dies at once."""
    code = f"""
        import os, stat, sys
        from versionfs.config import load_settings
        from versionfs.repo import Store
        from versionfs.workspace import *
        import versionfs.workspace.committing as commit_module
        store = Store.open(load_settings({{"VERSIONFS_HOME": {str(home)!r}}}))
        head = store.commits.read(store.repository("set").branch("main").commit)
        workspace = Workspace(store, folder_of(store, "set", "main"), head)
        begin = workspace.overlay.changes
        def write(name, offset, data):
            found = workspace.lookup(1, name)
            workspace.files.write(begin, found.number, offset, data)
    """
    script = textwrap.dedent(code) + textwrap.dedent(work) + "\nos._exit(9)\n"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == 9


def text(workspace: Workspace, name: bytes) -> bytes:
    found = workspace.lookup(1, name)
    assert found is not None
    return workspace.files.read(found.number, 0, 1000)


def test_a_killed_commit_whose_ref_moved_is_the_workspaces_own(
    store: Store, tmp_path: Path
) -> None:
    """And what was written after its cut, also to the same files, is still uncommitted."""
    store.close()
    killed(
        tmp_path / "home",
        """
        write(b"a", 0, b"FIRST")
        write(b"b", 0, b"SECOND")
        one = Committing(workspace, CommitRequest("set", "main", "killed", "test"))
        one.cut()
        write(b"a", 5, b" and more")
        workspace.overlay.unlink(1, b"b")
        one.publish()
        """,
    )
    store = Store.open(store.settings)
    try:
        assert head(store).message == "killed"
        workspace = opened(store)
        try:
            # Not recovered yet: writes go on, and must survive it.
            found = workspace.lookup(1, b"a")
            assert found is not None
            workspace.files.write(workspace.overlay.changes, found.number, 0, b"fIRST")
            recover_now(workspace, "set", "main")
            assert workspace.base.id == head(store).id
            assert text(workspace, b"a") == b"fIRST and more"
            assert workspace.lookup(1, b"b") is None
            result = commit(workspace, CommitRequest("set", "main", "next", "test"))
            assert result.commit is not None
            assert not result.merged
            names = [e.name for e in store.trees.entries(result.commit.root.node)]
            assert names == [b"a"]
            assert text(workspace, b"a") == b"fIRST and more"
        finally:
            workspace.close()
    finally:
        store.close()


def test_names_that_changed_after_a_killed_cut_are_not_the_commits(
    store: Store, tmp_path: Path
) -> None:
    """A file and a folder that took names of others after the cut keep what is in them."""
    store.close()
    killed(
        tmp_path / "home",
        """
        o = workspace.overlay
        for name in (b"d", b"e"):
            d = o.make(1, name, stat.S_IFDIR | 0o755, 0, 0)
            n = o.make(d, b"in", stat.S_IFREG | 0o644, 0, 0)
            workspace.files.write(begin, n, 0, b"in " + name)
        write(b"a", 0, b"FIRST")
        write(b"b", 0, b"SECOND")
        one = Committing(workspace, CommitRequest("set", "main", "killed", "test"))
        one.cut()
        o.rename(1, b"a", 1, b"b")
        o.rename(1, b"d", 1, b"a")
        o.rename(1, b"e", 1, b"d")
        one.publish()
        """,
    )
    store = Store.open(store.settings)
    try:
        workspace = opened(store)
        try:
            recover_now(workspace, "set", "main")

            def check() -> None:
                assert text(workspace, b"b") == b"FIRST"
                for name, inside in ((b"a", b"in d"), (b"d", b"in e")):
                    found = workspace.lookup(1, name)
                    assert found is not None
                    file = workspace.lookup(found.number, b"in")
                    assert file is not None
                    assert workspace.files.read(file.number, 0, 100) == inside
                assert workspace.lookup(1, b"e") is None

            check()
            result = commit(workspace, CommitRequest("set", "main", "next", "test"))
            assert result.commit is not None
            assert not result.merged
            check()
        finally:
            workspace.close()
    finally:
        store.close()


def test_a_killed_commit_whose_ref_did_not_move_never_was(store: Store, tmp_path: Path) -> None:
    before = head(store)
    store.close()
    killed(
        tmp_path / "home",
        """
        from versionfs.repo import Repository
        Repository.advance = lambda *_, **__: os._exit(9)
        write(b"a", 0, b"FIRST")
        commit(workspace, CommitRequest("set", "main", "killed", "test"))
        """,
    )
    store = Store.open(store.settings)
    try:
        assert head(store).id == before.id
        workspace = opened(store)
        try:
            result = commit(workspace, CommitRequest("set", "main", "again", "test"))
            assert result.commit is not None
            assert result.commit.parents[0].id == before.id
            assert not workspace.layers.is_frozen
            assert text(workspace, b"a") == b"FIRST"
        finally:
            workspace.close()
    finally:
        store.close()


def test_staging_files_that_no_record_names_are_removed(store: Store, tmp_path: Path) -> None:
    store.close()
    killed(
        tmp_path / "home",
        """
        number = workspace.overlay.make(1, b"open", stat.S_IFREG | 0o644, 0, 0)
        workspace.files.open(number)
        workspace.files.write(begin, number, 0, b"x" * 100_000)
        workspace.overlay.unlink(1, b"open")
        write(b"a", 0, b"kept")
        """,
    )
    store = Store.open(store.settings)
    try:
        workspace = opened(store)
        try:
            assert len(list(workspace.records.staging.layers())) == 2
            recover_now(workspace, "set", "main")
            assert len(list(workspace.records.staging.layers())) == 1
            assert text(workspace, b"a") == b"keptt"
        finally:
            workspace.close()
    finally:
        store.close()


def test_the_time_of_a_write_survives_a_kill(store: Store, tmp_path: Path) -> None:
    store.close()
    killed(
        tmp_path / "home",
        """
        import time
        number = workspace.overlay.make(1, b"new", stat.S_IFREG | 0o644, 0, 0)
        workspace.files.open(number)
        workspace.files.write(begin, number, 0, b"one")
        workspace.overlay.set_attributes(number, mtime_ns=1_000_000_000)
        time.sleep(0.05)
        workspace.files.write(begin, number, 3, b"two")
        """,
    )
    store = Store.open(store.settings)
    try:
        workspace = opened(store)
        try:
            found = workspace.lookup(1, b"new")
            assert found is not None
            assert found.size == 6
            assert found.mtime_ns > 1_600_000_000_000_000_000
            assert stat.S_ISREG(found.mode)
        finally:
            workspace.close()
    finally:
        store.close()


def test_what_cannot_be_removed_is_no_reason_to_do_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = opened(store)
    workspace.overlay.make(1, b"new", stat.S_IFREG | 0o644, 0, 0)
    workspace.close()
    workspace = opened(store)

    def fails() -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(workspace.layers, "sweep", lambda: fails)
    assert commit(workspace, CommitRequest("set", "main", "one", "me")).commit is not None
    assert workspace.is_swept
    assert "what was left of changed files stays" in caplog.text
    workspace.close()
