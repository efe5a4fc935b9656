"""A folder goes in and comes out as it was."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import Seen, describe, fill, write
from tests.support.stores import LONG_AGO_NS, ROOT, at, bring, content, head, names
from versionfs import syscalls
from versionfs.errors import InvalidInputError, NotFoundError, SourceError
from versionfs.repo import Store
from versionfs.transfer import ImportProgress, export
from versionfs.types import NO_ID, Kind


def exported(store: Store, tmp_path: Path, path: bytes = b"") -> Path:
    root = store.trees.walk_path(head(store).root, path)
    assert root is not None
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    export(store, root, out)
    return out


def set_time(path: Path | bytes, ns: int) -> None:
    os.utime(path, ns=(ns, ns), follow_symlinks=False)


# -- what is kept ----------------------------------------------------------------------------------


def test_everything_that_is_promised_comes_back(store: Store, source: Path, tmp_path: Path) -> None:
    fill(source, {"a.txt": b"hello", "deep/er/b.bin": Random(1).randbytes(700_000), "empty": b""})
    (source / "void").mkdir()
    for name, mode in {"setuid": 0o4755, "setgid": 0o2755, "none": 0o000, "all": 0o777}.items():
        write(source / name, name.encode())
        (source / name).chmod(mode)
    (source / "sticky").mkdir()
    (source / "sticky").chmod(0o1777)
    (source / "link").symlink_to("a.txt")
    (source / "dangling").symlink_to("nowhere/at all")
    (source / "to folder").symlink_to("deep")
    os.setxattr(source / "a.txt", "user.key", b"value\0\xff")
    os.setxattr(source / "a.txt", "user.empty", b"")
    os.setxattr(source / "deep", "user.folder", b"1")
    os.setxattr(source, "user.top", b"2")
    set_time(source / "empty", -1_500_000_000)  # 1969
    set_time(source / "none", -1)
    set_time(source / "link", LONG_AGO_NS + 3)
    set_time(source / "deep", LONG_AGO_NS + 5)
    set_time(source, LONG_AGO_NS + 7)
    source.chmod(0o750)
    before = describe(source)

    result = bring(store, source)

    assert describe(exported(store, tmp_path)) == before
    assert before[b"empty"].mtime_ns == -1_500_000_000
    assert stat.S_IMODE(os.stat(tmp_path / "out").st_mode) == 0o750
    assert result.commit is not None
    assert result.files == result.commit.root.files == 10
    assert result.size_bytes == result.commit.root.size
    assert result.head == result.commit == head(store)


ODD = [
    b"\xff\xfe not utf-8",
    b"new\nline",
    b"-rf",
    b"--help",
    b"x" * 255,
    b"\xe4" * 255,
    b" ",
    b"...",
    b"a:b@c~1",
    b"\x01\x7f\x1b[31m",
    "ü".encode(),
    b"*?[a]",
]


def test_times_that_the_format_cannot_hold_are_the_nearest_it_can(
    store: Store, source: Path
) -> None:
    """A file system may hold times up to 2446 (ext4) or later; 64 bits of nanoseconds, to 2262."""
    fill(source, {"file": b"x", "folder": None})
    (source / "link").symlink_to("file")
    late = 13_000_000_000_000_000_000
    for path in ("file", "folder", "link"):
        set_time(source / path, late)
    kept = min((source / "file").lstat().st_mtime_ns, 2**63 - 1)
    bring(store, source)
    root = head(store).root
    assert [entry.mtime_ns for entry in store.trees.entries(root.node)] == [kept] * 3
    assert bring(store, source).commit is None


def test_any_name_that_linux_allows(store: Store, source: Path, tmp_path: Path) -> None:
    top = os.fsencode(source)
    for name in ODD:
        os.mkdir(top + b"/" + name)
        for below in ODD:
            with open(top + b"/" + name + b"/" + below, "wb") as file:
                file.write(below)
            os.symlink(below, top + b"/" + name + b"/link" + below[:251])
    before = describe(source)
    bring(store, source)
    assert describe(exported(store, tmp_path)) == before
    assert content(store, ODD[0] + b"/" + ODD[1]) == ODD[1]


def test_holes_are_not_stored_and_come_back_as_holes(
    store: Store, source: Path, tmp_path: Path
) -> None:
    size = 5 << 30
    with (source / "sparse").open("wb") as file:
        file.write(b"begin" * 1000)
        file.seek(3 << 30)
        file.write(Random(2).randbytes(100_000))
        file.truncate(size)
    with (source / "all hole").open("wb") as file:
        file.truncate(20 << 20)
    write(source / "written zeros", bytes(8 << 20))
    result = bring(store, source)
    assert result.new_bytes < 300_000
    entry = at(store, b"sparse")
    assert entry is not None
    assert entry.size == size
    extents = [extent for _, extent in store.contents.open(entry).extents()]
    assert sum(extent.length for extent in extents) == size
    assert sum(extent.length for extent in extents if extent.chunk == NO_ID) > size - 300_000
    out = exported(store, tmp_path)
    status = (out / "sparse").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < 1 << 20
    assert (out / "all hole").stat().st_size == 20 << 20
    assert (out / "all hole").stat().st_blocks == 0
    assert (out / "written zeros").read_bytes() == bytes(8 << 20)
    with (out / "sparse").open("rb") as file:
        assert file.read(5005) == b"begin" * 1000 + bytes(5)
        file.seek(3 << 30)
        assert file.read(100_000) == Random(2).randbytes(100_000)


def test_zeros_written_or_left_out_are_the_same_file(
    store: Store, tiny: Store, source: Path
) -> None:
    data = bytes(3000) + b"data" * 700 + bytes(2000) + b"x"
    write(source / "written", data)
    with (source / "left out").open("wb") as file:
        file.seek(3000)
        file.write(b"data" * 700)
        file.seek(2000, os.SEEK_CUR)
        file.write(b"x")
    big = bytes(10 << 20) + b"end"
    write(source / "big written", big)
    with (source / "big left out").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"end")
    for each in (store, tiny):
        bring(each, source)
        for pair in ((b"written", b"left out"), (b"big written", b"big left out")):
            one, two = (at(each, name) for name in pair)
            assert one is not None
            assert two is not None
            assert one.content == two.content
        assert content(each, b"written") == data


def test_files_of_every_size_around_the_limits(tiny: Store, source: Path, tmp_path: Path) -> None:
    rng = Random(3)
    sizes = [0, 1, 63, 64, 65, 255, 1023, 1024, 1025, 4096, 65536, 70_001]
    sizes += [(4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9_000_000]
    for size in sizes:
        write(source / f"f{size}", rng.randbytes(size))
    before = describe(source)
    bring(tiny, source)
    assert describe(exported(tiny, tmp_path)) == before
    for size in sizes:
        entry = at(tiny, b"f%d" % size)
        assert entry is not None
        assert entry.size == size
        if size <= 64 or size > 1024:
            assert entry.kind == (Kind.FILE if size <= 64 else Kind.LARGE)


def test_folders_300_levels_deep(store: Store, source: Path, tmp_path: Path) -> None:
    path = source
    for level in range(300):
        path = path / f"d{level}"
        path.mkdir()
        write(path / "f", b"%d" % level)
    result = bring(store, source)
    assert result.files == 300
    assert describe(exported(store, tmp_path), mtimes=False) == describe(source, mtimes=False)
    write(path / "f", b"changed")
    result = bring(store, source)
    assert result.files_read == 1
    assert content(store, os.fsencode((path / "f").relative_to(source))) == b"changed"


def test_the_deepest_folders_that_a_path_can_reach(
    store: Store, home: Path, source: Path, tmp_path: Path
) -> None:
    """Read back by another process, which has walked nothing yet."""
    here = Path.cwd()
    os.chdir(source)
    try:
        for _ in range(1600):
            os.mkdir("d")
            os.chdir("d")
        Path("f").write_bytes(b"deep")
    finally:
        os.chdir(here)
    bring(store, source)
    store.close()
    code = (
        "import sys; from tests.support.stores import *\n"
        "from versionfs.transfer import export; from versionfs.tree import diff\n"
        "with Store.open(settings_in(Path(sys.argv[1]))) as store:\n"
        "    print(export(store, head(store).root, Path(sys.argv[2])).files)\n"
        "    print(len(list(diff(store.trees, None, head(store).root))))\n"
    )
    out = tmp_path / "o"
    shown = subprocess.run(
        [sys.executable, "-c", code, str(home), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.split() == ["1", "1601"], shown.stderr
    for folder in (source, out):  # Too deep for what cleans up behind tests.
        subprocess.run(["rm", "-r", str(folder / "d")], check=True)


def test_an_empty_folder_is_a_version(store: Store, source: Path, tmp_path: Path) -> None:
    result = bring(store, source)
    assert result.commit is not None
    assert result.files == 0
    assert list(exported(store, tmp_path).iterdir()) == []
    assert bring(store, source).commit is None


def test_sockets_fifos_and_devices_are_left_out_with_a_warning(store: Store, source: Path) -> None:
    fill(source, {"file": b"x", "sub/y": b"y"})
    os.mkfifo(source / "sub" / "fifo")
    os.mkfifo(source / "zz fifo")
    unix = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(source)
    try:
        unix.bind("socket")
    finally:
        os.chdir(here)
        unix.close()
    special = {b"socket", b"sub/fifo", b"zz fifo"}
    if os.geteuid() == 0:
        os.mknod(source / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        special.add(b"device")
    warnings: list[str] = []
    result = bring(store, source, warn=warnings.append)
    assert names(store, head(store).root) == [b"file", b"sub", b"sub/y"]
    assert {os.path.relpath(path, os.fsencode(source)) for path, _ in result.skipped} == special
    assert len(warnings) == len(special)
    assert any("fifo" in warning for warning in warnings)


def test_a_file_that_became_a_fifo_is_gone_from_the_next_version(
    store: Store, source: Path
) -> None:
    fill(source, {"a": b"1", "b": b"2", "c": b"3"})
    bring(store, source)
    (source / "b").unlink()
    os.mkfifo(source / "b")
    bring(store, source, warn=lambda _: None)
    assert names(store, head(store).root) == [b"a", b"c"]


# -- what cannot be read ---------------------------------------------------------------------------


def as_nobody(home: Path, source: Path, code: str) -> str:
    """Runs code as a user that may not read everything; it finds `store` and `source`."""
    if os.geteuid():
        pytest.skip("only root may become somebody else")
    script = (
        "import os, sys; from tests.support.stores import *; from versionfs.errors import *\n"
        "import lmdb._envid\n"  # loaded when it is needed: nobody may read it then
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "home, source = Path(sys.argv[1]), Path(sys.argv[2]); warnings = []\n"
        "store = make_store(home)\n" + code
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(home), str(source)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.fixture
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that nobody may enter, with files and a folder that nobody may read."""
    base = tmp_path_factory.mktemp("open")
    for parent in [base, *base.parents]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o755)
    (base / "home").mkdir()
    (base / "home").chmod(0o777)
    source = base / "source"
    fill(source, {"ok": b"1", "secret": b"2", "sub/secret2": b"3", "closed/x": b"4", "z": b"5"})
    for name in ("secret", "sub/secret2", "closed"):
        (source / name).chmod(0o000)
    return base


def test_unreadable_files_stop_the_import_and_are_all_listed(locked: Path) -> None:
    shown = as_nobody(
        locked / "home" / "h",
        locked / "source",
        "try: bring(store, source)\n"
        "except SourceError as error:\n"
        "    print(sorted(os.path.relpath(os.fsdecode(p), source) for p, _ in error.problems))\n"
        "    print({reason for _, reason in error.problems})\n"
        "print(store.repository('photos').branches())\n",
    )
    assert shown.splitlines() == [
        "['closed', 'secret', 'sub/secret2']",
        "{'Permission denied'}",
        "{}",
    ]


def test_unreadable_files_may_be_left_out(locked: Path) -> None:
    shown = as_nobody(
        locked / "home" / "h",
        locked / "source",
        "result = bring(store, source, skip_errors=True, warn=warnings.append)\n"
        "print(names(store, head(store).root))\n"
        "print(len(warnings), len(result.skipped), result.files)\n"
        "print(bring(store, source, skip_errors=True, warn=warnings.append).commit)\n",
    )
    assert shown.splitlines() == [
        "[b'ok', b'sub', b'z']",
        "3 3 2",
        "None",
    ]


def test_an_unreadable_single_file_publishes_nothing_even_if_errors_are_skipped(
    locked: Path,
) -> None:
    shown = as_nobody(
        locked / "home" / "h",
        locked / "source" / "secret",
        "for skip in (False, True):\n"
        "    try: bring(store, source, path=b'p', skip_errors=skip, warn=warnings.append)\n"
        "    except (SourceError, InvalidInputError) as error: print(type(error).__name__)\n"
        "print(store.repository('photos').branches())\n",
    )
    assert shown.splitlines()[-1] == "{}"
    assert len(shown.splitlines()) == 3


def test_a_source_that_is_not_there(store: Store, source: Path) -> None:
    for name in ("nothing", "nothing/at/all"):
        with pytest.raises(InvalidInputError, match="cannot read"):
            bring(store, source / name)
    os.mkfifo(source / "fifo")
    with pytest.raises(InvalidInputError, match="neither a folder nor a file"):
        bring(store, source / "fifo")
    assert store.repository("photos").branches() == {}


# -- changing while it is read ---------------------------------------------------------------------


class ChangingFile:
    """Stands at ``os.pread``: writes to a file just after a read of it, some times."""

    def __init__(self, path: Path, times: int, change: str) -> None:
        self.path = path
        self.left = times
        self.change = change
        self.pread = os.pread

    def __call__(self, descriptor: int, size: int, offset: int) -> bytes:
        data = self.pread(descriptor, size, offset)
        if self.left and os.fstat(descriptor).st_ino == self.path.stat().st_ino:
            self.left -= 1
            with self.path.open("r+b") as file:
                if self.change == "grow":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
                elif self.change == "shrink":
                    file.truncate(max(0, self.path.stat().st_size - 5))
                else:
                    file.write(b"%d" % self.left)
            os.utime(self.path, ns=(LONG_AGO_NS, LONG_AGO_NS + self.left + 1))
        return data


@pytest.mark.parametrize("size", [1000, 9_000_000])
@pytest.mark.parametrize("change", ["grow", "shrink", "write"])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    path = source / "busy"
    fill(source, {"a": b"1", "busy": Random(4).randbytes(size), "z": b"2"})
    monkeypatch.setattr(os, "pread", ChangingFile(path, 1, change))
    bring(store, source)
    monkeypatch.undo()
    assert content(store, b"busy") == path.read_bytes()
    entry = at(store, b"busy")
    assert entry is not None
    assert entry.mtime_ns == path.stat().st_mtime_ns
    assert names(store, head(store).root) == [b"a", b"busy", b"z"]


@pytest.mark.parametrize("size", [1000, 9_000_000])
def test_a_file_that_never_stops_changing_is_named(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    fill(source, {"a": b"1", "busy": Random(4).randbytes(size)})
    changing = ChangingFile(source / "busy", 10**6, "grow")
    monkeypatch.setattr(syscalls, "_compiled", None)  # What that reads cannot be changed meanwhile.
    monkeypatch.setattr(os, "pread", changing)
    with pytest.raises(SourceError) as caught:
        bring(store, source)
    assert [path for path, _ in caught.value.problems] == [os.fsencode(source / "busy")]
    assert "changes while it is read" in caught.value.problems[0][1]
    assert store.repository("photos").branches() == {}
    bring(store, source, skip_errors=True, warn=lambda _: None)
    assert names(store, head(store).root) == [b"a"]
    monkeypatch.undo()
    bring(store, source)
    assert names(store, head(store).root) == [b"a", b"busy"]


@pytest.mark.parametrize("most", [100_000, 1 << 30])
def test_a_large_file_is_read_about_once_whatever_a_read_gives(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """What is not cut yet is read again with what follows it: less than a chunk for 4 MiB."""
    data = Random(8).randbytes(9_000_000) + bytes(1_000_000) + Random(9).randbytes(3_000_000)
    write(source / "large", data)
    number = (source / "large").stat().st_ino
    pread = os.pread
    read = 0

    def short(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        if os.fstat(descriptor).st_ino != number:
            return pread(descriptor, length, offset)
        found = pread(descriptor, min(length, most), offset)
        read += len(found)
        return found

    monkeypatch.setattr(os, "pread", short)
    bring(store, source)
    monkeypatch.undo()
    assert content(store, b"large") == data
    assert read <= len(data) + 4 * store.chunking.max_bytes


@pytest.mark.parametrize("how", ["grow", "shrink", "rewrite", "mode", "replace", "link", "fifo"])
def test_a_file_that_changed_after_it_was_listed_is_read_as_it_is_then(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    fill(source, {"a": b"1", "b": b"before", "c": b"3"})
    lstat = os.lstat

    def changing(path: bytes) -> os.stat_result:
        status = lstat(path)
        if path.endswith(b"/b") and status.st_size == 6:
            match how:
                case "grow" | "shrink" | "rewrite":
                    made = {"grow": b"longer than before", "shrink": b"less", "rewrite": b"AFTER."}
                    Path(os.fsdecode(path)).write_bytes(made[how])
                case "mode":
                    os.chmod(path, 0o600)
                case _:
                    os.unlink(path)
                    if how == "replace":
                        Path(os.fsdecode(path)).write_bytes(b"other.")
                    elif how == "link":
                        os.symlink(b"a", path)
                    else:
                        os.mkfifo(path)
        return status

    monkeypatch.setattr(os, "lstat", changing)
    if how in ("link", "fifo"):
        bring(store, source, skip_errors=True, warn=lambda _: None)
        assert names(store, head(store).root) == [b"a", b"c"]
        return
    bring(store, source)
    assert content(store, b"b") == (source / "b").read_bytes()
    entry = store.trees.walk_path(head(store).root, b"b")
    assert entry is not None
    assert entry.mode == (source / "b").stat().st_mode & 0o7777
    monkeypatch.undo()
    again = bring(store, source)
    assert again.files_read <= 1  # What it was when it was read may not be known.
    assert content(store, b"b") == (source / "b").read_bytes()


def test_a_file_removed_while_the_folder_is_read_is_named_or_left_out(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, {"a": b"1", "b": b"2", "c": b"3"})
    lstat = os.lstat

    def removing(path: bytes) -> os.stat_result:
        if path.endswith(b"/b"):
            os.unlink(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", removing)
    bring(store, source)
    assert names(store, head(store).root) == [b"a", b"c"]


# -- export ----------------------------------------------------------------------------------------


def test_an_export_never_writes_over_anything(store: Store, source: Path, tmp_path: Path) -> None:
    fill(source, {"a": b"1"})
    bring(store, source)
    taken = tmp_path / "taken"
    fill(taken, {"mine": b"!"})
    with pytest.raises(InvalidInputError, match="not empty"):
        export(store, head(store).root, taken)
    with pytest.raises(InvalidInputError, match="not a folder"):
        export(store, head(store).root, taken / "mine")
    with pytest.raises(InvalidInputError, match="cannot make"):
        export(store, head(store).root, tmp_path / "no" / "parent")
    entry = at(store, b"a")
    assert entry is not None
    with pytest.raises(InvalidInputError, match="exists"):
        export(store, entry, taken / "mine")
    assert describe(taken, mtimes=False)[b"mine"].content == b"!"
    result = export(store, entry, taken / "new")
    assert (taken / "new").read_bytes() == b"1"
    assert (result.files, result.bytes) == (1, 1)


def test_the_branch_and_repository_must_be_names(store: Store, source: Path) -> None:
    with pytest.raises(InvalidInputError, match="branch name"):
        bring(store, source, branch="a/b")
    assert store.repository("photos").branches() == {}
    with pytest.raises(NotFoundError):
        store.repository("nothing")


def test_progress_ends_with_all_files(store: Store, source: Path) -> None:
    fill(source, {f"f{i}": b"%d" % i for i in range(200)})
    seen: list[ImportProgress] = []
    result = bring(store, source, progress=seen.append)
    assert seen
    assert all(one.files <= other.files for one, other in pairwise(seen))
    assert seen[-1].files <= result.files == 200
    assert all(p.files_total in (None, 200) for p in seen)


def test_describing_a_folder_sees_every_difference(tmp_path: Path) -> None:
    """The yardstick of these tests, measured."""
    fill(tmp_path, {"a": b"1"})
    (tmp_path / "a").chmod(0o640)
    os.setxattr(tmp_path / "a", "user.k", b"v")
    assert describe(tmp_path)[b"a"] == Seen(
        stat.S_IFREG, 0o640, LONG_AGO_NS, b"1", (("user.k", b"v"),)
    )
