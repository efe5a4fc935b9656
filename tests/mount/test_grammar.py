"""What a mount shows under which name."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime

import pytest

from tests.mount.support import SECOND, T0


def test_the_whole_path_grammar(photos):
    data = photos.mount()
    head = photos.photos.resolve("main", None)
    second = photos.photos.resolve("main", "~1")
    day = datetime.fromtimestamp(head.time_ns / SECOND, UTC).astimezone().strftime("%Y-%m-%d")
    assert sorted(os.listdir(data)) == ["photos"]
    assert sorted(os.listdir(data / "photos")) == ["@v1.0", "main"]
    for name, content in (
        ("main", "three\n"),
        ("main@head", "three\n"),
        ("main@~0", "three\n"),
        ("main@~1", "two\n"),
        ("main@~2", "one\n"),
        ("main@v1.0", "one\n"),
        ("@v1.0", "one\n"),
        (f"main@{second.id.hex()[:6]}", "two\n"),
        (f"@{second.id.hex()[:6]}", "two\n"),
        (f"main@{day}", "three\n"),
        ("main@2100-01-01T00:00", "three\n"),
    ):
        assert (data / "photos" / name / "a.txt").read_text() == content, name
    assert sorted(os.listdir(data / "photos" / "main")) == ["a.txt", "same", "sub"]


def test_log(photos):
    data = photos.mount()
    log = data / "photos" / ".log" / "main"
    names = sorted(os.listdir(log))
    assert [name[:7] for name in names] == ["000001-", "000002-", "000003-"]
    assert [(log / name / "a.txt").read_text() for name in names] == ["one\n", "two\n", "three\n"]
    assert [(log / name).lstat().st_mtime_ns for name in names] == [
        T0, T0 + SECOND, T0 + 2 * SECOND
    ]  # fmt: skip
    photos.commit({b"a.txt": b"four\n"}, message="The fourth, of four")
    (newest,) = set(os.listdir(log)) - set(names)
    assert newest.startswith("000004-")
    assert newest.endswith("-The-fourth-of-four")
    assert (log / newest / "a.txt").read_text() == "four\n"


def test_log_of_many_commits(world):
    for n in range(300):
        world.commit({b"n": b"%d" % n}, message=f"number {n}")
    data = world.mount()
    log = data / "photos" / ".log" / "main"
    names = sorted(os.listdir(log))
    assert len(names) == 300
    assert (log / names[41] / "n").read_text() == "41"


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("photos", ["@v1.0", "main"]),
        ("photos/main", ["a.txt", "same", "sub"]),
        ("photos@~1", ["a.txt", "same", "sub"]),
        ("photos/main:sub", ["b.bin", "new"]),
        ("photos@v1.0:sub", ["b.bin"]),
    ],
)
def test_a_spec_is_the_root(photos, spec, names):
    data = photos.mount(spec)
    assert sorted(os.listdir(data)) == names
    for folder, _, files in os.walk(data):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                file.read()


def test_unknown_names(photos):
    data = photos.mount()
    for name in ("nope", "photos/nope", "photos/main@~99", "photos/main@zzzz", "photos/@nope",
                 "photos/main@2001-01-01", "photos/.git", "photos/.log/nope", "photos/.diff",
                 "photos/main/nope", "photos/main/sub/nope/deeper", "photos/@", "photos/main@",
                 "photos/.log/main/000001-x", "pho\udcfftos", "photos/ma\udcff"):  # fmt: skip
        with pytest.raises(FileNotFoundError):
            os.stat(data / name)
    with pytest.raises(NotADirectoryError):
        os.stat(data / "photos/main/a.txt/x")
    with pytest.raises(OSError, match="File name too long"):
        os.stat(data / "photos/main" / ("x" * 256))


def test_an_ambiguous_prefix(photos):
    seen: dict[str, object] = {}
    for n in range(2_000):
        made = photos.commit({b"n": b"%d" % n}) if n < 500 else None
        if made is None:
            break
        other = seen.setdefault(made.id.hex()[:4], made)
        if other is not made:
            break
    else:
        made = None
    if made is None:
        pytest.skip("no two commits share four digits")
    data = photos.mount()
    with pytest.raises(OSError, match="not unique") as caught:
        os.stat(data / "photos" / f"main@{made.id.hex()[:4]}")
    assert caught.value.errno == errno.ENOTUNIQ
    assert (data / "photos" / f"main@{made.id.hex()[:12]}" / "a.txt").exists()


def test_names_are_bytes(world):
    names = [b"\xff\xfe", b"new\nline", b" lead", b"tab\t", "Gr\u00f6\u00dfe".encode(), b"-rf",
             b"back\\slash", b"a" * 255, b"\x01", b"#{x}$(y)`z`"]  # fmt: skip
    world.commit({b"d/" + name: name for name in names})
    data = os.fsencode(world.mount())
    folder = data + b"/photos/main/d"
    assert sorted(os.listdir(folder)) == sorted(names)
    for name in names:
        with open(folder + b"/" + name, "rb") as file:
            assert file.read() == name


def test_a_mount_point_with_an_odd_name(photos):
    data = photos.mount(name="o dd\n\udcff,name\\x")
    assert (data / "photos/main/a.txt").read_text() == "three\n"
