"""What a commit reads and writes follows what was changed, not the tree and not the file sizes."""

from __future__ import annotations

import gc
import os
import random
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.stores import file_entry, make_store
from versionfs.fuse.workspaces import WorkspaceService, commit_at_end
from versionfs.index import ChunkIndex
from versionfs.repo import Store, write_commit
from versionfs.transfer import import_source
from versionfs.tree import build_directory, directory_entry
from versionfs.types import Commit
from versionfs.vfs import Branches
from versionfs.vfs.owner import Owner
from versionfs.workspace import CommitRequest, CommitResult, Workspace, commit, folder_of
from versionfs.workspace.journal import Journal
from versionfs.workspace.staging import Staging

MIB = 1 << 20


def opened(store: Store, head: Commit) -> Workspace:
    return Workspace(store, folder_of(store, "set", "main"), head)


def committed(workspace: Workspace) -> CommitResult:
    return commit(workspace, CommitRequest("set", "main", "a change", "test"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_change_of_a_file_of_2_gib(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    block = random.Random(1).randbytes(64 * MIB)
    with (source / "large").open("wb") as file:
        for number in range(32):
            file.write(block[number:] + block[:number])
    size = 2048 * MIB
    with make_store(tmp_path / "home") as store:
        head = import_source(store, "set", "main", b"", source, message="m", author="a").head
        assert head is not None
        workspace = opened(store, head)
        try:
            found = workspace.lookup(1, b"large")
            assert found is not None
            write = workspace.files.write
            begin = workspace.overlay.changes
            blocks = store.packs.statistics().bytes_read
            appended = os.urandom(MIB)
            write(begin, found.number, size, appended)
            result = committed(workspace)
            assert result.new_bytes <= 3 * MIB
            assert result.read_bytes <= 6 * MIB
            assert store.packs.statistics().bytes_read - blocks <= 6 * MIB
            blocks = store.packs.statistics().bytes_read
            write(begin, found.number, size // 2 + 12_345, b"\x01")
            result = committed(workspace)
            assert 0 < result.new_bytes <= 3 * MIB
            assert result.read_bytes <= 6 * MIB
            assert store.packs.statistics().bytes_read - blocks <= 6 * MIB
            assert workspace.files.read(found.number, size, MIB) == appended
        finally:
            workspace.close()
        # Byte for byte what an import of the same file makes.
        with (source / "large").open("r+b") as file:
            file.seek(size)
            file.write(appended)
            file.seek(size // 2 + 12_345)
            file.write(b"\x01")
        imported = import_source(store, "other", "main", b"", source, message="m", author="a").head
        assert imported is not None
        assert result.commit is not None
        assert imported.root.content == result.commit.root.content


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_change_among_many_files(tmp_path: Path) -> None:
    """A folder with 1,000,000 files, and 100 others: as many nodes as a path is deep, no more."""
    with make_store(tmp_path / "home") as store:
        head = many_files(store, 1_000_000)
        with make_reader(store) as reader:
            workspace = Workspace(reader, folder_of(reader, "set", "main"), head)
            try:
                parent = workspace.lookup(1, b"many")
                assert parent is not None
                found = workspace.lookup(parent.number, b"file0500000")
                assert found is not None
                workspace.files.write(workspace.overlay.changes, found.number, 0, b"changed")
                before = reader.trees.statistics()
                result = committed(workspace)
                after = reader.trees.statistics()
            finally:
                workspace.close()
        assert result.files == 1
        assert after.nodes_decoded - before.nodes_decoded <= 12
        assert result.stored_bytes <= 64 * 1024


def test_a_new_small_file_is_one_batch_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """create, write 4 KiB, close: one append to the journal, three small writes to a slab."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"x")
    with make_store(tmp_path / "home") as store:
        head = import_source(store, "set", "main", b"", source, message="m", author="a").head
        assert head is not None
        workspace = opened(store, head)
        begin = workspace.overlay.changes
        appended: list[int] = []
        calls: Counter[str] = Counter()

        def make(number: int) -> None:
            name = b"f%d" % number
            assert workspace.lookup(1, name) is None
            made = workspace.create(1, name, stat.S_IFREG | 0o644, 0, 0).number
            assert workspace.xattrs(made) == ()
            assert workspace.files.write(begin, made, 0, b"x" * 4096) == 4096
            workspace.files.release(begin, made)

        try:
            make(0)  # Makes the slab, and reserves numbers of layers.
            real = Journal.append

            def append(self: Journal, sequence: int, *rest: Any, **named: Any) -> None:
                appended.append(sequence)
                real(self, sequence, *rest, **named)

            monkeypatch.setattr(Journal, "append", append)
            for name in ("open", "pwrite", "rename", "fsync", "fdatasync", "stat", "fstat"):
                monkeypatch.setattr(os, name, counted(calls, os, name))
            for number in range(1, 101):
                make(number)
            assert len(appended) == 100
            assert calls == {"pwrite": 400}
            # Their times are recorded later, 64 at once.
            workspace.files.save_all(begin)
            assert len(appended) == 102
            assert not workspace.names.unsaved
        finally:
            workspace.close()


def test_new_small_files_are_looked_up_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with make_store(tmp_path / "home") as store:
        (source / "a").write_bytes(b"x")
        head = import_source(store, "set", "main", b"", source, message="m", author="a").head
        assert head is not None
        workspace = opened(store, head)
        begin = workspace.overlay.changes
        try:
            for number in range(640):
                made = workspace.create(1, b"f%d" % number, stat.S_IFREG | 0o644, 0, 0).number
                workspace.files.write(begin, made, 0, b"%d" % number)
                workspace.files.release(begin, made)
            calls: Counter[str] = Counter()
            monkeypatch.setattr(ChunkIndex, "locate", counted(calls, ChunkIndex, "locate"))
            monkeypatch.setattr(Staging, "status", counted(calls, Staging, "status"))
            monkeypatch.setattr(Staging, "small", counted(calls, Staging, "small"))
            result = committed(workspace)
        finally:
            workspace.close()
        assert result.files == 640
        assert calls["locate"] <= 640 // 64 + 10  # The rest: nodes.
        assert (calls["small"], calls["status"]) == (640, 0)
        assert result.commit is not None
        for number in range(640):
            entry = store.trees.walk_path(result.commit.root, b"f%d" % number)
            assert entry is not None
            assert store.contents.open(entry).read(0, 100) == b"%d" % number


def test_times_of_closed_files_do_not_pile_up(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with make_store(tmp_path / "home") as store:
        (source / "a").write_bytes(b"x")
        head = import_source(store, "set", "main", b"", source, message="m", author="a").head
        assert head is not None
        workspace = opened(store, head)
        begin = workspace.overlay.changes
        for number in range(1200):
            made = workspace.create(1, b"f%d" % number, stat.S_IFREG | 0o644, 0, 0).number
            workspace.files.write(begin, made, 0, b"x")
            workspace.files.release(begin, made)
        assert len(workspace.names.unsaved) <= 1024
        workspace.close()


def many_files(store: Store, count: int) -> Commit:
    """Commits a folder of so many empty files beside 100 others; none is made on this disk."""
    metadata = store.metadata_writer()
    plain = file_entry(b"")
    named = (plain._replace(name=b"file%07d" % number) for number in range(count))
    many = directory_entry(b"many", build_directory(store.trees, metadata, named), 0o755, 1)
    others = [
        directory_entry(
            b"d%02d" % number,
            build_directory(store.trees, metadata, iter([file_entry(b"f%d" % number)])),
            0o755,
            1,
        )
        for number in range(100)
    ]
    top = build_directory(store.trees, metadata, iter([*others, many]))
    commit = write_commit(
        metadata,
        root=directory_entry(b"", top, 0o755, 1),
        parents=[],
        author="a",
        message="m",
        time_ns=1,
        metadata={},
    )
    metadata.finish()
    ref = metadata.resolve(commit)
    store.create_repository("set").advance("main", ref, None, old=None, reason="test")
    return store.commits.read(ref)


def counted(calls: Counter[str], owner: Any, name: str) -> Callable[..., Any]:
    """Returns a function that counts its calls."""
    real = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        calls[name] += 1
        return real(*arguments, **named)

    return call


def make_reader(store: Store) -> Store:
    """Opens the store again, with nothing cached."""
    settings = store.settings
    store.close()
    return Store.open(settings)


def test_a_small_commit_makes_two_packs_and_starts_no_thread_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"before")
    with make_store(tmp_path / "home") as store:
        head = import_source(store, "set", "main", b"", source, message="m", author="a").head
        assert head is not None
        workspace = opened(store, head)
        try:
            found = workspace.lookup(1, b"file")
            assert found is not None
            workspace.files.write(workspace.overlay.changes, found.number, 0, b"after!")
            store.sync_index()
            before = set(store.index.known_packs())
            started: list[str] = []
            plain = threading.Thread.start

            def start(thread: threading.Thread) -> None:
                started.append(thread.name)
                plain(thread)

            monkeypatch.setattr(threading.Thread, "start", start)
            assert committed(workspace).files == 1
            # What is not needed any more goes behind the commit.
            assert started == ["discards"]
            # One of what is in the file, one of the tree and the commit.
            assert len(set(store.index.known_packs()) - before) == 2
        finally:
            workspace.close()


@pytest.fixture
def usual_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("usual_collector")
@pytest.mark.parametrize("when", ["asked", "end"])
def test_a_mount_that_commits_looks_for_cycles_seldom(tmp_path: Path, when: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with make_store(tmp_path / "home") as store:
        head = import_source(store, "set", "main", b"", source, message="m", author="a").head
        assert head is not None
        branches = Branches(store, Owner(os.getuid(), os.getgid()))
        branches.enter("set", "main", head, 1)
        branch = branches.known("set", "main")
        assert branch is not None
        workspace = branch.workspace
        for number in range(1_000):
            name = b"%04d" % number
            made = workspace.create(1, name, stat.S_IFREG | 0o644, 0, 0)
            workspace.files.write(workspace.overlay.changes, made.number, 0, name)
            workspace.files.release(workspace.overlay.changes, made.number)

        async def moved(_repository: str) -> None:
            pass

        async def commit_all() -> None:
            await WorkspaceService(store, branches, moved, lambda _: None).commit_all("m", "a")

        before = gc.get_stats()[0]["collections"]
        trio.run(commit_all) if when == "asked" else commit_at_end(branches, "m", "a")
        assert workspace.base.number == head.number + 1
        assert gc.get_stats()[0]["collections"] - before <= 4
        branches.close()
