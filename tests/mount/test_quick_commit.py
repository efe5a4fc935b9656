"""``versionfs commit -m MESSAGE`` in a branch folder: the same as the ordinary one, but sooner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import ROOT, CommandLine
from tests.mount.conftest import World
from tests.mount.support import commit
from versionfs import config, syscalls
from versionfs.cli import quick
from versionfs.cli.main import SECTIONS

compiled_only = pytest.mark.skipif(
    syscalls._compiled is None, reason="a mount is written back by what is compiled"
)

# Loaded by a quick commit, and what an ordinary one loads.
QUICK, ORDINARY = "versionfs.cli.quick", "versionfs.cli.workspaces"


class Desk:
    """A mounted repository, and the command line in its branch folder."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cli = CommandLine(world.folder / "home", world.folder)
        self.main = world.mount() / "photos" / "main"

    def commit(self, *arguments: str, code: int = 0, **env: str) -> tuple[str, str, set[str]]:
        """Commits; returns what was written, and the modules that were loaded."""
        report = self.world.folder / "modules"
        script = (
            "import sys; from versionfs.__main__ import main; sys.argv[0] = 'versionfs'\n"
            "code = main()\n"
            f"open({os.fspath(report)!r}, 'w').write(' '.join(sys.modules))\n"
            "sys.exit(code)"
        )
        done = subprocess.run(
            # Without `site`: what the test tools hook into Python loads more than the command.
            [sys.executable, "-S", "-c", script, "commit", *arguments],
            env=self.cli.env | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])} | env,
            cwd=self.main, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr, set(report.read_text().split())

    def newest(self) -> dict:
        found: dict = self.cli.ok("show", "photos", "--json").json
        return found


@pytest.fixture
def desk(photos: World) -> Desk:
    return Desk(photos)


def shape(line: str) -> str:
    """A line about a commit, without what is different for each."""
    name, commit_id, *rest = line.split(" ")
    assert len(commit_id) == len("0123456789ab:")
    return " ".join([name, *rest[:-2]])


@compiled_only
def test_a_plain_commit_loads_next_to_nothing(desk):
    (desk.main / "new").write_text("new")
    out, err, modules = desk.commit("-m", "quick")
    assert err == ""
    assert "1 changed file, 3 B new" in out
    assert QUICK in modules
    assert not {"click", "re", "json", "typing", "socket", "logging", "pathlib"} & modules


@compiled_only
def test_both_ways_write_and_store_the_same(desk):
    told, stored = [], []
    for number, arguments in enumerate(
        (["-m", "Grün\n\nzwei 🙂"], ["photos", "-m", "Grün\n\nzwei 🙂"])
    ):
        (desk.main / "a").write_text(f"{number}")
        out, err, modules = desk.commit(*arguments)
        assert err == ""
        assert (ORDINARY in modules) == bool(number)
        told.append(shape(out))
        shown = desk.newest()
        stored.append([shown[key] for key in ("author", "message", "metadata")])
    assert told[0] == told[1]
    assert stored[0] == stored[1]
    assert stored[0][:2] == [f"ada@{os.uname().nodename}", "Grün\n\nzwei 🙂"]


@compiled_only
def test_the_author_is_who_was_named(desk):
    (desk.main / "a").write_text("1")
    _, _, modules = desk.commit("--message=one", "--author", "Ada <ada@example.org>")
    assert ORDINARY not in modules
    assert desk.newest()["author"] == "Ada <ada@example.org>"


@compiled_only
def test_nothing_to_commit_is_said_in_the_same_words(desk):
    (desk.main / "a").write_text("1")
    desk.commit("-m", "something")
    plain, ordinary = desk.commit("-m", "no"), desk.commit("photos", "-m", "no")
    assert ORDINARY not in plain[2]
    assert plain[:2] == ordinary[:2] == ("", "versionfs: nothing to commit in photos/main\n")


def test_a_folder_that_was_never_changed_is_nobodys_and_left_to_the_ordinary_command(desk):
    out, err, modules = desk.commit("-m", "no")
    assert ORDINARY in modules
    assert (out, err) == ("", "versionfs: nothing to commit in photos/main\n")


def test_what_a_commit_cannot_hold_is_named(desk):
    (desk.main / "a").write_text("1")
    os.mkfifo(desk.main / "pipe")
    out, err, _ = desk.commit("-m", "one")
    assert out.startswith("photos/main ")
    assert err == "versionfs: left out: pipe is a fifo\n"


@compiled_only
def test_mapped_writes_are_in_the_commit(desk):
    import mmap

    path = desk.main / "mapped"
    path.write_bytes(b"x" * 8192)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapped:
        mapped[0:4] = b"late"
        _, _, modules = desk.commit("-m", "one")
    assert ORDINARY not in modules
    assert desk.cli.ok("cat", "photos@head:mapped").out[:4] == "late"


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["-m", "one", "--json"], {}),
        (["-m", "one", "--metadata", "run=7"], {}),
        (["photos/main", "-m", "one"], {}),
        (["-m", "one"], {"VERSIONFS_TIMEOUT": "9"}),
        (["-m", "one"], {"VERSIONFS_ACCELERATOR": "0"}),
    ],
)
def test_whatever_says_more_goes_the_ordinary_way(desk, arguments, env):
    (desk.main / "a").write_text("1")
    out, err, modules = desk.commit(*arguments, **env)
    assert ORDINARY in modules
    assert (err, bool(out)) == ("", True)
    assert desk.newest()["message"] == "one"


def test_settings_in_a_file_are_respected(desk):
    (desk.cli.home / "config.toml").write_text('author = "from the file"\n')
    (desk.main / "a").write_text("1")
    desk.commit("-m", "one")
    assert desk.newest()["author"] == "from the file"


def test_a_bad_setting_is_an_error_as_ever(desk):
    (desk.cli.home / "config.toml").write_text("author = 7\n")
    (desk.main / "a").write_text("1")
    _, err, _ = desk.commit("-m", "one", code=2)
    assert "config.toml: author must be text" in err


def test_other_mounts_are_told(desk):
    beside = desk.world.mount("photos@head", name="beside", read_only=True)
    assert not (beside / "fresh").exists()
    (desk.main / "fresh").write_text("1")
    _, _, modules = desk.commit("-m", "one")
    assert ORDINARY in modules
    assert (beside / "fresh").read_text() == "1"


@compiled_only
def test_a_conflict_is_told_in_full_and_at_once(desk):
    (desk.main / "a.txt").write_text("mine")
    commit(desk.world.store, {b"a.txt": b"theirs"})
    out, err, modules = desk.commit("-m", "one", code=5)
    assert ORDINARY not in modules
    assert out == ""
    assert "others changed what you changed" in err
    assert "  a.txt: " in err


@compiled_only
def test_when_the_daemon_dies_the_commit_is_made_without_it(desk):
    (desk.main / "a").write_text("1")
    daemon = desk.world.daemons[0]
    script = (
        "import os, sys; from versionfs.__main__ import main; from versionfs.cli import quick\n"
        "plain = quick._connected\n"
        "def connected(path):\n"
        "    client = plain(path)\n"
        f"    os.kill({daemon.pid}, 9)\n"
        "    return client\n"
        "quick._connected = connected\n"
        "sys.argv[0] = 'versionfs'; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "commit", "-m", "on its own"],
        env=desk.cli.env, cwd=desk.main, capture_output=True, text=True, check=False,
    )  # fmt: skip
    desk.world.wait_for_end(daemon)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("photos/main ")
    assert desk.newest()["message"] == "on its own"


def test_a_folder_of_a_mount_that_was_replaced_is_left_to_the_ordinary_command(desk):
    (desk.main / "a").write_text("1")
    (record,) = (desk.cli.home / "state" / "mounts").glob("*.json")
    told = json.loads(record.read_bytes())
    record.write_text(json.dumps(told | {"store": str(desk.world.folder / "another")}))
    _, _, modules = desk.commit("-m", "one")
    assert ORDINARY in modules


@pytest.mark.parametrize(
    ("environ", "plain"),
    [
        ({"HOME": "/home"}, True),
        ({}, False),
        ({"HOME": ""}, False),
        ({"HOME": "relative"}, False),
        ({"HOME": "/etc/passwd"}, True),
        ({"HOME": "/home", "XDG_CONFIG_HOME": "/etc"}, True),
        ({"HOME": "/home", "XDG_CONFIG_HOME": "etc"}, False),
        ({"VERSIONFS_HOME": "/home"}, True),
        ({"VERSIONFS_HOME": "home"}, False),
        ({"HOME": "/home", "VERSIONFS_STORE": "/store"}, False),
        ({"HOME": "/home", "VERSIONFS_STORE": ""}, True),
    ],
)
def test_settings_are_plain_only_where_they_can_be_known_to_be(environ, plain):
    assert quick._is_plain(environ) == plain


def test_settings_that_are_there_are_not_plain(tmp_path):
    (tmp_path / ".config" / "versionfs").mkdir(parents=True)
    assert quick._is_plain({"HOME": str(tmp_path)})
    (tmp_path / ".config" / "versionfs" / "config.toml").touch()
    assert not quick._is_plain({"HOME": str(tmp_path)})


@compiled_only
def test_below_the_top_of_a_branch_too(desk):
    folder = desk.main / "odd:@ name"
    folder.mkdir()
    (folder / "a").write_text("1")
    desk.main = folder
    out, _, modules = desk.commit("-m", "one")
    assert ORDINARY not in modules
    assert out.startswith("photos/main ")


def test_outside_of_a_branch_folder_it_is_the_ordinary_error(desk):
    desk.main = desk.world.folder
    _, err, _ = desk.commit("-m", "one", code=2)
    assert "no SPEC is given" in err


def test_nobody_reads_what_it_says(desk):
    (desk.main / "a").write_text("1")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "versionfs", "commit", "-m", "into the void"],
        env=desk.cli.env, cwd=desk.main, stdout=writer, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    assert desk.newest()["message"] == "into the void"


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["-m", "x"], {"message": "x"}),
        (["--message", "x"], {"message": "x"}),
        (["--message=x=y"], {"message": "x=y"}),
        (["--author", "a", "-m", "x", "-m", "y"], {"author": "a", "message": "y"}),
        ([], None),
        (["-m"], None),
        (["-m", ""], None),
        (["-m", "-x"], None),
        (["-m=x"], None),
        (["-mx"], None),
        (["--mess", "x"], None),
        (["--author", "a"], None),
        (["-m", "x", "main"], None),
        (["-m", "x", "--"], None),
        (["-m", "x", "--help"], None),
    ],
)
def test_only_plain_arguments_are_taken(words, given):
    assert quick._arguments(words) == given


def test_every_setting_of_the_environment_is_known_to_say_more():
    assert set(config._VARIABLES.values()) | {"VERSIONFS_STORE"} <= set(quick.SAY_MORE)


def test_the_command_has_no_option_that_is_taken_for_another():
    from versionfs.cli.workspaces import commit_command

    assert SECTIONS["Work"]["commit"][0] == "workspaces:commit_command"
    options = {name for option in commit_command.params for name in option.opts}
    assert set(quick._OPTIONS) <= options


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_an_answer_is_read_as_json_reads_it(value):
    assert quick._decoded(json.dumps(value) + "\n") == value


@pytest.mark.parametrize("text", ["", "\n", "{", '{"a": }', "nonsense"])
def test_what_is_no_json_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  (its message is of the json module)
        quick._decoded(text)


@compiled_only
def test_the_path_of_a_deep_home_is_not_too_long_for_a_socket(photos: World, tmp_path: Path):
    deep = tmp_path.joinpath(*["a-long-name-of-a-folder"] * 8)
    deep.mkdir(parents=True)
    world = World(deep)
    try:
        commit(world.store, {b"a.txt": b"a"})
        desk = Desk(world)
        (desk.main / "a").write_text("1")
        _, _, modules = desk.commit("-m", "one")
        assert ORDINARY not in modules
    finally:
        world.close()
