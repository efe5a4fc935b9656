"""Uncommitted changes from the command line, without a mount: the workspace is opened directly."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from versionfs.config import load_settings
from versionfs.repo import Store
from versionfs.workspace import ROOT, Workspace, folder_of


class Changing:
    """What a program would do in the branch folder, done to the workspace itself."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def number(self, path: str) -> int:
        number = ROOT
        for name in path.split("/") if path else ():
            found = self.workspace.lookup(number, name.encode())
            assert found is not None, path
            number = found.number
        return number

    def place(self, path: str) -> tuple[int, bytes]:
        folder, _, name = path.rpartition("/")
        return self.number(folder), name.encode()

    def write(self, path: str, data: bytes) -> None:
        workspace, (parent, name) = self.workspace, self.place(path)
        found = workspace.lookup(parent, name)
        if found is None:
            number = workspace.overlay.make(parent, name, stat.S_IFREG | 0o644, 0, 0)
        else:
            number = found.number
            workspace.overlay.set_attributes(number, size=0)
        workspace.files.write(workspace.overlay.changes, number, 0, data)

    def patch(self, path: str, offset: int, data: bytes) -> None:
        workspace = self.workspace
        workspace.files.write(workspace.overlay.changes, self.number(path), offset, data)

    def make(self, path: str, mode: int) -> None:
        self.workspace.overlay.make(*self.place(path), mode, 0, 0)

    def remove(self, path: str) -> None:
        self.workspace.overlay.unlink(*self.place(path))

    def rename(self, old: str, new: str) -> None:
        self.workspace.overlay.rename(*self.place(old), *self.place(new), 0)

    def chmod(self, path: str, mode: int) -> None:
        self.workspace.overlay.set_attributes(self.number(path), mode=mode)


@contextmanager
def changing(cli, branch: str = "main", repository: str = "photos") -> Iterator[Changing]:
    settings = load_settings({"VERSIONFS_HOME": str(cli.home)})
    with Store.open(settings) as store:
        repo = store.repository(repository)
        head = repo.commit(repo.branch(branch).commit)
        workspace = Workspace(store, folder_of(store, repository, branch), head)
        try:
            yield Changing(workspace)
        finally:
            workspace.close()


def change(cli, branch: str = "main") -> None:
    """A, D, M in a file and a folder."""
    with changing(cli, branch) as work:
        work.write("a.txt", b"changed\n")
        work.remove("run.sh")
        work.write("sub/added", b"added\n")


CHANGED = [["M", "a.txt"], ["D", "run.sh"], ["A", "sub/added"]]


def changes(cli, spec: str = "photos") -> list[list[str]]:
    """Returns what status lists."""
    lines = cli.ok("status", spec).lines
    return [line.split("\t") for line in lines[5:]]


def test_a_branch_that_nobody_changed(photos):
    assert photos.ok("status", "photos").rows == [
        ["branch", "photos/main"],
        ["base", photos.ok("log", "photos").rows[0][1]],
        ["behind", "0"],
        ["folder", ""],
    ]
    value = photos.ok("status", "photos/main", "--json").json
    assert value["clean"] is True
    assert value["changes"] == []
    assert photos.ok("diff", "-w", "photos").out == ""
    result = photos.run("commit", "photos", "-m", "nothing")
    assert (result.code, result.out) == (0, "")
    assert result.err == "versionfs: nothing to commit in photos/main\n"
    assert not (photos.home / "state" / "workspaces").exists()


def test_status_tells_what_is_changed(photos):
    change(photos)
    assert changes(photos) == CHANGED
    value = photos.ok("status", "photos", "--json").json
    assert value["branch"] == "photos/main"
    assert value["base"] == value["head"]
    assert (value["behind"], value["clean"], value["folder"]) == (0, False, None)
    assert [item["status"] for item in value["changes"]] == ["M", "D", "A"]
    assert value["changes"][0]["new"]["size"] == 8
    assert value["changes"][0]["new"]["id"] is None
    assert changes(photos, "photos/dev") == []
    code, shown = photos.terminal("status", "photos")
    assert code == 0
    assert "not mounted" in shown
    assert "sub/added" in shown


def test_status_tells_a_folder_that_went_as_one_line_and_diff_each_path(photos):
    with changing(photos) as work:
        work.rename("sub", "other")
    assert changes(photos) == [["A", "other/"], ["D", "sub/"]]
    assert photos.ok("diff", "-w", "photos").rows == [
        ["A", "-", "-", "other/"],
        ["A", "-", "10240", "other/b.bin"],
        ["A", "-", "4", "other/new.txt"],
        ["D", "-", "-", "sub/"],
        ["D", "10240", "-", "sub/b.bin"],
        ["D", "4", "-", "sub/new.txt"],
    ]


def test_diff_is_what_the_commit_then_changes(photos):
    with changing(photos) as work:
        work.write("a.txt", b"changed\n")
        work.remove("run.sh")
        work.rename("sub", "empty/deep")
        work.write("empty/deep/new.txt", b"more\n")
        work.write("sub", b"now a file\n")
        work.chmod("turns", 0o777)
        work.make("made", stat.S_IFDIR | 0o755)
        work.patch("empty/deep/b.bin", 3, b"\3")
    before = photos.ok("diff", "-w", "photos", "-z").raw
    rows = photos.ok("diff", "-w", "photos").rows
    stat_lines = photos.ok("diff", "-w", "photos", "--stat").lines
    photos.ok("commit", "photos", "-m", "third")
    assert photos.ok("diff", "photos", "-z").raw == before
    assert photos.ok("diff", "photos").rows == rows
    assert photos.ok("diff", "photos", "--stat").lines == stat_lines
    assert photos.ok("diff", "-w", "photos").out == ""


def test_a_file_that_was_written_as_it_was_is_no_difference(photos):
    with changing(photos) as work:
        work.write("a.txt", b"alpha and more\n")
        work.patch("sub/b.bin", 7, b"\7")
    assert changes(photos) == [["M", "a.txt"], ["M", "sub/b.bin"]]
    assert photos.ok("diff", "-w", "photos").out == ""
    assert photos.run("diff", "-w", "photos", "--exit-code").code == 0
    assert "nothing to commit" in photos.run("commit", "photos", "-m", "nothing").err
    assert changes(photos) == []


def test_diff_of_contents(photos):
    with changing(photos) as work:
        work.write("a.txt", b"alpha and more\nand\tagain\x1b\n")
        work.write("sub/b.bin", b"\0\1")
        work.remove("sub/new.txt")
    assert photos.ok("diff", "-w", "-p", "photos").lines == [
        "modified -rw-r--r-- a.txt",
        "--- a/a.txt",
        "+++ b/a.txt",
        "@@ -1 +1,2 @@",
        " alpha and more",
        "+and\tagain\\033",
        "modified -rw-r--r-- sub/b.bin",
        "Binary files differ",
        "deleted -rw-r--r-- sub/new.txt",
        "--- a/sub/new.txt",
        "+++ /dev/null",
        "@@ -1 +0,0 @@",
        "-new",
    ]
    assert photos.ok("diff", "-w", "-p", "photos:sub/new.txt").lines[0] == (
        "deleted -rw-r--r-- new.txt"
    )
    assert photos.ok("diff", "-w", "photos:sub", "--name-status").rows == [
        ["M", "b.bin"],
        ["D", "new.txt"],
    ]
    value = photos.ok("diff", "-w", "-p", "--json", "photos").json
    assert value[2]["patch"][-1] == "-new"
    assert "-alpha\n+alpha and more" in photos.ok("diff", "-p", "photos").out
    photos.fails(2, "diff", "-p", "--stat", "photos")
    photos.fails(2, "diff", "-w", "photos", "photos@~1")
    photos.fails(2, "diff", "-w", "photos@~1")


def test_commit_makes_a_version(photos):
    change(photos)
    result = photos.ok("commit", "photos", "-m", "third", "--author", "eve", "--metadata", "k=v")
    assert result.out.startswith("photos/main ")
    assert "3 changed files" not in result.out  # A removed one is none that was stored.
    newest = photos.ok("log", "photos", "--json").json[0]
    assert (newest["message"], newest["author"]) == ("third", "eve")
    assert newest["metadata"] == {"k": "v"}
    assert photos.ok("cat", "photos:a.txt").out == "changed\n"
    photos.fails(3, "cat", "photos:run.sh")
    assert changes(photos) == []
    with changing(photos) as work:
        work.write("a.txt", b"again\n")
    value = photos.ok("commit", "photos/main", "-m", "fourth", "--json").json
    assert value["branch"] == "photos/main"
    assert (value["changed"], value["merged"], value["files"]) == (True, False, 1)
    assert value["commit"]["message"] == "fourth"
    assert value["commit"]["author"].startswith("ada@")
    assert value["skipped"] == []
    with changing(photos) as work:
        work.remove("a.txt")
    assert (
        ": names and attributes only, 0 B new, " in photos.ok("commit", "photos", "-m", "gone").out
    )


def test_commit_leaves_out_what_a_version_cannot_hold(photos):
    with changing(photos) as work:
        work.make("pipe", stat.S_IFIFO | 0o644)
        work.write("a.txt", b"changed\n")
    result = photos.run("commit", "photos", "-m", "third")
    assert result.code == 0
    assert result.err == "versionfs: left out: pipe is a fifo\n"
    value = photos.run("commit", "photos", "-m", "again", "--json").json
    assert value["changed"] is False
    assert value["skipped"] == [{"path": "pipe", "reason": "a fifo"}]
    assert changes(photos) == []


def test_a_commit_needs_a_message_and_a_branch(photos):
    assert "message" in photos.fails(2, "commit", "photos").err
    photos.fails(6, "commit", "photos@v1", "-m", "m")
    photos.fails(6, "status", "photos@~1")
    photos.fails(3, "commit", "photos/none", "-m", "m")
    photos.fails(3, "status", "none")
    photos.fails(2, "commit", "photos:sub", "-m", "m")
    photos.fails(2, "commit", "-m", "m")
    photos.fails(2, "commit", "photos", "-m", "m", "--metadata", "novalue")


def test_restore_discards(photos):
    change(photos)
    assert photos.ok("restore", "photos:run.sh", "photos/main:sub").out == (
        "restored 3 names in photos/main\n"
    )
    assert changes(photos) == [["M", "a.txt"]]
    assert photos.ok("restore", "photos", "--all", "--json").json == {
        "branch": "photos/main",
        "restored": 1,
    }
    assert changes(photos) == []
    result = photos.run("restore", "photos", "--all")
    assert (result.code, result.err) == (0, "versionfs: nothing to restore in photos/main\n")


def test_restore_has_to_be_told_what(photos):
    change(photos)
    assert "--all" in photos.fails(2, "restore").err
    assert "--all" in photos.fails(2, "restore", "photos").err
    photos.fails(2, "restore", "--all")
    photos.fails(2, "restore", "photos:a.txt", "photos/dev:a.txt")
    photos.fails(2, "restore", "photos", "photos/dev", "--all")
    photos.fails(3, "restore", "photos:nowhere")
    photos.fails(6, "restore", "photos@v1:a.txt")
    assert changes(photos) == CHANGED


def test_work_moves_to_a_new_branch(photos):
    change(photos)
    head = photos.ok("log", "photos").rows[0][1]
    value = photos.ok("branch", "photos/try", "--from-workspace", "--json").json
    assert (value["action"], value["name"], value["from"]) == ("moved", "try", "main")
    assert changes(photos) == []
    assert changes(photos, "photos/try") == CHANGED
    assert photos.ok("log", "photos/try").rows[0][1] == head
    photos.ok("commit", "photos/try", "-m", "tried")
    assert photos.ok("cat", "photos/try:a.txt").out == "changed\n"
    assert photos.ok("cat", "photos:a.txt").out == "alpha and more\n"
    with changing(photos, "try") as work:
        work.write("a.txt", b"further\n")
    photos.ok("branch", "photos/further", "try", "--from-workspace")
    assert changes(photos, "photos/further") == [["M", "a.txt"]]


def test_work_stays_where_it_is_if_it_cannot_move(photos):
    change(photos)
    photos.fails(4, "branch", "photos/dev", "--from-workspace")
    photos.fails(2, "branch", "photos/try", "dev", "--from-workspace")
    photos.fails(2, "branch", "other/try", "photos/main", "--from-workspace")
    photos.fails(2, "branch", "photos/a@b", "--from-workspace")
    photos.fails(2, "branch", "--from-workspace")
    photos.fails(2, "branch", "try", "--from-workspace")
    assert changes(photos) == CHANGED
    assert [row[0] for row in photos.ok("branch", "photos").rows] == ["dev", "main"]


def test_a_branch_with_changes_is_not_deleted_unless_forced(photos):
    change(photos, "dev")
    assert "uncommitted changes" in photos.fails(2, "branch", "-d", "photos/dev").err
    assert changes(photos, "photos/dev") == CHANGED
    photos.ok("branch", "-d", "photos/dev", "--force")
    photos.ok("branch", "photos/dev")
    assert changes(photos, "photos/dev") == []


def test_changes_of_a_deleted_branch_can_be_kept(photos):
    change(photos, "dev")
    settings = load_settings({"VERSIONFS_HOME": str(photos.home)})
    with Store.open(settings) as store:
        store.repository("photos").delete_branch("dev")  # as another machine would
    value = photos.ok("status", "photos/dev", "--json").json
    assert (value["head"], value["behind"]) == (None, None)
    hint = photos.fails(3, "commit", "photos/dev", "-m", "m").err
    assert "--from-workspace" in hint
    photos.ok("branch", "photos/kept", "photos/dev", "--from-workspace")
    photos.ok("commit", "photos/kept", "-m", "kept")
    assert photos.ok("cat", "photos/kept:a.txt").out == "changed\n"


def test_a_branch_that_others_moved_gets_the_changes_on_top(photos):
    change(photos)
    (photos.folder / "one").write_bytes(b"one\n")
    photos.ok("import", "one", "photos:sub/one")
    photos.ok("import", "one", "photos:two")
    assert photos.ok("status", "photos").rows[2] == ["behind", "2"]
    assert "2 commits behind" in photos.terminal("status", "photos")[1]
    assert changes(photos) == CHANGED
    assert "on top of" in photos.ok("commit", "photos", "-m", "third").out
    assert photos.ok("cat", "photos:a.txt", "photos:two", "photos:sub/added").out == (
        "changed\none\nadded\n"
    )
    assert photos.ok("status", "photos").rows[2] == ["behind", "0"]


def test_overlapping_changes_stop_the_commit_with_a_list(photos):
    change(photos)
    source = photos.folder / "source"
    (source / "a.txt").write_bytes(b"theirs\n")
    (source / "run.sh").write_bytes(b"#!/bin/bash\n")
    photos.ok("import", "source", "photos", "-m", "theirs")
    refused = photos.fails(5, "commit", "photos", "-m", "third").err.splitlines()
    assert "  a.txt: both changed it" in refused
    assert "  run.sh: you deleted it, they changed it" in refused
    assert "--from-workspace" in refused[-1]
    assert "versionfs restore" in refused[-1]
    assert changes(photos) == CHANGED
    photos.ok("restore", "photos:a.txt", "photos:run.sh")
    photos.ok("commit", "photos", "-m", "third")
    assert photos.ok("cat", "photos:a.txt", "photos:sub/added").out == "theirs\nadded\n"


def test_a_clean_workspace_follows_its_branch_while_nobody_looks(photos):
    change(photos)
    photos.ok("commit", "photos", "-m", "third")
    (photos.folder / "one").write_bytes(b"one\n")
    photos.ok("import", "one", "photos:one")
    assert photos.ok("status", "photos").rows[2] == ["behind", "0"]
    with changing(photos) as work:
        work.write("one", b"two\n")
    assert changes(photos) == [["M", "one"]]


def test_a_workspace_that_another_process_has_is_waited_for(photos):
    change(photos)
    holder = (
        "import sys, fcntl, os, time\n"
        "lock = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "os.pwrite(lock, b'%d\\n' % os.getpid(), 0)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    (lock,) = (photos.home / "state" / "workspaces").glob("*/photos/main/lock")
    with subprocess.Popen(
        [sys.executable, "-c", holder, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        waiting = subprocess.Popen(
            photos.command("status", "photos"), env=photos.env, cwd=photos.folder,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        refused = photos.fails(5, "commit", "photos", "-m", "m").err
        assert str(process.pid) in refused
        waiting.communicate()
        process.stdin.close()
    assert changes(photos) == CHANGED


def test_odd_names_are_quoted(photos):
    with changing(photos) as work:
        work.rename(os.fsdecode(b"a.txt"), "tab\there")
    assert ["A", '"tab\\there"'] in changes(photos)


@pytest.mark.parametrize("text", ["0", "5x", "soon", "-1"])
def test_an_interval_that_is_none(photos, text):
    (photos.folder / "data").mkdir()
    assert "on-unmount" in photos.fails(2, "mount", "data", "--auto-commit", text).err
