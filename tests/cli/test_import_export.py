from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile

from tests.cli.conftest import change_source, make_source


def tree_of(folder):
    """Everything below a folder that an export has to bring back."""
    found = {}
    for base, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            path = os.path.join(base, name)
            status = os.lstat(path)
            content = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            relative = os.path.relpath(path, os.fsencode(folder))
            found[relative] = (status.st_mode, status.st_mtime_ns, content)
    return found


def test_import_makes_the_default_store_and_says_what_it_did(cli):
    make_source(cli.folder / "source")
    result = cli.ok("import", "source", "photos", "-m", "first")
    assert len(result.lines) == 1
    assert result.out.startswith("photos/main ")
    assert "7 files" in result.out
    assert "ratio" in result.out
    assert (cli.home / "store").is_dir()


def test_import_reports_all_as_json(cli):
    make_source(cli.folder / "source")
    value = cli.ok("import", "source", "photos/dev", "--author", "ada", "--json").json
    assert value["branch"] == "photos/dev"
    assert value["changed"] is True
    assert value["files"] == 7
    assert value["new_bytes"] > 0
    assert value["skipped"] == []
    commit = value["commit"]
    assert commit["message"] == "Import source"
    assert commit["author"] == "ada"
    assert len(commit["id"]) == 64
    assert commit["number"] == 1


def test_an_unchanged_source_makes_no_commit_and_says_so(photos):
    result = photos.ok("import", "source", "photos", "-m", "again")
    assert "unchanged" in result.out
    assert photos.ok("import", "source", "photos", "--json").json["changed"] is False
    assert len(photos.ok("log", "photos").lines) == 2


def test_metadata_and_message_are_kept(photos):
    value = photos.ok("show", "photos", "--json").json
    assert value["metadata"] == {"run": "7"}
    assert photos.ok("show", "photos@v1", "--json").json["message"] == "first\n\nwith a body"


def test_keep_adds_without_removing(photos):
    extra = photos.folder / "extra"
    extra.mkdir()
    (extra / "more.txt").write_text("more")
    photos.ok("import", "extra", "photos", "--keep")
    names = photos.ok("ls", "photos/main").lines
    assert "more.txt" in names
    assert "a.txt" in names


def test_a_path_then_has_exactly_the_source(photos):
    extra = photos.folder / "extra"
    extra.mkdir()
    (extra / "more.txt").write_text("more")
    photos.ok("import", "extra", "photos:sub")
    assert photos.ok("ls", "photos:sub").lines == ["more.txt"]
    assert "a.txt" in photos.ok("ls", "photos/main").lines


def test_a_file_can_be_imported_to_a_path(photos):
    (photos.folder / "one.txt").write_text("one")
    photos.ok("import", "one.txt", "photos:sub/one.txt")
    assert photos.ok("cat", "photos:sub/one.txt").out == "one"


def test_a_tar_is_read_from_standard_input(cli):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("dir/file")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    cli.ok("import", "-", "tars", stdin=buffer.getvalue())
    assert cli.ok("cat", "tars:dir/file").out == "hello"


def test_export_brings_back_what_was_imported(photos):
    result = photos.ok("export", "photos", "out")
    assert result.out.startswith("out: 7 files")
    assert tree_of(photos.folder / "out") == tree_of(photos.folder / "source")


def test_export_of_a_version_a_folder_and_a_file(photos):
    assert photos.ok("export", "photos@v1:sub", "sub", "--json").json["files"] == 1
    photos.ok("export", "photos@v1:a.txt", "a")
    assert (photos.folder / "a").read_text() == "alpha\n"


def test_export_does_not_overwrite(photos):
    result = photos.run("export", "photos", "source")
    assert result.code not in (0, 70)
    assert "source" in result.err


def test_skipped_files_are_warned_of(cli):
    source = cli.folder / "source"
    make_source(source)
    os.mkfifo(source / "pipe")
    result = cli.run("import", "source", "photos")
    assert result.code == 0
    assert "versionfs: warning: " in result.err
    assert "pipe" in result.err


def test_an_interrupted_import_leaves_the_branch_as_it_was(photos):
    before = photos.ok("log", "photos", "--json").out
    process = subprocess.Popen(
        photos.command("import", "-", "photos"),
        cwd=photos.folder,
        env=photos.env,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    member = tarfile.TarInfo("big")
    member.size = 1 << 30
    process.stdin.write(member.tobuf())
    for _ in range(64):  # Much more than a pipe holds, so it is being imported; and no end of it.
        process.stdin.write(os.urandom(1 << 20))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"versionfs: interrupted\n")
    assert photos.ok("log", "photos", "--json").out == before
    (photos.folder / "big").write_bytes(b"1")
    photos.ok("import", "big", "photos:big")


def test_a_second_import_only_adds_what_changed(cli):
    source = cli.folder / "source"
    make_source(source)
    cli.ok("import", "source", "photos")
    change_source(source)
    value = cli.ok("import", "source", "photos", "--json").json
    assert value["files_read"] < value["files"]
    assert value["commit"]["number"] == 2
    everything = cli.ok("import", "source", "photos", "--checksum", "--json").json
    assert everything["changed"] is False
    assert everything["files_read"] == 5
