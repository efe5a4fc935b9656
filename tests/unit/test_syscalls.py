"""System calls in batches: what is compiled does what the Python code does."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.support.stores import LONG_AGO_NS
from versionfs import syscalls
from versionfs.syscalls import (
    SEEN_BYTES,
    SWITCH,
    UNSEEN,
    Unchanged,
    load_compiled,
    read_unchanged,
    reads_at_once,
    seen,
    syncfs,
    unchanged,
)

compiled_only = pytest.mark.skipif(syscalls._compiled is None, reason="not compiled here")


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        monkeypatch.setattr(syscalls, "_compiled", None)
    elif syscalls._compiled is None:
        pytest.skip("not compiled here")
    return str(request.param)


@pytest.fixture
def files(tmp_path: Path) -> tuple[bytes, list[bytes]]:
    names = [b"f%02d" % number for number in range(20)] + [b"n" * 255, b"\xff\xfe", b"link", b"sub"]
    for number, name in enumerate(names[:-2]):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(b"x" * (number * 100))
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "sub").mkdir()
    return os.fsencode(tmp_path) + b"/", names


def seen_of(prefix: bytes, names: list[bytes]) -> list[bytes]:
    return [seen(os.lstat(prefix + name)) for name in names]


def test_what_is_as_it_was_is_the_same(way: str, files: tuple[bytes, list[bytes]]) -> None:
    prefix, names = files
    size = sum(os.lstat(prefix + name).st_size for name in names)
    assert unchanged(prefix, names, seen_of(prefix, names)) == Unchanged([], len(names), size)
    assert unchanged(prefix, [], []) == Unchanged([], 0, 0)


def test_each_kind_of_change_is_found(way: str, files: tuple[bytes, list[bytes]]) -> None:
    prefix, names = files
    before = seen_of(prefix, names)
    os.unlink(prefix + b"f00")
    with open(prefix + b"f03", "ab") as file:
        file.write(b"more")
    os.utime(prefix + b"f05", ns=(0, LONG_AGO_NS))
    os.chmod(prefix + b"f07", 0o600)  # ctime alone
    os.replace(prefix + b"f09", prefix + b"f10")
    before[12] = UNSEEN
    found = unchanged(prefix, names, before)
    assert found.others == [0, 3, 5, 7, 9, 10, 12]
    assert found.same == len(names) - 7
    same = [name for at, name in enumerate(names) if at not in found.others]
    assert found.size_bytes == sum(os.lstat(prefix + name).st_size for name in same)


@pytest.mark.parametrize("seconds", [-12_000_000_000, -1, 0, 2**31, 12_000_000_000])
def test_times_of_all_ages_are_compared(
    way: str, files: tuple[bytes, list[bytes]], seconds: int
) -> None:
    prefix, names = files
    ns = seconds * 10**9 + 123_456_789
    os.utime(prefix + b"f01", ns=(ns, ns))
    before = seen_of(prefix, names)
    assert not unchanged(prefix, names, before).others
    os.utime(prefix + b"f01", ns=(ns, ns + 1_000_000_000))
    assert unchanged(prefix, names, before).others == [1]


def test_what_cannot_be_looked_at_differs(way: str, files: tuple[bytes, list[bytes]]) -> None:
    prefix, names = files
    before = seen_of(prefix, names)
    assert unchanged(prefix + b"gone/", names, before).same == 0
    assert unchanged(prefix + b"f01/", names, before).same == 0
    assert unchanged(prefix + b"./" * 2100, names, before).same == 0  # longer than any path


@compiled_only
def test_what_needs_nothing_else_is_read(files: tuple[bytes, list[bytes]]) -> None:
    prefix, names = files
    with contextlib.suppress(OSError):  # Who is not root may not.
        os.setxattr(prefix + b"f06", "trusted.a", b"1")  # Not kept: those of users are.
    asked = [(prefix + n, os.lstat(prefix + n).st_size, seen(os.lstat(prefix + n))) for n in names]
    os.unlink(prefix + b"f02")
    with open(prefix + b"f03", "ab") as file:
        file.write(b"more")
    os.setxattr(prefix + b"f05", "user.a", b"1")
    os.mkfifo(prefix + b"fifo")
    asked.append((prefix + b"fifo", 0, seen(os.lstat(prefix + b"fifo"))))
    asked[7] = (*asked[7][:2], b"")
    asked[8] = (prefix + b"f08", 799, asked[8][2])
    before = os.listdir("/proc/self/fd")
    found = read_unchanged(asked, 1500)
    assert os.listdir("/proc/self/fd") == before
    left = {2, 3, 5, 7, 8, 16, 17, 18, 19, 20, 21, 22, 23, 24}  # From 16 on: large, or no files.
    for at, (path, size, _) in enumerate(asked):
        if at in left:
            assert found[at] is None, path
            continue
        status = os.lstat(path)
        assert found[at] == (
            b"x" * size, status.st_mode, status.st_mtime_ns, status.st_uid, status.st_gid,
        )  # fmt: skip
    assert read_unchanged([], 1500) == []


@compiled_only
def test_a_file_that_has_more_than_it_says_is_not_read() -> None:
    """As in /proc, whose files have size 0."""
    path = b"/proc/version"
    status = os.lstat(path)
    assert status.st_size == 0
    assert read_unchanged([(path, 0, seen(status))], 1500) == [None]


def test_nothing_is_read_at_once_where_nothing_is_compiled(
    files: tuple[bytes, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_compiled", None)
    prefix, names = files
    path = prefix + names[1]
    assert not reads_at_once()
    assert read_unchanged([(path, 100, seen(os.lstat(path)))], 1500) == [None]


@compiled_only
def test_a_folder_that_cannot_be_opened_is_looked_at_by_whole_paths(
    files: tuple[bytes, list[bytes]],
) -> None:
    prefix, names = files
    before = seen_of(prefix, names)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        assert not unchanged(prefix, names, before).others
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@compiled_only
def test_what_is_no_batch_is_refused(files: tuple[bytes, list[bytes]]) -> None:
    prefix, names = files
    call = syscalls._compiled.unchanged
    before = seen_of(prefix, names)
    for wrong in (
        (prefix, names, before[1:]),
        (prefix, names, [b"short"] * len(names)),
        (b"x" * 5000, names, before),
    ):
        with pytest.raises(ValueError, match=r"32 bytes|as many|any path"):
            call(*wrong)
    with pytest.raises(TypeError):
        call(os.fsdecode(prefix), names, before)
    with pytest.raises(TypeError):
        call(prefix, ["f01"], before[:1])
    assert call(prefix, [b"n" * 300], [bytes([1]) * SEEN_BYTES]) == ([0], 0, 0)


def test_a_file_system_is_synced(way: str, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(folder)
    finally:
        os.close(folder)
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncfs(folder)


def test_it_goes_without_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    show = "from versionfs import syscalls; print(syscalls._compiled)"
    environ = os.environ | {SWITCH: "0"}
    shown = subprocess.run(
        [sys.executable, "-c", show], env=environ, check=True, capture_output=True
    )
    assert shown.stdout == b"None\n"
    monkeypatch.delenv(SWITCH, raising=False)
    other = types.ModuleType("versionfs._syscalls")
    monkeypatch.setitem(sys.modules, "versionfs._syscalls", other)
    assert load_compiled("versionfs._syscalls", syscalls._VERSION) is None
    other.VERSION = syscalls._VERSION  # type: ignore[attr-defined]
    assert load_compiled("versionfs._syscalls", syscalls._VERSION) is other
