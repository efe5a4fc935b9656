from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.cli.conftest import make_source

not_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges, needs root")


def tree_state(folder):
    return sorted((str(p), p.lstat().st_size) for p in folder.rglob("*"))


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (3, ["import", "missing", "photos"], "missing does not exist"),
        (2, ["import", "source", "pho tos"], "pho tos"),
        (2, ["import", "source", "photos/-x"], "-x"),
        (2, ["import", "source", "photos/a/b"], "a/b"),
        (6, ["import", "source", "photos@v1"], "never changes"),
        (2, ["import", "-", "photos"], ""),
        (3, ["log", "fotos"], "photos"),
        (3, ["log", "photos/mian"], "mian"),
        (3, ["log", "photos@~9"], "~9"),
        (3, ["log", "photos@none"], "none"),
        (3, ["log", "photos@0000000"], "0000000"),
        (3, ["log", "photos/main@1999-01-01"], "1999-01-01"),
        (2, ["log", "photos/main@2026-99-99"], "2026-99-99"),
        (2, ["log", "photos@"], ""),
        (2, ["log", "photos@v1~x"], "~x"),
        (2, ["log"], "no SPEC"),
        (2, ["diff"], "no SPEC"),
        (2, ["show"], "no SPEC"),
        (2, ["ls", "@~1"], "repository"),
        (2, ["ls", "./source"], "not inside a versionfs mount"),
        (3, ["ls", "./nowhere"], "does not exist"),
        (3, ["ls", "photos:no/such"], "no/such"),
        (3, ["ls", "photos:a.txt/below"], "a.txt/below"),
        (3, ["cat", "photos:no"], "'no'"),
        (3, ["export", "photos@none", "out"], "none"),
        (3, ["export", "photos:no", "out"], "'no'"),
        (2, ["ls", "photos:../x"], ".."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line_and_an_untouched_store(photos, code, arguments, words):
    before = tree_state(photos.home / "store")
    result = photos.fails(code, *arguments)
    assert words in result.err
    assert result.out == ""
    assert tree_state(photos.home / "store") == before


def test_an_ambiguous_prefix_is_refused(cli):
    source = cli.folder / "source"
    source.mkdir()
    seen: dict[str, str] = {}
    for number in range(3):
        (source / "n").write_text(str(number))
        value = cli.ok("import", "source", "r", "--json").json
        seen[value["commit"]["id"]] = str(number)
    # Four digits rarely collide: fewer are refused, whole ids are found.
    assert cli.run("show", "r@abc").code in (2, 3)
    for commit in seen:
        assert cli.ok("show", f"r@{commit}", "--json").json["id"] == commit


def test_an_explicit_store_that_is_not_there_is_not_made(cli):
    make_source(cli.folder / "source")
    for arguments in (["import", "source", "photos"], ["ls"], ["repo", "create", "photos"]):
        result = cli.fails(3, "--store", "nowhere", *arguments)
        assert "nowhere" in result.err
        assert re.search("versionfs .*init", result.err)
        cli.fails(3, *arguments, VERSIONFS_STORE="nowhere")
    assert not (cli.folder / "nowhere").exists()


def test_a_default_store_that_is_not_there_is_not_made_by_reading(cli):
    for arguments in (["ls"], ["log", "photos"], ["stats"], ["branch", "-d", "photos/x"]):
        result = cli.fails(3, *arguments)
        assert "hint: " in result.err
    assert not (cli.home / "store").exists()


def test_a_folder_that_is_no_store(cli):
    make_source(cli.folder / "source")
    result = cli.run("--store", "source", "ls")
    assert result.code in (3, 9)
    assert "source" in result.err
    assert cli.run("--store", "source/a.txt", "ls").code in (2, 3, 7, 9)


def test_a_store_of_a_newer_format(photos):
    file = photos.home / "store" / "versionfs.json"
    value = json.loads(file.read_text())
    value["format"] += 1
    file.chmod(0o644)
    file.write_text(json.dumps(value))
    assert "upgrade versionfs" in photos.fails(9, "ls").err


def test_a_damaged_format_file(photos):
    file = photos.home / "store" / "versionfs.json"
    file.chmod(0o644)
    file.write_text("{")
    assert photos.run("ls").code in (8, 9)


@pytest.mark.parametrize("text", ["nonsense", 'unknown = "x"', "compression_level = 99"])
def test_a_bad_config_is_named(cli, text):
    cli.home.mkdir()
    (cli.home / "config.toml").write_text(text)
    assert "config.toml" in cli.fails(2, "ls").err
    assert cli.ok("--help").out


def run_as_nobody(cli, *arguments):
    """Runs a command without the powers of root."""
    # The interpreter and the package may lie where only root reads: they are loaded before.
    code = (
        "import os, sys, importlib, pkgutil, versionfs\n"
        "for module in pkgutil.walk_packages(versionfs.__path__, 'versionfs.'):\n"
        "    importlib.import_module(module.name)\n"
        "import humanize, traceback, encodings.idna, click.shell_completion, difflib, lmdb._envid\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(versionfs.cli.main.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=cli.env,
        cwd=cli.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def open_folders(photos):
    """Lets other users reach the folders of the test."""
    folder = photos.folder
    while folder != folder.parent and folder.stat().st_uid == os.geteuid():
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
        folder = folder.parent
    return photos


@not_as_root
def test_unreadable_files_are_all_listed_and_nothing_is_published(open_folders):
    cli = open_folders
    for name in ("a.txt", "run.sh"):
        (cli.folder / "source" / name).chmod(0)
    for path in (cli.home, *cli.home.rglob("*")):
        os.chown(path, 65534, 65534)
    result = run_as_nobody(cli, "import", "source", "photos")
    assert result.returncode == 10, result.stderr
    assert result.stderr.startswith("versionfs: ")
    assert "a.txt" in result.stderr
    assert "run.sh" in result.stderr
    assert "hint: " in result.stderr
    assert len(cli.ok("log", "photos").lines) == 2
    result = run_as_nobody(cli, "import", "source", "photos", "--skip-errors", "--json")
    assert result.returncode == 0, result.stderr
    assert '"reason"' in result.stdout


@not_as_root
def test_a_read_only_store_can_be_read_but_not_written(open_folders):
    cli = open_folders
    for name in ("cache", "state"):
        for path in (cli.home / name, *(cli.home / name).rglob("*")):
            if path.exists():
                os.chown(path, 65534, 65534)
    os.chown(cli.home, 65534, 65534)
    (cli.folder / "source" / "more").write_text("more")
    assert run_as_nobody(cli, "ls", "photos/main").returncode == 0
    assert run_as_nobody(cli, "cat", "photos:a.txt").stdout == "alpha and more\n"
    before = tree_state(cli.home / "store")
    for arguments in (["import", "source", "photos"], ["tag", "photos@t"], ["repo", "create", "x"]):
        result = run_as_nobody(cli, *arguments)
        assert result.returncode == 6, (arguments, result.stderr)
        assert result.stderr.startswith("versionfs: ")
    assert tree_state(cli.home / "store") == before


def test_damaged_data_is_named_and_not_shown(photos):
    packs = [p for p in (photos.home / "store" / "packs").rglob("*") if p.is_file()]
    shutil.rmtree(photos.home / "cache", ignore_errors=True)
    for pack in packs:
        data = bytearray(pack.read_bytes())
        data[12 : len(data) - 64] = bytes(len(data) - 76)
        pack.chmod(0o644)
        pack.write_bytes(data)
    result = photos.fails(8, "cat", "photos:a.txt")
    assert result.out == ""


def test_a_bug_is_one_line_and_its_traceback_is_in_a_log(cli):
    code = (
        "import sys; from versionfs.cli import main, boundary\n"
        "def bug(*a, **k): raise ZeroDivisionError('boom')\n"
        "main.group.invoke = bug\n"
        "sys.exit(main.main(['ls']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=cli.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 70
    first, hint = done.stderr.splitlines()
    assert first == "versionfs: this is a bug in versionfs: ZeroDivisionError: boom"
    (log,) = (cli.home / "state" / "logs").iterdir()
    assert str(log) in hint
    assert "Traceback" in log.read_text()
    debug = subprocess.run(
        [sys.executable, "-c", code],
        env=cli.env | {"VERSIONFS_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" in debug.stderr


def test_standard_streams_may_be_closed(photos):
    done = subprocess.run(
        ["sh", "-c", '"$@" >&- 2>&-', "sh", *photos.command("ls", "photos/main")],
        env=photos.env,
        cwd=photos.folder,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [["doctor"], ["mount", "."]])
def test_a_machine_without_pyfuse3_is_told_of_it(cli, arguments):
    code = (
        "import sys; sys.modules['pyfuse3'] = None\n"
        "from versionfs.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=cli.env,
        cwd=cli.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (1, 11), done
    assert "pyfuse3" in done.stdout + done.stderr
    assert "bug" not in done.stderr
