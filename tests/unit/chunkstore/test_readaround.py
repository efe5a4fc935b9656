"""What is read around reads at random places of packs, and what it may cost."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from versionfs.chunkstore import OpenPackSource, PackRange, openpacks, readaround
from versionfs.chunkstore.readaround import CREDIT_S, WINDOW_BYTES, ReadAround
from versionfs.objectstore import LocalStore
from versionfs.pack import pack_key
from versionfs.types import PackId

PACK = PackId(bytes(range(32)))
OTHER = PackId(bytes(32))
SLOW = 0.001
FAST = 0.000_005
LENGTH = 50_000


@pytest.fixture
def clock(monkeypatch):
    """Time stands still unless a test moves it."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_second_wait_in_a_window_asks_for_all_of_it(clock):
    around = ReadAround()
    at = 3 * WINDOW_BYTES
    assert around.note(PACK, at + 5, LENGTH, SLOW) is None
    assert around.note(PACK, at + WINDOW_BYTES, LENGTH, SLOW) is None, "another window"
    assert around.note(OTHER, at + 5, LENGTH, SLOW) is None, "another pack"
    part = around.note(PACK, at + 900_000, LENGTH, SLOW)
    assert part == PackRange(PACK, at, WINDOW_BYTES)
    assert around.note(PACK, at + 100, LENGTH, SLOW) is None, "it is on its way"
    around.done(part, 0.002)
    assert around.note(PACK, at + 200, LENGTH, FAST) is None
    assert around.note(PACK, at + 300, LENGTH, FAST) is None


def test_what_is_in_memory_is_not_asked_for(clock):
    around = ReadAround()
    for at in range(100):
        assert around.note(PACK, at * 1000, LENGTH, FAST) is None
    large = 2_000_000
    assert around.note(PACK, 0, large, large / 2.5e9) is None, "it takes as long to copy"
    assert around.note(PACK, 10, large, large / 2.5e9) is None


def test_two_windows_at_most_are_on_their_way(clock):
    around = ReadAround()

    def ask(window: int) -> PackRange | None:
        around.note(PACK, window * WINDOW_BYTES, LENGTH, SLOW)
        return around.note(PACK, window * WINDOW_BYTES + 9, LENGTH, SLOW)

    first = ask(0)
    assert first is not None
    assert ask(1) is not None
    assert ask(2) is None
    around.done(first, 0.002)
    assert around.note(PACK, 2 * WINDOW_BYTES + 99, LENGTH, SLOW) is not None


def waste(around: ReadAround, windows: range, cost: float) -> int:
    """Reads twice in each window, and never again; returns how many were read around."""
    found = 0
    for window in windows:
        around.note(PACK, window * WINDOW_BYTES, LENGTH, SLOW)
        part = around.note(PACK, window * WINDOW_BYTES + 9, LENGTH, SLOW)
        if part is not None:
            around.done(part, cost)
            found += 1
    return found


def test_what_does_not_pay_costs_a_quarter_of_a_second_and_then_a_hundredth(clock):
    around = ReadAround()
    cost = 0.02
    assert waste(around, range(1000), cost) == 13
    clock[0] += 10
    assert 5 <= waste(around, range(1000, 2000), cost) <= 6, "a hundredth of ten seconds"
    clock[0] += 10_000
    assert waste(around, range(2000, 3000), cost) == 13, "no more than what it had at first"


def test_reads_that_find_their_bytes_pay_for_more(clock):
    around = ReadAround()
    for window in range(200):
        assert waste(around, range(window, window + 1), 10 * SLOW) == 1
        for at in range(11):
            around.note(PACK, window * WINDOW_BYTES + at * 100, LENGTH, FAST)
    assert waste(around, range(1000, 2000), CREDIT_S / 4.5) == 5


def test_a_window_that_is_read_again_and_again_pays_for_few_others(clock):
    around = ReadAround()
    assert waste(around, range(1), 0.0) == 1
    assert waste(around, range(1, 1000), 0.1) == 3
    for _ in range(1000):
        around.note(PACK, 100, LENGTH, FAST)
    # It gave 128 waits of a millisecond back: more than what the last one had cost too much.
    assert waste(around, range(1000, 2000), 0.1) == 1
    for _ in range(1000):
        around.note(PACK, 100, LENGTH, FAST)
    assert waste(around, range(2000, 3000), 0.1) == 0


def test_what_the_kernel_let_go_of_is_asked_for_again(clock):
    around = ReadAround()
    assert waste(around, range(1), 0.001) == 1
    assert around.note(PACK, 7, LENGTH, SLOW) is None, "so it is not in memory any more"
    assert waste(around, range(1), 0.001) == 1


def test_a_read_that_waits_for_what_is_behind_a_window_does_not_end_it(clock):
    around = ReadAround()
    assert waste(around, range(1), 0.001) == 1
    around.note(PACK, WINDOW_BYTES - LENGTH // 2, LENGTH, SLOW)
    assert (PACK, 0) in around._whole
    around.note(PACK, WINDOW_BYTES - LENGTH, LENGTH, SLOW)
    assert (PACK, 0) not in around._whole


def test_a_disk_that_stalls_once_is_not_held_against_it_for_long(clock):
    around = ReadAround()
    assert waste(around, range(1), 60.0) == 1
    clock[0] += 200
    assert waste(around, range(1, 2), 0.1) == 0
    clock[0] += 30
    assert waste(around, range(2, 3), 0.1) == 1


@pytest.mark.parametrize("cost", [0.01, 0.2, 1.0])
def test_what_never_pays_takes_a_hundredth_of_the_time(clock, cost):
    around = ReadAround()
    begun = clock[0]
    waste(around, range(100), cost)
    spent = 0.0
    for turn in range(2000):
        clock[0] += 1
        spent += cost * waste(around, range(1000 * turn, 1000 * turn + 3), cost)
    assert 0.008 <= spent / (clock[0] - begun) <= 0.011


def test_who_waits_for_other_threads_pays_back_little(clock):
    around = ReadAround()
    around.note(PACK, 0, LENGTH, 10.0)
    part = around.note(PACK, 9, LENGTH, 10.0)
    assert part is not None
    around.done(part, 0.5)
    around.note(PACK, 100, LENGTH, FAST)
    assert waste(around, range(1, 100), 0.1) == 0, "0.02 of 0.25 seconds are back"


def test_a_window_that_was_not_read_is_none(clock):
    around = ReadAround()
    around.note(PACK, 0, LENGTH, SLOW)
    part = around.note(PACK, 9, LENGTH, SLOW)
    assert part is not None
    around.done(part, None)
    assert waste(around, range(1), 0.001) == 1


def test_it_remembers_few_windows(clock, monkeypatch):
    monkeypatch.setattr(readaround, "_WINDOWS", 10)
    around = ReadAround()
    for window in range(100):
        around.note(PACK, window * WINDOW_BYTES, LENGTH, SLOW)
    assert len(around._asked) == 10
    waste(around, range(200, 300), 0.0)
    assert len(around._whole) == 10


SMALL = 256 * 1024
LAST = 5 * SMALL


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 256 KiB: files are written faster."""
    monkeypatch.setattr(readaround, "WINDOW_BYTES", SMALL)
    monkeypatch.setattr(openpacks, "_NEAR_BYTES", SMALL // 4)
    monkeypatch.setattr(readaround, "CREDIT_S", 100.0)  # however slow the disk is here


@pytest.fixture
def pack(tmp_path: Path, small: None) -> tuple[OpenPackSource, bytes]:
    """A pack of five windows and a bit, in a store of a disk that makes all wait."""
    store = LocalStore(tmp_path / "store")
    data = random.Random(5).randbytes(LAST + 1000)
    store.put(pack_key(PACK), data)
    return OpenPackSource(store), data


@pytest.fixture
def windows(monkeypatch):
    """Notes what is read to nowhere: start and bytes."""
    calls: list[tuple[int, int]] = []
    sendfile, pread = os.sendfile, os.pread

    def recorded(to: int, descriptor: int, start: int, length: int) -> int:
        calls.append((start, sendfile(to, descriptor, start, length)))
        return calls[-1][1]

    def waits(descriptor: int, length: int, start: int) -> bytes:
        time.sleep(SLOW)
        return pread(descriptor, length, start)

    monkeypatch.setattr(os, "sendfile", recorded)
    monkeypatch.setattr(os, "pread", waits)
    return calls


def settled(source: OpenPackSource) -> None:
    """Waits for what is being read around."""
    while source._around._running:
        time.sleep(0.001)


def test_a_source_reads_around_what_is_read_at_random_places(pack, windows):
    source, data = pack
    for at in (3 * SMALL, 0, LAST, 3 * SMALL + 70, 100, LAST + 9):
        assert source.read(PACK, at, 500) == data[at : at + 500]
        settled(source)
    source.close()
    assert windows == [
        (3 * SMALL, SMALL),
        (0, SMALL),
        (LAST, 1000),
    ]


def test_what_is_read_in_order_is_left_to_the_kernel(pack, windows):
    source, data = pack
    for at in range(0, len(data), 9_000):
        source.read(PACK, at, 9_000)
        # Two threads that decode ahead do not read in order, but near.
        source.read(PACK, max(at - 30_000, 0), 1000)
    settled(source)
    source.close()
    assert windows == []


def test_a_source_that_is_closed_reads_nothing_around(pack, windows):
    source, data = pack
    source.close()
    for at in (0, 3 * SMALL, 100, 3 * SMALL + 70, 200, 3 * SMALL + 900):
        assert source.read(PACK, at, 500) == data[at : at + 500]
    assert windows == []
    assert not source._around._running


def test_a_disk_that_fails_meanwhile_is_left_to_who_reads(pack, windows, monkeypatch):
    source, data = pack
    failed = []

    def fails(*_: object) -> int:
        failed.append(1)
        raise OSError(5, "broken")

    monkeypatch.setattr(os, "sendfile", fails)
    for count in range(1, 4):
        for at in (3 * SMALL, 0, 3 * SMALL + 7, 100):
            assert source.read(PACK, at, 500) == data[at : at + 500]
            settled(source)
        assert len(failed) == 2 * count, "it is tried again, as it was not read"
    source.close()


def test_threads_read_at_random_places_at_once(pack, windows):
    source, data = pack
    wrong = []

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(40):
            at = rng.randrange(LAST)
            if source.read(PACK, at, 500) != data[at : at + 500]:
                wrong.append(at)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    settled(source)
    assert wrong == []
    assert windows
    source.close()


def test_a_source_may_be_closed_while_windows_wait(pack, windows, monkeypatch):
    source, data = pack
    begun, go_on = threading.Event(), threading.Event()

    calls = []

    def waits(*_: object) -> int:
        calls.append(1)
        begun.set()
        go_on.wait(10)
        return 1

    monkeypatch.setattr(os, "sendfile", waits)
    for at in (3 * SMALL, 0, 3 * SMALL + 7, 100):
        source.read(PACK, at, 500)
    source.prefetch([PackRange(PACK, 0, 1000)], None)
    assert begun.wait(10)
    assert len(source._around._running) == 2
    threading.Timer(0.05, go_on.set).start()
    source.close()
    assert len(calls) <= 2, "the other window was not begun any more"
    assert source.read(PACK, 5, 500) == data[5:505]
