"""The table of a workspace: an ordered map that keeps what it acknowledged."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from versionfs.errors import CorruptionError
from versionfs.objectstore import WouldBlock, never_blocking
from versionfs.workspace import database as database_module
from versionfs.workspace import table as table_module
from versionfs.workspace.database import Database
from versionfs.workspace.table import Table

KEYS = st.binary(min_size=1, max_size=3) | st.sampled_from([b"a", b"aa", b"ab", b"b"])
BATCHES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=5)), min_size=1, max_size=6)


@pytest.fixture
def small(monkeypatch) -> None:
    """Memory goes to LMDB after some records already."""
    monkeypatch.setattr(table_module, "_SEAL_RECORDS", 20)


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[list[Table]]:
    opened: list[Table] = []
    yield opened
    for table in opened:
        table.close()


class Mapping(RuleBasedStateMachine):
    """Against a dict."""

    @initialize(records=st.integers(1, 12), page=st.integers(1, 5))
    def begin(self, records, page):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(table_module, "_SEAL_RECORDS", records)
        self.patch.setattr("versionfs.workspace.frozen._PAGE", page)
        self.folder = Path(tempfile.mkdtemp(prefix="table-"))
        self.table = Table(self.folder)
        self.model: dict[bytes, bytes] = {}
        self.sequence = 0
        self.frozen = []

    @rule(batch=BATCHES)
    def apply(self, batch):
        self.sequence += 1
        assert self.table.apply(batch) == self.sequence
        for key, value in batch:
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value

    @rule()
    def checkpoint(self):
        self.table.checkpoint()

    @rule()
    def sync(self):
        self.table.sync()

    @rule(key=KEYS)
    def get(self, key):
        assert self.table.get(key) == self.model.get(key)

    @rule(prefix=st.binary(max_size=2), after=st.none() | KEYS)
    def scan(self, prefix, after):
        assert list(self.table.scan(prefix, after)) == wanted(self.model, prefix, after)

    @rule()
    def freeze(self):
        self.frozen.append((self.table.frozen(), dict(self.model)))

    @rule(prefix=st.binary(max_size=2), after=st.none() | KEYS, key=KEYS)
    def look_at_frozen(self, prefix, after, key):
        for frozen, model in self.frozen:
            assert list(frozen.scan(prefix, after)) == wanted(model, prefix, after)
            assert frozen.get(key) == model.get(key)

    def thaw(self):
        for frozen, _ in self.frozen:
            frozen.close()
        self.frozen = []

    @rule()
    def open_again(self):
        self.thaw()
        self.table.close()
        self.table = Table(self.folder)
        assert self.table.sequence == self.sequence

    @rule()
    def open_a_copy(self):
        """What a kill would leave."""
        with self.table._flushing:  # A copy of LMDB's file in the middle of a write is no state.
            copy = self.folder.with_name(f"{self.folder.name}-copy")
            shutil.copytree(self.folder, copy)
        with Table(copy) as table:
            assert dict(table.scan(b"")) == self.model
            assert table.sequence == self.sequence
        shutil.rmtree(copy)

    @invariant()
    def is_the_same(self):
        assert list(self.table.scan(b"")) == sorted(self.model.items())

    def teardown(self):
        if hasattr(self, "table"):
            self.thaw()
            self.table.close()
            shutil.rmtree(self.folder)
            self.patch.undo()


def wanted(model, prefix, after):
    return sorted(
        item
        for item in model.items()
        if item[0].startswith(prefix) and (after is None or item[0] > after)
    )


TestMapping = Mapping.TestCase
TestMapping.settings = settings(max_examples=settings().max_examples // 4, stateful_step_count=30)


# -- scans


def test_a_scan_shows_each_key_once_while_batches_come_between(small, tables, tmp_path):
    tables.append(table := Table(tmp_path))
    steady = [b"s%04d" % n for n in range(0, 1000, 5)]
    table.apply([(key, b"0") for key in steady])
    seen = []
    for step, (key, value) in enumerate(table.scan(b"s")):
        assert value == table.get(key)
        seen.append(key)
        table.apply([(b"s%04d" % (step * 7 % 1000), b"%d" % step), (b"x%d" % step, b"")])
        table.apply([(b"s%04d" % n, None) for n in range(step, 1000, 50) if n % 5])
        if step % 17 == 0:
            table.checkpoint()
    assert seen == sorted(set(seen))
    assert set(steady) <= set(seen)


def test_a_scan_may_delete_what_it_finds(small, tables, tmp_path):
    tables.append(table := Table(tmp_path))
    for n in range(500):
        table.apply([(b"d%03d" % n, b"")])
    for key, _ in table.scan(b"d"):
        table.apply([(key, None)])
    assert list(table.scan(b"")) == []


def test_a_snapshot_is_read_in_another_thread_while_batches_come(small, tables, tmp_path):
    tables.append(table := Table(tmp_path))
    for n in range(300):
        table.apply([(b"k%03d" % n, b"old")])
    found: list[list[tuple[bytes, bytes]]] = []
    with table.frozen() as frozen:
        reader = threading.Thread(
            target=lambda: found.extend(list(frozen.scan(b"")) for _ in range(20))
        )
        reader.start()
        for n in range(2000):
            table.apply([(b"k%03d" % (n % 400), b"new"), (b"k%03d" % ((n + 200) % 400), None)])
        reader.join()
    assert found == [[(b"k%03d" % n, b"old") for n in range(300)]] * 20


# -- bounds


def test_memory_and_journals_stay_bounded(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(table_module, "_SEAL_RECORDS", 100)
    tables.append(table := Table(tmp_path))
    most = 0
    for n in range(20_000):
        table.apply([(b"%d" % n, bytes(20))])
        most = max(most, len(table._active.records))
    assert most <= 200
    table.checkpoint()
    assert sum(path.stat().st_size for path in tmp_path.glob("journal-*")) <= 2 * 1024 * 1024
    assert len(list(table.scan(b""))) == 20_000


def test_one_key_written_again_and_again_keeps_the_journal_short(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(table_module, "_SEAL_BYTES", 100_000)
    tables.append(table := Table(tmp_path))
    for n in range(200):
        table.apply([(b"key", n.to_bytes(2, "big") * 10_000)])
    table.checkpoint()
    assert len(list(tmp_path.glob("journal-*"))) == 1
    assert table.get(b"key") == (199).to_bytes(2, "big") * 10_000


def test_keys_that_lmdb_cannot_hold_are_refused_whole(tables, tmp_path):
    tables.append(table := Table(tmp_path))
    for bad in (b"", bytes(512)):
        with pytest.raises(ValueError, match="a key of"):
            table.apply([(b"good", b""), (bad, b"")])
    assert table.apply([(bytes(511), b"")]) == 1
    assert table.get(b"good") is None
    table.checkpoint()


def test_many_threads_lose_nothing(small, tables, tmp_path):
    tables.append(table := Table(tmp_path))

    def work(number: int) -> None:
        for n in range(200):
            table.apply([(b"%d-%03d" % (number, n), b""), (b"last-%d" % number, b"%d" % n)])
            if n % 50 == 0:
                table.sync()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(table.scan(b""))) == 6 * 201
    table.close()
    tables.append(again := Table(tmp_path))
    assert len(list(again.scan(b""))) == 6 * 201
    assert again.sequence == 1200


# -- the disk


class Disk:
    """A small file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("size=4m")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "versionfs-test", str(self.folder)]
        if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("only root may mount a small disk")

    def fill(self) -> None:
        with (self.folder / "ballast").open("ab", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty(self) -> None:
        (self.folder / "ballast").unlink()

    def remove(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.remove()


def apply_until_refused(table: Table, prefix: bytes, *, frees: bool = False) -> list[bytes]:
    applied: list[bytes] = []
    for n in itertools.count():
        key = prefix + b"%06d" % n
        try:
            table.apply([(key, bytes(100))], frees=frees)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            break
        applied.append(key)
    return applied


@pytest.mark.parametrize("reopened", [False, True])
def test_a_full_disk_refuses_changes_whole_and_still_lets_space_be_freed(disk, reopened):
    folder = disk.folder / "workspace"
    table = Table(folder)
    table.apply([(b"before", b"")])
    disk.fill()
    applied = apply_until_refused(table, b"n")
    # The reserve: thousands of removals.
    freed = [b"f%d" % n for n in range(1000)]
    for key in freed:
        table.apply([(key, b"")], frees=True)
    apply_until_refused(table, b"m")
    if reopened:
        table.close()
        table = Table(folder)
    keys = [b"before", *applied, *freed]
    expected = sorted(keys)
    assert [key for key, _ in table.scan(b"") if key[:1] != b"m"] == expected
    disk.empty()
    table.apply([(b"after", b"")])
    table.checkpoint()
    table.close()
    with Table(folder) as again:
        assert [k for k, _ in again.scan(b"") if k[:1] != b"m"] == sorted([*expected, b"after"])


@pytest.fixture
def broken_lmdb(monkeypatch):
    """LMDB cannot be written while this says so."""
    failing = [True]
    write = database_module.Database.write

    def maybe(self, mutations, sequence):
        if failing[0]:
            raise OSError(errno.ENOSPC, "no space")
        write(self, mutations, sequence)

    monkeypatch.setattr(database_module.Database, "write", maybe)
    return failing


def test_lmdb_that_cannot_be_written_loses_nothing(small, broken_lmdb, tables, tmp_path):
    tables.append(table := Table(tmp_path))
    applied = apply_until_refused(table, b"n")
    assert 20 <= len(applied) <= 80
    before = dict(table.scan(b""))
    assert sorted(before) == applied
    freeing = apply_until_refused(table, b"f", frees=True)
    assert len(freeing) > 40
    with pytest.raises(OSError, match="no space"):
        table.checkpoint()
    table.close()
    tables.append(again := Table(tmp_path))
    assert [key for key, _ in again.scan(b"")] == freeing + applied
    broken_lmdb[0] = False
    again.apply([(b"z", b"")])
    again.checkpoint()
    again.close()
    tables.append(third := Table(tmp_path))
    assert [key for key, _ in third.scan(b"")] == [*freeing, *applied, b"z"]


def test_snapshots_are_whole_while_lmdb_cannot_be_written(small, broken_lmdb, tables, tmp_path):
    tables.append(table := Table(tmp_path))
    applied = apply_until_refused(table, b"n")
    with table.frozen() as frozen:
        broken_lmdb[0] = False
        table.apply([(b"n000000", None)])
        table.checkpoint()
        assert [key for key, _ in frozen.scan(b"")] == applied
    assert [key for key, _ in table.scan(b"")] == applied[1:]


@pytest.fixture
def slow_lmdb(monkeypatch):
    """LMDB takes what it is given when the first of these is set; the second says that it was."""
    go, given = threading.Event(), threading.Event()
    write = database_module.Database.write

    def late(self, mutations, sequence):
        given.set()
        assert go.wait(10)
        write(self, mutations, sequence)

    monkeypatch.setattr(database_module.Database, "write", late)
    yield go, given
    go.set()


def test_who_must_not_wait_is_told_to_when_lmdb_is_behind(small, tables, slow_lmdb, tmp_path):
    tables.append(table := Table(tmp_path))
    go, given = slow_lmdb
    applied: list[bytes] = []
    told: WouldBlock | None = None
    with never_blocking():
        while told is None:
            key = b"%03d" % len(applied)
            try:
                table.apply([(key, b"")])
                applied.append(key)
            except WouldBlock as wait:
                told = wait
            given.wait(0.01)  # LMDB has the first part before there is no room for another
        assert 40 <= len(applied) <= 80
        # What frees space need not wait for that.
        for key in applied[:10]:
            table.apply([(key, None)], frees=True)
    waiting = threading.Thread(target=told.fetch)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    go.set()
    waiting.join(10)
    with never_blocking():
        table.apply([(b"more", b"")])
    assert [key for key, _ in table.scan(b"")] == [*applied[10:], b"more"]
    table.close()
    told.fetch()


# -- syncing


def test_those_who_sync_at_once_share_a_write_to_the_disk(tables, tmp_path, monkeypatch):
    tables.append(table := Table(tmp_path))
    calls = 0
    first, go = threading.Event(), threading.Event()
    fdatasync = os.fdatasync

    def slow(descriptor):
        nonlocal calls
        calls += 1
        first.set()
        go.wait()
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    table.apply([(b"first", b"")])
    threads = [threading.Thread(target=table.sync)]
    threads[0].start()
    first.wait()
    for n in range(20):
        table.apply([(b"%d" % n, b"")])
        threads.append(threading.Thread(target=table.sync))
        threads[-1].start()
    go.set()
    for thread in threads:
        thread.join()
    assert calls == 2
    table.sync()
    assert calls == 2


def test_after_a_failed_sync_the_journal_is_not_trusted(tables, tmp_path, monkeypatch):
    tables.append(table := Table(tmp_path))
    table.apply([(b"a", b"1")])

    def fail(descriptor):
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="bad disk"):
        table.sync()
    monkeypatch.undo()
    table.sync()
    journals = list(tmp_path.glob("journal-*"))
    for path in journals:
        path.write_bytes(b"")
    copy = tmp_path.with_name("copy")
    shutil.copytree(tmp_path, copy)
    with Table(copy) as found:
        assert found.get(b"a") == b"1"


# -- damage


def shut_with_journal(folder: Path, batches: int = 5) -> None:
    """Leaves what a killed process leaves: LMDB with some batches, a journal with more."""
    whole = folder.with_name(f"{folder.name}-open")
    table = Table(whole)
    table.apply([(b"old", b"")])
    table.checkpoint()
    for n in range(batches):
        table.apply([(b"new%d" % n, b"%d" % n)])
    shutil.copytree(whole, folder)
    table.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "half"])
def test_damaged_lmdb_is_told_and_nothing_is_touched(tmp_path, damage):
    folder = tmp_path / "workspace"
    shut_with_journal(folder)
    data = folder / "table" / "data.mdb"
    if damage == "garbage":
        data.write_bytes(b"\xa5" * data.stat().st_size)
    else:
        with data.open("r+b") as file:
            file.truncate(100 if damage == "truncated" else data.stat().st_size // 2)
    before = {path: path.read_bytes() for path in folder.glob("journal-*")}
    damaged = data.read_bytes()
    with pytest.raises(CorruptionError) as caught:
        Table(folder)
    assert str(folder) in str(caught.value)
    assert {path: path.read_bytes() for path in folder.glob("journal-*")} == before
    assert data.read_bytes() == damaged


def test_a_table_that_lost_batches_is_told(tmp_path):
    folder = tmp_path / "workspace"
    shut_with_journal(folder)
    before = {path: path.read_bytes() for path in folder.glob("journal-*")}
    shutil.rmtree(folder / "table")
    with pytest.raises(CorruptionError, match="is gone"):
        Table(folder)
    with Table(tmp_path / "other"):
        pass
    shutil.copytree(tmp_path / "other" / "table", folder / "table")
    with pytest.raises(CorruptionError, match="not a journal of this workspace"):
        Table(folder)
    assert {path: path.read_bytes() for path in folder.glob("journal-*")} == before


@pytest.mark.parametrize("loss", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_closed_table_that_is_gone_is_not_taken_for_a_new_one(tmp_path, loss):
    with Table(tmp_path) as table:
        table.apply([(b"a", b"")])
    loss(tmp_path / "table" / "data.mdb")
    with pytest.raises(CorruptionError, match="is gone"):
        Table(tmp_path)


def test_a_closed_table_takes_little_space(tmp_path):
    with Table(tmp_path) as table:
        table.apply([(b"a", b"")])
    assert sum(path.stat().st_blocks for path in tmp_path.glob("journal-*")) * 512 <= 4096


def test_a_table_is_open_once(tables, tmp_path):
    tables.append(Table(tmp_path))
    with pytest.raises(OSError, match="open already"):
        Table(tmp_path)


def test_nothing_of_a_closed_table_answers(tmp_path):
    table = Table(tmp_path)
    table.close()
    table.close()
    for work in (
        lambda: table.get(b"a"),
        lambda: list(table.scan(b"")),
        lambda: table.apply([(b"a", b"")]),
        table.frozen,
        table.checkpoint,
    ):
        with pytest.raises(ValueError, match="closed"):
            work()


def test_many_branches_can_have_changes_at_once(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for number in range(300):
            stack.callback(Database(tmp_path / f"{number}", new=True).close)
