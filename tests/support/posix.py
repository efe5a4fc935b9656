"""Two folders that are worked on alike: random operations, their results, and what is in the trees.

An operation is chosen by looking at one folder, then carried out in both, so both see the same
system calls. A log of what was carried out can be played again (``Pair.play``).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import mmap
import os
import random
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SECOND = 1_000_000_000
RECENT_NS = 1_700_000_000 * SECOND
"""Times before this were set explicitly; all others are shown as "now"."""

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
AT_FDCWD = -100
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2

_libc = ctypes.CDLL(None, use_errno=True)

Step = tuple[Any, ...]
"""The name of a method of ``Side``, and its arguments."""


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    """Renames as the system call does."""
    _check(_libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags))


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def utimensat(path: bytes, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0) -> None:
    """Sets times as the system call does: UTIME_NOW and UTIME_OMIT as nanoseconds."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    _check(_libc.utimensat(AT_FDCWD, path, times, flags))


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32), ("blksize", ctypes.c_uint32), ("attributes", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32), ("uid", ctypes.c_uint32), ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16), ("_", ctypes.c_uint16), ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64), ("blocks", ctypes.c_uint64), ("mask2", ctypes.c_uint64),
        ("times", ctypes.c_int64 * 8), ("rdev_major", ctypes.c_uint32),
        ("rdev_minor", ctypes.c_uint32), ("rest", ctypes.c_uint64 * 15),
    )  # fmt: skip


class FreshStat(NamedTuple):
    """What the file system says now, whatever the kernel remembers."""

    st_mode: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_mtime_ns: int
    st_rdev: int


def fresh_stat(path: bytes) -> FreshStat:
    """Returns the attributes of a path, asked for anew (AT_STATX_FORCE_SYNC)."""
    found = _Statx()
    _check(_libc.statx(AT_FDCWD, path, 0x100 | 0x2000, 0x7FF, ctypes.byref(found)))
    mtime_ns = found.times[6] * SECOND + (found.times[7] & 0xFFFFFFFF)
    rdev = os.makedev(found.rdev_major, found.rdev_minor)
    return FreshStat(
        found.mode, found.nlink, found.uid, found.gid, found.size, mtime_ns, rdev
    )  # fmt: skip


def shown_time(time_ns: int) -> int | str:
    return time_ns if time_ns < RECENT_NS else "now"


def shown_stat(found: os.stat_result | FreshStat) -> tuple[Any, ...]:
    """What two folders must agree on. A directory's size and links are each file system's own."""
    kind = stat.S_IFMT(found.st_mode)
    owners = (found.st_uid, found.st_gid) if os.geteuid() == 0 else ()
    # Of a fifo the kernel itself keeps the times, and not on FUSE.
    time = "fifo" if kind == stat.S_IFIFO else shown_time(found.st_mtime_ns)
    common = (kind, oct(stat.S_IMODE(found.st_mode)), *owners, time)
    if kind == stat.S_IFDIR:
        return common
    return (*common, found.st_nlink, found.st_size, found.st_rdev)


def random_bytes(seed: int, size: int) -> bytes:
    """Half of them compress, so that a mistake by a page is seen in any."""
    rng = random.Random(seed)
    if seed % 5 == 0:
        return bytes(size)
    return rng.randbytes(size)


class Side:
    """One of the folders. Paths are relative; slots are file descriptors kept open."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)
        self.slots: dict[int, int] = {}

    def _at(self, path: bytes) -> bytes:
        return self.root + b"/" + path if path else self.root

    def close_all(self) -> None:
        for descriptor in self.slots.values():
            os.close(descriptor)
        self.slots.clear()

    def run(self, step: Step) -> tuple[str, Any]:
        """Returns ("ok", what it returned) or ("error", the name of the errno)."""
        name, *arguments = step
        try:
            return "ok", getattr(self, name)(*arguments)
        except OSError as error:
            return "error", errno.errorcode.get(error.errno or 0, str(error))

    # -- handles ---------------------------------------------------------------------------------

    def open(self, slot: int, path: bytes, flags: int, mode: int) -> None:
        made = os.open(self._at(path), flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
        if slot in self.slots:
            os.close(self.slots[slot])
        self.slots[slot] = made

    def _fd(self, slot: int) -> int:
        if slot not in self.slots:
            raise OSError(errno.EBADF, "no such slot")
        return self.slots[slot]

    def close(self, slot: int) -> None:
        os.close(self._fd(slot))
        del self.slots[slot]

    def pread(self, slot: int, size: int, offset: int) -> str:
        data = os.pread(self._fd(slot), size, offset)
        return f"{len(data)} {hashlib.md5(data).hexdigest()}"

    def pwrite(self, slot: int, offset: int, seed: int, size: int) -> int:
        return os.pwrite(self._fd(slot), random_bytes(seed, size), offset)

    def write(self, slot: int, seed: int, size: int) -> tuple[int, int]:
        descriptor = self._fd(slot)
        return os.write(descriptor, random_bytes(seed, size)), os.lseek(descriptor, 0, os.SEEK_CUR)

    def seek_end(self, slot: int) -> int | None:
        descriptor = self._fd(slot)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return None
        return os.lseek(descriptor, 0, os.SEEK_END)

    def ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self._fd(slot), size)

    def fstat(self, slot: int) -> tuple[Any, ...]:
        return shown_stat(os.fstat(self._fd(slot)))

    def fsync(self, slot: int) -> None:
        os.fsync(self._fd(slot))

    def fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self._fd(slot), mode)

    def futimes(self, slot: int, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self._fd(slot), ns=(atime_ns, mtime_ns))

    def fsetxattr(self, slot: int, name: bytes, value: bytes, flags: int) -> None:
        os.setxattr(self._fd(slot), name, value, flags)

    def fgetxattr(self, slot: int, name: bytes) -> bytes:
        return os.getxattr(self._fd(slot), name)

    def flink(self, slot: int, path: bytes) -> None:
        """Gives an open file a name, if it has one still."""
        source = b"/proc/self/fd/%d" % self._fd(slot)
        _check(_libc.linkat(AT_FDCWD, source, AT_FDCWD, self._at(path), 0x400))

    def copy_range(self, slot: int, other: int, size: int, start: int, offset: int) -> int:
        return os.copy_file_range(self._fd(slot), self._fd(other), size, start, offset)

    def map_write(self, slot: int, offset: int, seed: int, size: int) -> int:
        """Writes through a shared map, within the file."""
        descriptor = self._fd(slot)
        found = os.fstat(descriptor)
        length = found.st_size
        if not length or not stat.S_ISREG(found.st_mode):
            return 0
        with mmap.mmap(descriptor, length) as mapped:
            start = offset % length
            data = random_bytes(seed, min(size, length - start))
            mapped[start : start + len(data)] = data
            mapped.flush()
            return len(data)

    # -- files -----------------------------------------------------------------------------------

    def read(self, path: bytes) -> str:
        descriptor = os.open(self._at(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                data = file.read() or b""
            return f"{len(data)} {hashlib.md5(data).hexdigest()}"
        finally:
            os.close(descriptor)

    def put(self, path: bytes, seed: int, size: int, mode: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._at(path), flags, mode)
        try:
            os.write(descriptor, random_bytes(seed, size))
        finally:
            os.close(descriptor)

    def append(self, path: bytes, seed: int, size: int) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self._at(path), flags)
        try:
            os.write(descriptor, random_bytes(seed, size))
        finally:
            os.close(descriptor)

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self._at(path), size)

    def mknod(self, path: bytes, mode: int, device: int) -> None:
        os.mknod(self._at(path), mode, device)

    # -- names -----------------------------------------------------------------------------------

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self._at(path))

    def unlink(self, path: bytes) -> None:
        os.unlink(self._at(path))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        renameat2(self._at(old), self._at(new), flags)

    def link(self, old: bytes, new: bytes) -> None:
        os.link(self._at(old), self._at(new), follow_symlinks=False)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self._at(path))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self._at(path))

    def listdir(self, path: bytes) -> list[tuple[bytes, bool, bool, bool]]:
        with os.scandir(self._at(path)) as found:
            return sorted(
                (
                    entry.name,
                    entry.is_symlink(),
                    entry.is_dir(follow_symlinks=False),
                    entry.is_file(follow_symlinks=False),
                )
                for entry in found
            )

    # -- attributes ------------------------------------------------------------------------------

    def stat(self, path: bytes) -> tuple[Any, ...]:
        return shown_stat(os.stat(self._at(path)))

    def lstat(self, path: bytes) -> tuple[Any, ...]:
        return shown_stat(os.lstat(self._at(path)))

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self._at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        os.lchown(self._at(path), uid, gid)

    def utimes(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self._at(path), ns=(atime_ns, mtime_ns), follow_symlinks=False)

    def setxattr(self, path: bytes, name: bytes, value: bytes, flags: int) -> None:
        os.setxattr(self._at(path), name, value, flags, follow_symlinks=False)

    def getxattr(self, path: bytes, name: bytes) -> bytes:
        return os.getxattr(self._at(path), name, follow_symlinks=False)

    def listxattr(self, path: bytes) -> list[str]:
        return sorted(os.listxattr(self._at(path), follow_symlinks=False))

    def removexattr(self, path: bytes, name: bytes) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=False)


Tree = dict[bytes, tuple[Any, ...]]


def tree_of(root: bytes, *, fresh: bool = True) -> Tree:
    """Returns everything below a folder, and itself as ``b""``.

    ``fresh`` takes all from the file system itself, contents too; else attributes are what the
    kernel remembers, and contents are left out.
    """
    found: Tree = {}
    work = [b""]
    while work:
        path = work.pop()
        full = root + b"/" + path if path else root
        info = fresh_stat(full) if fresh else os.lstat(full)
        kind = stat.S_IFMT(info.st_mode)
        more: list[Any] = []
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            more.append(sorted((name, os.getxattr(full, name)) for name in os.listxattr(full)))
        if kind == stat.S_IFREG and fresh:
            with open(full, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                more.append(hashlib.file_digest(file, "md5").hexdigest())
        elif kind == stat.S_IFLNK:
            more.append(os.readlink(full))
        elif kind == stat.S_IFDIR:
            work += [path + b"/" + name if path else name for name in os.listdir(full)]
        found[path] = (*shown_stat(info), *more)
    return found


def as_committed(tree: Tree) -> Tree:
    """Returns how a tree looks in a commit: links are files of their own, special files gone."""
    kinds = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
    links_at = 5 if os.geteuid() == 0 else 3
    return {
        path: values
        if values[0] == stat.S_IFDIR
        else (*values[:links_at], 1, *values[links_at + 1 :])
        for path, values in tree.items()
        if values[0] in kinds
    }


def without_times(tree: Tree) -> Tree:
    """Leaves out what alone makes no commit: times and owners."""
    times_at = 4 if os.geteuid() == 0 else 2
    return {path: (*values[:2], *values[times_at + 1 :]) for path, values in tree.items()}


def difference(one: Tree, two: Tree) -> list[str]:
    """Returns lines that tell where two trees differ, at most twenty."""
    paths = sorted(path for path in one.keys() | two.keys() if one.get(path) != two.get(path))
    return [f"{path!r}:\n   {one.get(path)}\n   {two.get(path)}" for path in paths[:20]]


class DifferenceError(AssertionError):
    """The two folders do not agree. ``steps`` can be played again."""

    def __init__(self, what: str, steps: Sequence[Step]) -> None:
        self.what = what
        self.steps = list(steps)
        lines = "".join(f"    {step!r},\n" for step in self.steps)
        super().__init__(f"{what}\nsteps = [\n{lines}]")


class Pair:
    """A folder under test and one to compare with, and what was done in both."""

    def __init__(self, tested: Side, plain: Side) -> None:
        self.tested = tested
        self.plain = plain
        self.log: list[Step] = []
        self.controls: dict[str, Callable[[], None]] = {}
        """What else can be done between two operations, by name."""

    def step(self, step: Step) -> tuple[str, Any]:
        """Carries out one operation in both folders.

        Raises:
            DifferenceError: the results do.
        """
        self.log.append(step)
        control = self.controls.get(step[0])
        if control is not None:
            control()
            return "ok", None
        expected = self.plain.run(step)
        found = self.tested.run(step)
        if found != expected:
            raise DifferenceError(f"{step}: {found}, but elsewhere {expected}", self.log)
        return expected

    def play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.step(step)
        self.compare()

    def compare(self) -> None:
        """Raises ``DifferenceError`` unless the trees are the same, and the open files too."""
        for fresh in (False, True):
            found = tree_of(self.tested.root, fresh=fresh)
            expected = tree_of(self.plain.root, fresh=fresh)
            self.compare_trees(found, expected, f"the trees{' asked anew' if fresh else ''}")
        for slot in sorted(self.plain.slots):
            here, there = self.tested.run(("fstat", slot)), self.plain.run(("fstat", slot))
            if here != there:
                raise DifferenceError(f"open file {slot}: {here}, elsewhere {there}", self.log)

    def compare_trees(self, found: Tree, expected: Tree, what: str = "the trees") -> None:
        lines = difference(found, expected)
        if lines:
            raise DifferenceError(f"{what} differ:\n" + "\n".join(lines), self.log)

    def close_all(self) -> None:
        self.tested.close_all()
        self.plain.close_all()


# -- choosing ------------------------------------------------------------------------------------

NAMES = (b"a", b"b", b"c", b"d1", b"d2", b"x" * 255, "ü ñ".encode(), b"\xff\n")
XATTRS = (b"user.a", b"user.b", b"user.long" + b"x" * 200)
TIMES = (0, 1, 123_456_789, 1_000_000_000_000_000_001, 1_600_000_000 * SECOND, 5 * SECOND, -SECOND)
SIZES = (0, 1, 10, 4095, 4096, 4097, 10_000, 70_000, 300_000)
LARGE = 6_000_000
WEIGHTS = {
    "open": 14, "close": 4, "pread": 6, "pwrite": 14, "write": 5, "ftruncate": 4, "fstat": 3,
    "seek_end": 1, "fsync": 2, "fchmod": 1, "futimes": 2, "fsetxattr": 1, "fgetxattr": 1,
    "flink": 1, "copy_range": 2, "map_write": 5, "read": 5, "put": 10, "append": 6, "truncate": 6,
    "mknod": 2, "mkdir": 5, "rmdir": 3, "unlink": 6, "rename": 14, "link": 5, "symlink": 3,
    "readlink": 1, "listdir": 3, "stat": 3, "lstat": 3, "chmod": 3, "chown": 2, "utimes": 4,
    "setxattr": 4, "getxattr": 2, "listxattr": 1, "removexattr": 2,
}  # fmt: skip


class Chooser:
    """Turns the kind of an operation and a number into an operation on what there is."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def _existing(self) -> list[bytes]:
        found = []
        root = self._side.root
        for folder, folders, files in os.walk(root):
            found += [os.path.join(folder, name)[len(root) + 1 :] for name in folders + files]
        return sorted(found) or [b"a"]

    def choose(self, kind: str, number: int) -> Step | None:
        """Returns None for what cannot be compared: opening a device."""
        rng = random.Random(number)
        method = getattr(self, "_" + kind, None)
        step = (kind, *method(rng)) if method is not None else self._plain(kind, rng)
        return None if kind in ("open", "read", "put", "append") and self._is_odd(step) else step

    def _is_odd(self, step: Step) -> bool:
        path = step[2] if step[0] == "open" else step[1]
        with contextlib.suppress(OSError):
            mode = os.stat(self._side.root + b"/" + path).st_mode
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                return True
            return stat.S_ISFIFO(mode) and step[0] != "open"
        return False

    def _there(self, rng: random.Random) -> bytes:
        if rng.random() < 0.06:
            return self._new(rng)
        return rng.choice(self._existing())

    def _new(self, rng: random.Random) -> bytes:
        """Returns a path that may be free; its parent mostly exists."""
        folders = [b""]
        for path in self._existing():
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.lstat(self._side.root + b"/" + path).st_mode):
                    folders.append(path)
        parent = rng.choice(folders) if rng.random() < 0.95 else self._there(rng)
        name = rng.choice(NAMES) if rng.random() < 0.98 else b"y" * 256
        return parent + b"/" + name if parent else name

    def _any(self, rng: random.Random) -> bytes:
        return self._there(rng) if rng.random() < 0.5 else self._new(rng)

    def _slot(self, rng: random.Random) -> int:
        slots = sorted(self._side.slots)
        return rng.choice(slots) if slots and rng.random() < 0.97 else rng.randrange(5)

    def _offset(self, rng: random.Random) -> int:
        if rng.random() < 0.3:
            return rng.choice(SIZES)
        return rng.randrange(rng.choice((100, 10_000, 200_000, LARGE)))

    def _size(self, rng: random.Random) -> int:
        return rng.choice(SIZES) if rng.random() < 0.5 else rng.randrange(20_000)

    def _open(self, rng: random.Random) -> Step:
        flags = rng.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY))
        creates = rng.random() < 0.4
        for flag, chance in (
            (os.O_CREAT, 1.0 if creates else 0.0), (os.O_EXCL, 0.3 if creates else 0.0),
            (os.O_TRUNC, 0.15), (os.O_APPEND, 0.15), (os.O_DIRECTORY, 0.04), (os.O_NOFOLLOW, 0.1),
        ):  # fmt: skip
            if rng.random() < chance:
                flags |= flag
        path = self._any(rng) if creates else self._there(rng)
        return rng.randrange(5), path, flags, rng.choice((0o644, 0o600, 0o777, 0o400))

    def _pread(self, rng: random.Random) -> Step:
        return self._slot(rng), self._size(rng), self._offset(rng)

    def _pwrite(self, rng: random.Random) -> Step:
        return self._slot(rng), self._offset(rng), rng.randrange(1000), self._size(rng)

    _map_write = _pwrite

    def _write(self, rng: random.Random) -> Step:
        return self._slot(rng), rng.randrange(1000), self._size(rng)

    def _ftruncate(self, rng: random.Random) -> Step:
        return self._slot(rng), self._offset(rng)

    def _fchmod(self, rng: random.Random) -> Step:
        return self._slot(rng), rng.choice((0o600, 0o644, 0o777, 0))

    def _futimes(self, rng: random.Random) -> Step:
        return self._slot(rng), rng.choice(TIMES), rng.choice(TIMES)

    def _fsetxattr(self, rng: random.Random) -> Step:
        return self._slot(rng), *self._xattr(rng)

    def _xattr(self, rng: random.Random) -> Step:
        value = rng.randbytes(rng.choice((0, 1, 30, 1000)))
        return rng.choice(XATTRS), value, rng.choice((0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))

    def _fgetxattr(self, rng: random.Random) -> Step:
        return self._slot(rng), rng.choice(XATTRS)

    def _flink(self, rng: random.Random) -> Step:
        return self._slot(rng), self._new(rng)

    def _copy_range(self, rng: random.Random) -> Step:
        one, two = self._slot(rng), self._slot(rng)
        return one, two, self._size(rng), self._offset(rng), self._offset(rng)

    def _put(self, rng: random.Random) -> Step:
        mode = rng.choice((0o644, 0o600, 0o755))
        return self._any(rng), rng.randrange(1000), self._size(rng), mode

    def _append(self, rng: random.Random) -> Step:
        return self._there(rng), rng.randrange(1000), self._size(rng)

    def _truncate(self, rng: random.Random) -> Step:
        return self._there(rng), self._offset(rng)

    def _mknod(self, rng: random.Random) -> Step:
        kinds = [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG]
        if os.geteuid() == 0:
            kinds += [stat.S_IFCHR, stat.S_IFBLK]
        kind = rng.choice(kinds)
        device = os.makedev(1, 3) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
        return self._new(rng), kind | 0o640, device

    def _mkdir(self, rng: random.Random) -> Step:
        return self._new(rng), rng.choice((0o755, 0o700, 0o777, 0o1777))

    def _rename(self, rng: random.Random) -> Step:
        flags = rng.choice((0, 0, 0, NOREPLACE, EXCHANGE))
        return self._there(rng), self._any(rng), flags

    def _link(self, rng: random.Random) -> Step:
        return self._there(rng), self._new(rng)

    def _symlink(self, rng: random.Random) -> Step:
        target = rng.choice((b"a", b"d1/../a", b"nowhere", self._there(rng), b"t" * 3000))
        return target, self._new(rng)

    def _chmod(self, rng: random.Random) -> Step:
        path = self._there(rng)
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.stat(self._side.root + b"/" + path).st_mode):
                return path, rng.choice((0o755, 0o700, 0o2775, 0o1777))
        return path, rng.choice((0o644, 0o600, 0o755, 0))

    def _chown(self, rng: random.Random) -> Step:
        if os.geteuid():
            return self._there(rng), -1, -1
        return self._there(rng), rng.choice((-1, 0, 7, 65534)), rng.choice((-1, 0, 7, 65534))

    def _utimes(self, rng: random.Random) -> Step:
        return self._there(rng), rng.choice(TIMES), rng.choice(TIMES)

    def _setxattr(self, rng: random.Random) -> Step:
        return self._there(rng), *self._xattr(rng)

    def _getxattr(self, rng: random.Random) -> Step:
        return self._there(rng), rng.choice(XATTRS)

    _removexattr = _getxattr

    def _listdir(self, rng: random.Random) -> Step:
        return (b"",) if rng.random() < 0.3 else (self._there(rng),)

    def _plain(self, kind: str, rng: random.Random) -> Step:
        if kind in ("close", "fstat", "seek_end", "fsync"):
            return kind, self._slot(rng)
        return kind, self._there(rng)
