from __future__ import annotations

import base64
import re

import pytest

ODD = '"odd \\377\\tname\\n"'
ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"


def test_log_has_one_plain_line_per_commit(photos):
    newer, older = photos.ok("log", "photos").rows
    assert newer[0] == "2"
    assert older[0] == "1"
    assert re.fullmatch("[0-9a-f]{12}", newer[1])
    assert re.fullmatch(ISO, newer[2])
    assert newer[3].startswith("ada@")
    assert older[3] == "ada <a@x>"
    assert newer[4:] == ["main", "second"]
    assert older[4:] == ["dev, tag: v1", "first"]


def test_log_oneline_limit_and_revision(photos):
    lines = photos.ok("log", "photos", "--oneline").lines
    assert re.fullmatch(r"[0-9a-f]{12} \(main\) second", lines[0])
    assert re.fullmatch(r"[0-9a-f]{12} \(dev, tag: v1\) first", lines[1])
    assert photos.ok("log", "photos", "-n", "1", "--oneline").lines == lines[:1]
    assert photos.ok("log", "photos@~1", "--oneline").lines == lines[1:]
    assert photos.ok("log", "photos/dev", "--oneline").lines == lines[1:]
    assert photos.ok("log", "photos", "-n", "0").out == ""


def test_log_as_json(photos):
    newer, older = photos.ok("log", "photos", "--json").json
    assert newer["parents"] == [older["id"]]
    assert newer["branches"] == ["main"]
    assert older["tags"] == ["v1"]
    assert older["message"] == "first\n\nwith a body"
    assert re.fullmatch(ISO, newer["time"])
    assert isinstance(newer["time_ns"], int)


def test_log_of_a_path_has_only_what_changed_it(photos):
    assert [row[5] for row in photos.ok("log", "photos:a.txt").rows] == ["second", "first"]
    assert [row[5] for row in photos.ok("log", "photos:sub/b.bin").rows] == ["first"]
    assert [row[5] for row in photos.ok("log", "photos:gone.txt").rows] == ["second", "first"]
    photos.fails(3, "log", "photos:never")


def test_show_of_a_commit(photos):
    out = photos.ok("show", "photos").out
    head, _, message = out.partition("\n\n")
    fields = dict(line.split("\t") for line in head.splitlines())
    assert fields["number"] == "2"
    assert fields["names"] == "main"
    assert fields["files"] == "7"
    assert fields["metadata run"] == "7"
    assert fields["changes"].startswith("4 files changed: 1 added, 1 deleted, 1 modified, 1 of")
    assert message == "second\n"
    value = photos.ok("show", "photos", "--json").json
    assert value["repository"] == "photos"
    assert value["changes"] == {
        "added": 1,
        "deleted": 1,
        "modified": 1,
        "type_changed": 1,
        "delta_bytes": 9 - 14 + 4 - 10,
    }


def test_show_of_entries(photos):
    fields = dict(photos.ok("show", "photos:run.sh").rows)
    assert fields["mode"] == "-rwxr-xr-x"
    assert fields["kind"] == "file"
    assert fields["size"] == "10"
    assert dict(photos.ok("show", "photos:link").rows)["target"] == "a.txt"
    value = photos.ok("show", "photos:sub", "--json").json
    assert value["kind"] == "directory"
    assert value["files"] == 2
    assert value["path"] == "sub"


def test_show_by_id_prefix_and_tag_are_the_same_commit(photos):
    full = photos.ok("show", "photos@v1", "--json").json["id"]
    for revision in (full, full[:6], "v1", "~1", "head~1", "v1~0"):
        assert photos.ok("show", f"photos@{revision}", "--json").json["id"] == full
        assert photos.ok("show", f"photos/main@{revision}", "--json").json["id"] == full
    assert photos.ok("show", "photos/dev", "--json").json["id"] == full


def test_ls_of_nothing_lists_repositories(photos):
    photos.ok("repo", "create", "empty")
    assert photos.ok("ls").lines == ["empty", "photos"]
    assert photos.ok("ls", "-l").rows == [["empty", "0", "0"], ["photos", "2", "1"]]
    assert photos.ok("ls", "--json").json[1] == {
        "name": "photos",
        "branches": ["dev", "main"],
        "tags": ["v1"],
    }
    assert photos.ok("ls", "-z").out == "empty\0photos\0"


def test_ls_of_a_repository_lists_branches_and_tags(photos):
    assert photos.ok("ls", "photos").lines == ["dev", "main", "@v1"]
    rows = photos.ok("ls", "-l", "photos").rows
    assert [(row[0], row[3]) for row in rows] == [
        ("branch", "dev"),
        ("branch", "main"),
        ("tag", "@v1"),
    ]
    value = photos.ok("ls", "photos", "--json").json
    assert [(ref["kind"], ref["name"]) for ref in value][2] == ("tag", "v1")


def test_ls_of_a_folder(photos):
    names = ["a.txt", "empty", "link", ODD, "run.sh", "sub", "turns"]
    assert photos.ok("ls", "photos/main").lines == names
    raw = photos.ok("ls", "-z", "photos/main").raw.split(b"\0")
    assert raw[3] == b"odd \xff\tname\n"
    assert photos.ok("ls", "photos/main:empty").out == ""
    assert photos.ok("ls", "photos/main:sub").lines == ["b.bin", "new.txt"]
    assert photos.ok("ls", "photos/main:a.txt").lines == ["a.txt"]


def test_ls_recursive_lists_paths(photos):
    lines = photos.ok("ls", "-R", "photos@v1").lines
    assert "sub" in lines
    assert "sub/b.bin" in lines
    assert lines.index("sub") < lines.index("sub/b.bin")


def test_ls_long_is_stable_in_a_pipe(photos):
    rows = {row[5]: row for row in photos.ok("ls", "-l", "photos/main").rows}
    assert rows["run.sh"][0] == "-rwxr-xr-x"
    assert rows["run.sh"][3] == "10"
    assert rows["run.sh"][4] == "2020-09-13T14:26:40+02:00"
    assert rows["link -> a.txt"][0].startswith("l")
    assert rows["sub"][3] == str(256 * 40 + 4)


def test_ls_as_json_escapes_bytes_that_are_not_utf_8(photos):
    result = photos.ok("ls", "photos/main", "--json")
    assert result.out.isascii()
    assert "odd \\udcff\\tname\\n" in result.out
    by_name = {entry["name"]: entry for entry in result.json}
    assert by_name["run.sh"]["mode"] == "0755"
    assert by_name["link"]["target"] == "a.txt"
    assert by_name["turns"]["kind"] == "symlink"
    assert by_name["a.txt"]["mtime_ns"] > 1_600_000_000_000_000_000
    assert photos.ok("ls", "photos/main:empty", "--json").json == []


def test_cat_writes_bytes(photos):
    assert photos.ok("cat", "photos:sub/b.bin").raw == bytes(range(256)) * 40
    assert photos.ok("cat", "photos@v1:a.txt", "photos:a.txt").out == "alpha\nalpha and more\n"


def test_cat_as_json_has_base64(photos):
    (value,) = photos.ok("cat", "photos:sub/b.bin", "--json").json
    assert base64.b64decode(value["base64"]) == bytes(range(256)) * 40
    assert value["path"] == "sub/b.bin"


def test_cat_reads_large_files_in_pieces(cli):
    data = bytes(range(251)) * 20_000
    (cli.folder / "large").write_bytes(data)
    cli.ok("import", "large", "r:large")
    assert cli.ok("cat", "r:large").raw == data
    assert base64.b64decode(cli.ok("cat", "r:large", "--json").json[0]["base64"]) == data


def test_cat_refuses_what_is_no_file(photos):
    assert "folder" in photos.fails(2, "cat", "photos:sub").err
    assert "symlink to a.txt" in photos.fails(2, "cat", "photos:link").err


CHANGES = [
    ["M", "6", "15", "a.txt"],
    ["D", "14", "-", "gone.txt"],
    ["A", "-", "4", "sub/new.txt"],
    ["T", "10", "-", "turns"],
]


@pytest.mark.parametrize(
    "arguments",
    [
        ["photos"],
        ["photos@~1", "photos"],
        ["photos@v1", "photos/main"],
        ["photos/dev", "photos"],
        ["photos/main@~1", "@head"],
        ["photos/main@~1..main"],
        ["photos/main@~1..@head"],
        ["photos@v1..photos/main"],
    ],
    ids=" ".join,
)
def test_diff_in_all_its_forms(photos, arguments):
    assert photos.ok("diff", *arguments).rows == CHANGES


def test_diff_backwards(photos):
    rows = photos.ok("diff", "photos/main", "@~1", "--name-status").rows
    assert rows == [["M", "a.txt"], ["A", "gone.txt"], ["D", "sub/new.txt"], ["T", "turns"]]


def test_diff_outputs(photos):
    assert photos.ok("diff", "photos", "--stat").lines == [
        "M\t+9\ta.txt",
        "D\t-14\tgone.txt",
        "A\t+4\tsub/new.txt",
        "T\t-10\tturns",
        "",
        "4 files changed: 1 added, 1 deleted, 1 modified, 1 of another type; -11 bytes",
    ]
    assert photos.ok("diff", "photos", "-z").raw.startswith(b"M\0a.txt\0D\0gone.txt\0")
    value = photos.ok("diff", "photos", "--json").json
    assert [(change["status"], change["path"]) for change in value] == [
        (row[0], row[3]) for row in CHANGES
    ]
    assert value[1]["new"] is None
    assert value[0]["delta_bytes"] == 9


def test_diff_of_paths(photos):
    assert photos.ok("diff", "photos:sub").rows == [["A", "-", "4", "new.txt"]]
    assert photos.ok("diff", "photos@~1..main:sub").rows == [["A", "-", "4", "new.txt"]]
    assert photos.ok("diff", "photos:a.txt").rows == [["M", "6", "15", "a.txt"]]
    assert photos.ok("diff", "photos:gone.txt").rows == [["D", "14", "-", "gone.txt"]]
    assert photos.ok("diff", "photos@v1:a.txt", "photos:link", "--name-status").rows[0][0] == "T"
    photos.fails(3, "diff", "photos:never")
    photos.fails(3, "diff", "photos@~1:sub/new.txt", "photos:sub/new.txt")


def test_diff_of_the_first_commit_adds_all(photos):
    rows = photos.ok("diff", "photos@v1", "--name-status").rows
    assert {row[0] for row in rows} == {"A"}
    assert ["A", "sub/"] in rows
    assert ["A", "sub/b.bin"] in rows


def test_diff_of_two_repositories(photos):
    photos.ok("import", "source", "copy")
    assert photos.ok("diff", "photos", "copy").out == ""
    assert photos.ok("diff", "copy", "photos", "--exit-code").out == ""


def test_diff_exit_code(photos):
    assert photos.run("diff", "photos", "--exit-code").code == 1
    assert photos.run("diff", "photos", "photos", "--exit-code").code == 0


def test_stats(photos):
    fields = dict(photos.ok("stats").rows)
    value = photos.ok("stats", "--json").json
    # A local store has no server that could be asked anything.
    assert set(fields) == set(value) - {"transfers", "mounts"}
    assert value["mounts"] == []
    assert value["transfers"]["requests"] == {}
    assert fields["store"].endswith("/home/store")
    assert int(fields["stored_bytes"]) == value["stored_bytes"] > 0
    assert value["logical_bytes"] > 256 * 40


def test_a_closed_pipe_is_quiet(photos):
    import subprocess

    many = photos.folder / "many"
    many.mkdir()
    for number in range(5000):
        (many / f"a-rather-long-name-{number}").touch()
    photos.ok("import", "many", "many")
    process = subprocess.Popen(
        photos.command("ls", "many/main"),
        env=photos.env,
        cwd=photos.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()


def test_a_full_disk_below_standard_output_is_told(photos):
    with open("/dev/full", "w") as full:
        import subprocess

        done = subprocess.run(
            photos.command("ls", "photos"),
            env=photos.env,
            cwd=photos.folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 71
    assert done.stderr.startswith("versionfs: No space left on device\n")
