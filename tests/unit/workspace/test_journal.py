"""Journals: torn, refused, damaged; and a table whose process is killed at any moment."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.stores import ROOT
from versionfs.errors import CorruptionError
from versionfs.workspace import table as table_module
from versionfs.workspace.database import Database
from versionfs.workspace.journal import RESERVE, Journal, replay
from versionfs.workspace.table import Table

IDENTITY = b"0123456789abcdef"


@pytest.fixture
def journal(tmp_path):
    journal = Journal.create(tmp_path / "journal-1", IDENTITY)
    yield journal
    journal.close()


def batches(path: Path) -> list[tuple[int, list[tuple[bytes, bytes | None]]]]:
    found = replay(path, IDENTITY)
    assert found is not None
    assert not found.torn
    return [(batch.sequence, batch.mutations) for batch in found.batches]


def test_what_was_appended_is_read_back(journal):
    wanted = [
        (1, [(b"a", b"1"), (b"b", None), (b"c", b"")]),
        (2, [(bytes(511), bytes(100_000))]),
        (3, []),
    ]
    for sequence, mutations in wanted:
        journal.append(sequence, mutations, frees=False)
    assert batches(journal.path) == wanted


def test_it_goes_on_after_space_ahead_is_used_up(journal):
    for n in range(30):
        journal.append(n, [(b"k", bytes([n]) * 200_000)], frees=False)
    assert [sequence for sequence, _ in batches(journal.path)] == list(range(30))


@pytest.mark.parametrize("keep", [0, 1, 5, 16, 30])
def test_a_failed_append_leaves_nothing(journal, monkeypatch, keep):
    journal.append(1, [(b"a", b"1")], frees=False)
    real = os.pwrite
    calls = itertools.count()

    def failing(descriptor, data, offset):
        if next(calls) or not keep:
            raise OSError(errno.EIO, "bad disk")
        return real(descriptor, bytes(data)[:keep], offset)

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(OSError, match="bad disk"):
        journal.append(2, [(b"b", bytes(100))], frees=False)
    monkeypatch.undo()
    assert batches(journal.path) == [(1, [(b"a", b"1")])]
    journal.append(2, [(b"c", b"3")], frees=False)
    assert batches(journal.path) == [(1, [(b"a", b"1")]), (2, [(b"c", b"3")])]


def test_what_cannot_be_cut_at_once_is_cut_before_the_next_append(journal, monkeypatch):
    real = os.pwrite
    calls = itertools.count()

    def failing(descriptor, data, offset):
        if next(calls):
            raise OSError(errno.EIO, "bad disk")
        return real(descriptor, bytes(data)[:20], offset)

    def refuse(*_):
        raise OSError(errno.EIO, "cannot cut")

    monkeypatch.setattr(os, "pwrite", failing)
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(OSError, match="bad disk"):
        journal.append(1, [(b"b", bytes(100))], frees=False)
    with pytest.raises(OSError, match="cannot cut"):
        journal.append(1, [(b"b", bytes(100))], frees=True)
    monkeypatch.undo()
    journal.append(1, [(b"c", b"")], frees=False)
    assert batches(journal.path) == [(1, [(b"c", b"")])]


def test_only_what_frees_space_may_use_the_reserve(journal, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)

    def fill(*, frees: bool) -> None:
        for n in range(100_000):
            journal.append(n, [(b"key", bytes(500))], frees=frees)

    with pytest.raises(OSError, match="full"):
        fill(frees=False)
    before = journal.end
    for n in range(RESERVE // 600):
        journal.append(n, [(b"key", bytes(500))], frees=True)
    assert journal.end <= before + RESERVE


def test_a_record_cut_short_anywhere_ends_the_replay(tmp_path, journal):
    journal.append(1, [(b"a", b"1")], frees=False)
    middle = journal.end
    journal.append(2, [(b"b", b"2" * 30)], frees=False)
    data = journal.path.read_bytes()[: journal.end]
    for length in range(middle, journal.end):
        for rest in (b"", bytes(100)):
            path = tmp_path / "cut"
            path.write_bytes(data[:length] + rest)
            found = replay(path, IDENTITY)
            assert found is not None
            assert [batch.sequence for batch in found.batches] == [1]
            assert found.end == middle
            assert found.torn == (length > middle)


def test_a_flipped_bit_is_no_batch(tmp_path, journal):
    journal.append(1, [(b"a", b"1")], frees=False)
    data = journal.path.read_bytes()[: journal.end]
    for at in range(len(data)):
        path = tmp_path / "flipped"
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        if at < 24:
            with pytest.raises(CorruptionError):
                replay(path, IDENTITY)
        else:
            found = replay(path, IDENTITY)
            assert found is not None
            assert found.batches == []


def test_a_record_of_another_table_is_none(tmp_path, journal):
    other = Journal.create(tmp_path / "other", b"f" * 16)
    other.append(1, [(b"a", b"1")], frees=False)
    record = other.path.read_bytes()[24 : other.end]
    other.close()
    with journal.path.open("r+b") as file:
        file.seek(24)
        file.write(record)
    found = replay(journal.path, IDENTITY)
    assert found is not None
    assert (found.batches, found.torn) == ([], True)


@pytest.mark.parametrize("length", [0, 1, 8, 23])
def test_a_journal_that_was_never_begun_is_none(tmp_path, journal, length):
    data = journal.path.read_bytes()
    for rest in (b"", bytes(1000)):
        path = tmp_path / "begun"
        path.write_bytes(data[:length] + rest)
        assert replay(path, IDENTITY) is None


# -- as a table finds them


class Left:
    """A table's folder as a kill left it: its journals can be changed before it is opened."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.folder = folder
        open_folder = folder.with_name("open")
        table = Table(open_folder)
        monkeypatch.setattr(Database, "write", lambda *_: (_ for _ in ()).throw(OSError("later")))
        for n in range(3):
            for m in range(4):
                table.apply([(b"%d-%d" % (n, m), b"")])
            if n < 2:  # A journal of its own for each n; LMDB has nothing.
                fresh = table._new_journal()
                self.sealed = table._journals
                table._journals = [*self.sealed, fresh]
        shutil.copytree(open_folder, folder)
        table.close()
        monkeypatch.undo()
        self.journals = sorted(folder.glob("journal-*"))

    def keys(self) -> list[bytes]:
        with Table(self.folder) as table:
            table.apply([(b"9", b"")])
            keys = [key for key, _ in table.scan(b"")]
        with Table(self.folder) as table:
            assert [key for key, _ in table.scan(b"")] == keys
        return keys[:-1]


def all_keys(journals: int) -> list[bytes]:
    return [b"%d-%d" % (n, m) for n in range(journals) for m in range(4)]


@pytest.fixture
def left(tmp_path, monkeypatch) -> Left:
    return Left(tmp_path / "left", monkeypatch)


def test_all_journals_are_replayed(left):
    assert len(left.journals) == 3
    assert left.keys() == all_keys(3)
    assert not list(left.folder.glob("left-out-*"))


def test_a_torn_tail_is_left_out_and_told(left, caplog):
    data = left.journals[2].read_bytes().rstrip(b"\0")
    left.journals[2].write_bytes(data[:-3])
    assert left.keys() == all_keys(3)[:-1]
    assert "no whole change" in caplog.text
    assert (left.folder / "left-out-journal-3").read_bytes() == data[99:-3].rstrip(b"\0")


def test_what_follows_a_torn_journal_is_put_aside_not_applied(left, caplog):
    data = left.journals[1].read_bytes().rstrip(b"\0")
    later = left.journals[2].read_bytes()
    left.journals[1].write_bytes(data[:-3])
    assert left.keys() == all_keys(2)[:-1]
    assert (left.folder / "left-out-journal-3").read_bytes() == later


def test_what_follows_a_journal_that_lost_its_end_is_put_aside(left):
    data = left.journals[1].read_bytes()
    length = struct.unpack_from("<I", data, 24)[0] + 8
    left.journals[1].write_bytes(data[: 24 + 2 * length])
    assert left.keys() == all_keys(1) + all_keys(2)[4:6]
    assert (left.folder / "left-out-journal-3").exists()


def test_a_missing_first_journal_is_told_and_nothing_is_touched(left):
    left.journals[0].unlink()
    before = {path: path.read_bytes() for path in left.journals[1:]}
    for _ in range(2):
        with pytest.raises(CorruptionError, match="lacks changes"):
            Table(left.folder)
    assert {path: path.read_bytes() for path in left.journals[1:]} == before


def test_a_journal_made_ready_when_the_one_before_was_torn_is_no_matter(left):
    data = left.journals[2].read_bytes().rstrip(b"\0")
    left.journals[2].write_bytes(data[:-3])
    (left.folder / "journal-4").write_bytes(data[:24] + bytes(1000))
    assert left.keys() == all_keys(3)[:-1]
    assert [path.name for path in left.folder.glob("left-out-*")] == ["left-out-journal-3"]


def test_a_last_journal_that_was_never_begun_is_no_matter(left):
    (left.folder / "journal-4").write_bytes(bytes(1000))
    (left.folder / "journal-notes").write_bytes(b"mine")
    assert left.keys() == all_keys(3)


# -- kill -9

CHILD = """
import sys
from tests.unit.workspace.test_journal import *
child(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
"""
KEYS = 40


def mutations(n: int) -> list[tuple[bytes, bytes | None]]:
    """Batch n: all of its keys tell n, so half a batch would show."""
    value = b"%d" % n
    size = 20_000 if n % 97 == 0 else n % 50
    return [
        (b"count", value),
        (b"a%d" % (n % KEYS), value),
        (b"b%d" % (n % KEYS), value + bytes(size)),
        (b"only%d" % n, value),
        (b"only%d" % (n - KEYS), None),
    ]


def check(table: Table, reported: int) -> int:
    """What is there is exactly batches 1 to ``count``, and those reported are among them."""
    value = table.get(b"count")
    count = 0 if value is None else int(value)
    assert reported <= count == table.sequence
    model: dict[bytes, bytes] = {}
    for n in range(max(1, count - 2 * KEYS), count + 1):
        for key, new in mutations(n):
            if new is None:
                model.pop(key, None)
            else:
                model[key] = new
    found = dict(table.scan(b""))
    assert len(found) == len(model)
    assert found == model
    return count


def child(folder: Path, report: int, moment: str) -> None:
    setattr(table_module, "_SEAL_RECORDS", 60)  # noqa: B010
    if ":" in moment:
        die_at(moment)
    table = Table(folder)

    def sync() -> None:
        while True:
            table.sync()

    threading.Thread(target=sync, daemon=True).start()
    n = table.sequence
    while True:
        n += 1
        table.apply(mutations(n))
        os.write(report, struct.pack("<Q", n))
        if n % 500 == 0:
            table.frozen().close()
            table.checkpoint()


def die_at(moment: str) -> None:
    """Kills this process before or after the n-th call of something: ``"unlink:before:2"``."""
    name, when, number = moment.split(":")
    owner, attribute = {
        "unlink": (Path, "unlink"),
        "pwrite": (os, "pwrite"),
        "fallocate": (os, "posix_fallocate"),
        "write": (Database, "write"),
        "create": (Journal, "create"),
    }[name]
    real = getattr(owner, attribute)
    calls = itertools.count(1)

    def dying(*arguments, **options):
        mine = next(calls) == int(number)
        if mine and when == "half":
            descriptor, data, offset = arguments
            real(descriptor, bytes(data)[: len(data) // 2], offset)
        if mine and when != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **options)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, attribute, dying)


def run_until_killed(folder: Path, moment: str, seconds: float | None) -> int:
    """Returns the last batch reported."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(writer), moment],
        cwd=ROOT,
        pass_fds=[writer],
    )
    os.close(writer)
    last = b""
    killer: threading.Timer | None = None
    try:
        with os.fdopen(reader, "rb", buffering=0) as reports:
            while data := reports.read(65_536):
                if killer is None and seconds is not None:
                    killer = threading.Timer(seconds, process.kill)
                    killer.start()
                last = (last + data)[-(8 + len(last + data) % 8) :]
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
        if killer is not None:
            killer.cancel()
            killer.join()
    whole = last[: len(last) // 8 * 8]
    return struct.unpack("<Q", whole[-8:])[0] if whole else 0


def test_nothing_reported_is_lost_however_often_it_is_killed(tmp_path):
    seconds = random.Random(4)
    count = 0
    for _ in range(12):
        reported = run_until_killed(tmp_path, "any", seconds.uniform(0, 0.15))
        if seconds.random() < 0.5:
            with Table(tmp_path) as table:
                after = check(table, reported)
            assert after > count
            count = after
    with Table(tmp_path) as table:
        check(table, count)


@pytest.mark.parametrize(
    "moment",
    [
        "unlink:before:2",
        "unlink:after:2",
        "pwrite:before:200",
        "pwrite:half:200",
        "pwrite:after:200",
        "pwrite:half:1",
        "fallocate:before:3",
        "fallocate:after:3",
        "write:before:3",
        "write:after:3",
        "create:before:3",
        "create:after:3",
    ],
)
def test_nothing_reported_is_lost_when_it_is_killed_at(tmp_path, moment):
    reported = run_until_killed(tmp_path, moment, None)
    with Table(tmp_path) as table:
        count = check(table, reported)
        assert count <= reported + 1
        for n in range(count + 1, count + 200):
            table.apply(mutations(n))
    with Table(tmp_path) as table:
        check(table, count + 199)
