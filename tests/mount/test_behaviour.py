"""How a mount answers: errors, inodes, caches, attributes, damage."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import random
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.mount.support import T0, file, folder, link
from versionfs.transfer import import_source


def requests(world, data, kind):
    return world.statistics(data)["requests"].get(kind, 0)


def errno_of(call, *arguments):
    with pytest.raises(OSError, match="Errno") as caught:
        call(*arguments)
    return caught.value.errno


def test_writing_is_refused_everywhere(photos):
    data = photos.mount(read_only=True)
    main = data / "photos" / "main"
    calls = [
        (os.mkdir, main / "d"),
        (os.mkdir, data / "d"),
        (os.mkdir, data / "photos" / "new-branch"),
        (os.unlink, main / "a.txt"),
        (os.rmdir, main / "sub"),
        (os.rename, main / "a.txt", main / "b"),
        (os.link, main / "a.txt", main / "b"),
        (os.symlink, "x", main / "b"),
        (os.chmod, main / "a.txt", 0o600),
        (os.chown, main / "a.txt", 1, 1),
        (os.utime, main / "a.txt"),
        (os.truncate, main / "a.txt", 0),
        (os.mkfifo, main / "fifo"),
        (os.open, main / "a.txt", os.O_WRONLY),
        (os.open, main / "a.txt", os.O_RDWR),
        (os.open, main / "a.txt", os.O_RDONLY | os.O_TRUNC),
        (os.open, main / "new", os.O_WRONLY | os.O_CREAT),
        (os.setxattr, main / "a.txt", "user.x", b"1"),
        (os.removexattr, main / "a.txt", "user.x"),
    ]
    for call, *arguments in calls:
        assert errno_of(call, *arguments) == errno.EROFS, (call, arguments)
    assert not os.access(main / "a.txt", os.W_OK)
    assert (main / "a.txt").read_text() == "three\n"


def test_odd_requests_do_not_end_the_daemon(photos):
    data = photos.mount()
    main = data / "photos" / "main"
    opened = os.open(main / "a.txt", os.O_RDONLY)
    opened_folder = os.open(main, os.O_RDONLY)
    unix = socket.socket(socket.AF_UNIX)
    attempts = [
        lambda: os.listdir(main / "a.txt"),
        lambda: os.readlink(main / "a.txt"),
        lambda: os.open(main, os.O_RDONLY | os.O_DIRECTORY | os.O_TRUNC),
        lambda: os.getxattr(main, "user." + "x" * 250),
        lambda: os.getxattr(main, "trusted.x"),
        lambda: os.getxattr(main, "system.posix_acl_access"),
        lambda: os.listxattr(main / "sub"),
        lambda: os.setxattr(data, "fuse_stacktrace", b""),
        lambda: os.statvfs(main / "a.txt"),
        lambda: os.pathconf(main, "PC_NAME_MAX"),
        lambda: os.mknod(main / "x", 0o600),
        lambda: unix.bind(str(main / "s")),
        lambda: os.fsync(opened),
        lambda: os.fsync(opened_folder),
        lambda: os.posix_fallocate(opened, 0, 10),
        lambda: os.pread(opened, 10, 1 << 62),
        lambda: os.lseek(opened, 0, os.SEEK_HOLE),
        lambda: os.stat(data / ("photos/main@" + "~" * 200)),
        lambda: os.stat(data / "photos/main@~999999999999999999999"),
        lambda: os.stat(data / "photos/.log/main/999999999999999999999-x"),
        lambda: os.stat(data / "photos/main@9999-12-31"),
        lambda: os.stat(data / "photos/main@0000-00-00T99:99"),
    ]
    for attempt in attempts:
        with contextlib.suppress(OSError):
            attempt()
    os.close(opened)
    os.close(opened_folder)
    unix.close()
    assert (main / "a.txt").read_text() == "three\n"
    assert "Traceback" not in photos.log(data)
    assert "unexpected" not in photos.log(data)


def test_the_same_file_is_one_inode_in_all_snapshots(photos):
    data = photos.mount(read_only=True) / "photos"
    assert (data / "main/same").stat().st_ino == (data / "@v1.0/same").stat().st_ino
    assert (data / "main/a.txt").stat().st_ino != (data / "@v1.0/a.txt").stat().st_ino
    assert (data / "main/sub").stat().st_ino != (data / "@v1.0/sub").stat().st_ino


def test_pages_are_shared_between_snapshots(world):
    content = random.Random(1).randbytes(300_000)
    # Made of one chunk at most: the helper writes only such files.
    world.commit({b"f": content})
    world.commit({b"g": b"1"})
    data = world.mount(read_only=True)
    assert (data / "photos/main@~1/f").read_bytes() == content
    before = requests(world, data, "read")
    assert before > 0
    assert (data / "photos/main/f").read_bytes() == content
    assert requests(world, data, "read") == before


def test_what_is_not_there_is_asked_for_once(photos):
    data = photos.mount()
    for _ in range(50):
        assert not (data / "photos/main/nope").exists()
    assert requests(photos, data, "lookup") < 10
    photos.commit({b"nope": b"now"})
    assert (data / "photos/main/nope").read_text() == "now"


def test_what_is_there_is_asked_for_once(photos):
    data = photos.mount()
    os.listdir(data / "photos/main")
    before = requests(photos, data, "lookup")
    for _ in range(50):
        os.stat(data / "photos/main/a.txt")
        os.stat(data / "photos/main/sub")
    assert requests(photos, data, "lookup") <= before + 2
    assert requests(photos, data, "getattr") < 5


def test_attributes(world):
    world.commit({
        b"f": file(b"12345", mode=0o640, mtime_ns=T0 + 123_456_789, uid=12, gid=13),
        b"l": link(b"f", mtime_ns=T0 + 5),
        b"d": folder(mode=0o750, mtime_ns=T0 + 7),
    })  # fmt: skip
    main = world.mount() / "photos" / "main"
    found = (main / "f").stat()
    assert (found.st_mode & 0o7777, found.st_size, found.st_blocks) == (0o640, 5, 1)
    assert found.st_mtime_ns == T0 + 123_456_789
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (12, 13)
    assert os.readlink(main / "l") == "f"
    assert (main / "l").lstat().st_size == 1
    assert (main / "d").stat().st_mtime_ns == T0 + 7
    assert (main / "d").stat().st_nlink == 1


def test_df_and_du_tell_the_truth(photos):
    data = photos.mount(read_only=True)
    shown, disk = os.statvfs(data), os.statvfs(photos.settings.store)
    assert shown.f_blocks * shown.f_frsize == disk.f_blocks * disk.f_frsize
    assert abs(shown.f_bavail - disk.f_bavail) * shown.f_frsize < 1 << 30
    assert shown.f_files == 4
    assert shown.f_namemax == 255
    sizes = subprocess.check_output(["du", "-sb", data / "photos/main"], text=True).split()
    assert int(sizes[0]) == sum(len(c) for c in (b"three\n", b"\0\1\2", b"same\n", b"new\n"))
    blocks = subprocess.check_output(["du", "-s", "-B512", data / "photos/main"], text=True)
    assert int(blocks.split()[0]) == 4
    assert b"versionfs" in subprocess.check_output(["df", data])


def test_extended_attributes(world):
    made = world.commit({b"d/f": file(b"1234", xattrs=((b"user.colour", b"red"),))})
    data = world.mount()
    main = data / "photos" / "main"
    assert os.listxattr(main / "d/f") == ["user.colour"]
    assert os.getxattr(main / "d/f", "user.colour") == b"red"
    assert os.listxattr(main / "d") == []
    for name, value in (
        ("ref", b"photos/main:d"),
        ("commit", made.id.hex().encode()),
        ("rfiles", b"1"),
        ("rbytes", b"4"),
        ("store", world.settings.store.encode()),
    ):
        assert os.getxattr(main / "d", f"user.versionfs.{name}") == value
    assert os.getxattr(main, "user.versionfs.id") == made.root.content.hex().encode()
    assert len(os.getxattr(main / "d/f", "user.versionfs.id")) == 64
    assert errno_of(os.getxattr, main / "d/f", "user.nope") == errno.ENODATA
    head = data / "photos" / "main@head"
    assert errno_of(os.getxattr, head / "d/f", "security.x") == errno.EOPNOTSUPP


def test_reading_at_every_offset(world):
    content = random.Random(2).randbytes(100_000)
    world.commit({b"f": content, b"empty": b""})
    main = world.mount() / "photos" / "main"
    assert (main / "empty").read_bytes() == b""
    rng = random.Random(3)
    with open(main / "f", "rb", buffering=0) as opened:
        for _ in range(200):
            offset, size = rng.randrange(110_000), rng.randrange(1, 30_000)
            assert os.pread(opened.fileno(), size, offset) == content[offset : offset + size]
    with (
        open(main / "f", "rb") as file_of_map,
        mmap.mmap(file_of_map.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert mapped[50_000:50_100] == content[50_000:50_100]
        assert hashlib.sha256(mapped).digest() == hashlib.sha256(content).digest()


def test_many_readers_at_once(world):
    rng = random.Random(4)
    files = {b"d%d/f%d" % (n % 5, n): rng.randbytes(rng.randrange(40_000)) for n in range(200)}
    world.commit(files)
    main = os.fsencode(world.mount()) + b"/photos/main/"

    def read(seed):
        paths = list(files)
        random.Random(seed).shuffle(paths)
        for path in paths:
            with open(main + path, "rb") as opened:
                assert opened.read() == files[path]
            os.listdir(os.path.dirname(main + path))
        return True

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(read, range(24)))


def test_a_large_directory_lists_whole(world):
    names = {b"%06d" % n for n in range(20_000)}
    world.commit(dict.fromkeys(names, b""))
    main = os.fsencode(world.mount()) + b"/photos/main"
    assert set(os.listdir(main)) == names
    found = list(os.scandir(main))
    assert len(found) == 20_000
    assert {entry.stat().st_size for entry in found} == {0}


def test_damage_is_an_error_and_never_bytes(world):
    world.commit({b"good": b"good", b"other": random.Random(5).randbytes(70_000)})
    packs = {path: path.read_bytes() for path in (world.folder / "home/store/packs").rglob("*")
             if path.is_file()}  # fmt: skip
    world.commit({b"bad": random.Random(6).randbytes(70_000)})
    main = world.mount() / "photos" / "main"
    assert (main / "good").read_bytes() == b"good"
    new = [p for p in (world.folder / "home/store/packs").rglob("*")
           if p.is_file() and p not in packs and p.stat().st_size > 70_000]  # fmt: skip
    (pack,) = new
    damaged = bytearray(pack.read_bytes())
    damaged[30_000] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(damaged)
    assert errno_of((main / "bad").read_bytes) == errno.EIO
    assert pack.name in world.log(world.mountpoints[0])
    pack.write_bytes(damaged[:20_000])
    assert errno_of((main / "bad").read_bytes) == errno.EIO
    pack.unlink()
    assert errno_of((main / "bad").read_bytes) == errno.EIO
    assert (main / "good").read_bytes() == b"good"
    assert (main / "other").read_bytes() == random.Random(5).randbytes(70_000)
    assert "Traceback" not in world.log(world.mountpoints[0])


def test_an_idle_mount_uses_no_processor(photos):
    data = photos.mount()
    record = photos.record(data)

    def ticks():
        with open(f"/proc/{record.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    os.listdir(data / "photos/main")
    before = ticks()
    threading.Event().wait(2.0)
    assert ticks() - before < 10


def test_reading_takes_no_new_memory_from_the_kernel_again_and_again(photos, tmp_path):
    mib = 1024 * 1024
    (tmp_path / "source").mkdir()
    data = random.Random(3).randbytes(16 * mib) + random.Random(4).randbytes(8 * mib).hex().encode()
    (tmp_path / "source" / "large").write_bytes(data)
    import_source(
        photos.store, "photos", "main", b"", tmp_path / "source", message="m", author="ada"
    )
    data_at = photos.mount()
    record = photos.record(data_at)

    def faults():
        with open(f"/proc/{record.pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[7])

    for _ in range(3):
        with open(data_at / "photos/main@head/large", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before = faults()
            assert file.read() == data
    # Each MiB has 256 pages; they were the daemon's before.
    assert faults() - before < 32 * 20
