"""Reading packs over a network: how many requests, how many bytes, and what is never read."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.remote import RemoteFolder
from versionfs.chunkstore import DiskCache, FetchingSource
from versionfs.errors import NotFoundError
from versionfs.objectstore import WouldBlock, never_blocking
from versionfs.pack import pack_key
from versionfs.types import PackId

PACK = PackId(b"\xab" * 32)
MIB = 1 << 20
DATA = random.Random(1).randbytes(9 * MIB + 12_345)


class Place:
    """A store with one pack, and sources that read it; each has the same disk cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote = RemoteFolder(folder / "store")
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


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def settle(source: FetchingSource) -> None:
    """Waits until nothing is under way."""
    in_flight = source._in_flight
    with in_flight._idle:
        assert in_flight._idle.wait_for(
            lambda: not in_flight._running and not in_flight._prefetched, 20
        )


def test_reads_give_the_bytes_of_the_pack(place: Place) -> None:
    source = place.source()
    rng = random.Random(2)
    for _ in range(200):
        start = rng.randrange(len(DATA))
        length = rng.choice([1, 100, 70_000, 600_000])
        scan = rng.random() < 0.3
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


def test_ten_readers_of_one_block_send_one_request(place: Place) -> None:
    place.remote.latency = 0.05
    source = place.source()
    with ThreadPoolExecutor(10) as readers:
        barrier = threading.Barrier(10)

        def read(_: int) -> bytes:
            barrier.wait()
            return source.read(PACK, 3 * MIB, 200_000)

        assert set(readers.map(read, range(10))) == {DATA[3 * MIB : 3 * MIB + 200_000]}
    assert place.remote.requests["get"] == 1


def test_a_pack_that_is_not_in_the_store_is_not_found(place: Place) -> None:
    with pytest.raises(NotFoundError):
        place.source().read(PackId(b"\xcd" * 32), 0, 10)
