"""Commits that were merged with those of others, and restores, while programs go on working."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.stores import make_store
from versionfs.errors import FileSystemError, NotFoundError, OverlapError
from versionfs.objectstore import WouldBlock
from versionfs.repo import Store
from versionfs.transfer import import_source
from versionfs.types import Commit
from versionfs.workspace import CommitRequest, Workspace, commit, folder_of, restore
from versionfs.workspace.committing import Committing, recover_now
from versionfs.workspace.folders import Folder
from versionfs.workspace.following import Dropped, finished
from versionfs.workspace.names import InBase
from versionfs.workspace.status import Status

_REQUEST = CommitRequest("set", "main", "message", "author")


@dataclass
class Made:
    """A store with a commit, and a workspace of it."""

    folder: Path
    store: Store
    workspace: Workspace = field(init=False)
    others: int = 0

    def __post_init__(self) -> None:
        self.workspace = self.open(folder_of(self.store, "set", "main"))

    def head(self) -> Commit:
        """Returns the head of the branch."""
        return self.store.commits.read(self.store.repository("set").branch("main").commit)

    def open(self, folder: Path) -> Workspace:
        """Opens a workspace of the head."""
        return Workspace(self.store, folder, self.head())

    def reopen(self) -> Workspace:
        """Opens the workspace again, as after a restart."""
        self.workspace.close()
        self.workspace = self.open(folder_of(self.store, "set", "main"))
        return self.workspace

    def reopen_before_settling(self) -> Workspace:
        """Opens the workspace again, as after a kill in a commit that had moved the branch."""
        workspace = self.reopen()
        assert workspace.base.ref.id != self.head().ref.id
        recover_now(workspace, "set", "main")
        assert workspace.base.ref.id == self.head().ref.id
        return workspace

    def by_others(self, change: Callable[[Workspace], object]) -> None:
        """Commits something from a workspace elsewhere."""
        self.others += 1
        other = self.open(self.folder / f"other{self.others}")
        change(other)
        commit(other, _REQUEST)
        other.close()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with make_store(tmp_path / "home") as store:
        source = tmp_path / "source"
        (source / "sub" / "deep").mkdir(parents=True)
        for path in ("a", "b", "sub/x", "sub/y", "sub/deep/z"):
            (source / path).write_bytes(b"first " + path.encode())
        import_source(store, "set", "main", b"", source, message="m", author="a")
        made = Made(tmp_path, store)
        yield made
        made.workspace.close()


def _look(workspace: Workspace, path: bytes) -> int:
    number = 1
    for part in path.split(b"/"):
        found = workspace.lookup(number, part)
        if found is None:
            raise FileNotFoundError(path)
        number = found.number
    return number


def _text(workspace: Workspace, path: bytes) -> bytes:
    return workspace.files.read(_look(workspace, path), 0, 1_000)


def _write(workspace: Workspace, path: bytes, offset: int, data: bytes) -> None:
    workspace.files.write(workspace.overlay.changes, _look(workspace, path), offset, data)


def _create(workspace: Workspace, path: bytes, data: bytes = b"new") -> int:
    folder, _, name = path.rpartition(b"/")
    parent = _look(workspace, folder) if folder else 1
    mode = stat.S_IFREG | 0o644
    number = workspace.overlay.make(parent, name, mode, os.getuid(), os.getgid())
    workspace.files.write(workspace.overlay.changes, number, 0, data)
    return number


def _committed(
    workspace: Workspace, after_cut: Callable[[], object] = lambda: None
) -> list[Dropped]:
    """Commits, with changes right after the cut; returns what the kernel had to drop."""
    committing = Committing(workspace, _REQUEST)
    committing.cut()
    after_cut()
    committing.publish()
    dropped: list[Dropped] = []
    for step in committing.settle():
        if callable(step):
            step()
        else:
            dropped += step
    committing.end()
    return dropped


def _changed(workspace: Workspace) -> list[bytes]:
    """Returns the paths that `versionfs status` tells."""
    frozen = workspace.records.frozen()
    assert frozen is not None
    with frozen:
        root, trees = workspace.base.root, workspace.names.trees
        status = Status(trees, frozen, workspace.records.staging, root)
        return [change.path for change in status.changes()]


def _once(
    made: Made, monkeypatch: pytest.MonkeyPatch, look: int, meanwhile: Callable[[], object]
) -> None:
    """Lets one of the next looks at the base wait for the network, while something else is done."""
    names = made.workspace.names
    find, blocked, looks = names.find_in_base, False, 0

    def remote(folder: Folder, name: bytes) -> InBase | None:
        nonlocal blocked, looks
        looks += 1
        if looks > look and not blocked:
            blocked = True
            raise WouldBlock(meanwhile)
        return find(folder, name)

    monkeypatch.setattr(names, "find_in_base", remote)


# -- commits of others in between ----------------------------------------------------------------


@pytest.mark.parametrize("touch", ["time", "equal bytes"])
def test_what_others_changed_gets_another_number(made: Made, touch: str) -> None:
    ours = made.workspace
    number = _look(ours, b"a")
    if touch == "time":
        ours.overlay.set_attributes(number, mtime_ns=10**18)
    else:
        _write(ours, b"a", 0, b"first")
    made.by_others(lambda other: _write(other, b"a", 0, b"THEIRS and longer"))
    _create(ours, b"new")
    dropped = _committed(ours)
    assert Dropped(1, b"a") in dropped
    assert Dropped(number, None) in dropped
    # Who has it open reads on what it was: under its number the kernel has pages of it.
    assert ours.files.read(number, 0, 99) == b"first a"
    assert _look(ours, b"a") != number
    assert _text(ours, b"a") == b"THEIRS and longer"
    assert ours.is_clean


def test_a_file_written_since_the_cut_never_mixes_with_theirs(made: Made) -> None:
    ours = made.workspace
    _write(ours, b"a", 0, b"first")  # as it was: the merge takes theirs
    made.by_others(lambda other: other.overlay.set_attributes(_look(other, b"a"), size=2))
    _create(ours, b"new")
    _committed(ours, lambda: _write(ours, b"a", 6, b"A!"))
    assert _text(ours, b"a") == b"first A!"
    assert not ours.is_clean
    commit(ours, _REQUEST)
    assert _text(made.reopen(), b"a") == b"first A!"
    assert made.workspace.is_clean


def test_a_touched_file_that_others_removed_does_not_come_back(made: Made) -> None:
    ours = made.workspace
    _write(ours, b"a", 0, b"first")
    made.by_others(lambda other: other.overlay.unlink(1, b"a"))
    _create(ours, b"new")
    _committed(ours)
    assert ours.lookup(1, b"a") is None
    assert ours.is_clean


def test_a_merged_commit_is_settled_after_a_restart_as_well(made: Made) -> None:
    ours = made.workspace
    _write(ours, b"a", 0, b"first")
    _write(ours, b"b", 0, b"first")
    _write(ours, b"sub/x", 0, b"OURS!")

    def change(other: Workspace) -> None:
        other.overlay.set_attributes(_look(other, b"a"), size=2)
        other.overlay.set_attributes(_look(other, b"b"), size=2)
        other.overlay.set_attributes(1, mode=0o711)

    made.by_others(change)
    committing = Committing(ours, _REQUEST)
    committing.cut()
    _write(ours, b"b", 6, b"B!")
    committing.publish()
    committing.end()
    ours = made.reopen_before_settling()
    assert _text(ours, b"a") == b"fi"
    assert _text(ours, b"b") == b"first B!"
    assert _text(ours, b"sub/x") == b"OURS! sub/x"
    assert stat.S_IMODE(ours.stat(1).mode) == 0o711
    made.by_others(lambda other: _create(other, b"more"))
    commit(ours, _REQUEST)
    assert made.head().root.mode == 0o711
    assert ours.is_clean


def _remove_sub(other: Workspace) -> None:
    sub = _look(other, b"sub")
    other.overlay.unlink(_look(other, b"sub/deep"), b"z")
    other.overlay.rmdir(sub, b"deep")
    other.overlay.unlink(sub, b"x")
    other.overlay.unlink(sub, b"y")
    other.overlay.rmdir(1, b"sub")


def test_a_touched_folder_that_others_removed_does_not_come_back(made: Made) -> None:
    ours = made.workspace
    _write(ours, b"sub/x", 0, b"first")
    sub, deep = _look(ours, b"sub"), _look(ours, b"sub/deep")
    made.by_others(_remove_sub)
    _create(ours, b"new")
    dropped = _committed(ours)
    assert {Dropped(1, b"sub"), Dropped(sub, None), Dropped(deep, None)} <= set(dropped)
    assert ours.lookup(1, b"sub") is None
    assert ours.is_clean
    _create(ours, b"more")
    commit(ours, _REQUEST)
    assert made.store.trees.lookup(made.head().root.node, b"sub") is None


def test_a_folder_that_others_removed_keeps_what_was_made_since_the_cut(made: Made) -> None:
    ours = made.workspace
    _write(ours, b"sub/x", 0, b"first")
    made.by_others(_remove_sub)
    _create(ours, b"new")
    _committed(ours, lambda: _create(ours, b"sub/late"))
    assert _text(ours, b"sub/late") == b"new"
    sub = _look(ours, b"sub")
    assert [ours.lookup(sub, name) for name in (b"x", b"y", b"deep")] == [None] * 3
    commit(ours, _REQUEST)
    assert ours.is_clean
    assert _text(made.reopen(), b"sub/late") == b"new"


def test_a_file_that_only_we_changed_keeps_its_number(made: Made) -> None:
    ours = made.workspace
    number = _look(ours, b"a")
    _write(ours, b"a", 0, b"OURS!")
    made.by_others(lambda other: _write(other, b"b", 0, b"THEIR"))
    dropped = _committed(ours)
    assert _look(ours, b"a") == number
    assert _text(ours, b"a") == b"OURS! a"
    assert _text(ours, b"b") == b"THEIR b"
    assert Dropped(1, b"a") not in dropped
    assert ours.is_clean


# -- names that others made ----------------------------------------------------------------------


def _make_and_remove(workspace: Workspace, name: bytes) -> None:
    workspace.forget(_create(workspace, name), 1)
    workspace.overlay.unlink(1, name)


def _theirs_is_there(made: Made, name: bytes) -> None:
    assert _text(made.workspace, name) == b"theirs"
    _create(made.workspace, b"more")
    commit(made.workspace, _REQUEST)
    assert made.store.trees.lookup(made.head().root.node, name) is not None
    assert _text(made.workspace, name) == b"theirs"
    assert made.workspace.is_clean


def test_a_temporary_file_made_during_a_commit_hides_nothing_of_others(made: Made) -> None:
    ours = made.workspace
    _create(ours, b"new")
    _committed(ours, lambda: _make_and_remove(ours, b"tmp"))
    made.by_others(lambda other: _create(other, b"tmp", b"theirs"))
    assert ours.lookup(1, b"tmp") is None
    _create(ours, b"newer")
    _committed(ours)
    _theirs_is_there(made, b"tmp")


def test_a_name_that_was_deleted_and_comes_from_others_is_told_to_the_kernel(made: Made) -> None:
    ours = made.workspace
    # Deleted during a commit that had it, and is not made: the base never gets it.
    _create(ours, b"tmp")
    committing = Committing(ours, _REQUEST)
    committing.cut()
    ours.overlay.unlink(1, b"tmp")
    committing.end()
    made.by_others(lambda other: _create(other, b"tmp", b"theirs"))
    assert ours.lookup(1, b"tmp") is None
    _create(ours, b"new")
    dropped = _committed(ours)
    assert {Dropped(1, b"tmp"), Dropped(1, None)} <= set(dropped)
    _theirs_is_there(made, b"tmp")


def test_a_temporary_file_made_during_a_merging_commit_hides_nothing_of_others(made: Made) -> None:
    ours = made.workspace
    made.by_others(lambda other: _create(other, b"tmp", b"theirs"))
    _create(ours, b"new")
    _committed(ours, lambda: _make_and_remove(ours, b"tmp"))
    _theirs_is_there(made, b"tmp")


def test_what_a_commit_has_and_is_deleted_meanwhile_stays_deleted(made: Made) -> None:
    ours = made.workspace
    for name in (b"new", b"replaced", b"moved"):
        _create(ours, name)
    ours.overlay.make(1, b"folder", stat.S_IFDIR | 0o755, 0, 0)

    def change() -> None:
        ours.overlay.unlink(1, b"new")
        _create(ours, b"other")
        ours.overlay.rename(1, b"other", 1, b"replaced")
        ours.overlay.unlink(1, b"replaced")
        ours.overlay.rename(1, b"moved", 1, b"there")
        ours.overlay.rmdir(1, b"folder")

    gone = (b"new", b"replaced", b"moved", b"folder", b"other")
    _committed(ours, change)
    for name in gone[:4]:
        assert made.store.trees.lookup(made.head().root.node, name) is not None
    for _ in range(2):
        assert [ours.lookup(1, name) for name in gone] == [None] * 5
        assert _text(ours, b"there") == b"new"
        commit(ours, _REQUEST)
    assert made.store.trees.lookup(made.head().root.node, b"new") is None


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_a_fifo_where_others_made_a_file_stops_the_commit(made: Made, kind: int) -> None:
    ours = made.workspace
    sub = _look(ours, b"sub")
    ours.overlay.make(sub, b"pipe", kind | 0o644, 0, 0)
    ours.overlay.make(sub, b"mine", kind | 0o644, 0, 0)
    hollow = ours.overlay.make(1, b"hollow", stat.S_IFDIR | 0o755, 0, 0)
    ours.overlay.make(hollow, b"mine", kind | 0o644, 0, 0)

    def theirs(other: Workspace) -> None:
        _create(other, b"sub/pipe", b"theirs")
        other.overlay.make(1, b"hollow", stat.S_IFDIR | 0o755, 0, 0)

    made.by_others(theirs)
    _create(ours, b"new")
    with pytest.raises(OverlapError) as error:
        commit(ours, _REQUEST)
    (problem,) = error.value.problems
    assert problem[0] == b"sub/pipe"
    assert problem[1].startswith("both made it")
    ours.overlay.unlink(sub, b"pipe")
    commit(ours, _REQUEST)
    assert _text(ours, b"sub/pipe") == b"theirs"


def test_attributes_of_directories_that_others_changed_stay(made: Made) -> None:
    ours = made.workspace
    _write(ours, b"sub/x", 0, b"X")
    sub = _look(ours, b"sub")

    def change(other: Workspace) -> None:
        other.overlay.set_attributes(1, mode=0o711)
        other.overlay.set_attributes(_look(other, b"sub"), mode=0o700)
        other.overlay.set_xattr(_look(other, b"sub"), b"user.by", b"others")

    made.by_others(change)
    dropped = _committed(ours, lambda: _create(ours, b"sub/late"))
    assert {Dropped(1, None), Dropped(sub, None)} <= set(dropped)
    _create(ours, b"later")
    commit(ours, _REQUEST)
    root = made.head().root
    found = made.store.trees.lookup(root.node, b"sub")
    assert found is not None
    assert (root.mode, found.mode, found.xattrs) == (0o711, 0o700, ((b"user.by", b"others"),))
    assert ours.is_clean


def test_attributes_of_directories_that_we_changed_since_the_cut_stay(made: Made) -> None:
    ours = made.workspace
    _write(ours, b"sub/x", 0, b"X")
    sub = _look(ours, b"sub")
    made.by_others(lambda other: other.overlay.set_attributes(_look(other, b"sub"), mode=0o700))
    _committed(ours, lambda: ours.overlay.set_attributes(sub, mode=0o750))
    assert stat.S_IMODE(ours.names.inode(sub).mode) == 0o750


def test_a_folder_that_is_forgotten_while_it_is_settled_shows_the_new_base(made: Made) -> None:
    ours = made.workspace
    sub = _look(ours, b"sub")
    _write(ours, b"sub/x", 0, b"X")
    made.by_others(lambda other: _write(other, b"sub/y", 0, b"Y"))
    committing = Committing(ours, _REQUEST)
    committing.cut()
    _create(ours, b"sub/late")  # So the folder's record stays.
    committing.publish()
    is_forgotten = False
    for step in committing.settle():
        if callable(step):
            step()
        elif Dropped(sub, None) in step and not is_forgotten:
            for number in list(ours.names.lookups):
                ours.forget(number, ours.names.lookups[number])
            ours.forget(sub, ours.names.folders[sub].lookups)
            assert sub not in ours.names.folders
            assert _look(ours, b"sub") == sub
            is_forgotten = True
    committing.end()
    assert is_forgotten
    assert _text(ours, b"sub/x") == b"Xirst sub/x"
    assert _text(ours, b"sub/y") == b"Yirst sub/y"


# -- taking theirs -------------------------------------------------------------------------------


def _made_anew(workspace: Workspace) -> None:
    _remove_sub(workspace)
    workspace.overlay.make(1, b"sub", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("is_written", [True, False])
def test_theirs_is_taken_in_a_folder_that_was_made_anew(
    made: Made, is_known: bool, is_written: bool
) -> None:
    ours = made.workspace
    if is_known:
        _look(ours, b"sub/deep/z")
    made.by_others(lambda other: _write(other, b"sub/x", 0, b"THEIR"))
    made.by_others(lambda other: _write(other, b"sub/deep/z", 0, b"THEIR"))
    _made_anew(ours)
    _create(ours, b"sub/new")
    if is_written:
        _create(ours, b"sub/x", b"ours")
    with pytest.raises(OverlapError) as error:
        commit(ours, _REQUEST)
    paths = [path for path, _ in error.value.problems]
    assert paths == [b"sub/deep", b"sub/x"]
    dropped = [one for step in restore(ours, paths) if isinstance(step, list) for one in step]
    sub = _look(ours, b"sub")
    assert {Dropped(sub, b"x"), Dropped(sub, b"deep"), Dropped(sub, None)} <= set(dropped)
    assert _text(ours, b"sub/x") == b"first sub/x"
    assert _text(ours, b"sub/deep/z") == b"first sub/deep/z"
    assert ours.lookup(sub, b"y") is None
    commit(made.reopen(), _REQUEST)
    ours = made.workspace
    assert ours.is_clean
    assert _text(ours, b"sub/x") == b"THEIR sub/x"
    assert _text(ours, b"sub/deep/z") == b"THEIR sub/deep/z"
    assert _text(ours, b"sub/new") == b"new"
    assert ours.lookup(_look(ours, b"sub"), b"y") is None


def test_what_a_moved_folder_brought_makes_way_for_what_is_restored(made: Made) -> None:
    ours = made.workspace
    ours.overlay.rename(1, b"sub", 1, b"away")
    one = ours.overlay.make(1, b"one", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
    ours.overlay.make(one, b"x", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
    _create(ours, b"one/x/inside")
    ours.overlay.rename(1, b"away", 1, b"sub")
    commit(ours, _REQUEST)
    inside = _look(ours, b"one/x/inside")
    folder = _look(ours, b"one/x")
    ours.overlay.rename(1, b"sub", 1, b"away")
    ours.overlay.rename(1, b"one", 1, b"sub")
    made.by_others(lambda other: _write(other, b"sub/x", 0, b"THEIR"))
    with pytest.raises(OverlapError):
        commit(ours, _REQUEST)
    dropped = [one for step in restore(ours, [b"sub/x"]) if isinstance(step, list) for one in step]
    assert Dropped(folder, None) in dropped
    assert _text(ours, b"sub/x") == b"first sub/x"
    assert ours.files.read(inside, 0, 99) == b"new"
    with pytest.raises(FileSystemError):
        ours.overlay.make(folder, b"late", stat.S_IFREG | 0o644, os.getuid(), os.getgid())
    commit(ours, _REQUEST)
    assert _text(ours, b"sub/x") == b"THEIR sub/x"
    assert _text(made.reopen(), b"away/x") == b"first sub/x"


def test_the_root_has_a_name_among_what_overlaps(made: Made) -> None:
    ours = made.workspace
    made.by_others(lambda other: other.overlay.set_attributes(1, mode=0o711))
    ours.overlay.set_attributes(1, mode=0o700)
    with pytest.raises(OverlapError) as error:
        commit(ours, _REQUEST)
    assert error.value.problems == [(b".", "both changed it")]
    assert "restore `.` discards all" in str(error.value)


def test_what_is_restored_already_is_left_alone(made: Made) -> None:
    ours = made.workspace
    _made_anew(ours)
    _create(ours, b"sub/x", b"ours")
    assert finished(restore(ours, [b"sub/x"])) == 1
    assert finished(restore(ours, [b"sub/deep"])) == 1
    number = _look(ours, b"sub/x")
    inside = _look(ours, b"sub/deep/z")
    for path in (b"sub/x", b"sub/deep"):
        steps = [step for step in restore(ours, [path]) if step]
        assert steps == []
    assert _look(ours, b"sub/x") == number
    assert ours.files.read(inside, 0, 99) == b"first sub/deep/z"
    # What is as in the commit is no change, as `diff` has it.
    assert _changed(ours) == [b"sub"]
    _write(ours, b"sub/x", 0, b"AGAIN")
    assert _changed(ours) == [b"sub", b"sub/x"]
    assert finished(restore(ours, [b"sub/x"])) == 1
    assert _text(ours, b"sub/x") == b"first sub/x"


@pytest.mark.parametrize("path", [b"sub/deep/z", b"sub/x"])
def test_what_cannot_come_back_alone_is_told(made: Made, path: bytes) -> None:
    ours = made.workspace
    if path == b"sub/x":
        _remove_sub(ours)
        top = b"sub"
    else:
        _made_anew(ours)
        top = b"sub/deep"
    with pytest.raises(NotFoundError, match=f"versionfs restore {top.decode()}`") as error:
        finished(restore(ours, [path]))
    assert "could come back to" in error.value.message
    finished(restore(ours, [top]))
    assert _text(ours, path) == b"first " + path
    with pytest.raises(NotFoundError, match="nothing at nowhere/x"):
        finished(restore(ours, [b"nowhere/x"]))


# -- restoring while programs work ---------------------------------------------------------------


def test_files_made_during_a_restore_stay(made: Made) -> None:
    ours = made.workspace
    _write(ours, b"b", 0, b"B")
    _write(ours, b"sub/x", 0, b"X")
    _write(ours, b"sub/y", 0, b"Y")
    steps = restore(ours, [b""])
    count = 0
    for step in steps:
        if callable(step):
            step()
        count += 1
        _create(ours, b"made%d" % count)
        _create(ours, b"sub/made%d" % count)
    made.reopen()
    ours = made.workspace
    assert count > 3
    for index in range(1, count + 1):
        assert _text(ours, b"made%d" % index) == b"new"
        assert _text(ours, b"sub/made%d" % index) == b"new"
    assert _text(ours, b"b") == b"first b"
    assert _text(ours, b"sub/x") == b"first sub/x"
    assert _text(ours, b"sub/y") == b"first sub/y"
    commit(ours, _REQUEST)
    assert ours.is_clean


def test_a_name_that_changes_while_a_restore_fetches(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = made.workspace
    _create(ours, b"old")
    _once(made, monkeypatch, 0, lambda: None)
    steps = restore(ours, [b"old"])
    assert callable(next(steps))
    ours.overlay.unlink(1, b"old")
    ours.forget(_create(ours, b"old", b"made meanwhile"), 1)
    finished(steps)
    assert _text(ours, b"old") == b"made meanwhile"


@pytest.mark.parametrize("look", [0, 1])
def test_a_folder_moved_while_a_name_in_it_comes_back(
    made: Made, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    ours = made.workspace
    _made_anew(ours)
    _once(made, monkeypatch, look, lambda: ours.overlay.rename(1, b"sub", 1, b"other"))
    assert finished(restore(ours, [b"sub/x"])) == 0
    assert ours.lookup(_look(ours, b"other"), b"x") is None


@pytest.mark.parametrize("look", [0, 1])
@pytest.mark.parametrize("is_made", [True, False])
def test_what_is_made_or_removed_where_a_name_comes_back_stays_so(
    made: Made, monkeypatch: pytest.MonkeyPatch, look: int, is_made: bool
) -> None:
    ours = made.workspace
    _made_anew(ours)

    def meanwhile() -> None:
        if is_made:
            _create(ours, b"sub/x", b"made meanwhile")
        else:
            ours.overlay.rmdir(1, b"sub")

    _once(made, monkeypatch, look, meanwhile)
    assert finished(restore(ours, [b"sub/x"])) == 0
    if is_made:
        assert _text(ours, b"sub/x") == b"made meanwhile"
    else:
        assert ours.lookup(1, b"sub") is None


@pytest.mark.parametrize("look", [0, 1])
def test_a_base_that_moves_on_while_a_name_comes_back(
    made: Made, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    """The name would get what an older commit has, and the next commit undo theirs."""
    ours = made.workspace
    _write(ours, b"a", 0, b"OURS")

    def theirs() -> None:
        made.by_others(lambda other: _write(other, b"a", 0, b"THEIR"))
        ours.base = made.head()

    _once(made, monkeypatch, look, theirs)
    assert finished(restore(ours, [b"a"])) == 0
    assert _text(ours, b"a")[:4] == b"OURS", "it stays for who looks again"


def test_a_full_disk_leaves_ours_or_what_the_commit_has(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = made.workspace
    _made_anew(ours)
    _create(ours, b"sub/x", b"ours")
    real, left = ours.records.apply, [1]

    def full(mutations: Sequence[tuple[bytes, bytes | None]], *, frees: bool = False) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        left[0] -= 1
        real(mutations, frees=frees)

    monkeypatch.setattr(ours.records, "apply", full)
    with contextlib.suppress(OSError):
        finished(restore(ours, [b"sub/x"]))
    assert _text(ours, b"sub/x") in (b"ours", b"first sub/x")


@pytest.mark.parametrize("at", range(4))
def test_a_folder_that_is_renamed_during_its_restore(made: Made, at: int) -> None:
    ours = made.workspace
    _write(ours, b"sub/x", 0, b"X")
    _write(ours, b"sub/y", 0, b"Y")
    steps = restore(ours, [b"sub"])
    for index, step in enumerate(steps):
        if callable(step):
            step()
        if index == at:
            break
    ours.overlay.rename(1, b"sub", 1, b"moved")
    finished(steps)
    assert ours.lookup(1, b"sub") is None
    assert _text(ours, b"moved/deep/z") == b"first sub/deep/z"
    commit(ours, _REQUEST)
    assert ours.is_clean
    assert _text(made.reopen(), b"moved/deep/z") == b"first sub/deep/z"


def test_files_made_in_a_new_folder_during_its_restore_stay(made: Made) -> None:
    ours = made.workspace
    mode = stat.S_IFDIR | 0o755
    folder = ours.overlay.make(1, b"folder", mode, os.getuid(), os.getgid())
    ours.overlay.make(folder, b"below", mode, os.getuid(), os.getgid())
    _create(ours, b"folder/below/old")
    steps = restore(ours, [b"folder"])
    step = next(steps)
    assert isinstance(step, list)
    _create(ours, b"folder/below/made")
    finished(steps)
    assert _text(ours, b"folder/below/made") == b"new"
    with pytest.raises(FileNotFoundError):
        _look(ours, b"folder/below/old")
    commit(ours, _REQUEST)
    assert ours.is_clean


def test_a_folder_made_again_during_its_restore_stays(made: Made) -> None:
    ours = made.workspace
    mode = stat.S_IFDIR | 0o755
    ours.overlay.make(1, b"folder", mode, os.getuid(), os.getgid())
    _create(ours, b"folder/old")
    for step in restore(ours, [b"folder"]):
        assert isinstance(step, list)
        if ours.lookup(1, b"folder") is None:
            ours.overlay.make(1, b"folder", mode, os.getuid(), os.getgid())
            _create(ours, b"folder/made")
    assert _text(ours, b"folder/made") == b"new"
    commit(ours, _REQUEST)
    assert ours.is_clean


def test_known_folders_below_a_restored_one_are_gone(made: Made) -> None:
    ours = made.workspace
    ours.overlay.rename(1, b"sub", 1, b"moved")
    deep = _look(ours, b"moved/deep")
    dropped = [one for step in restore(ours, [b"moved"]) if isinstance(step, list) for one in step]
    assert Dropped(deep, None) in dropped
    with pytest.raises(FileSystemError):
        ours.overlay.make(deep, b"new", stat.S_IFREG | 0o644, os.getuid(), os.getgid())
    finished(restore(ours, [b""]))
    assert _text(ours, b"sub/deep/z") == b"first sub/deep/z"
    assert ours.is_clean
