"""The commands for mounts, and the current directory of a mount as the SPEC."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.mount


@pytest.fixture
def mounted(photos):
    """``photos`` with its store mounted; yields the command line and the mount point."""
    data = photos.folder / "data"
    data.mkdir()
    photos.ok("mount", "data")
    try:
        yield photos, data
    finally:
        photos.run("umount", data)


def test_mount_returns_when_it_serves_and_umount_ends_it(photos):
    data = photos.folder / "data"
    data.mkdir()
    assert photos.ok("mount", "data").out == "mounted the store on data\n"
    assert (data / "photos" / "main" / "a.txt").read_text() == "alpha and more\n"
    (row,) = photos.ok("mounts").rows
    assert row[:3] == [str(data), "", str(photos.home / "store")]
    assert row[5] == "alive"
    (value,) = photos.ok("mounts", "--json").json
    assert value["mountpoint"] == str(data)
    assert value["spec"] is None
    assert value["alive"] is True
    code, shown = photos.terminal("mounts")
    assert code == 0
    assert "MOUNTPOINT" in shown
    photos.ok("umount", "data")
    assert list(data.iterdir()) == []
    assert photos.ok("mounts").out == ""
    assert photos.ok("mounts", "--json").json == []


def test_mount_of_a_spec(photos):
    data = photos.folder / "data"
    data.mkdir()
    value = photos.ok("mount", "data", "photos@v1", "--json").json
    assert value["spec"] == "photos@v1"
    try:
        assert (data / "a.txt").read_text() == "alpha\n"
        assert photos.ok("ls", "./sub", cwd=data).lines == ["b.bin"]
        assert photos.ok("mounts").rows[0][1] == "photos@v1"
    finally:
        photos.ok("umount", "data")


def test_a_mount_point_that_cannot_be_one(mounted):
    cli, _ = mounted
    (cli.folder / "file").touch()
    photos = cli.fails(11, "mount", "missing")
    assert "missing" in photos.err
    cli.fails(11, "mount", "source")
    cli.fails(11, "mount", "file")
    cli.fails(11, "mount", "data")
    cli.fails(11, "umount", "source")
    cli.fails(11, "umount", "missing")


def test_a_mount_of_what_does_not_exist(photos):
    (photos.folder / "data").mkdir()
    photos.fails(3, "mount", "data", "nothing")
    photos.fails(3, "mount", "data", "photos/none")
    photos.fails(3, "--store", "nowhere", "mount", "data")
    assert photos.ok("mounts").out == ""


def test_the_current_directory_is_the_spec(mounted):
    cli, data = mounted
    main = data / "photos" / "main"
    assert cli.ok("ls", cwd=data).lines == ["photos"]
    assert cli.ok("ls", cwd=data / "photos").lines == ["dev", "main", "@v1"]
    assert "a.txt" in cli.ok("ls", cwd=main).lines
    assert cli.ok("ls", cwd=main / "sub").lines == ["b.bin", "new.txt"]
    assert cli.ok("ls", cwd=data / "photos" / "main@~1" / "sub").lines == ["b.bin"]
    assert [row[5] for row in cli.ok("log", cwd=main).rows] == ["second", "first"]
    assert cli.ok("show", "--json", cwd=data / "photos" / "@v1").json["number"] == 1
    assert cli.ok("diff", cwd=main).rows == []
    assert cli.ok("diff", "@head", cwd=main).rows[0] == ["M", "6", "15", "a.txt"]
    assert [row[0] for row in cli.ok("branch", cwd=main).rows] == ["dev", "main"]
    assert [row[0] for row in cli.ok("tag", cwd=main).rows] == ["v1"]


def test_short_specs_are_of_the_current_directory(mounted):
    cli, data = mounted
    main = data / "photos" / "main"
    assert cli.ok("ls", "@~1", cwd=main / "sub").lines == ["b.bin"]
    assert cli.ok("cat", ":a.txt", cwd=main / "sub").out == "alpha and more\n"
    assert cli.ok("cat", "@v1:a.txt", cwd=main / "sub").out == "alpha\n"
    assert cli.ok("diff", "@~1", "@head", cwd=main / "sub").rows == [["A", "-", "4", "new.txt"]]
    assert cli.ok("diff", "main@~1..main:sub", cwd=main).rows == [["A", "-", "4", "new.txt"]]


def test_paths_inside_a_mount_are_specs(mounted):
    cli, data = mounted
    main = data / "photos" / "main"
    assert cli.ok("ls", "./sub", cwd=main).lines == ["b.bin", "new.txt"]
    assert cli.ok("ls", "sub", cwd=main).lines == ["b.bin", "new.txt"]
    assert cli.ok("ls", "..", cwd=main).lines == ["dev", "main", "@v1"]
    assert cli.ok("cat", main / "a.txt").out == "alpha and more\n"
    assert cli.ok("cat", "../main@~1/a.txt", cwd=main).out == "alpha\n"
    assert [row[5] for row in cli.ok("log", "./a.txt", cwd=main).rows] == ["second", "first"]
    assert cli.ok("diff", "../main@~1", ".", cwd=main).rows[0][3] == "a.txt"
    assert cli.ok("ls", "data/photos").lines == ["dev", "main", "@v1"]
    assert cli.ok("show", "./link", "--json", cwd=main).json["kind"] == "symlink"
    cli.fails(3, "ls", "./none", cwd=main)
    newest = min((data / "photos" / ".log" / "main").iterdir())
    assert cli.ok("ls", newest).lines
    cli.ok("export", "./sub", cli.folder / "out", cwd=main)
    assert (cli.folder / "out" / "b.bin").stat().st_size == 256 * 40


def test_in_a_mount_its_store_is_the_default(mounted, tmp_path):
    cli, data = mounted
    other = {"VERSIONFS_HOME": str(tmp_path / "other")}
    assert cli.ok("ls", cwd=data, **other).lines == ["photos"]
    assert len(cli.ok("log", "photos", cwd=data, **other).lines) == 2
    assert cli.ok("stats", "--json", cwd=data, **other).json["repositories"] == 1
    assert not (tmp_path / "other" / "store").exists()


def test_what_moves_a_ref_is_seen_in_the_mount_at_once(mounted):
    cli, data = mounted
    repository = data / "photos"
    assert (repository / "main" / "a.txt").read_text() == "alpha and more\n"
    (cli.folder / "source" / "a.txt").write_text("third\n")
    cli.ok("import", "source", "photos")
    assert (repository / "main" / "a.txt").read_text() == "third\n"
    assert not (repository / "new").exists()
    cli.ok("branch", "photos/new")
    assert (repository / "new").is_dir()
    assert "new" in {path.name for path in repository.iterdir()}
    cli.ok("branch", "-d", "photos/new")
    assert not (repository / "new").exists()
    cli.ok("tag", "photos@v3")
    assert (repository / "@v3" / "a.txt").read_text() == "third\n"
    cli.ok("repo", "create", "empty")
    assert (data / "empty").is_dir()


def test_importing_to_the_past_is_refused(mounted):
    cli, data = mounted
    cli.fails(6, "import", "source", data / "photos" / "main@~1")
    (cli.folder / "one").mkdir()
    (cli.folder / "one" / "x").touch()
    cli.ok("import", "one", data / "photos" / "main" / "empty")
    assert (data / "photos" / "main" / "empty" / "x").exists()


def test_doctor_says_what_a_mount_needs(cli):
    result = cli.run("doctor")
    assert result.code == 0, result
    assert all(row[0] == "ok" for row in result.rows)
    value = json.loads(cli.run("doctor", "--json").out)
    assert {"name", "ok", "detail", "remedy"} == set(value[0])
    without = cli.run("doctor", PATH="/nonexistent")
    assert without.code == 1
    assert "fusermount3" in without.out
    code, shown = cli.terminal("doctor")
    assert code == 0
    assert "CHECK" in shown
