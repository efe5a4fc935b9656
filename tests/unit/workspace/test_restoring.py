"""What comes back when changes are restored, also while programs go on working."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

import pytest

from tests.support.merging import (
    REQUEST,
    Made,
    changed,
    create,
    find,
    made,
    made_anew,
    once,
    remove_sub,
    text,
    write,
)
from versionfs.errors import ConflictError, FileSystemError, NotFoundError, OverlapError
from versionfs.workspace import commit, restore
from versionfs.workspace.following import Dropped, finished
from versionfs.workspace.status import Status

__all__ = ["made"]

# -- taking theirs -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("is_written", [True, False])
def test_theirs_is_taken_in_a_folder_that_was_made_anew(
    made: Made, is_known: bool, is_written: bool
) -> None:
    ours = made.workspace
    if is_known:
        find(ours, b"sub/deep/z")
    made.by_others(lambda other: write(other, b"sub/x", 0, b"THEIR"))
    made.by_others(lambda other: write(other, b"sub/deep/z", 0, b"THEIR"))
    made_anew(ours)
    create(ours, b"sub/new")
    if is_written:
        create(ours, b"sub/x", b"ours")
    with pytest.raises(OverlapError) as error:
        commit(ours, REQUEST)
    paths = [path for path, _ in error.value.problems]
    assert paths == [b"sub/deep", b"sub/x"]
    dropped = [one for step in restore(ours, paths) if isinstance(step, list) for one in step]
    sub = find(ours, b"sub")
    assert {Dropped(sub, b"x"), Dropped(sub, b"deep"), Dropped(sub, None)} <= set(dropped)
    assert text(ours, b"sub/x") == b"first sub/x"
    assert text(ours, b"sub/deep/z") == b"first sub/deep/z"
    assert ours.lookup(sub, b"y") is None
    commit(made.reopen(), REQUEST)
    ours = made.workspace
    assert ours.is_clean
    assert text(ours, b"sub/x") == b"THEIR sub/x"
    assert text(ours, b"sub/deep/z") == b"THEIR sub/deep/z"
    assert text(ours, b"sub/new") == b"new"
    assert ours.lookup(find(ours, b"sub"), b"y") is None


def test_what_a_moved_folder_brought_makes_way_for_what_is_restored(made: Made) -> None:
    ours = made.workspace
    ours.overlay.rename(1, b"sub", 1, b"away")
    one = ours.overlay.make(1, b"one", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
    ours.overlay.make(one, b"x", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
    create(ours, b"one/x/inside")
    ours.overlay.rename(1, b"away", 1, b"sub")
    commit(ours, REQUEST)
    inside = find(ours, b"one/x/inside")
    folder = find(ours, b"one/x")
    ours.overlay.rename(1, b"sub", 1, b"away")
    ours.overlay.rename(1, b"one", 1, b"sub")
    made.by_others(lambda other: write(other, b"sub/x", 0, b"THEIR"))
    with pytest.raises(OverlapError):
        commit(ours, REQUEST)
    dropped = [one for step in restore(ours, [b"sub/x"]) if isinstance(step, list) for one in step]
    assert Dropped(folder, None) in dropped
    assert text(ours, b"sub/x") == b"first sub/x"
    assert ours.files.read(inside, 0, 99) == b"new"
    with pytest.raises(FileSystemError):
        ours.overlay.make(folder, b"late", stat.S_IFREG | 0o644, os.getuid(), os.getgid())
    commit(ours, REQUEST)
    assert text(ours, b"sub/x") == b"THEIR sub/x"
    assert text(made.reopen(), b"away/x") == b"first sub/x"


def test_the_root_has_a_name_among_what_overlaps(made: Made) -> None:
    ours = made.workspace
    made.by_others(lambda other: other.overlay.set_attributes(1, mode=0o711))
    ours.overlay.set_attributes(1, mode=0o700)
    with pytest.raises(OverlapError) as error:
        commit(ours, REQUEST)
    assert error.value.problems == [(b".", "both changed it")]
    assert "restore `.` discards all" in str(error.value)


def test_what_is_restored_already_is_left_alone(made: Made) -> None:
    ours = made.workspace
    made_anew(ours)
    create(ours, b"sub/x", b"ours")
    assert finished(restore(ours, [b"sub/x"])) == 1
    assert finished(restore(ours, [b"sub/deep"])) == 1
    number = find(ours, b"sub/x")
    inside = find(ours, b"sub/deep/z")
    for path in (b"sub/x", b"sub/deep"):
        steps = [step for step in restore(ours, [path]) if step]
        assert steps == []
    assert find(ours, b"sub/x") == number
    assert ours.files.read(inside, 0, 99) == b"first sub/deep/z"
    # What is as in the commit is no change, as `diff` has it.
    assert changed(ours) == [b"sub"]
    write(ours, b"sub/x", 0, b"AGAIN")
    assert changed(ours) == [b"sub", b"sub/x"]
    assert finished(restore(ours, [b"sub/x"])) == 1
    assert text(ours, b"sub/x") == b"first sub/x"


@pytest.mark.parametrize("path", [b"sub/deep/z", b"sub/x"])
def test_what_cannot_come_back_alone_is_told(made: Made, path: bytes) -> None:
    ours = made.workspace
    if path == b"sub/x":
        remove_sub(ours)
        top = b"sub"
    else:
        made_anew(ours)
        top = b"sub/deep"
    with pytest.raises(NotFoundError, match=f"versionfs restore {top.decode()}`") as error:
        finished(restore(ours, [path]))
    assert "could come back to" in error.value.message
    finished(restore(ours, [top]))
    assert text(ours, path) == b"first " + path
    with pytest.raises(NotFoundError, match="nothing at nowhere/x"):
        finished(restore(ours, [b"nowhere/x"]))


# -- restoring while programs work ---------------------------------------------------------------


def test_files_made_during_a_restore_stay(made: Made) -> None:
    ours = made.workspace
    write(ours, b"b", 0, b"B")
    write(ours, b"sub/x", 0, b"X")
    write(ours, b"sub/y", 0, b"Y")
    steps = restore(ours, [b""])
    count = 0
    for step in steps:
        if callable(step):
            step()
        count += 1
        create(ours, b"made%d" % count)
        create(ours, b"sub/made%d" % count)
    made.reopen()
    ours = made.workspace
    assert count > 3
    for index in range(1, count + 1):
        assert text(ours, b"made%d" % index) == b"new"
        assert text(ours, b"sub/made%d" % index) == b"new"
    assert text(ours, b"b") == b"first b"
    assert text(ours, b"sub/x") == b"first sub/x"
    assert text(ours, b"sub/y") == b"first sub/y"
    commit(ours, REQUEST)
    assert ours.is_clean


def test_a_name_that_changes_while_a_restore_fetches(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = made.workspace
    create(ours, b"old")
    once(made, monkeypatch, 0, lambda: None)
    steps = restore(ours, [b"old"])
    assert callable(next(steps))
    ours.overlay.unlink(1, b"old")
    ours.forget(create(ours, b"old", b"made meanwhile"), 1)
    finished(steps)
    assert text(ours, b"old") == b"made meanwhile"


@pytest.mark.parametrize("look", [0, 1])
def test_a_folder_moved_while_a_name_in_it_comes_back(
    made: Made, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    ours = made.workspace
    made_anew(ours)
    once(made, monkeypatch, look, lambda: ours.overlay.rename(1, b"sub", 1, b"other"))
    with pytest.raises(ConflictError, match="while it was restored"):
        finished(restore(ours, [b"sub/x"]))
    assert ours.lookup(find(ours, b"other"), b"x") is None


@pytest.mark.parametrize("look", [0, 1])
@pytest.mark.parametrize("is_made", [True, False])
def test_what_is_made_or_removed_where_a_name_comes_back_stays_so(
    made: Made, monkeypatch: pytest.MonkeyPatch, look: int, is_made: bool
) -> None:
    ours = made.workspace
    made_anew(ours)

    def meanwhile() -> None:
        if is_made:
            create(ours, b"sub/x", b"made meanwhile")
        else:
            ours.overlay.rmdir(1, b"sub")

    once(made, monkeypatch, look, meanwhile)
    with pytest.raises(ConflictError, match="while it was restored"):
        finished(restore(ours, [b"sub/x"]))
    if is_made:
        assert text(ours, b"sub/x") == b"made meanwhile"
    else:
        assert ours.lookup(1, b"sub") is None


@pytest.mark.parametrize("look", [0, 1])
def test_a_base_that_moves_on_while_a_name_comes_back(
    made: Made, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    """The name would get what an older commit has, and the next commit undo theirs."""
    ours = made.workspace
    write(ours, b"a", 0, b"OURS")

    def theirs() -> None:
        made.by_others(lambda other: write(other, b"a", 0, b"THEIR"))
        ours.base = made.head()

    once(made, monkeypatch, look, theirs)
    with pytest.raises(ConflictError, match="while it was restored"):
        finished(restore(ours, [b"a"]))
    assert text(ours, b"a")[:4] == b"OURS", "it stays for who looks again"


def test_a_full_disk_leaves_ours_or_what_the_commit_has(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = made.workspace
    made_anew(ours)
    create(ours, b"sub/x", b"ours")
    real, left = ours.records.apply, [1]

    def full(mutations: Sequence[tuple[bytes, bytes | None]], *, frees: bool = False) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        left[0] -= 1
        real(mutations, frees=frees)

    monkeypatch.setattr(ours.records, "apply", full)
    with contextlib.suppress(OSError):
        finished(restore(ours, [b"sub/x"]))
    assert text(ours, b"sub/x") in (b"ours", b"first sub/x")


@pytest.mark.parametrize("at", range(4))
def test_a_folder_that_is_renamed_during_its_restore(made: Made, at: int) -> None:
    ours = made.workspace
    write(ours, b"sub/x", 0, b"X")
    write(ours, b"sub/y", 0, b"Y")
    steps = restore(ours, [b"sub"])
    for index, step in enumerate(steps):
        if callable(step):
            step()
        if index == at:
            break
    ours.overlay.rename(1, b"sub", 1, b"moved")
    with contextlib.suppress(ConflictError):
        finished(steps)
    assert ours.lookup(1, b"sub") is None
    assert text(ours, b"moved/deep/z") == b"first sub/deep/z"
    commit(ours, REQUEST)
    assert ours.is_clean
    assert text(made.reopen(), b"moved/deep/z") == b"first sub/deep/z"


def test_files_made_in_a_new_folder_during_its_restore_stay(made: Made) -> None:
    ours = made.workspace
    mode = stat.S_IFDIR | 0o755
    folder = ours.overlay.make(1, b"folder", mode, os.getuid(), os.getgid())
    ours.overlay.make(folder, b"below", mode, os.getuid(), os.getgid())
    create(ours, b"folder/below/old")
    steps = restore(ours, [b"folder"])
    step = next(steps)
    assert isinstance(step, list)
    create(ours, b"folder/below/made")
    finished(steps)
    assert text(ours, b"folder/below/made") == b"new"
    with pytest.raises(FileNotFoundError):
        find(ours, b"folder/below/old")
    commit(ours, REQUEST)
    assert ours.is_clean


def test_a_folder_made_again_during_its_restore_stays(made: Made) -> None:
    ours = made.workspace
    mode = stat.S_IFDIR | 0o755
    ours.overlay.make(1, b"folder", mode, os.getuid(), os.getgid())
    create(ours, b"folder/old")
    for step in restore(ours, [b"folder"]):
        assert isinstance(step, list)
        if ours.lookup(1, b"folder") is None:
            ours.overlay.make(1, b"folder", mode, os.getuid(), os.getgid())
            create(ours, b"folder/made")
    assert text(ours, b"folder/made") == b"new"
    commit(ours, REQUEST)
    assert ours.is_clean


def test_known_folders_below_a_restored_one_are_gone(made: Made) -> None:
    ours = made.workspace
    ours.overlay.rename(1, b"sub", 1, b"moved")
    deep = find(ours, b"moved/deep")
    dropped = [one for step in restore(ours, [b"moved"]) if isinstance(step, list) for one in step]
    assert Dropped(deep, None) in dropped
    with pytest.raises(FileSystemError):
        ours.overlay.make(deep, b"new", stat.S_IFREG | 0o644, os.getuid(), os.getgid())
    finished(restore(ours, [b""]))
    assert text(ours, b"sub/deep/z") == b"first sub/deep/z"
    assert ours.is_clean


# -- into a folder that is another one -----------------------------------------------------------


def test_what_cannot_come_back_alone_is_told_by_its_whole_name(made: Made) -> None:
    """The path of a hint is taken from the folder that the user is in."""
    ours = made.workspace
    remove_sub(ours)
    with pytest.raises(NotFoundError) as error:
        finished(restore(ours, [b"sub/x"], "set/main"))
    assert error.value.hint is not None
    assert "`versionfs restore set/main:sub`" in error.value.hint
    assert "discards" not in error.value.hint
    create(ours, b"sub", b"a file of that name")
    with pytest.raises(NotFoundError, match=r"restore set/main:sub` .*discards what is there now"):
        finished(restore(ours, [b"sub/x"], "set/main"))
    assert text(ours, b"sub") == b"a file of that name"


def test_a_folder_that_was_brought_back_is_there_all_the_time(made: Made) -> None:
    """Between two steps the process may be killed, and programs work in it."""
    ours = made.workspace
    made_anew(ours)
    finished(restore(ours, [b"sub/deep"]))
    number = find(ours, b"sub/deep")
    write(ours, b"sub/deep/z", 0, b"CHANGED")
    create(ours, b"sub/deep/new")
    ours.overlay.set_attributes(number, mode=0o700)
    for step in restore(ours, [b"sub/deep"]):
        if callable(step):
            step()
        assert find(ours, b"sub/deep") == number
    assert text(ours, b"sub/deep/z") == b"first sub/deep/z"
    assert ours.lookup(number, b"new") is None
    assert stat.S_IMODE(ours.stat(number).mode) != 0o700
    assert changed(ours) == [b"sub"]
    assert text(made.reopen(), b"sub/deep/z") == b"first sub/deep/z"


def test_only_a_restore_that_frees_may_take_what_is_kept_for_that(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = made.workspace
    made_anew(ours)
    create(ours, b"sub/x", b"ours")
    real, freed = ours.records.apply, []

    def noted(mutations: Sequence[tuple[bytes, bytes | None]], *, frees: bool = False) -> None:
        freed.append(frees)
        real(mutations, frees=frees)

    monkeypatch.setattr(ours.records, "apply", noted)
    finished(restore(ours, [b"sub/x"]))
    assert freed == [True]
    finished(restore(ours, [b"sub/y"]))
    assert freed == [True, False]


def test_status_compares_with_what_the_commit_has_at_the_path(made: Made) -> None:
    def told() -> dict[bytes, tuple[bool, bool]]:
        with ours.records.frozen() or contextlib.nullcontext() as frozen:
            assert frozen is not None
            status = Status(made.store.trees, frozen, ours.records.staging, ours.base.root)
            return {
                one.path: (one.old is not None, one.new is not None) for one in status.changes()
            }

    ours = made.workspace
    made_anew(ours)
    finished(restore(ours, [b"sub/x"]))
    write(ours, b"sub/x", 0, b"AGAIN")
    create(ours, b"sub/only")
    found = told()
    assert found[b"sub/x"] == (True, True)
    assert found[b"sub/only"] == (False, True)
    # A folder with a file that the commit does not have at that path, which goes.
    finished(restore(ours, [b""]))
    other = ours.overlay.make(1, b"other", stat.S_IFDIR | 0o755, os.getuid(), os.getgid())
    create(ours, b"other/only")
    create(ours, b"other/x")
    commit(ours, REQUEST)
    remove_sub(ours)
    ours.overlay.rename(1, b"other", 1, b"sub")
    ours.overlay.unlink(find(ours, b"sub"), b"only")
    ours.overlay.unlink(find(ours, b"sub"), b"x")
    found = told()
    assert b"sub/only" not in found
    assert found[b"sub/x"] == (True, False)
    assert other


@pytest.mark.parametrize("what", ["mode", "time", "name", "layers"])
def test_what_was_brought_back_and_changed_is_brought_back_again(made: Made, what: str) -> None:
    ours = made.workspace
    made_anew(ours)
    finished(restore(ours, [b"sub/x"]))
    number = find(ours, b"sub/x")
    before = ours.stat(number)
    if what == "mode":
        ours.overlay.set_attributes(number, mode=0o600)
    elif what == "time":
        ours.overlay.set_attributes(number, mtime_ns=5)
    elif what == "name":
        ours.overlay.link(number, 1, b"linked")
    else:
        write(ours, b"sub/x", 0, b"X")
    assert finished(restore(ours, [b"sub/x"])) == 1
    after = ours.stat(find(ours, b"sub/x"))
    shown = [(one.mode, one.mtime_ns, one.nlink, one.size) for one in (before, after)]
    assert shown[0] == shown[1]
    assert text(ours, b"sub/x") == b"first sub/x"
    if what == "name":
        assert text(ours, b"linked") == b"first sub/x"
