"""A workspace whose base moves: what is open, what is known, and what is changed meanwhile."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.remote import RemoteFolder
from tests.support.stores import bring, content, head, make_store, settings_in
from versionfs.errors import FileSystemError
from versionfs.objectstore import WouldBlock, never_blocking
from versionfs.repo import Store
from versionfs.repo.format import FORMAT_KEY, StoreFormat
from versionfs.vfs.branches import Branches
from versionfs.vfs.owner import Owner
from versionfs.workspace import (
    ROOT,
    CommitRequest,
    CommitResult,
    Status,
    Workspace,
    commit,
    folder_of,
)

Edit = Callable[[Workspace], object]
REQUEST = CommitRequest("photos", "main", "m", "ada")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    source = tmp_path / "source"
    deep = source / "sub" / "deep"
    deep.mkdir(parents=True)
    (source / "a").write_bytes(b"first")
    (source / "sub" / "x").write_bytes(b"x v0")
    (source / "sub" / "y").write_bytes(b"y v0")
    (deep / "z").write_bytes(b"z v0")
    (deep / "w").write_bytes(b"w v0")
    with make_store(tmp_path / "home") as store:
        bring(store, source)
        yield store


@pytest.fixture
def workspace(store: Store) -> Iterator[Workspace]:
    workspace = Workspace(store, folder_of(store, "photos", "main"), head(store))
    yield workspace
    workspace.close()


@pytest.fixture
def others(store: Store, tmp_path: Path) -> Callable[[Edit], CommitResult]:
    """Commits what somebody else does in a workspace of their own."""
    count = iter(range(100))

    def change(edit: Edit) -> CommitResult:
        other = Workspace(store, tmp_path / f"other{next(count)}", head(store))
        try:
            edit(other)
            return commit(other, REQUEST)
        finally:
            other.close()

    return change


def look(workspace: Workspace, path: bytes) -> int:
    number = ROOT
    for name in filter(None, path.split(b"/")):
        found = workspace.lookup(number, name)
        assert found is not None, path
        number = found.number
    return number


def write(workspace: Workspace, path: bytes, data: bytes) -> None:
    workspace.files.write(workspace.overlay.changes, look(workspace, path), 0, data)


def text(workspace: Workspace, path: bytes) -> bytes:
    return workspace.files.read(look(workspace, path), 0, 1000)


def follow(workspace: Workspace, store: Store) -> None:
    for step in workspace.follow(head(store)):
        if callable(step):
            step()


def forget_all(workspace: Workspace) -> None:
    for number in list(workspace.names.folders):
        folder = workspace.names.folders.get(number)
        if folder is not None and number != ROOT:
            workspace.forget(number, folder.lookups)


@pytest.fixture
def far(store: Store, tmp_path: Path) -> Iterator[Store]:
    """The same store as if behind a network, on a machine that has read nothing of it yet."""
    root = tmp_path / "home" / "store"
    store_format = StoreFormat.decode((root / FORMAT_KEY).read_bytes(), str(root))
    with Store(settings_in(tmp_path / "b", store=root), RemoteFolder(root), store_format) as far:
        yield far


def patiently(work: Callable[[], object]) -> object:
    """Does what must not block, fetching what it needs in between."""
    while True:
        try:
            with never_blocking():
                return work()
        except WouldBlock as wait:
            wait.fetch()


# -- what is open while the base moves -------------------------------------------------------------


def test_a_write_to_what_was_opened_before_the_base_moved_reverts_nothing(workspace, store, others):
    number = look(workspace, b"a")
    workspace.files.open(number)
    others(lambda other: write(other, b"a", b"THEIRS, longer"))
    follow(workspace, store)
    assert workspace.files.read(number, 0, 100) == b"first"
    assert workspace.files.write(workspace.overlay.changes, number, 0, b"F") == 1
    assert workspace.files.read(number, 0, 100) == b"First"
    assert workspace.stat(number).nlink == 0
    assert text(workspace, b"a") == b"THEIRS, longer"
    assert workspace.is_clean
    commit(workspace, REQUEST)
    assert content(store, b"a") == b"THEIRS, longer"
    with pytest.raises(FileSystemError) as raised:
        workspace.overlay.link(number, ROOT, b"again")
    assert raised.value.number == errno.ENOENT
    workspace.files.release(workspace.overlay.changes, number)
    workspace.forget(number, workspace.names.lookups[number])
    assert number not in workspace.names.orphans


def test_a_write_to_what_the_base_has_no_longer_brings_nothing_back(workspace, store, others):
    number = look(workspace, b"sub/deep/z")
    folder = look(workspace, b"sub/deep")

    def edit(other: Workspace) -> None:
        deep = look(other, b"sub/deep")
        other.overlay.unlink(deep, b"z")
        other.overlay.unlink(deep, b"w")
        other.overlay.rmdir(look(other, b"sub"), b"deep")

    others(edit)
    follow(workspace, store)
    workspace.files.write(workspace.overlay.changes, number, 0, b"Z")
    assert workspace.files.read(number, 0, 100) == b"Z v0"
    workspace.overlay.set_attributes(number, mode=0o600)
    with pytest.raises(FileSystemError) as raised:
        workspace.overlay.set_attributes(folder, mode=0o700)
    assert raised.value.number == errno.ENOENT
    assert workspace.lookup(look(workspace, b"sub"), b"deep") is None
    assert workspace.is_clean
    forget_all(workspace)
    workspace.forget(number, 10)
    assert list(workspace.names.folders) == [ROOT]


def test_a_write_to_what_the_base_has_elsewhere_keeps_what_others_changed(workspace, store, others):
    number = look(workspace, b"a")
    others(lambda other: other.overlay.set_attributes(look(other, b"a"), mode=0o600))
    follow(workspace, store)
    workspace.files.write(workspace.overlay.changes, number, 0, b"F")
    assert text(workspace, b"a") == b"First"
    assert look(workspace, b"a") == number
    assert stat.S_IMODE(workspace.stat(number).mode) == 0o600


def test_an_own_file_is_not_replaced_by_an_old_one_of_its_name(workspace, store, others):
    number = look(workspace, b"a")
    others(lambda other: other.overlay.unlink(ROOT, b"a"))
    follow(workspace, store)
    own = workspace.overlay.make(ROOT, b"a", stat.S_IFREG | 0o644, 0, 0)
    workspace.files.write(workspace.overlay.changes, own, 0, b"own")
    workspace.files.write(workspace.overlay.changes, number, 0, b"F")
    assert text(workspace, b"a") == b"own"


def test_folders_that_are_gone_are_freed_in_any_order(workspace):
    deep, sub = look(workspace, b"sub/deep"), look(workspace, b"sub")
    for name in (b"z", b"w"):
        workspace.overlay.unlink(deep, name)
    workspace.overlay.rmdir(sub, b"deep")
    workspace.forget(sub, 10)
    workspace.forget(deep, 10)
    assert list(workspace.names.folders) == [ROOT]


# -- numbers ---------------------------------------------------------------------------------------


def test_two_directories_never_have_one_number(workspace, store):
    workspace.overlay.rename(ROOT, b"sub", ROOT, b"old")
    commit(workspace, REQUEST)
    look(workspace, b"old")
    forget_all(workspace)
    forget_all(workspace)
    made = workspace.overlay.make(ROOT, b"sub", stat.S_IFDIR | 0o755, 0, 0)
    assert look(workspace, b"old") != made
    workspace.overlay.make(look(workspace, b"old"), b"added", stat.S_IFREG | 0o644, 0, 0)
    workspace.overlay.make(made, b"mine", stat.S_IFREG | 0o644, 0, 0)
    commit(workspace, REQUEST)
    assert content(store, b"old/added") == content(store, b"sub/mine") == b""


# -- following -------------------------------------------------------------------------------------


def change_three(other: Workspace) -> None:
    write(other, b"sub/x", b"THEIRX")
    write(other, b"sub/deep/z", b"THEIRZ")
    write(other, b"sub/deep/w", b"THEIRW")


def test_all_folders_follow_at_once(workspace, store, others):
    look(workspace, b"sub/deep/z")
    others(change_three)
    steps = workspace.follow(head(store))
    next(steps)
    write(workspace, b"sub/deep/z", b"Z")
    for step in steps:
        assert not callable(step)
    commit(workspace, REQUEST)
    assert content(store, b"sub/deep/z") == b"ZHEIRZ"
    assert content(store, b"sub/deep/w") == b"THEIRW"
    assert content(store, b"sub/x") == b"THEIRX"


def test_who_stops_to_listen_sees_the_new_base_everywhere(workspace, store, others):
    look(workspace, b"sub/deep/z")
    others(change_three)
    steps = workspace.follow(head(store))
    next(steps)
    steps.close()
    assert workspace.base.ref == head(store).ref
    assert text(workspace, b"sub/deep/w") == b"THEIRW"
    write(workspace, b"sub/y", b"Y")
    commit(workspace, REQUEST)
    assert content(store, b"sub/x") == b"THEIRX"


def test_what_fails_to_be_fetched_changes_nothing(store, far, others, tmp_path):
    before = head(store)
    workspace = Workspace(far, tmp_path / "w", before)
    look(workspace, b"sub/deep/z")
    others(change_three)
    after = head(store)
    fetches = 0
    while True:
        with never_blocking():
            steps = workspace.follow(after)
            step = next(steps)
        if not callable(step):
            break
        steps.close()  # as if it had failed
        assert workspace.base is before
        assert patiently(lambda: text(workspace, b"sub/deep/w")) == b"w v0"
        step()
        fetches += 1
    assert fetches
    assert workspace.base is after
    assert patiently(lambda: text(workspace, b"sub/deep/w")) == b"THEIRW"
    workspace.close()


def test_what_is_changed_while_a_base_is_fetched_is_changed_on_the_old_one(
    store, far, others, tmp_path
):
    before = head(store)
    workspace = Workspace(far, tmp_path / "w", before)
    look(workspace, b"sub/deep/z")
    others(change_three)
    with never_blocking():
        steps = workspace.follow(head(store))
        step = next(steps)
    assert callable(step)
    step()
    write(workspace, b"sub/y", b"Y")
    for step in steps:
        assert callable(step)
        step()
    assert workspace.base is before
    assert text(workspace, b"sub/x") == b"x v0"
    assert commit(workspace, REQUEST).merged
    assert text(workspace, b"sub/x") == b"THEIRX"
    assert content(store, b"sub/y") == b"Y v0"
    workspace.close()


def test_what_is_looked_up_while_a_base_is_fetched_follows_too(store, far, others, tmp_path):
    workspace = Workspace(far, tmp_path / "w", head(store))
    look(workspace, b"sub")
    others(change_three)
    with never_blocking():
        steps = workspace.follow(head(store))
        step = next(steps)
    assert callable(step)
    step()
    deep = look(workspace, b"sub/deep")
    for step in steps:
        if callable(step):
            step()
    found = workspace.lookup(deep, b"w")
    assert found is not None
    assert workspace.files.read(found.number, 0, 100) == b"THEIRW"
    workspace.close()


def test_a_branch_folder_does_not_follow_while_it_is_committed(store, far, others):
    before = head(store)
    branches = Branches(far, Owner(0, 0))
    branches.enter("photos", "main", before, 1)
    branch = branches.known("photos", "main")
    assert branch is not None
    look(branch.workspace, b"sub/deep")
    others(change_three)
    heads = {("photos", "main"): head(store)}
    with never_blocking():
        steps = iter(branches.steps(None, heads))
        step = next(steps)
    assert callable(step)
    branch.is_committing = True
    step()
    assert all(callable(step) for step in steps)
    assert branch.workspace.base is before
    branch.is_committing = False
    assert [step for step in branches.steps(None, heads) if not callable(step)]
    assert branch.workspace.base is heads["photos", "main"]
    branches.close()


@pytest.mark.parametrize("kept", ["hard link", "fifo"])
def test_what_a_commit_leaves_recorded_goes_to_the_head_with_the_next_one(
    workspace, store, others, kept
):
    """See docs/posix.md: until then the folder stays on its base."""
    if kept == "hard link":
        workspace.overlay.link(look(workspace, b"a"), ROOT, b"linked")
    else:
        write(workspace, b"a", b"A")
        workspace.overlay.make(ROOT, b"fifo", stat.S_IFIFO | 0o644, 0, 0)
    commit(workspace, REQUEST)
    with workspace.records.frozen() as frozen:
        status = Status(
            store.trees, frozen, workspace.records.staging, workspace.base.root, store.contents
        )
        assert list(status.changes()) == []
    others(change_three)
    follow(workspace, store)
    assert text(workspace, b"sub/x") == b"x v0"
    result = commit(workspace, REQUEST)
    assert result.commit is None
    assert workspace.base.ref == head(store).ref
    assert text(workspace, b"sub/x") == b"THEIRX"


def test_a_base_is_followed_after_the_table_has_caught_up(workspace, store, others, monkeypatch):
    write(workspace, b"a", b"A")
    commit(workspace, REQUEST)
    others(change_three)
    records = workspace.records
    behind, real = [True], records._table.apply

    def apply(mutations, *, frees=False):
        if behind[0]:
            raise WouldBlock(behind.pop)
        return real(mutations, frees=frees)

    monkeypatch.setattr(records._table, "apply", apply)
    steps = workspace.follow(head(store))
    step = next(steps)
    assert callable(step)
    assert workspace.base.ref != head(store).ref
    step()
    behind.append(False)
    assert not any(callable(step) for step in steps)
    assert workspace.base.ref == head(store).ref
    assert text(workspace, b"sub/x") == b"THEIRX"


def test_the_kernel_is_told_of_a_folder_of_which_others_changed_only_attributes(
    workspace, store, others
):
    number = look(workspace, b"sub")
    assert workspace.stat(number).mode & 0o777 == 0o755
    others(lambda other: other.overlay.set_attributes(look(other, b"sub"), mode=0o700))
    dropped = [one for step in workspace.follow(head(store)) if not callable(step) for one in step]
    assert (number, None) in dropped
    assert workspace.stat(number).mode & 0o777 == 0o700
