from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versionfs.cli.formats import local_time, one_line, quote, signed_size
from versionfs.readable import count, human_size


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("grün".encode(), "grün"),
        (b"tab\t", '"tab\\t"'),
        (b'say "hi"', '"say \\"hi\\""'),
        (b"back\\slash", '"back\\\\slash"'),
        (b"\xff\x01", '"\\377\\001"'),
        ("\u2028".encode(), '"\\342\\200\\250"'),
    ],
)
def test_names_are_quoted_as_git_does(name, quoted):
    assert quote(name) == quoted


def unquote(text: str) -> bytes:
    """The inverse, as a reader of the documentation would write it."""
    if not text.startswith('"'):
        return text.encode()
    letters = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
    result, rest = b"", text[1:-1]
    while rest:
        if rest[0] != "\\":
            result, rest = result + rest[0].encode(), rest[1:]
        elif rest[1] in letters:
            result, rest = result + bytes([letters[rest[1]]]), rest[2:]
        else:
            result, rest = result + bytes([int(rest[1:4], 8)]), rest[4:]
    return result


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_quoting_can_be_undone_and_stays_on_one_line(name):
    quoted = quote(name)
    assert quoted.isprintable()
    assert unquote(quoted) == name


def test_text_cannot_move_the_cursor():
    assert one_line("a\x1b[2Jb\n") == "a\\033[2Jb\\n"
    assert one_line('say "hi" \\ bye\t') == 'say "hi" \\ bye\\t'


def test_times_outside_the_calendar_have_a_form():
    assert local_time(10**9 * 10**12) == "@1000000000000"
    assert local_time(1_600_000_000_999_999_999)[:4] == "2020"


def test_sizes_and_counts_for_people():
    assert human_size(0) == "0 B"
    assert human_size(1) == "1 B"
    assert human_size(1536) == "1.5 KiB"
    assert signed_size(-2048) == "-2.0 KiB"
    assert count(1, "file") == "1 file"
    assert count(12000, "branch", "branches") == "12,000 branches"


@pytest.mark.parametrize("arguments", [["--help"], ["ls", "--help"], ["version"]])
def test_starting_up_loads_nothing_heavy(arguments):
    code = (
        "import sys; from versionfs.cli.main import main; main(sys.argv[1:]);"
        "heavy = {'pyfuse3', 'trio', 'rich', 'lmdb', 'humanize', 'zstandard', 'pyfastcdc'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def test_a_command_that_ends_looks_for_no_cycles_in_what_it_leaves():
    code = (
        "import gc, sys; from versionfs.__main__ import main; code = main();"
        "print(code, gc.get_freeze_count() > 5_000, len(gc.get_objects()) < 1_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 True True"


def test_managing_mounts_does_not_load_what_serves_them():
    code = (
        "import sys, versionfs.fuse, versionfs.cli.mounting;"
        "print(sorted({'pyfuse3', 'trio', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_import_into_a_folder_loads_nothing_that_it_does_not_need(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"1")
    code = (
        "import sys; from versionfs.cli.main import main; main(sys.argv[1:]);"
        "heavy = {'pyfuse3', 'trio', 'rich', 'boto3', 'botocore', 'tarfile', 'tempfile', 'email',"
        " 'ulid', 'difflib', 'tomllib', 'xdg_base_dirs', 'ctypes', 'importlib.metadata',"
        " 'typing_extensions',"
        " 'pyfastcdc', 'socket', 'hashlib', 'shutil', 'versionfs.chunkstore.fetching'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "import", str(tmp_path / "source"), "photos"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"VERSIONFS_HOME": str(tmp_path / "home")},
    )
    assert done.stderr == "[]\n"
