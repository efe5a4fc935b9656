"""How many requests a mount sends, with its compiled part; and that it works without."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.support import folder, link
from versionfs import fuse
from versionfs.fuse import accelerator, spin
from versionfs.syscalls import SWITCH
from versionfs.tree import compiled

compiled_only = pytest.mark.skipif(compiled is None, reason="nothing is compiled here")


def requests(world, data: Path, kind: str) -> int:
    return int(world.statistics(data)["requests"].get(kind, 0))


@pytest.fixture
def files(world):
    """A mount's worth of small files; returns their contents."""
    rng = random.Random(1)
    contents = {b"d/f%03d" % i: rng.randbytes(rng.randrange(1, 9000)) for i in range(200)}
    world.commit(contents)
    return contents


def read_all(folder: Path) -> dict[bytes, bytes]:
    found = {}
    for name in sorted(os.listdir(folder / "d")):
        found[b"d/" + os.fsencode(name)] = (folder / "d" / name).read_bytes()
    return found


@compiled_only
@pytest.mark.parametrize("place", ["main", "main@~0"])
def test_a_small_file_is_in_the_cache_when_it_is_open(world, files, place):
    data = world.mount()
    top = data / "photos" / place
    assert read_all(top) == files
    assert requests(world, data, "read") == 0
    opened = requests(world, data, "open")
    assert opened == len(files)
    # Nothing is looked up either: the listing told what the kernel needs to know.
    assert requests(world, data, "lookup") < 10


def contents_of(world, data: Path) -> dict[str, int]:
    reply = fuse.ask(world.settings, data, {"op": "statistics"})
    assert reply is not None
    found: dict[str, int] = reply["contents"]
    return found


@compiled_only
@pytest.mark.skipif(not spin.is_useful(), reason="one processor: nobody else has it meanwhile")
@pytest.mark.parametrize("place", ["main", "main@~0"])
def test_files_read_in_order_are_pushed_ahead_of_their_reader(world, files, place):
    data = world.mount()
    top = data / "photos" / place
    for name in sorted(os.listdir(top / "d")):
        assert (top / "d" / name).read_bytes() == files[b"d/" + os.fsencode(name)]
        time.sleep(0.001)
    assert requests(world, data, "read") == 0
    # How many depends on how much time the others on the machine leave for it.
    assert contents_of(world, data)["pushed_ahead"] > len(files) // 10
    assert "Traceback" not in world.log(data)


@compiled_only
@pytest.mark.parametrize("place", ["main", "main@~0"])
def test_files_read_in_no_order_come_with_their_block(world, files, place):
    data = world.mount()
    top = data / "photos" / place
    names = os.listdir(top / "d")
    random.Random(2).shuffle(names)
    for name in names:
        assert (top / "d" / name).read_bytes() == files[b"d/" + os.fsencode(name)]
    assert requests(world, data, "read") == 0
    found = contents_of(world, data)
    assert found["pushed_along"] > len(files) // 4
    assert found["blocks_read"] < len(files) // 4
    assert "Traceback" not in world.log(data)


@compiled_only
def test_what_is_pushed_is_never_older_than_what_was_written(world):
    """Readers in order and in none, while files are replaced, cut, written and removed."""
    rng = random.Random(4)
    count, size = 400, 3_000

    def made(number: int, version: int) -> bytes:
        line = b"%04d %06d\n" % (number, version)
        return line * (size // len(line))

    data = world.mount()
    top = data / "photos"
    written: dict[int, int] = {}
    done = threading.Event()
    wrong: list[str] = []

    def read(branch: Path, order: str) -> None:
        mine = random.Random(order)
        while not done.is_set():
            numbers = list(range(count))
            if order != "in order":
                mine.shuffle(numbers)
            for number in numbers:
                least = written[number]
                lines = set((branch / f"f{number:04d}").read_bytes().splitlines(keepends=True))
                whole = [line for line in lines if len(line) == 12]
                versions = {int(line[5:11]) for line in whole}
                strange = any(line[:4] != b"%04d" % number for line in whole)
                if strange or min(versions, default=least) < least:
                    wrong.append(f"{order}, {number}: {versions}, not {least}")

    for turn in range(3):
        world.commit({b"d/f%04d" % i: made(i, 0) for i in range(count)}, branch=f"turn{turn}")
        branch = top / f"turn{turn}"
        written.update(dict.fromkeys(range(count), 0))
        done.clear()
        readers = [
            threading.Thread(target=read, args=(branch / "d", order))
            for order in ("in order", "any", "other")
        ]
        os.listdir(branch / "d")
        for reader in readers:
            reader.start()
        for version in range(1, 400):
            number = rng.randrange(count)
            path, content = branch / f"d/f{number:04d}", made(number, version)
            match rng.randrange(3):
                case 0:
                    (branch / "new").write_bytes(content)
                    os.rename(branch / "new", path)
                case 1:
                    os.truncate(path, 0)
                    path.write_bytes(content)
                case _:
                    with open(path, "r+b", buffering=0) as file:
                        file.write(content)
            written[number] = version
        done.set()
        for reader in readers:
            reader.join()
        assert wrong == []
    assert "Traceback" not in world.log(data)
    # How many depends on who is faster; without any, this test would have shown nothing.
    found = contents_of(world, data)
    assert found["pushed_ahead"] + found["pushed_along"] > 0


@compiled_only
def test_a_read_only_mount_is_not_asked_to_open_what_the_kernel_knows(world, files):
    data = world.mount(read_only=True)
    top = data / "photos/main"
    assert read_all(top) == files
    before = world.statistics(data)["requests"]
    for _ in range(3):
        assert read_all(top) == files
    after = world.statistics(data)["requests"]
    for kind in ("open", "read", "release", "lookup", "getattr", "readdir"):
        assert after.get(kind, 0) == before.get(kind, 0), kind
    assert after["open"] <= 1


@compiled_only
def test_a_read_only_folder_is_not_asked_to_open_directories(world, monkeypatch):
    """And shows what another mount does, also when it moved."""
    changes = {b"d%02d/e/f%03d" % (i, j): b"%d" % j for i in range(20) for j in range(300)}
    world.commit({**changes, b"empty": folder(), b"link": link(b"d00")})
    data = world.mount("photos/main", read_only=True)
    shown = ["find", ".", "-printf", "%p %y %m %s %T@ %U %G %l %b\\n"]

    def listed(top: Path) -> list[str]:
        found = subprocess.run(shown, cwd=top, check=True, capture_output=True, text=True)
        return sorted(found.stdout.splitlines())

    first = listed(data)
    assert len(first) == 1 + 20 * 302 + 2
    before = requests(world, data, "readdir")
    assert listed(data) == first
    assert requests(world, data, "readdir") == before
    world.commit({b"d07/e/f100": None, b"d07/e/f000x": b"new", b"d20/f": b"1"})
    moved = listed(data)
    assert {line.split()[0] for line in first} ^ {line.split()[0] for line in moved} == {
        "./d07/e/f100", "./d07/e/f000x", "./d20", "./d20/f",
    }  # fmt: skip
    found = world.statistics(data)["requests"]
    assert (found["opendir"], found.get("releasedir", 0)) == (1, 0)
    monkeypatch.setenv(SWITCH, "0")
    plain = world.mount("photos/main", name="plain", read_only=True)
    assert listed(plain) == moved
    assert world.statistics(plain)["requests"]["opendir"] > 40
    assert "Traceback" not in world.log(data)


@compiled_only
def test_many_list_a_read_only_folder_at_once(world):
    """While it moves, which takes away what the kernel has of it."""
    names = {b"%05d" % number for number in range(3_000)}
    world.commit({b"d/" + name: b"" for name in names})
    data = world.mount("photos/main", read_only=True)
    command = f"for i in 1 2 3 4; do ls -U {data}/d | md5sum; done"
    listers = [
        subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    moves = 0
    while any(lister.poll() is None for lister in listers) or moves < 3:
        world.commit({b"d/00001": b"%d" % moves})
        moves += 1
    sums = {line for lister in listers for line in lister.communicate()[0].splitlines()}
    assert len(sums) == 1
    assert requests(world, data, "readdir") > 3_000 // 250 * 2
    with os.scandir(data / "d") as one, os.scandir(data / "d") as other:
        found = list(zip(one, other, strict=True))
    for side in (0, 1):
        assert {os.fsencode(pair[side].name) for pair in found} == names


@compiled_only
@pytest.mark.parametrize("place", ["main", "main@~0"])
def test_a_listing_is_kept_until_it_changes(world, files, place):
    data = world.mount()
    top = data / "photos" / place / "d"
    names = os.listdir(top)
    before = requests(world, data, "readdir")
    for _ in range(20):
        assert os.listdir(top) == names
    assert requests(world, data, "readdir") == before


@compiled_only
def test_a_listing_changes_with_what_is_done_here_and_elsewhere(world, files):
    data = world.mount()
    main = data / "photos/main"
    assert "new" not in os.listdir(main / "d")
    (main / "d/new").write_bytes(b"x")
    assert "new" in os.listdir(main / "d")
    os.rename(main / "d/new", main / "d/newer")
    assert "newer" in os.listdir(main / "d")
    (main / "d/newer").unlink()
    assert "newer" not in os.listdir(main / "d")


@compiled_only
def test_a_listing_follows_the_branch_though_no_time_tells(world):
    world.commit({b"d/a": b"1"}, time_ns=1_700_000_000 * 10**9)
    for options in ({}, {"read_only": True}):
        data = world.mount(name=f"data{len(options)}", **options)
        top = data / "photos/main/d"
        listed = os.listdir(top)
        times = os.stat(top).st_mtime_ns
        name = f"b{len(options)}"
        world.commit({b"d/" + name.encode(): b"2"}, time_ns=1_700_000_000 * 10**9)
        assert sorted(os.listdir(top)) == sorted([*listed, name])
        assert os.stat(top).st_mtime_ns == times
        world.commit({b"d/a": b"other"}, time_ns=1_700_000_000 * 10**9)
        assert (top / "a").read_bytes() == b"other"
        world.commit({b"d/a": b"1"}, time_ns=1_700_000_000 * 10**9)
        assert (top / "a").read_bytes() == b"1"


@pytest.mark.parametrize("place", ["main", "main@~0"])
def test_a_packed_tree_is_what_the_coroutines_give(world, monkeypatch, place):
    changes = {b"d/f%04d" % i: b"%d" % (i % 7) for i in range(700)}
    changes |= {b"d/e%d/x" % i: b"x" for i in range(5)}
    changes[b"d/" + b"n" * 255] = b"long"
    world.commit({**changes, b"d/link": link(b"f0001"), b"d/empty": folder()})
    found = []
    for switch in ("1", "0"):
        monkeypatch.setenv(SWITCH, switch)
        data = world.mount(name=f"data{switch}", read_only=switch == "0" and place == "main")
        top = data / "photos" / place
        shown = ["find", ".", "-printf", "%p %y %m %s %T@ %U %G %l %b\\n"]
        listed = subprocess.run(shown, cwd=top, check=True, capture_output=True, text=True)
        found.append(sorted(listed.stdout.splitlines()))
        # By name it is the same inode as by the listing.
        inodes = {entry.name: entry.inode() for entry in os.scandir(top / "d")}
        assert all((top / "d" / name).lstat().st_ino == inodes[name] for name in inodes)
        assert "Traceback" not in world.log(data)
    assert len(found[0]) == 2 + 700 + 10 + 3
    assert found[0] == found[1]


def listed_slowly(folder: bytes) -> Iterator[bytes]:
    """Yields all files as a walker finds them that is busy with each folder for a while."""
    with os.scandir(folder) as entries:
        first = next(entries)
        time.sleep(0.005)
        found = [first, *entries]
    for entry in sorted(found, key=lambda entry: entry.name):
        if entry.is_dir():
            yield from listed_slowly(entry.path)
        else:
            yield entry.path


@compiled_only
@pytest.mark.skipif(not spin.is_useful(), reason="one processor: nobody else has it meanwhile")
@pytest.mark.parametrize("place", ["main", "main@~0"])
def test_a_walk_is_read_ahead_of(world, place):
    paths = {b"d%02d/e/f%02d" % (i, j): b"%d" % (20 * i + j) for i in range(100) for j in range(20)}
    world.commit(paths)
    data = world.mount()
    top = os.fsencode(data / "photos" / place)
    assert set(listed_slowly(top)) == {os.path.join(top, path) for path in paths}
    reply = fuse.ask(world.settings, data, {"op": "statistics"})
    assert reply is not None
    assert reply["trees"]["folders_ahead"] > 10
    assert "Traceback" not in world.log(data)


@pytest.mark.parametrize("switch", ["1", "0"])
def test_a_read_of_many_places_is_one_answer(world, monkeypatch, switch):
    """A read of 1 MiB from chunks, and from hundreds of pieces that were written over them."""
    monkeypatch.setenv(SWITCH, switch)
    expected = bytearray(random.Random(3).randbytes(5 * 1024 * 1024 + 17))
    world.commit({b"large": bytes(expected)})
    data = world.mount()
    path = data / "photos/main/large"
    assert (data / "photos/main@~0/large").read_bytes() == expected
    with open(path, "r+b", buffering=0) as file:
        for at in range(2 * 1024 * 1024, 4 * 1024 * 1024, 8192):
            file.seek(at)
            file.write(b"%07d," % at)
            expected[at : at + 8] = b"%07d," % at
    subprocess.run(["dd", f"of={path}", "if=/dev/null", "oflag=nocache", "conv=notrunc,fdatasync"],
                   check=True, capture_output=True)  # fmt: skip
    assert path.read_bytes() == expected
    with open(path, "rb", buffering=0) as file:
        for at in (0, 2 * 1024 * 1024 - 5, len(expected) - 3, len(expected) + 1):
            assert os.pread(file.fileno(), 1024 * 1024, at) == expected[at : at + 1024 * 1024]
    assert "Traceback" not in world.log(data)


def test_a_compiled_part_of_another_version_is_left_alone(monkeypatch, caplog):
    monkeypatch.setattr(accelerator, "_loaded", None)
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.delitem(sys.modules, "pyfuse3", raising=False)
    other = types.ModuleType("versionfs.fuse._accelerator")
    monkeypatch.setitem(sys.modules, "versionfs.fuse._accelerator", other)
    assert accelerator.load() is None
    assert "of another version" in caplog.text
    other.VERSION = accelerator._VERSION  # type: ignore[attr-defined]
    assert accelerator.load() is other


def test_files_open_several_times_at_once(world, files):
    data = world.mount()
    path = data / "photos/main@~0/d/f000"
    content = files[b"d/f000"]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open(path, "rb", buffering=0)) for _ in range(10)]
        assert all(each.read() == content for each in opened)
    assert path.read_bytes() == content


def test_many_processes_read_while_caches_are_dropped(world, files):
    data = world.mount()
    top = data / "photos/main@~0/d"
    command = f"for i in 1 2 3 4 5; do cat {top}/* | sha256sum; done"
    readers = [
        subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    if not os.geteuid():
        while any(reader.poll() is None for reader in readers):
            Path("/proc/sys/vm/drop_caches").write_text("2")
    sums = {line for reader in readers for line in reader.communicate()[0].splitlines()}
    assert len(sums) == 1
    assert "Traceback" not in world.log(data)


def test_without_what_is_compiled(world, files, monkeypatch):
    monkeypatch.setenv(SWITCH, "0")
    data = world.mount()
    assert read_all(data / "photos/main@~0") == files
    assert requests(world, data, "read") > 0
    main = data / "photos/main"
    assert read_all(main) == files
    (main / "d/new").write_bytes(b"x" * 100_000)
    os.rename(main / "d/new", main / "d/f000")
    assert (main / "d/f000").read_bytes() == b"x" * 100_000
    assert sorted(os.listdir(main / "d")) == sorted(os.fsdecode(n[2:]) for n in files)
    (main / "d/f001").unlink()
    assert not (main / "d/f001").exists()
    world.commit({b"d/f002": b"moved"}, branch="other")
    assert "Traceback" not in world.log(data)
