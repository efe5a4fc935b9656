"""Reading packs over a network: how many requests, how many bytes, and what is never read."""

from __future__ import annotations

import contextlib
import gc
import logging
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.remote import FillingFolder, RemoteFolder
from versionfs.chunkstore import DiskCache, FetchingSource, PackRange, PackReader
from versionfs.chunkstore.diskcache import GRANULE_BYTES
from versionfs.chunkstore.recent import RecentRuns
from versionfs.chunkstore.source import Scan
from versionfs.errors import CorruptionError, NotFoundError, StorageTransientError
from versionfs.objectstore import WouldBlock, never_blocking
from versionfs.pack import pack_key
from versionfs.types import Location, PackId

PACK = PackId(b"\xab" * 32)
MIB = 1 << 20


class Reader:
    """Who reads ahead."""


ONE, OTHER = Reader(), Reader()
DATA = b"\x00" + random.Random(1).randbytes(9 * MIB + 12_344)


class Place:
    """A store with one pack, and sources that read it; each has the same disk cache."""

    def __init__(self, folder: Path, kind: type[RemoteFolder]) -> None:
        self.folder = folder
        self.remote = kind(folder / "store")
        self.remote.inner.put(pack_key(PACK), DATA)
        self.bound = 1 << 30
        self._sources: list[FetchingSource] = []

    def source(self, connections: int = 8) -> FetchingSource:
        cache = DiskCache(self.folder / "cache", self.bound)
        self._sources.append(FetchingSource(self.remote, cache, connections))
        return self._sources[-1]

    def close(self) -> None:
        for source in self._sources:
            source.close()


@pytest.fixture(params=[RemoteFolder, FillingFolder])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(tmp_path, request.param)
    yield made
    made.close()


def _wait(barrier: threading.Barrier) -> None:
    barrier.wait(20)


def settle(source: FetchingSource) -> None:
    """Waits until nothing is under way."""
    barrier = threading.Barrier(3)
    # Behind all that was planned, for both planners.
    for _ in range(2):
        source.later(lambda: _wait(barrier))
    _wait(barrier)
    in_flight = source._in_flight
    with in_flight._idle:
        assert in_flight._idle.wait_for(
            lambda: not (in_flight._running or in_flight._prefetched), 20
        )


def test_reads_give_the_bytes_of_the_pack(place: Place) -> None:
    source = place.source()
    rng = random.Random(2)
    for _ in range(200):
        start = rng.randrange(len(DATA))
        length = rng.choice([1, 100, 70_000, 600_000])
        scan = Scan.NEAR if rng.random() < 0.3 else Scan.NONE
        assert source.read(PACK, start, length, scan) == DATA[start : start + length]
    settle(source)
    again = place.source()
    before = sum(place.remote.requests.values())
    assert again.read(PACK, 0, len(DATA)) == DATA
    assert sum(place.remote.requests.values()) == before


def test_what_was_fetched_is_read_from_the_disk_by_the_next_process(place: Place) -> None:
    assert place.source().read(PACK, 100, 1000) == DATA[100:1100]
    assert place.remote.requests["get"] == 1
    settle(place._sources[0])
    with never_blocking():
        assert place.source().read(PACK, 5000, 1000) == DATA[5000:6000]
    assert place.remote.requests["get"] == 1


def test_a_thread_that_may_not_block_is_told_how_to_fetch(place: Place) -> None:
    source = place.source()
    with never_blocking(), pytest.raises(WouldBlock) as told:
        source.read(PACK, 7 * MIB, 1000)
    assert place.remote.requests["get"] == 0
    told.value.fetch()
    with never_blocking():
        assert source.read(PACK, 7 * MIB, 1000) == DATA[7 * MIB : 7 * MIB + 1000]
    assert place.remote.requests["get"] == 1


def test_what_is_forgotten_while_it_is_written_is_fetched_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply was damaged, and the disk is slower than the reader who finds out."""
    source = place.source()
    writing = threading.Event()
    write = source.cache.write

    def slowly(pack: PackId, start: int, data: bytes | memoryview) -> None:
        writing.set()
        time.sleep(0.3)
        write(pack, start, data)

    monkeypatch.setattr(source.cache, "write", slowly)
    key = pack_key(PACK)
    path = place.folder / "store" / key
    path.write_bytes(bytes(len(DATA)))
    assert source.read(PACK, 0, 1000) == bytes(1000)
    assert writing.wait(20)
    path.write_bytes(DATA)
    source.forget(PACK)
    assert source.read(PACK, 0, 1000) == DATA[:1000]
    settle(source)
    assert place.source().read(PACK, 0, 1000) == DATA[:1000]
    assert place.remote.requests["get"] == 2


def test_what_is_forgotten_on_its_way_is_not_taken_for_what_came_after_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that was damaged in transit comes after that of the request that followed."""
    source = place.source()
    get = source._objects.get
    sent, go = threading.Event(), threading.Event()

    def damaged_once(key: str, start: int, length: int) -> bytes:
        data = get(key, start, length)
        if sent.is_set():
            return data
        sent.set()
        go.wait(20)
        return bytes(len(data))

    monkeypatch.setattr(source._objects, "get", damaged_once)
    source.want([PackRange(PACK, 0, 1000)])
    assert sent.wait(20)
    source.forget(PACK)
    assert source.read(PACK, 0, 1000) == DATA[:1000]
    go.set()
    settle(source)
    assert source.read(PACK, 0, 1000) == DATA[:1000]


def test_ten_readers_of_one_block_send_one_request(place: Place) -> None:
    place.remote.latency = 0.05
    source = place.source()
    with ThreadPoolExecutor(10) as readers:
        barrier = threading.Barrier(10)

        def read(_: int) -> bytes:
            barrier.wait()
            return bytes(source.read(PACK, 3 * MIB, 200_000))

        assert set(readers.map(read, range(10))) == {DATA[3 * MIB : 3 * MIB + 200_000]}
    assert place.remote.requests["get"] == 1


def test_a_pack_that_is_not_in_the_store_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError):
        place.source().read(PackId(b"\xcd" * 32), 0, 10)


# -- how much a read brings ------------------------------------------------------------------------


def test_a_read_that_is_no_scan_brings_its_granules_only(place: Place) -> None:
    source = place.source()
    source.read(PACK, 3 * MIB + 5, 100)
    assert place.remote.ranges == [(pack_key(PACK), 3 * MIB, GRANULE_BYTES)]


def test_a_scan_brings_more_with_each_miss_and_then_the_pack(place: Place) -> None:
    source = place.source()
    received = []
    for start in (4 * MIB, 5 * MIB, 0):
        source.read(PACK, start, 1000, scan=Scan.NEAR)
        settle(source)
        received.append(place.remote.received)
    assert received[0] == 256 * 1024
    assert 2 * MIB <= received[1] - received[0] <= 2 * MIB + GRANULE_BYTES
    requests = place.remote.requests["get"]
    assert source.read(PACK, 0, len(DATA)) == DATA
    assert place.remote.requests["get"] == requests <= 7
    assert place.remote.received <= len(DATA) + 256 * 1024


def test_a_scan_that_needs_all_of_a_pack_gets_it_with_its_first_miss(place: Place) -> None:
    source = place.source()
    assert source.read(PACK, 100, 1000, Scan.ALL) == DATA[100:1100]
    settle(source)
    assert place.remote.received <= len(DATA) + GRANULE_BYTES
    requests = place.remote.requests["get"]
    assert source.read(PACK, 0, len(DATA)) == DATA
    assert place.remote.requests["get"] == requests <= 3


def test_the_rest_of_a_pack_comes_side_by_side(place: Place) -> None:
    place.remote.latency = 0.02
    source = place.source()
    for start in (0, MIB, 4 * MIB):
        source.read(PACK, start, 1000, scan=Scan.NEAR)
    settle(source)
    assert place.remote.most_at_once >= 2


def test_first_touches_of_many_packs_fetch_little_of_each(place: Place) -> None:
    source = place.source()
    packs = [PackId(bytes([number]) * 32) for number in range(20)]
    for pack in packs:
        place.remote.inner.put(pack_key(pack), DATA)
        source.read(pack, 5 * MIB, 1000, scan=Scan.NEAR)
    settle(source)
    assert place.remote.received == 20 * 256 * 1024


def test_neighbours_share_a_request_and_gaps_are_bridged(place: Place) -> None:
    source = place.source()
    few = [0, GRANULE_BYTES, 4 * GRANULE_BYTES, 5 * GRANULE_BYTES, 40 * GRANULE_BYTES]
    source.want(PackRange(PACK, start, 10) for start in few)
    settle(source)
    expected = [(0, 6 * GRANULE_BYTES), (40 * GRANULE_BYTES, GRANULE_BYTES)]
    assert sorted(r[1:] for r in place.remote.ranges) == expected


def test_no_request_is_for_more_than_4_mib(place: Place) -> None:
    source = place.source()
    assert source.read(PACK, 0, len(DATA)) == DATA
    assert max(length or 0 for _, _, length in place.remote.ranges) <= 4 * MIB
    assert place.remote.requests["get"] == 3


def test_what_is_prefetched_is_split_into_equal_requests_of_9_mib_at_most(place: Place) -> None:
    pack = PackId(b"\xcd" * 32)
    place.remote.inner.put(pack_key(pack), bytes(33 * MIB))
    source = place.source()
    source.prefetch([PackRange(pack, 0, 33 * MIB)], ONE)
    settle(source)
    assert [length for _, _, length in place.remote.ranges] == [33 * MIB // 4] * 4


# -- in the background -----------------------------------------------------------------------------


class Gate:
    """Holds the requests of a store until it is opened."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered: list[int] = []
        self.arrived = threading.Semaphore(0)
        self._open = threading.Event()
        inner = place.remote.get

        def get(key: str, start: int = 0, length: int | None = None) -> bytes:
            self.entered.append(start)
            self.arrived.release()
            assert self._open.wait(20)
            return inner(key, start, length)

        monkeypatch.setattr(place.remote, "get", get)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(place, monkeypatch)
    yield made
    made.open()


def ranges(*starts: int) -> list[PackRange]:
    return [PackRange(PACK, start, 10) for start in starts]


def test_what_is_cancelled_before_it_begins_is_not_fetched(place: Place, gate: Gate) -> None:
    source = place.source(connections=2)
    source.prefetch(ranges(0, MIB, 2 * MIB, 3 * MIB), ONE)
    source.prefetch(ranges(4 * MIB), OTHER)
    assert gate.arrived.acquire(timeout=20)
    source.cancel(ONE)
    gate.open()
    settle(source)
    assert gate.entered == [0, 4 * MIB]
    assert source.read(PACK, MIB, 10) == DATA[MIB : MIB + 10]


def test_a_reader_goes_before_all_prefetches_and_takes_over_its_own(
    place: Place, gate: Gate
) -> None:
    source = place.source(connections=2)
    source.prefetch(ranges(0, MIB, 2 * MIB, 3 * MIB), ONE)
    assert gate.arrived.acquire(timeout=20)
    with ThreadPoolExecutor(1) as readers:
        read = readers.submit(source.read, PACK, 3 * MIB, 10)
        assert gate.arrived.acquire(timeout=20)
        source.cancel(ONE)
        gate.open()
        assert read.result(20) == DATA[3 * MIB : 3 * MIB + 10]
    settle(source)
    assert gate.entered == [0, 3 * MIB]


def test_a_closed_source_tells_those_who_wait(place: Place, gate: Gate) -> None:
    source = place.source(connections=1)
    source.prefetch(ranges(0), ONE)
    assert gate.arrived.acquire(timeout=20)
    with ThreadPoolExecutor(2) as threads:
        read = threads.submit(source.read, PACK, MIB, 10)
        while not source._in_flight._demanded:
            assert not read.done()
        closing = threads.submit(source.close)
        with pytest.raises(StorageTransientError):
            read.result(20)
        gate.open()
        closing.result(20)
    with pytest.raises(StorageTransientError):
        source.read(PACK, 2 * MIB, 10)


def test_a_prefetch_for_a_scan_asks_for_nothing_behind_the_end_of_a_pack_that_is_here(
    place: Place,
) -> None:
    """As imports have it: what they wrote is in the cache, where it ends was never told."""
    place.source().cache.write(PACK, 0, DATA[: 3 * GRANULE_BYTES])
    source = place.source()
    source.prefetch([PackRange(PACK, 2 * GRANULE_BYTES, 1000)], None, scan=Scan.NEAR)
    settle(source)
    assert place.remote.requests["get"] == 0
    source.prefetch([PackRange(PACK, 3 * GRANULE_BYTES, 1000)], None, scan=Scan.NEAR)
    settle(source)
    assert place.remote.ranges == [(pack_key(PACK), 3 * GRANULE_BYTES, 4 * GRANULE_BYTES)]


def test_when_the_store_fails_what_was_to_be_prefetched_is_dropped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        place.remote.requests["failed"] += 1
        raise StorageTransientError("no network")

    monkeypatch.setattr(place.remote, "get", fail)
    source = place.source(connections=1)
    source.prefetch(ranges(*range(0, 8 * MIB, MIB)), ONE)
    settle(source)
    assert place.remote.requests["failed"] == 1
    with pytest.raises(StorageTransientError, match="no network"):
        source.read(PACK, 0, 10)
    monkeypatch.undo()
    assert source.read(PACK, 0, 10) == DATA[:10]


def test_cached_data_is_read_while_the_store_is_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.source().read(PACK, 0, 3 * MIB)
    settle(place._sources[0])

    def fail(*_: object) -> bytes:
        raise StorageTransientError("no network")

    monkeypatch.setattr(place.remote, "get", fail)
    assert place.source().read(PACK, 0, 3 * MIB) == DATA[: 3 * MIB]


# -- without a disk --------------------------------------------------------------------------------


def test_without_a_disk_cache_what_was_fetched_is_read_from_memory(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    (place.folder / "cache").write_bytes(b"a file where the folder should be")
    source = place.source()
    for start in range(0, 8 * MIB, 700_000):
        with never_blocking(), pytest.raises(WouldBlock) as told:
            source.read(PACK, start, 700_000)
        told.value.fetch()
        with never_blocking():
            assert source.read(PACK, start, 700_000) == DATA[start : start + 700_000]
    assert caplog.text.count("without the disk cache") == 1


def test_a_part_in_memory_and_a_part_on_disk_is_all_at_hand(place: Place) -> None:
    first = place.source()
    first.read(PACK, 0, GRANULE_BYTES)
    settle(first)
    source = place.source()
    source._recent.add(PACK, 1, DATA[GRANULE_BYTES : 2 * GRANULE_BYTES])
    with never_blocking():
        assert source.read(PACK, GRANULE_BYTES - 5, 10) == DATA[GRANULE_BYTES - 5 :][:10]


def test_memory_is_bounded(place: Place) -> None:
    source = place.source()
    for token, bound in ((None, 64 * MIB), (ONE, 104 * MIB)):
        for number in range(16):
            pack = PackId(bytes([number + bound // MIB]) * 32)
            place.remote.inner.put(pack_key(pack), DATA)
            source.prefetch([PackRange(pack, 0, 10)], token)
            source.read(pack, 0, len(DATA))
        settle(source)
        assert bound - len(DATA) <= source._recent._held <= bound
    assert sum(len(data) for data in source._recent._runs.values()) == source._recent._held
    assert not source._in_flight._by_granule


def test_statistics_count_hits_misses_and_bytes(place: Place) -> None:
    source = place.source()
    source.read(PACK, 0, 10)
    source.read(PACK, 10, 10)
    source.prefetch(ranges(2 * MIB), ONE)
    settle(source)
    found = source.statistics()
    assert (found.misses, found.memory_hits, found.requests) == (1, 1, 2)
    assert found.fetched_bytes == 2 * GRANULE_BYTES
    assert found.prefetched_bytes == GRANULE_BYTES
    again = place.source()
    again.read(PACK, 0, 10)
    assert again.statistics().disk_hits == 1


def test_many_readers_of_a_cache_that_is_too_small_read_nothing_wrong(place: Place) -> None:
    place.bound = 3 * MIB
    packs = [PackId(bytes([number]) * 32) for number in range(6)]
    for pack in packs:
        place.remote.inner.put(pack_key(pack), DATA)
    sources = [place.source(), place.source()]

    def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            source, pack = rng.choice(sources), rng.choice(packs)
            start, length = rng.randrange(len(DATA)), rng.choice([10, 100_000, 900_000])
            if rng.random() < 0.05:
                source.forget(pack)
            scan = Scan.NEAR if rng.random() < 0.5 else Scan.NONE
            assert source.read(pack, start, length, scan) == DATA[start : start + length]

    with ThreadPoolExecutor(8) as readers:
        list(readers.map(read, range(8)))
    assert sources[0].cache.usage().held_bytes <= place.bound


def test_what_was_read_through_gives_way_to_what_comes_next() -> None:
    recent = RecentRuns(5 * 2 * GRANULE_BYTES)
    run = DATA[: 2 * GRANULE_BYTES]
    for first in (0, 2, 4, 6, 8):
        recent.add(PACK, first, run)
    for number in (0, 1, 2):
        recent.pieces(PACK, number, number)
    recent.add(PACK, 10, run)
    assert [number for number in range(12) if recent.has(PACK, number)] == list(range(2, 12))


def test_a_process_ends_although_requests_hang(tmp_path: Path) -> None:
    script = """
import sys, threading
from pathlib import Path
from tests.support.remote import RemoteFolder
from versionfs.chunkstore import DiskCache, FetchingSource, PackRange, inflight
from versionfs.types import PackId

class Hanging(RemoteFolder):
    def get(self, key, start=0, length=None):
        sent.release()
        threading.Event().wait()

sent = threading.Semaphore(0)
inflight._CLOSE_SECONDS = 0.1
folder = Path(sys.argv[1])
source = FetchingSource(Hanging(folder / "store"), DiskCache(folder / "cache", 1 << 30), 4)
source.prefetch([PackRange(PackId(bytes(32)), 0, 1000)], None)
source.later(lambda: source.read(PackId(bytes([1]) * 32), 0, 1000))
for _ in range(2):
    assert sent.acquire(timeout=30)
source.close()
print("closed")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"closed\n", b"")


def test_errors_of_damaged_blocks_hold_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each would hold its frame, and with it blocks, until Python looks for cycles."""
    place = Place(tmp_path, RemoteFolder)
    reader = PackReader(place.source(), 1 << 20)
    where = Location(PACK, 0, 1000, 0, 100)
    left: weakref.WeakSet[CorruptionError] = weakref.WeakSet()
    made = 0

    def damaged() -> CorruptionError:
        nonlocal made
        made += 1
        error = CorruptionError("damaged")
        left.add(error)
        return error

    def verify(_data: memoryview) -> None:
        raise damaged()

    caplog.set_level(logging.CRITICAL)  # a record would keep it as well
    gc.disable()
    try:
        with contextlib.suppress(CorruptionError):  # pytest.raises would keep it
            reader.read(where, verify)
        assert made == 2, "fetched again, once"
        assert not left
    finally:
        gc.enable()
        place.close()
