"""Commits that were merged with those of others, while programs go on working."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from tests.support.merging import (
    REQUEST,
    Made,
    committed,
    create,
    find,
    made,
    remove_sub,
    text,
    write,
)
from versionfs.errors import OverlapError
from versionfs.repo import Repository
from versionfs.workspace import Workspace, commit
from versionfs.workspace.committing import Committing
from versionfs.workspace.following import Dropped

__all__ = ["made"]

# -- commits of others in between ----------------------------------------------------------------


@pytest.mark.parametrize("touch", ["time", "equal bytes"])
def test_what_others_changed_gets_another_number(made: Made, touch: str) -> None:
    ours = made.workspace
    number = find(ours, b"a")
    if touch == "time":
        ours.overlay.set_attributes(number, mtime_ns=10**18)
    else:
        write(ours, b"a", 0, b"first")
    made.by_others(lambda other: write(other, b"a", 0, b"THEIRS and longer"))
    create(ours, b"new")
    dropped = committed(ours)
    assert Dropped(1, b"a") in dropped
    assert Dropped(number, None) in dropped
    # Who has it open reads on what it was: under its number the kernel has pages of it.
    assert ours.files.read(number, 0, 99) == b"first a"
    assert find(ours, b"a") != number
    assert text(ours, b"a") == b"THEIRS and longer"
    assert ours.is_clean


def test_a_commit_that_loses_the_race_is_merged_though_its_tree_was_not_stored(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tree waits in memory for its commit, in the same pack; to be merged it must be stored."""
    ours = made.workspace
    write(ours, b"a", 0, b"OURS!")
    plain = Repository.advance
    raced: list[bool] = []

    def advance(repository: Repository, *arguments: Any, **more: Any) -> Any:
        if not raced:
            raced.append(True)
            made.by_others(lambda other: create(other, b"theirs"))
        return plain(repository, *arguments, **more)

    monkeypatch.setattr(Repository, "advance", advance)
    result = commit(ours, REQUEST)
    assert result.merged
    assert text(made.reopen(), b"a") == b"OURS! a"
    assert find(made.workspace, b"theirs")


def test_a_file_written_since_the_cut_never_mixes_with_theirs(made: Made) -> None:
    ours = made.workspace
    write(ours, b"a", 0, b"first")  # as it was: the merge takes theirs
    made.by_others(lambda other: other.overlay.set_attributes(find(other, b"a"), size=2))
    create(ours, b"new")
    committed(ours, lambda: write(ours, b"a", 6, b"A!"))
    assert text(ours, b"a") == b"first A!"
    assert not ours.is_clean
    commit(ours, REQUEST)
    assert text(made.reopen(), b"a") == b"first A!"
    assert made.workspace.is_clean


def test_a_touched_file_that_others_removed_does_not_come_back(made: Made) -> None:
    ours = made.workspace
    write(ours, b"a", 0, b"first")
    made.by_others(lambda other: other.overlay.unlink(1, b"a"))
    create(ours, b"new")
    committed(ours)
    assert ours.lookup(1, b"a") is None
    assert ours.is_clean


def test_a_merged_commit_is_settled_after_a_restart_as_well(made: Made) -> None:
    ours = made.workspace
    write(ours, b"a", 0, b"first")
    write(ours, b"b", 0, b"first")
    write(ours, b"sub/x", 0, b"OURS!")

    def change(other: Workspace) -> None:
        other.overlay.set_attributes(find(other, b"a"), size=2)
        other.overlay.set_attributes(find(other, b"b"), size=2)
        other.overlay.set_attributes(1, mode=0o711)

    made.by_others(change)
    committing = Committing(ours, REQUEST)
    committing.cut()
    write(ours, b"b", 6, b"B!")
    committing.publish()
    committing.end()
    ours = made.reopen_before_settling()
    assert text(ours, b"a") == b"fi"
    assert text(ours, b"b") == b"first B!"
    assert text(ours, b"sub/x") == b"OURS! sub/x"
    assert stat.S_IMODE(ours.stat(1).mode) == 0o711
    made.by_others(lambda other: create(other, b"more"))
    commit(ours, REQUEST)
    assert made.head().root.mode == 0o711
    assert ours.is_clean


def test_a_touched_folder_that_others_removed_does_not_come_back(made: Made) -> None:
    ours = made.workspace
    write(ours, b"sub/x", 0, b"first")
    sub, deep = find(ours, b"sub"), find(ours, b"sub/deep")
    made.by_others(remove_sub)
    create(ours, b"new")
    dropped = committed(ours)
    assert {Dropped(1, b"sub"), Dropped(sub, None), Dropped(deep, None)} <= set(dropped)
    assert ours.lookup(1, b"sub") is None
    assert ours.is_clean
    create(ours, b"more")
    commit(ours, REQUEST)
    assert made.store.trees.lookup(made.head().root.node, b"sub") is None


def test_a_folder_that_others_removed_keeps_what_was_made_since_the_cut(made: Made) -> None:
    ours = made.workspace
    write(ours, b"sub/x", 0, b"first")
    made.by_others(remove_sub)
    create(ours, b"new")
    committed(ours, lambda: create(ours, b"sub/late"))
    assert text(ours, b"sub/late") == b"new"
    sub = find(ours, b"sub")
    assert [ours.lookup(sub, name) for name in (b"x", b"y", b"deep")] == [None] * 3
    commit(ours, REQUEST)
    assert ours.is_clean
    assert text(made.reopen(), b"sub/late") == b"new"


def test_a_file_that_only_we_changed_keeps_its_number(made: Made) -> None:
    ours = made.workspace
    number = find(ours, b"a")
    write(ours, b"a", 0, b"OURS!")
    made.by_others(lambda other: write(other, b"b", 0, b"THEIR"))
    dropped = committed(ours)
    assert find(ours, b"a") == number
    assert text(ours, b"a") == b"OURS! a"
    assert text(ours, b"b") == b"THEIR b"
    assert Dropped(1, b"a") not in dropped
    assert ours.is_clean


# -- names that others made ----------------------------------------------------------------------


def _make_and_remove(workspace: Workspace, name: bytes) -> None:
    workspace.forget(create(workspace, name), 1)
    workspace.overlay.unlink(1, name)


def _theirs_is_there(made: Made, name: bytes) -> None:
    assert text(made.workspace, name) == b"theirs"
    create(made.workspace, b"more")
    commit(made.workspace, REQUEST)
    assert made.store.trees.lookup(made.head().root.node, name) is not None
    assert text(made.workspace, name) == b"theirs"
    assert made.workspace.is_clean


def test_a_temporary_file_made_during_a_commit_hides_nothing_of_others(made: Made) -> None:
    ours = made.workspace
    create(ours, b"new")
    committed(ours, lambda: _make_and_remove(ours, b"tmp"))
    made.by_others(lambda other: create(other, b"tmp", b"theirs"))
    assert ours.lookup(1, b"tmp") is None
    create(ours, b"newer")
    committed(ours)
    _theirs_is_there(made, b"tmp")


def test_a_name_that_was_deleted_and_comes_from_others_is_told_to_the_kernel(made: Made) -> None:
    ours = made.workspace
    # Deleted during a commit that had it, and is not made: the base never gets it.
    create(ours, b"tmp")
    committing = Committing(ours, REQUEST)
    committing.cut()
    ours.overlay.unlink(1, b"tmp")
    committing.end()
    made.by_others(lambda other: create(other, b"tmp", b"theirs"))
    assert ours.lookup(1, b"tmp") is None
    create(ours, b"new")
    dropped = committed(ours)
    assert {Dropped(1, b"tmp"), Dropped(1, None)} <= set(dropped)
    _theirs_is_there(made, b"tmp")


def test_a_temporary_file_made_during_a_merging_commit_hides_nothing_of_others(made: Made) -> None:
    ours = made.workspace
    made.by_others(lambda other: create(other, b"tmp", b"theirs"))
    create(ours, b"new")
    committed(ours, lambda: _make_and_remove(ours, b"tmp"))
    _theirs_is_there(made, b"tmp")


def test_what_a_commit_has_and_is_deleted_meanwhile_stays_deleted(made: Made) -> None:
    ours = made.workspace
    for name in (b"new", b"replaced", b"moved"):
        create(ours, name)
    ours.overlay.make(1, b"folder", stat.S_IFDIR | 0o755, 0, 0)

    def change() -> None:
        ours.overlay.unlink(1, b"new")
        create(ours, b"other")
        ours.overlay.rename(1, b"other", 1, b"replaced")
        ours.overlay.unlink(1, b"replaced")
        ours.overlay.rename(1, b"moved", 1, b"there")
        ours.overlay.rmdir(1, b"folder")

    gone = (b"new", b"replaced", b"moved", b"folder", b"other")
    committed(ours, change)
    for name in gone[:4]:
        assert made.store.trees.lookup(made.head().root.node, name) is not None
    for _ in range(2):
        assert [ours.lookup(1, name) for name in gone] == [None] * 5
        assert text(ours, b"there") == b"new"
        commit(ours, REQUEST)
    assert made.store.trees.lookup(made.head().root.node, b"new") is None


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_a_fifo_where_others_made_a_file_stops_the_commit(made: Made, kind: int) -> None:
    ours = made.workspace
    sub = find(ours, b"sub")
    ours.overlay.make(sub, b"pipe", kind | 0o644, 0, 0)
    ours.overlay.make(sub, b"mine", kind | 0o644, 0, 0)
    hollow = ours.overlay.make(1, b"hollow", stat.S_IFDIR | 0o755, 0, 0)
    ours.overlay.make(hollow, b"mine", kind | 0o644, 0, 0)

    def theirs(other: Workspace) -> None:
        create(other, b"sub/pipe", b"theirs")
        other.overlay.make(1, b"hollow", stat.S_IFDIR | 0o755, 0, 0)

    made.by_others(theirs)
    create(ours, b"new")
    with pytest.raises(OverlapError) as error:
        commit(ours, REQUEST)
    (problem,) = error.value.problems
    assert problem[0] == b"sub/pipe"
    assert problem[1].startswith("both made it")
    ours.overlay.unlink(sub, b"pipe")
    commit(ours, REQUEST)
    assert text(ours, b"sub/pipe") == b"theirs"


def test_attributes_of_directories_that_others_changed_stay(made: Made) -> None:
    ours = made.workspace
    write(ours, b"sub/x", 0, b"X")
    sub = find(ours, b"sub")

    def change(other: Workspace) -> None:
        other.overlay.set_attributes(1, mode=0o711)
        other.overlay.set_attributes(find(other, b"sub"), mode=0o700)
        other.overlay.set_xattr(find(other, b"sub"), b"user.by", b"others")

    made.by_others(change)
    dropped = committed(ours, lambda: create(ours, b"sub/late"))
    assert {Dropped(1, None), Dropped(sub, None)} <= set(dropped)
    create(ours, b"later")
    commit(ours, REQUEST)
    root = made.head().root
    found = made.store.trees.lookup(root.node, b"sub")
    assert found is not None
    assert (root.mode, found.mode, found.xattrs) == (0o711, 0o700, ((b"user.by", b"others"),))
    assert ours.is_clean


def test_attributes_of_directories_that_we_changed_since_the_cut_stay(made: Made) -> None:
    ours = made.workspace
    write(ours, b"sub/x", 0, b"X")
    sub = find(ours, b"sub")
    made.by_others(lambda other: other.overlay.set_attributes(find(other, b"sub"), mode=0o700))
    committed(ours, lambda: ours.overlay.set_attributes(sub, mode=0o750))
    assert stat.S_IMODE(ours.names.inode(sub).mode) == 0o750


def test_a_folder_that_is_forgotten_while_it_is_settled_shows_the_new_base(made: Made) -> None:
    ours = made.workspace
    sub = find(ours, b"sub")
    write(ours, b"sub/x", 0, b"X")
    made.by_others(lambda other: write(other, b"sub/y", 0, b"Y"))
    committing = Committing(ours, REQUEST)
    committing.cut()
    create(ours, b"sub/late")  # So the folder's record stays.
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
            assert find(ours, b"sub") == sub
            is_forgotten = True
    committing.end()
    assert is_forgotten
    assert text(ours, b"sub/x") == b"Xirst sub/x"
    assert text(ours, b"sub/y") == b"Yirst sub/y"
