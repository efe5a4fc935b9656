"""Work in a mounted branch folder, and the commands about it: there, by SPEC, by the daemon."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.mount.conftest import World
from tests.mount.support import commit
from versionfs.config import load_settings
from versionfs.fuse.mountpoint import mounted_at
from versionfs.repo import Store

pytestmark = pytest.mark.mount


class Desk:
    """A mounted repository, and the command line."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cli = CommandLine(world.folder / "home", world.folder)
        self.data = world.folder / "data"
        self.main = self.data / "photos" / "main"

    def mount(self, spec: str | None = None, *, name: str = "data", **more) -> Path:
        return self.world.mount(spec, name=name, **more)

    def status(self, spec: str | None = None, cwd: Path | None = None) -> list[list[str]]:
        arguments = () if spec is None else (spec,)
        lines = self.cli.ok("status", *arguments, cwd=cwd or self.main).lines
        return [line.split("\t") for line in lines[5:]]

    def cat(self, spec: str) -> str:
        return self.cli.ok("cat", spec).out

    def subjects(self, spec: str = "photos") -> list[str]:
        return [row[-1] for row in self.cli.ok("log", spec).rows]


@pytest.fixture
def unmounted(photos: World) -> Desk:
    return Desk(photos)


@pytest.fixture
def desk(unmounted: Desk) -> Desk:
    unmounted.mount()
    return unmounted


def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be")


def test_a_mounted_branch_is_committed_without_opening_the_store(desk):
    """The start of the command is most of what a small commit costs."""
    (desk.main / "new").write_text("new")
    code = (
        "import sys; from versionfs.cli.main import main; sys.argv[0] = 'versionfs'\n"
        "code = main(sys.argv[1:]); print(code, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "commit", "photos", "-m", "quick"],
        env=desk.cli.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, *modules = done.stdout.splitlines()[-1].split()
    assert code == "0"
    assert not {"lmdb", "versionfs.repo.store", "versionfs.tree"} & set(modules)
    assert desk.subjects()[0] == "quick"
    assert desk.cat("photos:new") == "new"


# -- in the folder ---------------------------------------------------------------------------------


def test_status_diff_and_commit_where_one_stands(desk):
    main = desk.main
    assert desk.status() == []
    (main / "a.txt").write_text("four\n")
    (main / "sub" / "more").write_text("more\n")
    (main / "same").unlink()
    assert desk.status() == [["M", "a.txt"], ["D", "same"], ["A", "sub/more"]]
    assert desk.status(cwd=main / "sub") == desk.status()
    cli = desk.cli
    assert cli.ok("diff", cwd=main).rows == [
        ["M", "6", "5", "a.txt"],
        ["D", "5", "-", "same"],
        ["A", "-", "5", "sub/more"],
    ]
    assert cli.ok("diff", cwd=main / "sub").rows == [["A", "-", "5", "more"]]
    assert cli.ok("diff", "sub", cwd=main).rows == [["A", "-", "5", "more"]]
    assert cli.ok("diff", "../a.txt", "--name-status", cwd=main / "sub").rows == [["M", "a.txt"]]
    assert cli.ok("diff", main / "a.txt", "-p").lines[-2:] == ["-three", "+four"]
    assert cli.ok("diff", "@~1", "@head", cwd=main).rows[0] == ["M", "4", "6", "a.txt"]
    value = cli.ok("status", "--json", cwd=main / "sub").json
    assert (value["branch"], value["folder"]) == ("photos/main", str(main))
    made = cli.ok("commit", "-m", "four", "--json", cwd=main / "sub").json
    assert made["changed"] is True
    assert desk.status() == []
    assert cli.ok("diff", cwd=main).out == ""
    assert desk.cat("photos:a.txt") == "four\n"
    assert (desk.data / "photos" / "main@head" / "sub" / "more").read_text() == "more\n"
    nothing = cli.run("commit", "-m", "again", cwd=main)
    assert (nothing.code, nothing.out) == (0, "")
    assert "nothing to commit" in nothing.err


def test_the_same_by_spec_and_by_path(desk):
    (desk.main / "a.txt").write_text("four\n")
    elsewhere = desk.world.folder
    assert desk.status("photos", cwd=elsewhere) == [["M", "a.txt"]]
    assert desk.status(str(desk.main), cwd=elsewhere) == [["M", "a.txt"]]
    assert desk.cli.ok("diff", "-w", "photos").rows == [["M", "6", "5", "a.txt"]]
    desk.cli.ok("commit", "photos/main", "-m", "four")
    assert desk.subjects()[0] == "four"
    assert (desk.main / "a.txt").read_text() == "four\n"
    (desk.main / "a.txt").write_text("five\n")
    desk.cli.ok("commit", desk.main, "-m", "five")
    assert desk.subjects()[0] == "five"


def test_a_version_of_the_past_and_a_repository_are_no_place_to_commit(desk):
    past = desk.data / "photos" / "main@~1"
    desk.cli.fails(6, "commit", "-m", "m", cwd=past)
    desk.cli.fails(6, "restore", "a.txt", cwd=past)
    assert "photos/BRANCH" in desk.cli.fails(2, "commit", "-m", "m", cwd=desk.data / "photos").err
    desk.cli.fails(2, "restore", "--all", cwd=desk.data / "photos")
    desk.cli.fails(2, "status", cwd=desk.data)


def test_the_mount_says_where_its_changes_are_whatever_home_is_set(desk, tmp_path):
    (desk.main / "a.txt").write_text("four\n")
    other = {"VERSIONFS_HOME": str(tmp_path / "other")}
    assert desk.cli.ok("status", cwd=desk.main, **other).lines[-1] == "M\ta.txt"
    desk.cli.ok("commit", "-m", "four", cwd=desk.main, **other)
    assert desk.cat("photos:a.txt") == "four\n"


def test_what_a_commit_cannot_hold_is_noted_and_stays(desk):
    os.mkfifo(desk.main / "pipe")
    (desk.main / "b").write_text("b\n")
    result = desk.cli.run("commit", "-m", "four", cwd=desk.main)
    assert (result.code, result.err) == (0, "versionfs: left out: pipe is a fifo\n")
    assert (desk.main / "pipe").is_fifo()


def test_shared_mappings_are_in_the_commit(desk):
    path = desk.main / "mapped"
    path.write_bytes(bytes(64 * 1024))
    desk.cli.ok("commit", "-m", "zeros", cwd=desk.main)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        for number in range(1, 4):
            view[:] = bytes([number]) * len(view)
            desk.cli.ok("commit", "-m", f"number {number}", cwd=desk.main)
            head = desk.data / "photos" / "main@head" / "mapped"
            assert set(head.read_bytes()) == {number}


# -- restore ---------------------------------------------------------------------------------------


def test_restore_takes_paths_as_a_shell_does(desk):
    main, cli = desk.main, desk.cli

    def change() -> None:
        (main / "a.txt").write_text("changed\n")
        (main / "same").unlink(missing_ok=True)
        for path in (main / "sub").glob("*"):
            path.unlink()
        (main / "sub").rmdir()

    change()
    assert desk.status() == [["M", "a.txt"], ["D", "same"], ["D", "sub/"]]
    cli.ok("restore", "same", cwd=main)
    assert (main / "same").read_text() == "same\n"
    cli.ok("restore", "./sub", cwd=main)
    assert (main / "sub" / "new").read_text() == "new\n"
    assert desk.status() == [["M", "a.txt"]]
    cli.ok("restore", "../a.txt", cwd=main / "sub")
    assert (main / "a.txt").read_text() == "three\n"
    change()
    cli.ok("restore", ":same", main / "a.txt", main / "sub", cwd=main)
    assert desk.status() == []
    change()
    cli.ok("restore", "photos/main:same", cwd=desk.world.folder)
    cli.ok("restore", ".", cwd=main)
    assert desk.status() == []
    (main / "sub" / "made").write_text("made\n")
    (main / "made").write_text("made\n")
    cli.ok("restore", ".", cwd=main / "sub")
    assert desk.status() == [["A", "made"]]
    cli.ok("restore", "--all", cwd=main / "sub")
    assert desk.status() == []
    assert not (main / "made").exists()
    cli.fails(3, "restore", "nothing", cwd=main)
    cli.fails(2, "restore", cwd=main)


def test_a_folder_restored_to_what_it_was_follows_its_branch_again(desk):
    (desk.main / "a.txt").write_text("mine\n")
    desk.world.commit({b"a.txt": b"theirs\n"})
    assert (desk.main / "a.txt").read_text() == "mine\n"
    desk.cli.ok("restore", "--all", cwd=desk.main)
    assert (desk.main / "a.txt").read_text() == "theirs\n"


# -- others on the branch --------------------------------------------------------------------------


def test_an_import_under_changes_and_a_commit_on_top(desk):
    main = desk.main
    (main / "mine").write_text("mine\n")
    source = desk.world.folder / "theirs"
    source.write_text("theirs\n")
    desk.cli.ok("import", source, "photos:theirs")
    assert not (main / "theirs").exists()
    assert desk.cli.ok("status", cwd=main).rows[2] == ["behind", "1"]
    assert desk.status() == [["A", "mine"]]
    value = desk.cli.ok("commit", "-m", "mine", "--json", cwd=main).json
    assert value["merged"] is True
    assert (main / "theirs").read_text() == "theirs\n"
    assert (main / "mine").read_text() == "mine\n"
    assert desk.cli.ok("status", cwd=main).rows[2] == ["behind", "0"]


def test_a_commit_of_nothing_shows_what_others_committed_in_the_snapshot_too(desk):
    head = desk.data / "photos" / "main@head" / "a.txt"
    assert head.read_text() == "three\n"
    (desk.main / "a.txt").write_text("three\n")
    commit(desk.world.store, {b"a.txt": b"theirs\n"})  # As another machine: nobody is told.
    assert "nothing to commit" in desk.cli.run("commit", "-m", "m", cwd=desk.main).err
    assert (desk.main / "a.txt").read_text() == "theirs\n"
    assert head.read_text() == "theirs\n"


@pytest.mark.parametrize("changed", [True, False])
def test_a_commit_of_nothing_shows_what_others_committed_in_other_mounts(desk, changed):
    """With a record that says what the base says, and where the daemon has nothing to do."""
    other = desk.world.mount(name="other")
    head = other / "photos" / "main@head" / "a.txt"
    assert head.read_text() == "three\n"
    if changed:
        (desk.main / "a.txt").write_text("three\n")
    commit(desk.world.store, {b"a.txt": b"theirs\n"})  # As another machine: nobody is told.
    assert "nothing to commit" in desk.cli.run("commit", "-m", "m", cwd=desk.main).err
    assert head.read_text() == "theirs\n"


def test_theirs_is_taken_in_a_folder_that_was_made_anew(desk):
    main, cli = desk.main, desk.cli
    (main / "sub" / "new").unlink()
    (main / "sub" / "b.bin").unlink()
    (main / "sub").rmdir()
    (main / "sub").mkdir()
    (main / "sub" / "mine").write_text("mine\n")
    desk.world.commit({b"sub/new": b"theirs\n"})
    refused = cli.fails(5, "commit", "-m", "m", cwd=main).err.splitlines()
    assert "  sub/new: you deleted it, they changed it" in refused
    cli.ok("restore", "sub/new", cwd=main)
    assert (main / "sub" / "new").read_text() == "new\n"
    cli.ok("commit", "-m", "m", cwd=main)
    assert (main / "sub" / "new").read_text() == "theirs\n"
    assert sorted(os.listdir(main / "sub")) == ["mine", "new"]


def test_overlapping_changes_are_listed_and_both_ways_out_work(desk):
    main, cli = desk.main, desk.cli
    (main / "a.txt").write_text("mine\n")
    (main / "mine").write_text("mine\n")
    desk.world.commit({b"a.txt": b"theirs\n"})
    refused = cli.fails(5, "commit", "-m", "mine", cwd=main).err.splitlines()
    assert "  a.txt: both changed it" in refused
    assert "--from-workspace" in refused[-1]
    assert (main / "a.txt").read_text() == "mine\n"
    cli.ok("branch", "mine", "--from-workspace", cwd=main)
    assert (main / "a.txt").read_text() == "theirs\n"
    mine = desk.data / "photos" / "mine"
    assert (mine / "a.txt").read_text() == "mine\n"
    cli.ok("commit", "-m", "mine", cwd=mine)
    (main / "a.txt").write_text("more\n")
    (main / "other").write_text("other\n")
    desk.world.commit({b"a.txt": b"theirs again\n"})
    cli.fails(5, "commit", "-m", "m", cwd=main)
    cli.ok("restore", "a.txt", cwd=main)
    cli.ok("commit", "-m", "m", cwd=main)
    assert (main / "a.txt").read_text() == "theirs again\n"
    assert desk.cat("photos:other") == "other\n"


# -- a branch from the workspace -------------------------------------------------------------------


def test_open_files_go_on_where_the_work_goes(desk):
    main, cli = desk.main, desk.cli
    (main / "deep" / "er").mkdir(parents=True)
    with (main / "deep" / "er" / "log").open("w") as log, (main / "a.txt").open("r+") as old:
        log.write("before\n")
        log.flush()
        worker = subprocess.Popen(
            ["sh", "-c", "read x; env pwd -P; echo from here > here"],
            cwd=main / "deep", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        number = os.fstat(log.fileno()).st_ino
        cli.ok("branch", "try", "--from-workspace", cwd=main / "deep")
        moved = desk.data / "photos" / "try"
        log.write("after\n")
        log.flush()
        old.write("four!")
        old.flush()
        assert worker.communicate("\n")[0] == f"{moved / 'deep'}\n"
        assert (moved / "deep" / "er" / "log").read_text() == "before\nafter\n"
        assert (moved / "deep" / "er" / "log").stat().st_ino == number
        assert (moved / "deep" / "here").read_text() == "from here\n"
        assert not (main / "deep").exists()
        assert (main / "a.txt").read_text() == "three\n"
        cli.ok("commit", "-m", "tried", cwd=moved)
        log.write("later\n")
    assert desk.status(cwd=moved) == [["M", "deep/er/log"]]
    assert desk.status() == []
    assert desk.cat("photos/try:a.txt") == "four!\n"
    # Both folders go on, each with changes of its own.
    (main / "a.txt").write_text("main\n")
    assert desk.status() == [["M", "a.txt"]]
    cli.ok("commit", "-m", "main", cwd=main)
    desk.cli.ok("umount", desk.data)
    desk.mount()
    assert desk.status(cwd=moved) == [["M", "deep/er/log"]]
    assert (moved / "deep" / "er" / "log").read_text() == "before\nafter\nlater\n"


def test_a_name_that_is_taken_moves_nothing(desk):
    (desk.main / "a.txt").write_text("four\n")
    desk.cli.ok("branch", "photos/dev")
    desk.cli.fails(4, "branch", "dev", "--from-workspace", cwd=desk.main)
    desk.cli.fails(2, "branch", "no such name", "--from-workspace", cwd=desk.main)
    assert desk.status() == [["M", "a.txt"]]
    desk.cli.ok("restore", "--all", cwd=desk.main)
    desk.cli.fails(2, "branch", "try", "--from-workspace", cwd=desk.main)
    assert [row[0] for row in desk.cli.ok("branch", "photos").rows] == ["dev", "main"]


def test_a_mount_of_one_branch_goes_with_the_work(unmounted):
    desk, folder = unmounted, unmounted.mount("photos/main")
    (folder / "sub" / "made").write_text("made\n")
    desk.cli.ok("branch", "try", "--from-workspace", cwd=folder)
    assert (folder / "sub" / "made").read_text() == "made\n"
    assert desk.cli.ok("status", cwd=folder).rows[0] == ["branch", "photos/try"]
    assert desk.cli.ok("mounts").rows[0][1] == "photos/try"
    desk.cli.ok("commit", "-m", "tried", cwd=folder / "sub")
    assert desk.cat("photos/try:sub/made") == "made\n"
    assert desk.subjects("photos")[0] != "tried"


def test_a_branch_with_changes_stays_unless_forced(desk):
    desk.cli.ok("branch", "photos/dev")
    dev = desk.data / "photos" / "dev"
    (dev / "a.txt").write_text("dev\n")
    assert "uncommitted" in desk.cli.fails(2, "branch", "-d", "photos/dev").err
    assert (dev / "a.txt").read_text() == "dev\n"
    desk.cli.ok("branch", "-d", "photos/dev", "--force")
    assert not dev.exists()
    desk.cli.ok("branch", "photos/dev", "@~1")
    assert (dev / "a.txt").read_text() == "two\n"
    (dev / "a.txt").write_text("again\n")
    desk.cli.ok("commit", "-m", "again", cwd=dev)


# -- who has the workspace -------------------------------------------------------------------------


def test_after_a_kill_the_workspace_is_opened_without_the_mount(desk):
    (desk.main / "a.txt").write_text("four\n")
    desk.world.kill(desk.data)
    assert desk.status("photos", cwd=desk.world.folder) == [["M", "a.txt"]]
    desk.cli.ok("commit", "photos", "-m", "four")
    desk.cli.ok("umount", desk.data)
    desk.mount()
    assert (desk.main / "a.txt").read_text() == "four\n"
    assert desk.status() == []


def test_what_a_kill_has_left_goes_when_the_folder_is_looked_at(desk):
    """The first who commits need not wait for that."""

    def staged() -> list[Path]:
        found = []
        for top, _, names in os.walk(desk.cli.home / "state"):
            for path in (Path(top, name) for name in names):
                with contextlib.suppress(FileNotFoundError):  # just removed
                    if path.stat().st_size == 100_000:
                        found.append(path)
        return found

    (desk.main / "a.txt").write_text("four\n")
    with (desk.main / "open").open("wb", buffering=0) as file:
        file.write(b"x" * 100_000)
        (desk.main / "open").unlink()
        assert len(staged()) == 1
        desk.world.kill(desk.data)
    assert len(staged()) == 1
    desk.cli.ok("umount", desk.data)
    desk.mount()
    assert "a.txt" in os.listdir(desk.main)
    until(lambda: not staged())
    assert (desk.main / "a.txt").read_text() == "four\n"


def test_packs_of_others_are_known_before_the_first_commit(desk, tmp_path):
    """The first who commits need not wait for that either."""
    places = {
        "VERSIONFS_HOME": str(tmp_path / "other"),
        "VERSIONFS_STORE": str(desk.cli.home / "store"),
    }
    # Which packs are there was looked at lately, or it is left to the commit.
    (desk.main / "a.txt").write_text("four\n")
    desk.cli.ok("commit", "photos", "-m", "four")
    (desk.main / "a.txt").write_text("five\n")
    desk.cli.ok("umount", desk.data)
    with Store.open(load_settings(places)) as other:
        other.sync_index()
        before = set(other.index.known_packs())
        commit(other, {b"theirs": b"of another machine"}, branch="theirs")
        new = set(other.index.known_packs()) - before
    assert new
    desk.mount()
    known = desk.world.store.index.known_packs
    assert not new & set(known())
    assert (desk.main / "a.txt").read_text() == "five\n"
    until(lambda: new <= set(known()))


def test_a_mount_sees_what_was_committed_without_it(desk):
    (desk.main / "a.txt").write_text("four\n")
    desk.cli.ok("umount", desk.data)
    desk.mount()
    # Nobody has looked at the branch yet, so nobody has the workspace.
    desk.cli.ok("commit", "photos", "-m", "four")
    assert (desk.main / "a.txt").read_text() == "four\n"
    (desk.main / "a.txt").write_text("five\n")
    assert desk.status() == [["M", "a.txt"]]


def test_of_two_mounts_one_has_the_workspace_and_both_can_commit_it(desk):
    (desk.main / "a.txt").write_text("four\n")
    second = desk.mount(name="second") / "photos" / "main"
    assert (second / "a.txt").read_text() == "three\n"
    with pytest.raises(OSError, match="Read-only"):
        (second / "a.txt").write_text("no\n")
    assert desk.status(cwd=second) == [["M", "a.txt"]]
    desk.cli.ok("commit", "-m", "four", cwd=second)
    assert (second / "a.txt").read_text() == "four\n"
    assert desk.status() == []


def test_commits_at_once_all_succeed(desk):
    for number in range(4):
        (desk.main / f"file{number}").write_text(f"{number}\n")
    commands = [
        subprocess.Popen(
            desk.cli.command("commit", "photos", "-m", f"commit {n}"),
            env=desk.cli.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for n in range(4)
    ]  # fmt: skip
    assert [command.wait(60) for command in commands] == [0] * 4
    assert desk.status() == []
    assert desk.cat("photos:file3") == "3\n"


# -- mount options ---------------------------------------------------------------------------------


def test_a_read_only_mount(unmounted):
    desk = unmounted
    desk.world.folder_for_mount()
    desk.cli.ok("mount", desk.data, "--read-only")
    desk.world.daemons.append(desk.world.record(desk.data))
    with pytest.raises(OSError, match="Read-only"):
        (desk.main / "a.txt").write_text("no\n")
    assert desk.status() == []
    assert "nothing to commit" in desk.cli.run("commit", "-m", "m", cwd=desk.main).err
    assert desk.cli.ok("status", cwd=desk.main).rows[3] == ["folder", ""]
    desk.cli.fails(2, "mount", desk.data, "--read-only", "--auto-commit", "1s")


def test_commits_come_by_themselves(unmounted):
    desk = unmounted
    desk.world.folder_for_mount()
    desk.cli.ok("mount", desk.data, "--auto-commit", "1s")
    desk.world.daemons.append(desk.world.record(desk.data))
    (desk.main / "a.txt").write_text("four\n")
    until(lambda: desk.cat("photos:a.txt") == "four\n")
    assert desk.subjects()[0] == "Automatic commit"
    (desk.main / "a.txt").write_text("five\n")
    desk.cli.ok("umount", desk.data)
    assert desk.cat("photos:a.txt") == "five\n"


def end_by_umount(desk: Desk) -> None:
    desk.cli.ok("umount", desk.data)


def end_by_signal(desk: Desk) -> None:
    os.kill(desk.world.record(desk.data).pid, signal.SIGTERM)


def end_lazily(desk: Desk) -> None:
    subprocess.run(["fusermount3", "-uz", desk.data], check=True)


@pytest.mark.parametrize("end", [end_by_umount, end_by_signal, end_lazily])
def test_what_is_left_is_committed_when_the_mount_ends(unmounted, end):
    desk = unmounted
    desk.mount(auto_commit="on-unmount")
    desk.cli.ok("branch", "photos/dev")
    record = desk.world.record(desk.data)
    (desk.main / "a.txt").write_text("four\n")
    (desk.data / "photos" / "dev" / "a.txt").write_text("dev\n")
    end(desk)
    desk.world.wait_for_end(record)
    assert mounted_at(desk.data) is None
    assert desk.cat("photos:a.txt") == "four\n"
    assert desk.cat("photos/dev:a.txt") == "dev\n"
    assert desk.subjects()[0] == "Automatic commit on unmount"


def test_what_cannot_be_committed_at_the_end_is_kept(unmounted):
    desk = unmounted
    desk.mount(auto_commit="on-unmount")
    (desk.main / "a.txt").write_text("mine\n")
    desk.world.commit({b"a.txt": b"theirs\n"})
    desk.cli.ok("umount", desk.data)
    assert "cannot commit photos/main" in desk.world.log(desk.data)
    assert desk.status("photos", cwd=desk.world.folder) == [["M", "a.txt"]]
