"""A branch folder is a folder as POSIX and ext4 have it: each rule by itself."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import pickle
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mount.conftest import World
from tests.mount.support import T0, file, folder, link, settings_at
from tests.support.posix import EXCHANGE, NOREPLACE, UTIME_NOW, UTIME_OMIT, renameat2, utimensat
from versionfs import fuse

ROOT = os.geteuid() == 0
NOBODY = 65534
needs_root = pytest.mark.skipif(not ROOT, reason="takes root")

_libc = ctypes.CDLL(None, use_errno=True)


class Mounted(World):
    """A world with a mount, and a branch for the test that runs."""

    branch = "main"
    branches = 0


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount that others may use, of a repository with something in it."""
    world = Mounted(tmp_path_factory.mktemp("posix"))
    try:
        world.commit({
            b"base/file": file(b"0123456789" * 1000, mode=0o644, mtime_ns=T0),
            b"base/exec": file(b"#!/bin/sh\necho ran\n", mode=0o755),
            b"base/link": link(b"file"),
            b"base/sub/one": b"one", b"base/sub/two": b"two",
            b"base/empty": folder(),
        })  # fmt: skip
        world.photos.create_branch("other", world.photos.resolve("main", None))
        world.mount(allow_other=ROOT)
        yield world
        assert "Traceback" not in world.log(world.mountpoints[0])
    finally:
        world.close()


@pytest.fixture
def main(mounted: Mounted) -> Path:
    """The folder of a branch that only this test has."""
    mounted.branches += 1
    mounted.branch = f"t{mounted.branches}"
    mounted.photos.create_branch(mounted.branch, mounted.photos.resolve("main", None))
    fuse.notify_moved(mounted.settings, mounted.store.id, "photos")
    return mounted.mountpoints[0] / "photos" / mounted.branch


@pytest.fixture
def here(main: Path) -> Path:
    """A new folder in the branch folder."""
    path = main / "here"
    path.mkdir()
    return path


@pytest.fixture
def base(main: Path) -> Path:
    """What the base commit has."""
    return main / "base"


@pytest.fixture
def head(main: Path) -> Path:
    """The last commit of the branch."""
    return main.parent / f"{main.name}@head"


def ask(world: Mounted, op: str, **more: object) -> dict:
    message = {"op": op, "repository": "photos", "branch": world.branch, **more}
    reply = fuse.ask(world.settings, world.mountpoints[0], message)
    assert reply is not None
    assert reply.get("ok"), reply
    assert "failure" not in reply, reply
    return reply


def commit(world: Mounted) -> dict:
    found: dict = ask(world, "workspace-commit", message="m", author="t", metadata={})["result"]
    return found


def error_of(call: Callable[..., object], *arguments: Any, **more: Any) -> int:
    try:
        call(*arguments, **more)
    except OSError as error:
        return error.errno or 0
    raise AssertionError("it was allowed")


def as_user(uid: int, gid: int, folder: Path, work: Callable[[], object]) -> Any:
    """Does work as another user, in a folder; returns its result or the errno as ("errno", n)."""
    reading, writing = os.pipe()
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.fchdir(at)
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.umask(0o022)
            try:
                result = work()
            except OSError as error:
                result = ("errno", error.errno)
            os.write(writing, pickle.dumps(result))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    os.close(at)
    with open(reading, "rb") as answers:
        data = answers.read()
    assert os.waitpid(child, 0)[1] == 0
    return pickle.loads(data)


# -- opening -------------------------------------------------------------------------------------


def test_o_excl_makes_a_file_once(here, base):
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(here / "f", flags, 0o640))
    assert stat.S_IMODE(os.stat(here / "f").st_mode) == 0o640
    for path in (here / "f", base / "file", base / "link", base / "sub"):
        assert error_of(os.open, path, flags) == errno.EEXIST
    (here / "dangling").symlink_to("nowhere")
    assert error_of(os.open, here / "dangling", flags) == errno.EEXIST
    os.close(os.open(here / "dangling", os.O_CREAT | os.O_WRONLY))
    assert (here / "nowhere").read_bytes() == b""


def test_o_trunc_empties(base):
    before = os.stat(base / "file")
    os.close(os.open(base / "file", os.O_WRONLY | os.O_TRUNC))
    after = os.stat(base / "file")
    assert (after.st_size, after.st_blocks) == (0, 0)
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns
    assert (base / "file").read_bytes() == b""


def test_o_trunc_with_others_that_have_it_open(base):
    with open(base / "file", "rb", buffering=0) as reader:
        assert reader.read(10) == b"0123456789"
        with open(base / "file", "wb") as writer:
            assert os.pread(reader.fileno(), 10, 0) == b""
            writer.write(b"new")
        assert os.pread(reader.fileno(), 10, 0) == b"new"


def test_o_append_writes_at_the_end_of_now(here):
    path = here / "log"
    path.write_bytes(b"")
    one = os.open(path, os.O_WRONLY | os.O_APPEND)
    two = os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in range(100):
        os.write(one if number % 2 else two, b"%03d\n" % number)
        # pwrite appends too, says open(2) under BUGS.
    os.pwrite(one, b"end\n", 0)
    os.close(one)
    os.close(two)
    assert path.read_bytes() == b"".join(b"%03d\n" % n for n in range(100)) + b"end\n"


def test_processes_that_append_lose_nothing(here):
    path = here / "log"
    path.touch()
    code = (
        "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "for n in range(300): os.write(f, b'%s %03d\\n' % (sys.argv[2].encode(), n))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, path, str(n)]) for n in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    expected = sorted(b"%d %03d" % (p, n) for p in range(4) for n in range(300))
    assert sorted(path.read_bytes().splitlines()) == expected


def test_how_a_file_was_opened_counts(here):
    (here / "f").write_bytes(b"1")
    reader = os.open(here / "f", os.O_RDONLY)
    writer = os.open(here / "f", os.O_WRONLY)
    assert error_of(os.write, reader, b"x") == errno.EBADF
    assert error_of(os.read, writer, 1) == errno.EBADF
    assert error_of(os.ftruncate, reader, 0) == errno.EINVAL
    os.close(reader)
    os.close(writer)
    assert error_of(os.open, here, os.O_WRONLY) == errno.EISDIR
    assert error_of(os.open, here / "f" / "x", os.O_RDONLY) == errno.ENOTDIR
    assert error_of(os.open, here / "f", os.O_RDONLY | os.O_DIRECTORY) == errno.ENOTDIR
    assert error_of(os.open, here / "no", os.O_RDONLY) == errno.ENOENT
    assert error_of(os.open, here / "no" / "f", os.O_CREAT | os.O_WRONLY) == errno.ENOENT


def test_umask_and_mode(here):
    old = os.umask(0o027)
    try:
        os.close(os.open(here / "f", os.O_CREAT | os.O_WRONLY, 0o777))
        os.mkdir(here / "d", 0o777)
        os.mkfifo(here / "p", 0o666)
    finally:
        os.umask(old)
    modes = [stat.S_IMODE(os.stat(here / name).st_mode) for name in "fdp"]
    assert modes == [0o750, 0o750, 0o640]


def test_a_file_without_write_permission_is_written_by_who_made_it(here):
    """The mode counts at the next open, not for the descriptor that made the file."""

    def work():
        opened = os.open("f", os.O_CREAT | os.O_RDWR, 0o400)
        os.write(opened, b"written")
        os.ftruncate(opened, 3)
        return os.pread(opened, 10, 0)

    if ROOT:
        os.chmod(here, 0o777)
        assert as_user(NOBODY, NOBODY, here, work) == b"wri"
        assert as_user(
            NOBODY, NOBODY, here, lambda: os.open("f", os.O_WRONLY)
        ) == ("errno", errno.EACCES)  # fmt: skip


# -- reading and writing -------------------------------------------------------------------------


def test_pread_and_pwrite_leave_the_offset(base):
    with open(base / "file", "r+b", buffering=0) as opened:
        number = opened.fileno()
        os.lseek(number, 5, os.SEEK_SET)
        assert os.pwrite(number, b"XX", 2) == 2
        assert os.pread(number, 6, 0) == b"01XX45"
        assert os.lseek(number, 0, os.SEEK_CUR) == 5
        assert os.pread(number, 10, 10_000) == b""
        assert os.pread(number, 10, 9_998) == b"89"
        assert error_of(os.pread, number, 1, -1) == errno.EINVAL


def test_what_one_process_writes_another_reads_at_once(here):
    path = here / "f"
    path.write_bytes(b"-" * 10)
    with open(path, "rb", buffering=0) as reader:
        for number in range(10):
            code = f"import os; os.pwrite(os.open({str(path)!r}, os.O_WRONLY), b'x', {number})"
            subprocess.run([sys.executable, "-S", "-c", code], check=True)
            expected = b"x" * (number + 1) + b"-" * (9 - number)
            assert os.pread(reader.fileno(), 10, 0) == expected


def test_shared_maps(base):
    with open(base / "file", "r+b", buffering=0) as opened:
        with mmap.mmap(opened.fileno(), 10_000) as one, mmap.mmap(opened.fileno(), 10_000) as two:
            one[5000:5005] = b"hello"
            assert two[5000:5005] == b"hello"
            assert os.pread(opened.fileno(), 5, 5000) == b"hello"
            os.pwrite(opened.fileno(), b"there", 6000)
            assert one[6000:6005] == b"there"
            one.flush()
        with mmap.mmap(opened.fileno(), 10_000) as last:
            last[0:3] = b"abc"  # No msync: unmapping and closing must do.
    found = (base / "file").read_bytes()
    assert (found[:3], found[5000:5005], found[6000:6005]) == (b"abc", b"hello", b"there")
    assert os.stat(base / "file").st_size == 10_000


def test_a_map_outlives_its_descriptor_and_its_name(mounted, here):
    path = here / "f"
    path.write_bytes(bytes(8192))
    opened = os.open(path, os.O_RDWR)
    again = os.open(path, os.O_RDONLY)
    mapped = mmap.mmap(opened, 8192)
    os.close(opened)
    path.unlink()
    mapped[4096:4101] = b"later"
    mapped.flush()
    assert os.pread(again, 5, 4096) == b"later"
    mapped.close()
    os.close(again)


def test_private_maps_change_nothing(base):
    with (
        open(base / "file", "rb") as opened,
        mmap.mmap(opened.fileno(), 100, access=mmap.ACCESS_COPY) as mapped,
    ):
        mapped[0:4] = b"none"
    assert (base / "file").read_bytes()[:4] == b"0123"


def test_what_is_mapped_is_in_the_next_commit(mounted, here, head):
    (here / "f").write_bytes(bytes(100_000))
    with open(here / "f", "r+b") as opened, mmap.mmap(opened.fileno(), 100_000) as mapped:
        mapped[50_000:50_004] = b"one."
        mapped.flush()
        commit(mounted)
        mapped[50_000:50_004] = b"two."
    head = head / "here/f"
    assert head.read_bytes()[50_000:50_004] == b"one."
    assert (here / "f").read_bytes()[50_000:50_004] == b"two."
    commit(mounted)
    assert head.read_bytes()[50_000:50_004] == b"two."


def test_truncate_both_ways(base):
    path = base / "file"
    os.truncate(path, 15)
    assert path.read_bytes() == b"012345678901234"
    os.truncate(path, 20)
    assert path.read_bytes() == b"012345678901234" + bytes(5)
    before = os.stat(path)
    time.sleep(0.01)
    os.truncate(path, 20)
    after = os.stat(path)
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns
    assert error_of(os.truncate, base / "sub", 0) == errno.EISDIR
    assert error_of(os.truncate, path, -1) == errno.EINVAL
    assert error_of(os.truncate, base / "no", 0) == errno.ENOENT


def test_sparse_files(here):
    path = here / "sparse"
    with open(path, "wb") as opened:
        opened.truncate(1 << 40)
        opened.seek(1 << 39)
        opened.write(b"in the middle")
    found = os.stat(path)
    assert found.st_size == 1 << 40
    assert found.st_blocks * 512 < 100_000
    with open(path, "rb") as opened:
        opened.seek((1 << 39) - 10)
        assert opened.read(30) == bytes(10) + b"in the middle" + bytes(7)
    assert error_of(os.truncate, path, (1 << 63) - 1) in (errno.EFBIG, errno.EINVAL)


def test_a_sparse_terabyte_commits_at_once(mounted, here, head):
    with open(here / "sparse", "wb") as opened:
        opened.truncate(1 << 40)
        os.pwrite(opened.fileno(), b"x", 1 << 39)
    done = commit(mounted)
    assert done["read_bytes"] < 10_000_000
    assert (head / "here/sparse").stat().st_size == 1 << 40
    with open(head / "here/sparse", "rb") as opened:
        opened.seek(1 << 39)
        assert opened.read(2) == b"x\0"


def test_o_direct(here):
    path = here / "direct"
    data = random.Random(1).randbytes(16384)
    buffer = mmap.mmap(-1, 16384)
    buffer[:] = data
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    assert os.pwrite(opened, buffer, 4096) == 16384
    back = mmap.mmap(-1, 16384)
    assert os.preadv(opened, [back], 4096) == 16384
    assert back[:] == data
    os.close(opened)
    assert path.read_bytes() == bytes(4096) + data
    with open(path, "r+b", buffering=0) as cached:  # Seen by who reads through the cache, at once.
        assert os.pread(cached.fileno(), 10, 4096) == data[:10]
        opened = os.open(path, os.O_WRONLY | os.O_DIRECT)
        buffer[:4096] = b"z" * 4096
        os.pwrite(opened, memoryview(buffer)[:4096], 4096)
        os.close(opened)
        assert os.pread(cached.fileno(), 10, 4096) == b"z" * 10


def test_a_read_of_old_content_is_not_kept_over_a_commit(mounted, here):
    path = here / "f"
    path.write_bytes(b"old" * 40_000)
    commit(mounted)
    with open(path, "r+b", buffering=0) as opened:
        assert opened.read(3) == b"old"
        opened.truncate(50_000)
        os.pwrite(opened.fileno(), b"new", 3_000_000)
        commit(mounted)
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(opened.fileno(), 3, 3_000_000) == b"new"
        assert os.pread(opened.fileno(), 3, 60_000) == bytes(3)


# -- names ---------------------------------------------------------------------------------------


def test_rename_over_files_and_empty_folders(here, base):
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    number = os.stat(here / "a").st_ino
    os.rename(here / "a", here / "b")
    assert ((here / "b").read_text(), os.stat(here / "b").st_ino) == ("a", number)
    assert not (here / "a").exists()
    (here / "d").mkdir()
    (here / "e").mkdir()
    (here / "e/f").touch()
    os.rename(here / "e", here / "d")
    assert os.listdir(here / "d") == ["f"]
    assert error_of(os.rename, base / "empty", here / "d") == errno.ENOTEMPTY
    assert error_of(os.rename, here / "b", here / "d") == errno.EISDIR
    assert error_of(os.rename, here / "d", here / "b") == errno.ENOTDIR
    assert error_of(os.rename, here / "d", here / "d" / "in") == errno.EINVAL
    assert error_of(os.rename, here / "d" / "f", here) == errno.ENOTEMPTY
    assert error_of(os.rename, here / "no", here / "b") == errno.ENOENT
    os.rename(base / "sub", here / "sub")
    assert (here / "sub/one").read_text() == "one"
    assert not (base / "sub").exists()
    os.rename(here / "sub", base / "sub")
    assert (base / "sub/two").read_text() == "two"


def test_rename_to_another_name_of_the_same_file_does_nothing(here):
    (here / "a").touch()
    os.link(here / "a", here / "b")
    os.rename(here / "a", here / "b")
    assert sorted(os.listdir(here)) == ["a", "b"]


def test_rename_noreplace(here, base):
    one, two = os.fsencode(here / "a"), os.fsencode(here / "b")
    (here / "a").touch()
    (here / "b").touch()
    assert error_of(renameat2, one, two, NOREPLACE) == errno.EEXIST
    assert error_of(renameat2, one, os.fsencode(base / "file"), NOREPLACE) == errno.EEXIST
    (here / "b").unlink()
    renameat2(one, two, NOREPLACE)
    assert os.listdir(here) == ["b"]


def test_rename_exchange(here, base):
    (here / "a").write_text("a")
    renameat2(os.fsencode(here / "a"), os.fsencode(base / "sub"), EXCHANGE)
    assert (base / "sub").read_text() == "a"
    assert sorted(os.listdir(here / "a")) == ["one", "two"]
    assert os.stat(here / "a" / "..").st_ino == os.stat(here).st_ino
    assert error_of(
        renameat2, os.fsencode(here / "a"), os.fsencode(here / "no"), EXCHANGE
    ) == errno.ENOENT  # fmt: skip
    assert error_of(
        renameat2, os.fsencode(here), os.fsencode(here / "a"), EXCHANGE
    ) == errno.EINVAL  # fmt: skip
    assert error_of(
        renameat2, os.fsencode(here / "a"), os.fsencode(here), NOREPLACE | EXCHANGE
    ) == errno.EINVAL  # fmt: skip


def test_open_files_outlive_their_names(mounted, here, base):
    with (
        open(here / "f", "w+b", buffering=0) as mine,
        open(base / "file", "r+b", buffering=0) as old,
    ):
        mine.write(b"content")
        os.unlink(here / "f")
        os.rename(base / "exec", base / "file")
        for opened in (mine, old):
            assert os.fstat(opened.fileno()).st_nlink == 0
        (here / "f").write_text("another")
        os.pwrite(mine.fileno(), b"!", 7)
        os.pwrite(old.fileno(), b"!", 0)
        commit(mounted)
        assert os.pread(mine.fileno(), 20, 0) == b"content!"
        assert os.pread(old.fileno(), 5, 0) == b"!1234"
        os.ftruncate(mine.fileno(), 3)
        os.fchmod(mine.fileno(), 0o600)
        assert os.fstat(mine.fileno()).st_size == 3
        source = b"/proc/self/fd/%d" % mine.fileno()
        target = os.fsencode(here / "back")
        assert _libc.linkat(-100, source, -100, target, 0x400) == -1
        assert ctypes.get_errno() == errno.ENOENT
    assert (here / "f").read_text() == "another"


def test_unlink_and_rmdir(here, base):
    assert error_of(os.unlink, here) == errno.EISDIR
    assert error_of(os.rmdir, base / "file") == errno.ENOTDIR
    assert error_of(os.rmdir, base / "sub") == errno.ENOTEMPTY
    os.unlink(base / "sub/one")
    assert error_of(os.rmdir, base / "sub") == errno.ENOTEMPTY
    os.unlink(base / "sub/two")
    os.rmdir(base / "sub")
    os.mkdir(base / "sub")
    assert os.listdir(base / "sub") == []
    assert error_of(os.unlink, base / "sub/one") == errno.ENOENT
    assert error_of(os.mkdir, base / "sub") == errno.EEXIST
    assert error_of(os.rmdir, f"{base}/sub/.") == errno.EINVAL


def test_the_current_folder_may_be_removed(here):
    (here / "d").mkdir()
    at = os.open(here / "d", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(here / "d")
    assert os.listdir(at) == []
    assert os.fstat(at).st_nlink == 0
    for call in (
        lambda: os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=at),
        lambda: os.mkdir("d", dir_fd=at),
        lambda: os.symlink("x", "l", dir_fd=at),
    ):
        assert error_of(call) in (errno.ENOENT, errno.EPERM)
    (here / "d").mkdir()
    assert error_of(os.open, "f", os.O_CREAT | os.O_WRONLY, dir_fd=at) == errno.ENOENT
    os.close(at)


def test_symlinks(here):
    os.symlink("target", here / "l")
    assert os.readlink(here / "l") == "target"
    found = os.lstat(here / "l")
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (6, 0o777)
    assert error_of(os.stat, here / "l") == errno.ENOENT
    (here / "target").write_text("x")
    assert (here / "l").read_text() == "x"
    assert error_of(os.readlink, here / "target") == errno.EINVAL
    assert error_of(os.symlink, "x" * 4096, here / "m") == errno.ENAMETOOLONG
    os.symlink("x" * 4095, here / "m")
    assert os.readlink(here / "m") == "x" * 4095
    os.symlink("loop", here / "loop")
    assert error_of(os.stat, here / "loop") == errno.ELOOP
    assert error_of(os.open, here / "l", os.O_RDONLY | os.O_NOFOLLOW) == errno.ELOOP
    os.link(here / "l", here / "l2", follow_symlinks=False)
    assert os.lstat(here / "l2").st_nlink == 2


def test_hard_links_stay_linked_across_a_commit(mounted, here, base, head):
    os.link(base / "file", here / "one")
    os.link(here / "one", here / "two")
    assert [os.stat(p).st_nlink for p in (base / "file", here / "one", here / "two")] == [3] * 3
    number = os.stat(here / "one").st_ino
    with open(here / "two", "r+b") as opened:
        opened.write(b"LINKED")
    commit(mounted)
    for path in (base / "file", here / "one", here / "two"):
        assert (os.stat(path).st_ino, os.stat(path).st_nlink) == (number, 3)
        assert path.read_bytes()[:8] == b"LINKED67"
        committed = head / path.relative_to(here.parent)
        assert committed.read_bytes()[:8] == b"LINKED67"
        assert committed.stat().st_nlink == 1
    (here / "one").write_bytes(b"after")
    assert (base / "file").read_bytes() == b"after"
    os.unlink(here / "one")
    os.unlink(here / "two")
    assert os.stat(base / "file").st_nlink == 1
    assert error_of(os.link, here, here / "x") == errno.EPERM
    assert error_of(os.link, base / "file", base / "exec") == errno.EEXIST


def test_a_file_of_many_names_is_read_once(mounted, here, head):
    (here / "f").write_bytes(random.Random(3).randbytes(2_000_000))
    for number in range(300):
        os.link(here / "f", here / f"l{number}")
    done = commit(mounted)
    assert done["read_bytes"] < 2_100_000
    assert (head / "here/l299").read_bytes() == (here / "f").read_bytes()
    assert os.stat(here / "l7").st_nlink == 301


def test_hard_links_stay_linked_across_a_remount(mounted, main):
    (main / "l1").write_text("x")
    os.link(main / "l1", main / "l2")
    commit(mounted)
    fuse.unmount(mounted.settings, mounted.mountpoints[0])
    mounted.mount(allow_other=ROOT)
    assert os.stat(main / "l1").st_nlink == 2
    assert os.path.samefile(main / "l1", main / "l2")
    os.unlink(main / "l1")
    assert os.stat(main / "l2").st_nlink == 1


def test_fifos_and_sockets(mounted, here, head):
    os.mkfifo(here / "fifo")
    assert stat.S_ISFIFO(os.stat(here / "fifo").st_mode)
    reader = os.open(here / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(here / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 10) == b"through"
    os.close(reader)
    os.close(writer)
    at = os.open(here, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(f"/proc/self/fd/{at}/socket")
        server.listen()
        client.connect(f"/proc/self/fd/{at}/socket")
        accepted, _ = server.accept()
        client.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
        accepted.close()
    os.close(at)
    skipped = dict(commit(mounted)["skipped"])
    assert skipped == {f"{here.name}/fifo": "a fifo", f"{here.name}/socket": "a socket"}
    assert sorted(os.listdir(here)) == ["fifo", "socket"]
    assert os.listdir(head / "here") == []


@needs_root
def test_device_nodes(mounted, here):
    os.mknod(here / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(here / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    found = os.stat(here / "null")
    assert (stat.S_IFMT(found.st_mode), found.st_rdev) == (stat.S_IFCHR, os.makedev(1, 3))
    assert os.stat(here / "disk").st_rdev == os.makedev(7, 200)
    # Mounts of users are nodev: a device is there, and is no way into the machine.
    assert error_of(os.open, here / "null", os.O_RDONLY) == errno.EACCES
    assert [what for _, what in commit(mounted)["skipped"]] == ["a device", "a device"]
    os.chmod(here, 0o777)
    assert as_user(
        NOBODY, NOBODY, here, lambda: os.mknod("x", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    ) == ("errno", errno.EPERM)  # fmt: skip


def test_long_names(here):
    os.mkdir(here / ("d" * 255))
    (here / ("f" * 255)).touch()
    for call in (
        lambda p: os.open(p, os.O_CREAT | os.O_WRONLY), os.mkdir, os.mkfifo, os.stat, os.unlink,
        os.rmdir, lambda p: os.symlink("x", p), lambda p: os.link(here / ("f" * 255), p),
        lambda p: os.rename(here / ("f" * 255), p), lambda p: os.rename(p, here / "x"),
    ):  # fmt: skip
        assert error_of(call, here / ("x" * 256)) == errno.ENAMETOOLONG
    assert os.statvfs(here).f_namemax == os.pathconf(here, "PC_NAME_MAX") == 255


def test_names_of_any_bytes(here):
    for name in (b"\xff\xfe", b"new\nline", b" ", b"\\", b"-rf", b"@head", b"~", b"con:", b"*"):
        path = os.fsencode(here) + b"/" + name
        with open(path, "wb") as opened:
            opened.write(name)
        assert name in os.listdir(os.fsencode(here))
        with open(path, "rb") as opened:
            assert opened.read() == name
        os.unlink(path)


def test_another_branch_is_another_device_to_rename_and_link(main, here, head):
    (here / "f").touch()
    (here / "d").mkdir()
    other = main.parent / "other"
    assert error_of(os.rename, here / "f", other / "f") == errno.EXDEV
    assert error_of(os.rename, here / "d", other / "d") == errno.EXDEV
    assert error_of(os.link, here / "f", other / "f") == errno.EXDEV
    assert error_of(os.rename, here / "f", head / "f") in (
        errno.EROFS, errno.EXDEV)  # fmt: skip
    subprocess.run(["mv", here / "f", other / "moved"], check=True)
    assert (other / "moved").exists()


def test_listings_while_entries_come_and_go(here):
    names = [f"n{number:04}" for number in range(3000)]
    for name in names:
        (here / name).touch()
    with os.scandir(here) as found:
        seen = [next(found).name for _ in range(10)]
        for number in range(0, 3000, 3):
            os.unlink(here / f"n{number:04}")
        for number in range(500):
            (here / f"late{number}").touch()
        seen += [entry.name for entry in found]
    assert len(seen) == len(set(seen))
    assert {name for n, name in enumerate(names) if n % 3} <= set(seen)
    left = {name for n, name in enumerate(names) if n % 3} | {f"late{n}" for n in range(500)}
    assert set(os.listdir(here)) == left


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.POINTER(_Dirent)
_libc.readdir.argtypes = _libc.telldir.argtypes = _libc.closedir.argtypes = [ctypes.c_void_p]
_libc.rewinddir.argtypes = [ctypes.c_void_p]
_libc.rewinddir.restype = None
_libc.telldir.restype = ctypes.c_long
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
_libc.seekdir.restype = None


def _next_name(listing: int) -> bytes | None:
    entry = _libc.readdir(listing)
    return bytes(entry.contents.d_name) if entry else None


@pytest.mark.parametrize("committed", [False, True])
def test_telldir_and_seekdir_are_stable(mounted, here, committed):
    for number in range(400):
        (here / f"n{number:03}").touch()
    if committed:
        commit(mounted)
        (here / "more").touch()
    listing = _libc.opendir(os.fsencode(here))
    places: list[tuple[int, bytes]] = []
    while True:
        place = _libc.telldir(listing)
        name = _next_name(listing)
        if name is None:
            break
        places.append((place, name))
    assert len(places) == 402 + committed
    for number in range(0, 400, 2):
        os.unlink(here / f"n{number:03}")
    for number in range(100):
        (here / f"late{number}").touch()
    gone = {b"n%03d" % number for number in range(0, 400, 2)}
    random.Random(1).shuffle(places)
    for place, name in places:
        _libc.seekdir(listing, place)
        found = _next_name(listing)
        if name not in gone:
            assert found == name
    _libc.rewinddir(listing)
    names = []
    while (name := _next_name(listing)) is not None:
        names.append(name)
    assert len(names) == len(set(names)) == 302 + committed
    _libc.closedir(listing)


def test_many_names_at_once(here):
    """Removing while listing, as ``rm -r`` does."""
    for number in range(2000):
        (here / f"f{number}").touch()
    with os.scandir(here) as found:
        for entry in found:
            os.unlink(entry.path)
    assert os.listdir(here) == []
    assert os.stat(here).st_nlink == 1


# -- attributes ----------------------------------------------------------------------------------


def test_chmod_and_its_ctime(base):
    before = os.stat(base / "file")
    os.chmod(base / "file", 0o600)
    after = os.stat(base / "file")
    assert stat.S_IMODE(after.st_mode) == 0o600
    assert (after.st_mtime_ns, after.st_size) == (T0, before.st_size)
    assert after.st_ctime_ns > before.st_ctime_ns
    assert after.st_ino == before.st_ino


def test_utimensat(here):
    path = os.fsencode(here / "f")
    (here / "f").touch()
    utimensat(path, (123, 456), (-5, 789))
    found = os.stat(path)
    assert (found.st_atime_ns, found.st_mtime_ns) == (123_000_000_456, -4_999_999_211)
    utimensat(path, (0, UTIME_OMIT), (7, 0))
    found = os.stat(path)
    assert (found.st_atime_ns, found.st_mtime_ns) == (123_000_000_456, 7_000_000_000)
    before = time.time_ns()
    utimensat(path, (0, UTIME_NOW), (0, UTIME_OMIT))
    found = os.stat(path)
    assert before - 20_000_000 <= found.st_atime_ns <= time.time_ns()
    assert found.st_mtime_ns == 7_000_000_000
    assert found.st_ctime_ns >= before - 20_000_000
    utimensat(path, (1 << 40, 0), (-(1 << 40), 0))  # Farther than can be kept.
    found = os.stat(path)
    assert found.st_atime_ns > 9 * 10**18
    assert found.st_mtime_ns < -9 * 10**18
    utimensat(path, (7, 0), (7, 0))
    (here / "l").symlink_to("f")
    utimensat(os.fsencode(here / "l"), (1, 0), (2, 0), 0x100)
    assert os.lstat(here / "l").st_mtime_ns == 2_000_000_000
    assert os.stat(here / "l").st_mtime_ns == 7_000_000_000
    (here / "d").mkdir()
    utimensat(os.fsencode(here / "d"), (1, 0), (2, 0))
    assert os.stat(here / "d").st_mtime_ns == 2_000_000_000


def test_times_of_files_and_folders(here):
    def times(path):
        found = os.stat(path)
        return found.st_mtime_ns, found.st_ctime_ns

    def changed(path, call):
        os.utime(here, ns=(1, 1))
        before = times(path)
        time.sleep(0.002)
        call()
        after = times(path)
        return tuple(a != b for a, b in zip(before, after, strict=True))

    path = here / "f"
    assert changed(here, path.touch) == (True, True)
    assert changed(path, lambda: path.write_bytes(b"x")) == (True, True)
    assert changed(path, path.read_bytes) == (False, False)
    assert changed(here, lambda: path.write_bytes(b"y")) == (False, False)
    assert changed(path, lambda: os.link(path, here / "g")) == (False, True)
    assert changed(path, lambda: os.unlink(here / "g")) == (False, True)
    assert changed(path, lambda: os.rename(path, here / "f")) == (False, False)
    assert changed(here, lambda: os.rename(path, here / "h")) == (True, True)
    assert changed(here / "h", lambda: os.setxattr(here / "h", "user.x", b"")) == (False, True)
    assert changed(here / "h", lambda: os.chmod(here / "h", 0o600)) == (False, True)
    assert changed(here, lambda: os.unlink(here / "h")) == (True, True)


def test_reading_leaves_atime(base):
    before = os.stat(base / "file").st_atime_ns
    (base / "file").read_bytes()
    assert os.stat(base / "file").st_atime_ns == before


@needs_root
def test_chown_takes_setuid_and_setgid_away(here):
    (here / "f").touch()
    os.chmod(here / "f", 0o6755)
    os.chown(here / "f", NOBODY, 7)
    found = os.stat(here / "f")
    assert (found.st_uid, found.st_gid, oct(found.st_mode & 0o7777)) == (NOBODY, 7, "0o755")
    (here / "d").mkdir()
    os.chmod(here / "d", 0o2755)
    os.chown(here / "d", NOBODY, 7)
    assert stat.S_IMODE(os.stat(here / "d").st_mode) == 0o2755
    os.chown(here / "f", -1, 8)
    assert (os.stat(here / "f").st_uid, os.stat(here / "f").st_gid) == (NOBODY, 8)


@needs_root
@pytest.mark.parametrize("how", ["write", "truncate", "open", "map"])
def test_writing_takes_setuid_and_setgid_away(mounted, here, how):
    (here / "f").write_bytes(b"x" * 100)
    commit(mounted)
    os.chmod(here / "f", 0o6777)
    os.chmod(here, 0o777)

    def work():
        if how == "truncate":
            os.truncate("f", 10)
        elif how == "open":
            os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
        elif how == "write":
            os.pwrite(os.open("f", os.O_WRONLY), b"y", 0)
        else:
            with mmap.mmap(os.open("f", os.O_RDWR), 100) as mapped:
                mapped[0] = 1
                mapped.flush()
        return os.stat("f").st_mode & 0o7777

    shown = as_user(NOBODY, NOBODY, here, work)
    if how != "map":  # Linux keeps them where a map is written, also on ext4.
        assert oct(shown) == oct(0o777)
        assert oct(os.stat(here / "f").st_mode & 0o7777) == oct(0o777)


@needs_root
def test_setgid_folders_pass_their_group_on(here):
    os.chown(here, 0, 7)
    os.chmod(here, 0o2777)

    def work():
        os.mkdir("d")
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o2775))
        os.mkfifo("p")
        os.symlink("x", "l")
        return [(os.lstat(n).st_gid, oct(os.lstat(n).st_mode & 0o7000)) for n in "dfpl"]

    assert as_user(NOBODY, NOBODY, here, work) == [
        (7, "0o2000"), (7, "0o0"), (7, "0o0"), (7, "0o0")]  # fmt: skip
    os.chmod(here, 0o777)
    assert as_user(NOBODY, NOBODY, here, lambda: os.mkdir("e")) is None
    assert os.stat(here / "e").st_gid == NOBODY


@needs_root
def test_chmod_by_who_is_not_in_the_group_loses_setgid(here):
    (here / "f").touch()
    os.chown(here / "f", NOBODY, 7)

    def work():
        os.chmod("f", 0o2755)
        return os.stat("f").st_mode & 0o7777

    assert oct(as_user(NOBODY, NOBODY, here, work)) == "0o755"
    assert oct(as_user(NOBODY, 7, here, work)) == "0o2755"


@needs_root
def test_sticky_folders(here):
    os.chmod(here, 0o1777)
    (here / "roots").touch()
    os.chmod(here / "roots", 0o666)

    def work():
        found = []
        os.close(os.open("mine", os.O_CREAT | os.O_WRONLY))
        for call in (
            lambda: os.unlink("roots"), lambda: os.rename("roots", "x"),
            lambda: os.rename("mine", "roots"),
            lambda: os.unlink("mine"),
        ):  # fmt: skip
            try:
                call()
                found.append(0)
            except OSError as error:
                found.append(error.errno or 0)
        return found

    assert as_user(NOBODY, NOBODY, here, work) == [errno.EPERM] * 3 + [0]


@needs_root
def test_others_have_the_access_that_modes_give(mounted, here, base, head):
    (here / "secret").write_text("x")
    os.chmod(here / "secret", 0o600)
    (here / "group").write_text("x")
    os.chmod(here / "group", 0o660)
    os.chown(here / "group", 0, 7)
    (here / "closed").mkdir(mode=0o700)

    def answer(call):
        try:
            return call() and None
        except OSError as error:
            return error.errno

    def work():
        return [
            answer(lambda: os.open("secret", os.O_RDONLY)),
            answer(lambda: os.open("group", os.O_RDWR)),
            answer(lambda: os.listdir("closed")),
            answer(lambda: os.stat("closed/x")),
            answer(lambda: os.mkdir("d")),
            answer(lambda: os.unlink("secret")),
            answer(lambda: os.chmod("secret", 0o777)),
            answer(lambda: os.chown("secret", NOBODY, NOBODY)),
            answer(lambda: os.utime("secret")),
            answer(lambda: os.utime("secret", (1, 1))),
            answer(lambda: os.truncate("secret", 0)),
            answer(lambda: os.setxattr("secret", "user.x", b"")),
            answer(lambda: os.open("../base/file", os.O_WRONLY)),
            os.access("secret", os.R_OK), os.access("../base/file", os.R_OK),
            os.access("../base/exec", os.X_OK), os.access("../base/file", os.X_OK),
        ]  # fmt: skip

    denied, not_owner = errno.EACCES, errno.EPERM
    assert as_user(NOBODY, NOBODY, here, work) == [
        denied, denied, denied, denied, denied, denied, not_owner, not_owner, denied, not_owner,
        denied, denied, denied, False, True, True, False,
    ]  # fmt: skip
    assert as_user(NOBODY, 7, here, lambda: os.open("group", os.O_RDWR) > 0) is True
    os.chmod(here, 0o777)

    def make():
        os.mkdir("made")
        with open("made/f", "w") as opened:
            opened.write("mine")
        os.chmod("made/f", 0o600)
        return os.stat("made/f").st_uid

    assert as_user(NOBODY, NOBODY, here, make) == NOBODY
    assert (os.stat(here / "made/f").st_uid, os.stat(here / "made").st_gid) == (NOBODY, NOBODY)
    commit(mounted)
    assert os.stat(head / "here" / "made/f").st_uid == NOBODY


def test_programs_run(here):
    (here / "run").write_text("#!/bin/sh\necho it runs $1\n")
    assert error_of(subprocess.run, [here / "run"]) == errno.EACCES
    os.chmod(here / "run", 0o755)
    assert subprocess.check_output([here / "run", "well"]) == b"it runs well\n"
    shutil.copy2("/bin/true", here / "true")
    subprocess.run([here / "true"], check=True)


def test_extended_attributes(here, base):
    for path in (here / "f", here, base / "file", base / "sub"):
        if path.name == "f":
            path.touch()
        os.setxattr(path, "user.a", b"1")
        os.setxattr(path, "user.b", b"", os.XATTR_CREATE)
        assert error_of(os.setxattr, path, "user.a", b"2", os.XATTR_CREATE) == errno.EEXIST
        assert error_of(os.setxattr, path, "user.c", b"2", os.XATTR_REPLACE) == errno.ENODATA
        os.setxattr(path, "user.a", b"\0\xff" * 500, os.XATTR_REPLACE)
        assert sorted(os.listxattr(path)) == ["user.a", "user.b"]
        assert (os.getxattr(path, "user.a"), os.getxattr(path, "user.b")) == (b"\0\xff" * 500, b"")
        os.removexattr(path, "user.a")
        assert error_of(os.removexattr, path, "user.a") == errno.ENODATA
        assert error_of(os.getxattr, path, "user.a") == errno.ENODATA
        assert os.listxattr(path) == ["user.b"]
        os.removexattr(path, "user.b")
        assert os.listxattr(path) == []
    path = here / "f"
    assert error_of(os.setxattr, path, "user." + "x" * 251, b"") == errno.ERANGE
    assert error_of(os.setxattr, path, "nonsense.a", b"") == errno.EOPNOTSUPP
    assert error_of(os.setxattr, path, "user.", b"") == errno.EINVAL
    assert error_of(os.setxattr, path, "user.a", bytes(65537)) == errno.E2BIG
    os.setxattr(path, "user.a", bytes(60_000))
    assert error_of(os.setxattr, path, "user.b", bytes(60_000)) == errno.ENOSPC
    assert os.getxattr(path, "user.a") == bytes(60_000)
    assert error_of(os.setxattr, base / "link", "user.a", b"", 0, follow_symlinks=False) == (
        errno.EPERM)  # fmt: skip


def test_a_long_listing_asks_for_attributes_of_one_file(mounted, here):
    (here / "many").mkdir()
    for number in range(300):
        (here / "many" / str(number)).touch()
    subprocess.run(["ls", "-l", here / "many"], check=True, stdout=subprocess.DEVNULL)

    def asked():
        return mounted.statistics(mounted.mountpoints[0])["requests"].get("getxattr", 0)

    before = asked()
    subprocess.run(["ls", "-l", here / "many"], check=True, stdout=subprocess.DEVNULL)
    assert asked() - before <= 4
    os.setxattr(here / "many" / "7", "security.selinux", b"label")
    assert os.getxattr(here / "many" / "7", "security.selinux") == b"label"


def test_access_control_lists_are_refused(here):
    (here / "f").touch()
    entries = [(1, 6, 0), (2, 4, 1000), (4, 4, 0), (16, 4, 0), (32, 4, 0)]
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, mode, number if tag == 2 else 0xFFFFFFFF)
        for tag, mode, number in entries
    )
    name = "system.posix_acl_access"
    assert error_of(os.setxattr, here / "f", name, acl) == errno.EOPNOTSUPP
    assert error_of(os.removexattr, here / "f", name) == errno.EOPNOTSUPP
    subprocess.run(["cp", "-a", here / "f", here / "g"], check=True)


def test_extended_attributes_are_committed(mounted, here, head):
    (here / "f").touch()
    os.setxattr(here / "f", "user.colour", b"red")
    os.setxattr(here, "user.colour", b"blue")
    commit(mounted)
    head = head / "here"
    assert os.getxattr(head / "f", "user.colour") == b"red"
    assert os.getxattr(head, "user.colour") == b"blue"


def test_versions_tell_what_they_are_in_branch_folders_too(base):
    assert os.getxattr(base, "user.versionfs.ref").endswith(b":base")
    assert error_of(os.setxattr, base, "user.versionfs.ref", b"x") in (
        errno.EOPNOTSUPP, errno.EEXIST)  # fmt: skip
    assert os.listxattr(base) == []


def test_numbers_stay_across_commits(mounted, here, base):
    (here / "d").mkdir()
    (here / "d/f").write_text("1")
    os.symlink("f", here / "d/l")
    os.rename(base / "sub", here / "d/sub")
    (base / "sub2").mkdir()
    paths = [here, here / "d", here / "d/f", here / "d/l", here / "d/sub", here / "d/sub/one",
             base, base / "file", base / "sub2"]  # fmt: skip
    before = [os.lstat(path).st_ino for path in paths]
    with open(here / "d/f", "r+") as opened:
        commit(mounted)
        assert [os.lstat(path).st_ino for path in paths] == before
        opened.write("2")
        opened.flush()
        assert (here / "d/f").read_text() == "2"
        commit(mounted)
    assert [os.lstat(path).st_ino for path in paths] == before
    subprocess.run(["ls", "-lR", here], check=True, stdout=subprocess.DEVNULL)
    assert [os.lstat(path).st_ino for path in paths] == before


# -- locks ---------------------------------------------------------------------------------------

_LOCKER = """
import fcntl, os, struct, sys
f = os.open(sys.argv[1], os.O_RDWR)
try:
    if sys.argv[2] == "flock":
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif sys.argv[2] == "ofd":
        fcntl.fcntl(f, 37, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 60, 10, 0))
    else:
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, int(sys.argv[2]))
    print("got")
except BlockingIOError:
    print("busy")
"""


def _locked(path: Path, how: str) -> str:
    command = [sys.executable, "-S", "-c", _LOCKER, str(path), how]
    return subprocess.check_output(command, text=True).strip()


def test_flock_between_processes(base):
    with open(base / "file", "r+b") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        assert _locked(base / "file", "flock") == "busy"
        fcntl.flock(opened, fcntl.LOCK_SH)
        assert _locked(base / "file", "flock") == "busy"
        fcntl.flock(opened, fcntl.LOCK_UN)
        assert _locked(base / "file", "flock") == "got"
        fcntl.flock(opened, fcntl.LOCK_EX)
    assert _locked(base / "file", "flock") == "got"


def test_fcntl_locks_between_processes(mounted, base):
    with open(base / "file", "r+b") as opened:
        fcntl.lockf(opened, fcntl.LOCK_EX, 100, 50)
        assert _locked(base / "file", "60") == "busy"
        assert _locked(base / "file", "0") == "got"
        opened.write(b"changed")
        opened.flush()
        commit(mounted)
        assert _locked(base / "file", "60") == "busy"
        fcntl.lockf(opened, fcntl.LOCK_UN, 100, 50)
        assert _locked(base / "file", "60") == "got"


def _ofd_lock(descriptor: int, kind: int) -> None:
    """Locks bytes 50 to 150 for an open file description (``F_OFD_SETLK``)."""
    fcntl.fcntl(descriptor, 37, struct.pack("hhqqi", kind, os.SEEK_SET, 50, 100, 0))


def test_locks_of_open_file_descriptions(mounted, base):
    with open(base / "file", "r+b") as opened, open(base / "file", "r+b") as other:
        _ofd_lock(opened.fileno(), fcntl.F_WRLCK)
        for how in ("ofd", "60"):
            assert _locked(base / "file", how) == "busy"
        assert _locked(base / "file", "0") == "got"
        with pytest.raises(BlockingIOError):  # Of one process, too.
            _ofd_lock(other.fileno(), fcntl.F_RDLCK)
        open(base / "file", "rb").close()  # Which would end a lock of the process.
        opened.write(b"changed")
        opened.flush()
        commit(mounted)
        assert _locked(base / "file", "ofd") == "busy"
        _ofd_lock(opened.fileno(), fcntl.F_UNLCK)
        assert _locked(base / "file", "ofd") == "got"
        _ofd_lock(opened.fileno(), fcntl.F_WRLCK)
    assert _locked(base / "file", "ofd") == "got"


_OPENER = """
import errno, os, sys
try:
    os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)
    print("opened")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize(
    ("flags", "kind"), [(os.O_RDONLY, fcntl.F_RDLCK), (os.O_RDWR, fcntl.F_WRLCK)]
)
def test_leases(here, flags, kind):
    (here / "f").write_bytes(b"x")
    told: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, _: told.append(number))
    opened = os.open(here / "f", flags)
    command = [sys.executable, "-S", "-c", _OPENER, str(here / "f")]
    try:
        try:
            fcntl.fcntl(opened, fcntl.F_SETLEASE, kind)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            pytest.skip("this kernel grants no leases on FUSE")
        assert fcntl.fcntl(opened, fcntl.F_GETLEASE) == kind
        assert subprocess.check_output(command, text=True).strip() == "EAGAIN"
        assert told == [signal.SIGIO]
        fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        assert subprocess.check_output(command, text=True).strip() == "opened"
    finally:
        os.close(opened)
        signal.signal(signal.SIGIO, before)


def test_a_blocked_lock_is_granted_later(here):
    (here / "f").touch()
    code = (
        "import fcntl, sys; f = open(sys.argv[1], 'r+b'); print('ready', flush=True)\n"
        "fcntl.lockf(f, fcntl.LOCK_EX); print('got', flush=True)"
    )
    with open(here / "f", "r+b") as opened:
        fcntl.lockf(opened, fcntl.LOCK_EX)
        with subprocess.Popen(
            [sys.executable, "-c", code, here / "f"], stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"ready\n"
            (here / "g").touch()  # The mount serves others meanwhile.
            fcntl.lockf(opened, fcntl.LOCK_UN)
            assert other.stdout.readline() == b"got\n"


# -- the rest ------------------------------------------------------------------------------------


def test_statfs(mounted, here):
    found = os.statvfs(here)
    disk = os.statvfs(mounted.settings.state_dir)
    assert found.f_bavail * found.f_frsize == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.1)
    assert found.f_namemax == 255
    assert found.f_ffree > 0


def test_blocks_follow_what_is_written(here):
    (here / "f").write_bytes(bytes(100_000))
    os.sync()
    assert 100_000 <= os.stat(here / "f").st_blocks * 512 <= 120_000
    assert subprocess.check_output(["du", "-sb", here / "f"]).split()[0] == b"100000"


def test_snapshots_refuse_every_change(main, head):
    head = head / "base"
    for call in (
        lambda: os.open(head / "file", os.O_WRONLY), lambda: os.open(head / "file", os.O_RDWR),
        lambda: os.open(head / "new", os.O_CREAT | os.O_WRONLY), lambda: os.mkdir(head / "d"),
        lambda: os.open(head / "file", os.O_RDONLY | os.O_TRUNC),
        lambda: os.unlink(head / "file"), lambda: os.rmdir(head / "empty"),
        lambda: os.rename(head / "file", head / "x"), lambda: os.link(head / "file", head / "x"),
        lambda: os.symlink("x", head / "x"), lambda: os.mkfifo(head / "x"),
        lambda: os.chmod(head / "file", 0), lambda: os.chown(head / "file", 1, 1),
        lambda: os.utime(head / "file"), lambda: os.truncate(head / "file", 0),
        lambda: os.setxattr(head / "file", "user.x", b""),
        lambda: os.mkdir(main.parent / "new"), lambda: os.rmdir(main.parent / "other"),
        lambda: os.mkdir(main.parent.parent / "new"), lambda: os.chmod(main.parent, 0o777),
        lambda: os.symlink("x", main.parent / ".log" / "main" / "x"),
    ):  # fmt: skip
        assert error_of(call) == errno.EROFS
    assert error_of(os.removexattr, head / "file", "user.x") in (errno.EROFS, errno.ENODATA)
    assert (head / "file").read_bytes() == b"0123456789" * 1000


def test_fsync_of_everything(here, base):
    with open(here / "f", "w") as opened:
        opened.write("x")
        opened.flush()
        os.fsync(opened.fileno())
        os.fdatasync(opened.fileno())
    for path in (here, base, base / "file"):
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        os.close(number)
    os.sync()


FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE = 1, 2


def test_what_the_kernel_answers_for_what_has_no_handler(here, base):
    """These are documented in docs/posix.md; programs fall back."""
    (here / "f").write_bytes(b"x" * 10_000)
    with open(here / "f", "r+b", buffering=0) as opened:
        number = opened.fileno()
        # fallocate(2) is refused; posix_fallocate(3) of the C library then writes zeros.
        assert _libc.fallocate(number, 0, ctypes.c_long(0), ctypes.c_long(20_000)) == -1
        assert ctypes.get_errno() == errno.EOPNOTSUPP
        os.posix_fallocate(number, 0, 20_000)
        assert os.fstat(number).st_size == 20_000
        assert os.pread(number, 10, 0) == b"x" * 10
        # One extent of data, one hole at the end, as every file system may say.
        assert os.lseek(number, 0, os.SEEK_DATA) == 0
        assert os.lseek(number, 0, os.SEEK_HOLE) == 20_000
        # Copied by the kernel, through the page cache.
        with open(here / "g", "w+b", buffering=0) as copy:
            assert os.copy_file_range(number, copy.fileno(), 5000, 100) == 5000
        assert (here / "g").read_bytes() == b"x" * 5000
        # FS_IOC_GETFLAGS, as lsattr does.
        assert error_of(fcntl.ioctl, number, 0x80086601, bytes(8)) == errno.ENOTTY
    assert error_of(os.open, here, os.O_TMPFILE | os.O_RDWR) == errno.EOPNOTSUPP
    subprocess.run(["cp", "--reflink=auto", "--sparse=auto", here / "f", here / "h"], check=True)
    assert (here / "h").read_bytes() == (here / "f").read_bytes()
    assert subprocess.run(
        ["cp", "--reflink=always", here / "f", here / "i"], check=False, capture_output=True
    ).returncode != 0  # fmt: skip


def test_dot_and_dot_dot(main, here):
    assert os.stat(here / ".").st_ino == os.stat(here).st_ino
    assert os.stat(f"{here}/..").st_ino == os.stat(main).st_ino
    listing = _libc.opendir(os.fsencode(here))
    found = {}
    while entry := _libc.readdir(listing):
        found[bytes(entry.contents.d_name)] = entry.contents.d_ino
    _libc.closedir(listing)
    assert found == {b".": os.stat(here).st_ino, b"..": os.stat(main).st_ino}


# -- full disks ----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Mounted]:
    """A mount whose state is on a disk of 24 MiB."""
    world = Mounted(tmp_path)
    state = world.settings.state_dir
    state.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", state], check=True)
    try:
        world.commit({b"kept": b"kept", b"other": b"o" * 50_000})
        world.mount()
        yield world
        log = world.log(world.mountpoints[0])
        assert "Traceback" not in log, log
    finally:
        world.close()
        subprocess.run(["umount", "-l", state], check=True)


def fill(path: Path, step: int = 100_000) -> tuple[bytes, int]:
    """Writes until it is refused; returns what was written, and the errno."""
    rng, written = random.Random(1), b""
    with open(path, "wb", buffering=0) as opened:
        while True:
            data = rng.randbytes(step)
            try:
                written += data[: opened.write(data)]
            except OSError as error:
                return written, error.errno or 0


def after_forgets(folder: Path) -> None:
    """Returns when the space of removed files is free: Linux tells so before 16 other requests."""
    for number in range(32):
        assert not (folder / f"none{number}").exists()


@needs_root
def test_a_full_disk_is_a_clean_error(small_disk):
    main = small_disk.mountpoints[0] / "photos" / "main"
    (main / "before").write_bytes(b"before" * 1000)
    written, number = fill(main / "big")
    assert number == errno.ENOSPC
    assert len(written) > 10_000_000
    assert (main / "big").read_bytes() == written
    assert (main / "before").read_bytes() == b"before" * 1000
    assert (main / "kept").read_bytes() == b"kept"
    assert os.statvfs(main).f_bavail * os.statvfs(main).f_frsize < 1_000_000
    # A file of the base that cannot be changed stays what it was.
    with (
        open(main / "other", "r+b", buffering=0) as opened,
        pytest.raises(OSError, match="No space"),
    ):
        opened.writelines(b"x" * 10_000 for _ in range(5000))
    # Names are small, but many: refused at some time, and what there was is there still.
    made = 0
    try:
        while True:
            (main / f"name{made:06}-{'x' * 200}").touch()
            made += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017
    assert len([name for name in os.listdir(main) if name.startswith("name")]) == made
    # Removing works on a full disk, and gives the space back.
    for count in range(100):
        os.unlink(main / f"name{count:06}-{'x' * 200}")
    os.unlink(main / "big")
    after_forgets(main)
    (main / "after").write_bytes(b"after" * 100_000)
    assert (main / "after").read_bytes() == b"after" * 100_000
    small_disk.branch = "main"
    commit(small_disk)
    head = small_disk.mountpoints[0] / "photos" / "main@head"
    for name in ("before", "after", "kept", "other"):
        assert (head / name).read_bytes() == (main / name).read_bytes()
    assert sorted(os.listdir(head)) == sorted(os.listdir(main))


@needs_root
def test_a_full_disk_and_a_killed_daemon(small_disk):
    main = small_disk.mountpoints[0] / "photos" / "main"
    written, _ = fill(main / "big")
    os.rename(main / "kept", main / "moved")
    small_disk.kill(small_disk.mountpoints[0])
    fuse.unmount(small_disk.settings, small_disk.mountpoints[0])
    small_disk.mount()
    assert (main / "big").read_bytes() == written
    assert (main / "moved").read_bytes() == b"kept"
    os.unlink(main / "big")
    after_forgets(main)
    (main / "new").write_bytes(bytes(1_000_000))


@needs_root
def test_truncating_and_committing_free_a_full_disk(small_disk):
    main = small_disk.mountpoints[0] / "photos" / "main"
    written, _ = fill(main / "big")
    small_disk.branch = "main"
    commit(small_disk)
    (main / "more").write_bytes(bytes(5_000_000))
    assert (main / "big").read_bytes() == written
    fill(main / "big2")
    os.truncate(main / "big2", 1000)
    (main / "more2").write_bytes(bytes(5_000_000))


def test_a_quota_is_a_clean_error(tmp_path):
    world = Mounted(tmp_path)
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text('workspace_bytes = "4MiB"\n')
    world.settings = settings_at(tmp_path / "home")
    try:
        world.commit({b"large": random.Random(2).randbytes(60_000)})
        main = world.mount() / "photos" / "main"
        written, number = fill(main / "big")
        assert number == errno.EDQUOT
        assert 3_500_000 < len(written) <= 4 << 20
        assert (main / "big").read_bytes() == written
        with open(main / "big", "r+b", buffering=0) as opened:
            opened.write(b"over what there is")  # takes no more of the disk
            opened.truncate(1 << 30)
            opened.truncate(2_000_000)
        (main / "two").write_bytes(bytes(1_500_000))
        assert error_of((main / "three").write_bytes, bytes(1_500_000)) == errno.EDQUOT
        with open(main / "large", "r+b", buffering=0) as opened:
            opened.write(b"x")
        commit(world)
        (main / "four").write_bytes(bytes(3_500_000))
        fuse.unmount(world.settings, world.mountpoints[0])
        world.mount()
        assert error_of((main / "five").write_bytes, bytes(1_500_000)) == errno.EDQUOT
        os.unlink(main / "four")
        after_forgets(main)
        (main / "five").write_bytes(bytes(3_500_000))
        assert "Traceback" not in world.log(world.mountpoints[0])
    finally:
        world.close()
