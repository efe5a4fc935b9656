"""System calls in batches: what is compiled does what the Python code does."""

from __future__ import annotations

import os
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
