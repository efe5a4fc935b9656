"""What an import costs, counted: system calls, batches to compress, waits for the disk, modules."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.folders import write
from tests.support.stores import LONG_AGO_NS, ROOT, bring, content, head
from versionfs import syscalls
from versionfs.chunking import BlockCodec
from versionfs.chunking.blocks import BLOCK_TARGET_BYTES
from versionfs.chunkstore import MetadataReader
from versionfs.errors import StorageTransientError
from versionfs.index.environment import Environment
from versionfs.repo import Store
from versionfs.transfer import pipeline, reading


class Counted:
    """Counts calls of functions, which go on as they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.calls: Counter[str] = Counter()

    def __call__(self, owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return real(*arguments, **options)

        self._monkeypatch.setattr(owner, name, counting)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def make_files(source: Path, folders: int, files: int, size: int = 5000) -> None:
    random = Random(4)
    for number in range(folders):
        for file in range(files):
            path = source / f"d{number:02d}" / f"f{file:03d}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, random.randbytes(size // 2).hex().encode())
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def objects_of(store: Store) -> Counter[str]:
    """Returns how many objects the store has, by the first part of their keys."""
    return Counter(info.key.split("/")[0] for info in store.objects.list(""))


def test_a_store_has_far_fewer_objects_than_files(store: Store, source: Path) -> None:
    make_files(source, 50, 100, 2000)
    bring(store, source)
    made = objects_of(store)
    assert head(store).root.files == 5000
    # The pack of the files, those of trees and commit; format, segment; marker, ref and reflog.
    assert made.pop("packs") <= 4
    assert made == {"versionfs.json": 1, "index": 1, "repos": 3}
    write(source / "d00" / "f000", b"changed")
    bring(store, source)
    again = objects_of(store)
    assert again.pop("packs") <= 4 + 3
    # Each time a segment and an entry of the reflog more.
    assert again == {"versionfs.json": 1, "index": 2, "repos": 4}


def test_an_unchanged_source_costs_an_lstat_a_file(
    store: Store, source: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_compiled", None)  # It counts what Python does.
    folders, files = 5, 300
    make_files(source, folders, files, 20)
    bring(store, source)
    store.trees.node(head(store).root.node)
    for name in ("lstat", "open", "stat", "fstat", "listxattr", "scandir", "fsync", "readlink"):
        counted(os, name)
    counted(MetadataReader, "load")
    counted(Environment, "write")
    counted(Environment, "read")
    again = bring(store, source)
    assert (again.commit, again.files, again.files_read) == (None, folders * files, 0)
    calls = counted.calls
    assert 0 <= calls["lstat"] - folders * files - folders <= 20  # The rest: realpath.
    # One for each folder, whatever is in it, and some for the store.
    assert calls["scandir"] <= folders + 30
    assert calls["listxattr"] == folders + 1
    assert calls["open"] + calls["stat"] + calls["fstat"] <= 40
    assert calls["fsync"] == 0
    assert calls["write"] == 0
    assert calls["read"] <= 2 * folders + 15
    assert calls["load"] <= 2  # The root, and not the folders.


def test_one_changed_file_reads_its_folder_alone(
    store: Store, source: Path, counted: Counted
) -> None:
    make_files(source, 5, 300, 20)
    bring(store, source)
    changed = source / "d03" / "f007"
    write(changed, b"another")
    counted(MetadataReader, "load")
    again = bring(store, source)
    assert (again.files, again.files_read) == (1500, 1)
    assert content(store, b"d03/f007") == b"another"
    assert content(store, b"d03/f008") == (source / "d03" / "f008").read_bytes()
    # The root, the folder and the leaves of it that hold the file or end it.
    assert counted.calls["load"] <= 8


def test_a_small_file_is_read_with_five_system_calls(
    store: Store, source: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "_compiled", None)  # It counts what Python does.
    make_files(source, 2, 200)
    for name in ("lstat", "open", "pread", "fstat", "stat"):
        counted(os, name)
    assert bring(store, source).files_read == 400
    calls = counted.calls
    assert calls["lstat"] <= 402 + 10
    assert calls["open"] <= 400 + 120  # Of the store: packs, refs, locks.
    assert calls["pread"] <= 400 + 60
    assert calls["fstat"] <= 400 + 60
    assert calls["stat"] <= 60


def test_blocks_are_compressed_in_groups(store: Store, source: Path, counted: Counted) -> None:
    make_files(source, 4, 200, 8000)
    counted(BlockCodec, "encode_many")
    counted(BlockCodec, "encode")
    done = bring(store, source)
    blocks = done.new_bytes // BLOCK_TARGET_BYTES
    assert blocks > 90
    assert counted.calls["encode_many"] <= blocks // 7 + 2
    assert counted.calls["encode"] <= 12  # Nodes: about one block a folder.


def test_waits_for_the_disk_do_not_grow_with_the_files(
    store: Store, source: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(store, source)
    counted(os, "fsync")
    write(source / "first", b"1")
    bring(store, source)
    for_one = counted.calls["fsync"]
    counted.calls.clear()
    make_files(source, 4, 200, 2000)
    bring(store, source)
    assert counted.calls["fsync"] <= for_one + 4  # Its packs may come into folders that are new.


def test_a_library_user_loads_what_is_asked_for() -> None:
    code = (
        "import sys\n"
        "from versionfs.transfer.cloner import CloneResult\n"
        "from versionfs.transfer import import_source, export, ImportResult\n"
        "assert callable(import_source) and callable(export)\n"
        "heavy = {'tarfile', 'ulid', 'email', 'importlib.metadata', 'tempfile', 'difflib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("sectors", "slow"), [(0, 1000.0), (64, 1000.0), (0, -1.0)])
def test_how_a_source_is_read_depends_on_what_it_is(
    store: Store,
    source: Path,
    counted: Counted,
    monkeypatch: pytest.MonkeyPatch,
    sectors: int,
    slow: float,
) -> None:
    """From memory at once, from a disk after asking for some ahead, and by threads if need be."""
    reads = count(step=sectors * 8)
    monkeypatch.setattr(pipeline, "_disk_reads", lambda: next(reads))
    monkeypatch.setattr(pipeline, "_SLOW_SECONDS", slow)
    threads: Counter[bool] = Counter()
    real = reading.read_whole

    def read(*arguments: Any) -> Any:
        threads[threading.current_thread() is not threading.main_thread()] += 1
        return real(*arguments)

    monkeypatch.setattr(syscalls, "_compiled", None)
    monkeypatch.setattr(reading, "read_whole", read)
    counted(os, "posix_fadvise")
    make_files(source, 3, 200)
    before = len(os.listdir("/proc/self/fd"))
    assert bring(store, source).files_read == 600
    assert threads.total() == 600
    assert (threads[True] > 450) == (slow < 0)
    assert (counted.calls["posix_fadvise"] > 450) == (sectors > 0)
    assert abs(len(os.listdir("/proc/self/fd")) - before) < 10
    for path in source.rglob("f*"):
        assert content(store, os.fsencode(path.relative_to(source))) == path.read_bytes()


@pytest.mark.skipif(syscalls._compiled is None, reason="not compiled here")
@pytest.mark.parametrize("slow", [1000.0, -1.0])
def test_small_files_are_read_in_batches_without_the_interpreter(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    """By one thread, or by several where the source is slow; what needs more is read as ever."""
    monkeypatch.setattr(pipeline, "_SLOW_SECONDS", slow)
    monkeypatch.setattr(pipeline, "_BATCHES_IN_FLIGHT", 1)
    make_files(source, 3, 200)
    write(source / "large", os.urandom(250_000))
    write(source / "empty", b"")
    write(source / "tagged", b"x")
    os.setxattr(source / "tagged", "user.tag", b"1")
    write(source / "late", b"y")
    os.utime(source / "late", (12_000_000_000, 12_000_000_000))
    alone: list[bytes] = []
    threads: Counter[bool] = Counter()
    whole, batch = reading.read_whole, syscalls.read_unchanged

    def read_whole(path: bytes, *arguments: Any) -> Any:
        alone.append(os.path.basename(path))
        return whole(path, *arguments)

    def read_unchanged(files: list[Any], most: int) -> Any:
        main = threading.current_thread() is threading.main_thread()
        threads[threading.current_thread().name.startswith("reader")] += 1
        assert not main
        return batch(files, most)

    monkeypatch.setattr(reading, "read_whole", read_whole)
    monkeypatch.setattr(reading, "read_unchanged", read_unchanged)
    before = len(os.listdir("/proc/self/fd"))
    assert bring(store, source).files_read == 604
    assert sorted(alone) == [b"large", b"late", b"tagged"]
    assert (threads[False] > 5) == (slow < 0)
    assert abs(len(os.listdir("/proc/self/fd")) - before) < 10
    for path in source.rglob("*"):
        if path.is_file():
            found = content(store, os.fsencode(path.relative_to(source)))
            assert found == path.read_bytes()
    assert bring(store, source).files_read <= 1


@pytest.mark.skipif(syscalls._compiled is None, reason="not compiled here")
def test_files_that_are_not_read_at_once_are_read_by_threads_where_that_is_slow(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_BATCHES_IN_FLIGHT", 1)
    for number in range(150):
        write(source / f"{number:03d}", os.urandom(250_000))
    threads: Counter[bool] = Counter()
    whole = reading.read_whole

    def read_whole(*arguments: Any) -> Any:
        threads[threading.current_thread() is threading.main_thread()] += 1
        time.sleep(0.002)
        return whole(*arguments)

    monkeypatch.setattr(reading, "read_whole", read_whole)
    assert bring(store, source).files_read == 150
    assert threads.total() == 150
    assert threads[False] > 75


def test_files_opened_ahead_are_closed_when_an_import_fails(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count(step=10_000)
    monkeypatch.setattr(syscalls, "_compiled", None)
    monkeypatch.setattr(pipeline, "_disk_reads", lambda: next(reads))
    monkeypatch.setattr(pipeline, "_BATCHES_AHEAD", 100)
    make_files(source, 3, 200)
    before = len(os.listdir("/proc/self/fd"))

    def broken(*_: Any) -> Any:
        raise StorageTransientError("no")

    monkeypatch.setattr(pipeline.Pipeline, "flush", broken)
    with pytest.raises(StorageTransientError):
        bring(store, source)
    assert abs(len(os.listdir("/proc/self/fd")) - before) < 10
