"""Nothing that was changed is lost: not to another process, a power cut, or an unknown commit."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import stat
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import trio

from tests.support.stores import make_store
from versionfs.errors import (
    AlreadyExistsError,
    ConflictError,
    FileSystemError,
    InvalidInputError,
    NotFoundError,
    OverlapError,
    SourceError,
    StorageError,
)
from versionfs.fuse.access import with_workspace
from versionfs.fuse.workspaces import WorkspaceService, commit_at_end
from versionfs.objectstore import WouldBlock, never_blocking
from versionfs.repo import Repository, Store
from versionfs.transfer import import_source
from versionfs.types import Commit
from versionfs.vfs import Branches, Invalidation
from versionfs.vfs.owner import Owner
from versionfs.workspace import (
    CommitRequest,
    Committing,
    Dropped,
    Mutation,
    Step,
    Workspace,
    commit,
    fetched,
    folder_of,
    move,
    recover,
    recover_now,
    restore,
)
from versionfs.workspace.records import Owned
from versionfs.workspace.table import FrozenTable

REQUEST = CommitRequest("set", "main", "a change", "test")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"first")
    (source / "b").write_bytes(b"second")
    with make_store(tmp_path / "home") as store:
        import_source(store, "set", "main", b"", source, message="m", author="a")
        yield store


def head(store: Store) -> Commit:
    return store.commits.read(store.repository("set").branch("main").commit)


class FullError(OSError):
    """Of which it can be known when it is gone."""


def opened(store: Store, folder: Path | None = None) -> Workspace:
    return Workspace(store, folder or folder_of(store, "set", "main"), head(store))


def number_of(workspace: Workspace, name: bytes) -> int:
    found = workspace.lookup(1, name)
    assert found is not None
    return found.number


def content(workspace: Workspace, name: bytes) -> bytes:
    return workspace.files.read(number_of(workspace, name), 0, 1000)


def write(workspace: Workspace, name: bytes, data: bytes) -> None:
    workspace.files.write(workspace.overlay.changes, number_of(workspace, name), 0, data)


def create(workspace: Workspace, name: bytes, data: bytes = b"") -> int:
    mode = stat.S_IFREG | 0o644
    number = workspace.overlay.make(1, name, mode, os.getuid(), os.getgid())
    workspace.files.write(workspace.overlay.changes, number, 0, data)
    return number


@pytest.mark.parametrize("change", ["create", "write"])
def test_who_only_looked_does_not_overwrite_what_another_process_changed(
    store: Store, change: str
) -> None:
    looked = opened(store)
    other = opened(store)
    create(other, b"new", b"PRECIOUS")
    other.close()
    with pytest.raises(FileSystemError) as error:
        create(looked, b"mine", b"x") if change == "create" else write(looked, b"a", b"x")
    assert error.value.number == errno.EBUSY
    assert looked.records.is_stale
    looked.close()
    again = opened(store)
    assert content(again, b"new") == b"PRECIOUS"
    assert again.lookup(1, b"mine") is None
    create(again, b"mine", b"x")
    again.close()


def test_who_only_looked_does_not_bring_back_the_commit_before(store: Store) -> None:
    looked = opened(store)
    other = opened(store)
    write(other, b"a", b"FIRST")
    commit(other, REQUEST)
    other.close()
    with pytest.raises(FileSystemError):
        create(looked, b"mine", b"x")
    for step in looked.follow(head(store)):
        if callable(step):
            step()
    create(looked, b"mine", b"x")
    assert not looked.records.is_stale
    assert content(looked, b"a") == b"FIRST"
    commit(looked, REQUEST)
    looked.close()
    again = opened(store)
    assert (content(again, b"a"), content(again, b"mine")) == (b"FIRST", b"x")
    again.close()


def test_a_table_without_changes_is_taken_as_it_is(store: Store) -> None:
    looked = opened(store)
    other = opened(store)
    create(other, b"new", b"x")
    other.overlay.unlink(1, b"new")
    layers = other.layers._next
    other.close()
    create(looked, b"mine", b"x")
    assert looked.layers._next > layers
    looked.close()


def test_layers_are_numbered_above_all_that_are_there(store: Store) -> None:
    workspace = opened(store)
    create(workspace, b"new", b"x")
    workspace.records.staging.create(1_000_000)
    workspace.close()
    again = opened(store)
    create(again, b"other", b"x")
    assert max(again.records.staging.layers()) > 1_000_000
    again.close()


def test_a_change_that_failed_reserves_no_layers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(workspace.records, "apply", full)
        for work in (create, write):
            with pytest.raises(OSError, match="full"):
                work(workspace, b"a" if work is write else b"new", b"x")
    write(workspace, b"a", b"PRECIOUS")
    create(workspace, b"second", b"PRECIOUS 2")
    names = sorted(workspace.records.staging.layers())
    reserved = workspace.records.get(b"mlayer")
    assert reserved is not None
    assert int.from_bytes(reserved, "little") > names[-1]
    workspace.close()


# -- power cuts ----------------------------------------------------------------------------------


def synced(workspace: Workspace, name: bytes) -> None:
    workspace.files.sync(workspace.overlay.changes, number_of(workspace, name))()


def after_power_cut(store: Store, workspace: Workspace, before: Path) -> Workspace:
    """Opens the records that were durable, with the staging files as they are now."""
    shutil.rmtree(before / "staging")
    shutil.copytree(workspace.folder / "staging", before / "staging")
    return opened(store, before)


def hold_back(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the disk refuse to sync: nothing that happens from now on is durable."""

    def fail() -> None:
        raise OSError(errno.EIO, "no sync")

    table = workspace.records._table
    assert table is not None
    monkeypatch.setattr(table, "sync", fail)


def test_what_a_file_was_replaced_with_goes_only_after_that_is_durable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    create(workspace, b"doc", b"OLD")
    synced(workspace, b"doc")
    create(workspace, b"tmp", b"NEW")
    synced(workspace, b"tmp")
    before = tmp_path / "before"
    with monkeypatch.context() as patched:
        shutil.copytree(workspace.folder, before)
        hold_back(workspace, patched)
        layers = set(workspace.records.staging.layers())
        workspace.overlay.rename(1, b"tmp", 1, b"doc")
        for number in list(workspace.names.lookups):
            workspace.forget(number, workspace.names.lookups[number])
        assert workspace.records.has_discards
        with pytest.raises(OSError, match="no sync"):
            workspace.records.drain()
        assert set(workspace.records.staging.layers()) == layers
        after = after_power_cut(store, workspace, before)
        assert (content(after, b"doc"), content(after, b"tmp")) == (b"OLD", b"NEW")
        after.close()
    workspace.records.drain()
    assert len(set(workspace.records.staging.layers())) == 1
    assert content(workspace, b"doc") == b"NEW"
    workspace.close()


def test_what_a_commit_has_settled_goes_only_after_that_is_durable(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    create(workspace, b"new", b"NEW")
    write(workspace, b"a", b"FIRST")
    before = tmp_path / "before"
    advance = Repository.advance

    def advancing(self: Repository, *arguments: object, **options: object) -> object:
        done = advance(self, *arguments, **options)  # type: ignore[arg-type]
        shutil.copytree(workspace.folder, before)
        hold_back(workspace, monkeypatch)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Repository, "advance", advancing)
        commit(workspace, REQUEST)
    after = after_power_cut(store, workspace, before)
    assert (content(after, b"new"), content(after, b"a")) == (b"NEW", b"FIRST")
    recover_now(after, "set", "main")
    assert (content(after, b"new"), content(after, b"a")) == (b"NEW", b"FIRST")
    after.close()
    workspace.close()


def test_a_lost_staging_file_is_an_error_each_time_and_nothing_is_committed(store: Store) -> None:
    workspace = opened(store)
    create(workspace, b"new", b"NEW")
    write(workspace, b"a", b"FIRST")
    layers = list(workspace.records.staging.layers())
    workspace.close()
    workspace = opened(store)
    for layer in layers:
        workspace.records.staging.remove(layer)
    for name in (b"new", b"a") * 2:
        with pytest.raises(OSError, match="gone") as error:
            content(workspace, name)
        assert error.value.errno == errno.EIO
    with pytest.raises(SourceError, match=r"a and 1 more.*\(restore, empty or remove") as lost:
        commit(workspace, REQUEST)
    assert lost.value.problems == [
        (b"a", "a staging file is gone"),
        (b"new", "a staging file is gone"),
    ]
    workspace.overlay.unlink(1, b"new")
    with pytest.raises(SourceError) as lost:
        commit(workspace, REQUEST)
    assert lost.value.problems == [(b"a", "a staging file is gone")]
    workspace.files.truncate(workspace.overlay.changes, number_of(workspace, b"a"), 0)
    write(workspace, b"a", b"again")
    commit(workspace, REQUEST)
    assert content(workspace, b"a") == b"again"
    workspace.close()


def test_every_file_that_is_lost_is_named_and_the_others_are_committed(store: Store) -> None:
    workspace = opened(store)
    size = 100_000  # A staging file of its own.
    folder = workspace.overlay.make(1, b"sub", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
    for name in (b"early", b"small", b"large", b"truncated", b"zzz"):
        create(workspace, name, b"x" * (size if name in (b"large", b"truncated") else 10))
    workspace.overlay.link(number_of(workspace, b"small"), folder, b"linked")
    staging = workspace.records.staging
    for name in (b"small", b"large"):
        staging.remove(workspace.names.inode(number_of(workspace, name)).layers[0].id)
    workspace.close()
    workspace = opened(store)
    with pytest.raises(SourceError) as lost:
        commit(workspace, REQUEST)
    assert [path for path, _ in lost.value.problems] == [b"large", b"small", b"sub/linked"]
    for _ in restore(workspace, [b"large"]):
        pass
    folder = number_of(workspace, b"sub")
    workspace.overlay.unlink(folder, b"linked")
    workspace.files.truncate(workspace.overlay.changes, number_of(workspace, b"small"), 0)
    assert commit(workspace, REQUEST).commit is not None
    assert content(workspace, b"early") == content(workspace, b"zzz") == b"x" * 10
    assert workspace.lookup(1, b"large") is None
    assert workspace.lookup(folder, b"linked") is None
    workspace.close()


def test_a_file_whose_bytes_cannot_be_read_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = opened(store)
    create(workspace, b"large", b"x" * 100_000)
    create(workspace, b"other", b"x" * 100_000)
    own = workspace.records.staging.own_path(
        workspace.names.inode(number_of(workspace, b"large")).layers[0].id
    )
    real = os.open

    def broken(path: object, *arguments: int, **options: int) -> int:
        if os.fsencode(path) == os.fsencode(own):  # type: ignore[arg-type]
            raise OSError(errno.EIO, "a bad sector")
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", broken)
        with pytest.raises(SourceError) as lost:
            commit(workspace, REQUEST)
    assert lost.value.problems == [(b"large", "its staging file cannot be read")]
    assert f"{own} cannot be read: a bad sector" in caplog.text
    assert commit(workspace, REQUEST).commit is not None
    workspace.close()


def test_no_record_is_synced_while_another_thread_syncs_the_bytes_it_needs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    create(workspace, b"new", b"x")
    write(workspace, b"a", b"FIRST")  # Hides stored bytes.
    staging, table = workspace.records.staging, workspace.records._table
    assert table is not None
    entered, go = threading.Event(), threading.Event()
    real, done = staging.sync, []

    def slow(layer: int) -> None:
        entered.set()
        assert go.wait(10)
        real(layer)
        done.append("bytes")

    sync = table.sync

    def records() -> None:
        done.append("records")
        sync()

    monkeypatch.setattr(staging, "sync", slow)
    monkeypatch.setattr(table, "sync", records)
    threads = [threading.Thread(target=workspace.records.sync) for _ in range(2)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    threads[1].join(0.1)
    assert done == []
    go.set()
    for thread in threads:
        thread.join()
    assert done == ["bytes", "records", "records"]
    workspace.close()


def test_a_failed_sync_is_told_again_and_stops_no_other_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    write(workspace, b"a", b"FIRST")
    synced(workspace, b"a")
    write(workspace, b"a", b"AGAIN")
    real = os.fdatasync

    def fail(_descriptor: int) -> None:
        monkeypatch.setattr(os, "fdatasync", real)
        raise OSError(errno.EIO, "a bad disk")

    monkeypatch.setattr(os, "fdatasync", fail)
    for _ in range(3):
        with pytest.raises(OSError, match=r"bad disk|not be on the disk") as error:
            synced(workspace, b"a")
        assert error.value.errno == errno.EIO
    # It hides stored bytes, which all that goes to LMDB waits for.
    write(workspace, b"b", b"OTHER")
    workspace.files.truncate(workspace.overlay.changes, number_of(workspace, b"a"), 3)
    create(workspace, b"new", b"x")
    synced(workspace, b"new")
    assert workspace.records._table is not None
    workspace.records._table.checkpoint()
    with pytest.raises(OSError, match="not be on the disk"):
        synced(workspace, b"a")
    commit(workspace, REQUEST)
    workspace.records.drain()
    write(workspace, b"a", b"X")
    synced(workspace, b"a")
    workspace.close()


def test_room_that_is_about_to_be_free_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    number = create(workspace, b"old", b"x")
    create(workspace, b"new", b"x")
    staging = workspace.records.staging
    real = staging.write

    def full(*arguments: object) -> int:
        if len(list(staging.layers())) > 1:
            raise OSError(errno.ENOSPC, "full")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(staging, "write", full)
    with monkeypatch.context() as patched:
        hold_back(workspace, patched)
        workspace.overlay.unlink(1, b"old")
        workspace.forget(number, workspace.names.lookups.get(number, 0))
        with never_blocking(), pytest.raises(WouldBlock) as wait:
            write(workspace, b"new", b"y")
    wait.value.fetch()
    with never_blocking():
        write(workspace, b"new", b"y")
    assert content(workspace, b"new") == b"y"
    workspace.close()


def test_room_that_became_free_while_the_disk_was_found_full_is_used(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    number = create(workspace, b"old", b"x")
    records = workspace.records
    staging = records.staging
    real, refused = staging.create, list[bool]()

    def full_once(*arguments: object) -> None:
        if not refused:
            refused.append(True)
            records.drain()  # by its own thread, before the error is looked at
            raise OSError(errno.ENOSPC, "full")
        real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        hold_back(workspace, patched)
        workspace.overlay.unlink(1, b"old")
        workspace.forget(number, workspace.names.lookups.get(number, 0))
    monkeypatch.setattr(staging, "create", full_once)
    with never_blocking():
        create(workspace, b"new", b"y")
    assert refused
    assert content(workspace, b"new") == b"y"
    workspace.close()


def tight(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the disk be full at each change until what is about to go has gone; counts that."""
    table = workspace.records._table
    assert table is not None
    real, drains, is_full = table.apply, [0], [True]

    def apply(mutations: Sequence[Mutation], *, frees: bool = False) -> int:
        if is_full[0]:
            raise OSError(errno.ENOSPC, "full")
        is_full[0] = True
        return real(mutations, frees=frees)

    def drain() -> None:
        drains[0] += 1
        is_full[0] = False

    monkeypatch.setattr(table, "apply", apply)
    monkeypatch.setattr(type(workspace.records), "has_discards", True)
    monkeypatch.setattr(workspace.records, "drain", drain)
    return drains


def done(steps: Iterable[Step]) -> list[Dropped]:
    """Does the steps on a thread that must not wait; returns what the kernel had to drop."""
    dropped: list[Dropped] = []
    steps = iter(steps)
    while True:
        with never_blocking():
            step = next(steps, None)
        if step is None:
            return dropped
        if callable(step):
            step()
        else:
            dropped += step


def test_a_restore_on_a_full_disk_waits_for_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    write(workspace, b"a", b"FIRST")
    workspace.overlay.set_attributes(1, mode=0o700)
    folder = workspace.overlay.make(1, b"new", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
    for name in (b"x", b"y"):
        workspace.overlay.make(folder, name, stat.S_IFREG | 0o644, os.getuid(), os.getgid())
    with monkeypatch.context() as patched:
        drains = tight(workspace, patched)
        done(restore(workspace, [b""]))
        assert drains[0] >= 5
    assert workspace.is_clean
    assert content(workspace, b"a") == b"first"
    assert workspace.lookup(1, b"new") is None
    workspace.close()


def test_a_name_that_changes_while_a_restore_waits_for_room_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    write(workspace, b"a", b"FIRST")
    with monkeypatch.context() as patched:
        tight(workspace, patched)
        with never_blocking():
            steps = restore(workspace, [b"a"])
            step = next(steps)
    assert callable(step)
    workspace.overlay.unlink(1, b"a")
    create(workspace, b"a", b"later")
    with pytest.raises(ConflictError, match="while it was restored"):
        done(steps)
    assert content(workspace, b"a") == b"later"
    workspace.close()


def test_a_commit_on_a_full_disk_waits_for_room(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    number = create(workspace, b"new", b"x")
    write(workspace, b"a", b"FIRST")
    workspace.files.release(workspace.overlay.changes, number)
    other = opened(store, tmp_path / "other")
    write(other, b"b", b"THEIRS")
    commit(other, REQUEST)
    other.close()
    assert workspace.names.unsaved
    with monkeypatch.context() as patched:
        drains = tight(workspace, patched)
        committing = Committing(workspace, REQUEST)
        done(fetched(committing.cut))
        assert drains[0]
        patched.undo()
        write(workspace, b"a", b"SECOND")
        committing.publish()
        drains = tight(workspace, patched)
        dropped = done(committing.settle())
        assert drains[0] >= 2
        committing.end()
    assert dropped
    assert content(workspace, b"b") == b"THEIRS"
    commit(workspace, REQUEST)
    assert workspace.is_clean
    assert content(workspace, b"a") == b"SECOND"
    workspace.close()


def test_a_cut_that_finds_too_many_readers_keeps_no_state(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    write(workspace, b"a", b"FIRST")
    table = workspace.records._table
    assert table is not None
    taken: list[FrozenTable] = []
    real = table.frozen

    def frozen() -> FrozenTable:
        if taken:
            raise OSError(errno.ENOMEM, "too many readers")
        taken.append(real())
        return taken[0]

    with monkeypatch.context() as patched:
        patched.setattr(table, "frozen", frozen)
        with pytest.raises(OSError, match="too many readers"):
            commit(workspace, REQUEST)
    with pytest.raises(ValueError, match="closed"):
        taken[0].get(b"mbase")
    assert not workspace.layers.is_frozen
    assert commit(workspace, REQUEST).commit is not None
    workspace.close()


# -- what came of a commit -----------------------------------------------------------------------


@pytest.fixture
def unknown(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets a commit be made whose answer is lost; then the store cannot be read."""
    workspace = opened(store)
    write(workspace, b"a", b"FIRST")
    advance = Repository.advance

    def lost(self: Repository, *arguments: object, **options: object) -> None:
        advance(self, *arguments, **options)  # type: ignore[arg-type]
        raise StorageError("the answer is lost")

    with monkeypatch.context() as patched:
        patched.setattr(Repository, "advance", lost)
        with pytest.raises(StorageError, match="lost"):
            commit(workspace, REQUEST)
    workspace.close()

    def unreachable(*_arguments: object) -> Iterator[Commit]:
        raise StorageError("unreachable")

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["versionfs.workspace.committing"], "first_parents", unreachable)
        yield


@pytest.mark.usefixtures("unknown")
def test_nothing_is_done_before_it_is_known_what_came_of_the_last_commit(store: Store) -> None:
    for action in (
        lambda workspace: workspace.restore([b"a"]),
        lambda workspace: workspace.move("other"),
        lambda workspace: workspace.commit("m", "a", {}),
    ):
        with pytest.raises(StorageError, match="unreachable"):
            with_workspace(store, "set", "main", action)
    changes = with_workspace(
        store, "set", "main", lambda workspace: list(workspace.changes(full=False))
    )
    assert changes


@pytest.mark.usefixtures("unknown")
def test_no_mount_does_anything_before_it_is_known_what_came_of_the_last_commit(
    store: Store,
) -> None:
    branches = Branches(store, Owner(os.getuid(), os.getgid()))
    branches.enter("set", "main", head(store), 1)

    async def moved(_repository: str) -> None:
        pass

    async def ask() -> None:
        service = WorkspaceService(store, branches, moved, lambda _: None)
        where = {"repository": "set", "branch": "main"}
        said = {"message": "m", "author": "a", "metadata": {}}
        for request in (
            {"op": "workspace-restore", "paths": ["a"]},
            {"op": "workspace-move", "to": "other"},
            {"op": "workspace-commit", **said},
        ):
            with pytest.raises(StorageError, match="unreachable"):
                await service.answer(where | request)
        reply = await service.answer(where | {"op": "workspace-status", "limit": 10})
        assert reply["changes"]

    trio.run(ask)
    branches.close()


@pytest.mark.parametrize("when", ["interval", "end"])
def test_a_workspace_that_cannot_be_read_does_not_keep_others_from_being_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    store.repository("set").create_branch("broken", head(store))
    branches = Branches(store, Owner(os.getuid(), os.getgid()))
    for name in ("broken", "main"):
        branches.enter("set", name, head(store), 1)
        branch = branches.known("set", name)
        assert branch is not None
        write(branch.workspace, b"a", b"FIRST")
    before = head(store)

    def broken(*_arguments: object) -> None:
        raise OSError(errno.EIO, "a bad sector")

    async def moved(_repository: str) -> None:
        pass

    async def commit_all() -> None:
        await WorkspaceService(store, branches, moved, lambda _: None).commit_all("m", "a")

    known = branches.known("set", "broken")
    assert known is not None
    with monkeypatch.context() as patched:
        patched.setattr(known.workspace.records, "scan", broken)
        trio.run(commit_all) if when == "interval" else commit_at_end(branches, "m", "a")
    assert "cannot commit set/broken" in caplog.text
    assert head(store).number == before.number + 1
    branches.close()


def test_a_commit_that_was_not_made_freezes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    write(workspace, b"a", b"FIRST")
    other = opened(store, workspace.folder.parent / "elsewhere")
    write(other, b"a", b"other")
    advance = Repository.advance

    def overtaken(self: Repository, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(Repository, "advance", advance)
        commit(other, REQUEST)
        return advance(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Repository, "advance", overtaken)
    with pytest.raises(OverlapError):
        commit(workspace, REQUEST)
    assert workspace.records.get(b"mpending") is None
    assert not workspace.layers.is_frozen
    other.close()
    workspace.close()


def test_what_is_known_of_a_commit_that_was_not_made_waits_for_room_on_a_full_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    write(workspace, b"a", b"FIRST")

    def unreachable(*_arguments: object, **_options: object) -> None:
        raise StorageError("unreachable")

    with monkeypatch.context() as patched:
        patched.setattr(Repository, "advance", unreachable)
        with pytest.raises(StorageError, match="unreachable"):
            commit(workspace, REQUEST)
    assert workspace.records.get(b"mpending") is not None
    with monkeypatch.context() as patched:
        drains = tight(workspace, patched)
        assert done(recover(workspace, "set", "main")) == []
        assert drains[0]
    assert workspace.records.get(b"mpending") is None
    assert not workspace.layers.is_frozen
    workspace.close()


def test_no_branch_is_made_when_its_folder_cannot_be_had(store: Store) -> None:
    workspace = opened(store)
    write(workspace, b"a", b"FIRST")
    owned = Owned(folder_of(store, "set", "new"))
    with pytest.raises(AlreadyExistsError):
        move(workspace, "set", "new")
    with pytest.raises(NotFoundError):
        store.repository("set").branch("new")
    owned.close()
    outside = store.settings.state_dir / "outside"
    outside.mkdir()
    with pytest.raises(InvalidInputError):
        move(workspace, "set", "../../../outside")
    assert outside.is_dir()
    move(workspace, "set", "new")
    assert workspace.folder == folder_of(store, "set", "new")
    assert content(workspace, b"a") == b"FIRST"
    workspace.close()


def test_a_stale_branch_folder_is_replaced_at_the_next_lookup(store: Store) -> None:
    branches = Branches(store, Owner(os.getuid(), os.getgid()))
    before = branches.enter("set", "main", head(store), 1)
    assert before is not None
    other = opened(store)
    create(other, b"new", b"PRECIOUS")
    other.close()
    branch, _ = branches.of(before.number)
    with pytest.raises(FileSystemError):
        create(branch.workspace, b"mine", b"x")
    heads: dict[tuple[str, str], Commit | None] = {("set", "main"): head(store)}
    assert list(branches.steps(None, heads)) == [[Invalidation(1, b"main")]]
    after = branches.enter("set", "main", head(store), 1)
    assert after is not None
    assert after.number != before.number
    create(branches.of(after.number)[0].workspace, b"mine", b"x")
    assert content(branches.of(after.number)[0].workspace, b"new") == b"PRECIOUS"
    assert not list(branches.steps(None, heads))
    branches.close()


def test_an_error_for_want_of_room_takes_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames have files open: the space of those would come back when cycles are looked for."""
    workspace = opened(store)
    left: weakref.WeakSet[FullError] = weakref.WeakSet()
    made = 0

    def watched() -> FullError:
        nonlocal made
        made += 1
        error = FullError(errno.ENOSPC, "full")
        left.add(error)
        return error

    def full(*_: object) -> None:
        raise watched()

    create(workspace, b"kept", b"x")
    monkeypatch.setattr(workspace.records.staging, "create", full)
    monkeypatch.setattr(workspace.records.staging, "write", full)
    gc.disable()
    try:
        for work in (
            lambda: create(workspace, b"new", b"y"),
            lambda: write(workspace, b"kept", b"y"),
        ):
            before = made
            with contextlib.suppress(OSError):  # pytest.raises would keep it
                work()
            assert made > before
            assert not left
    finally:
        gc.enable()
    workspace.close()
