"""Reading trees and files over a network, counted: requests, bytes, and what runs side by side."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.support import commit
from tests.property.test_content import store_file
from tests.support.remote import RemoteFolder
from tests.support.stores import (
    bring,
    file_entry,
    head,
    make_store,
    settings_in,
)
from versionfs.chunkstore import FetchingSource
from versionfs.errors import CorruptionError
from versionfs.objectstore import WouldBlock, may_block, never_blocking
from versionfs.repo import Store
from versionfs.repo.format import FORMAT_KEY, StoreFormat
from versionfs.tree import build_directory, directory_entry, readahead
from versionfs.tree.readahead import FIRST_BYTES
from versionfs.types import Entry, Kind, NodeRef

MIB = 1 << 20
Opened = tuple[Store, RemoteFolder]
Open = Callable[..., Opened]


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Open]:
    """Opens the local store as if behind a network; each machine has a home of its own."""
    opened: list[Store] = []

    def open_(machine: str = "b", *, latency: float = 0.0) -> Opened:
        root = tmp_path / "a" / "store"
        store_format = StoreFormat.decode((root / FORMAT_KEY).read_bytes(), str(root))
        objects = RemoteFolder(root, latency)
        store = Store(settings_in(tmp_path / machine, store=root), objects, store_format)
        opened.append(store)
        return store, objects

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Store]:
    with make_store(tmp_path / "a") as store:
        yield store


def _wait(barrier: threading.Barrier) -> None:
    barrier.wait(20)


def settle(store: Store) -> None:
    """Waits until nothing is under way."""
    source = store.source
    assert isinstance(source, FetchingSource)
    # Behind all that was planned, for both planners.
    barrier = threading.Barrier(3)
    for _ in range(2):
        source.later(lambda: _wait(barrier))
    barrier.wait(20)
    in_flight = source._in_flight
    with in_flight._idle:
        assert in_flight._idle.wait_for(
            lambda: not (in_flight._running or in_flight._prefetched or in_flight._demanded), 20
        )


# -- large files -----------------------------------------------------------------------------------


@pytest.fixture
def large(local: Store) -> tuple[Entry, bytes]:
    data = random.Random(4).randbytes(128 * MIB)
    return store_file(local, data), data


def test_a_sequential_reader_gets_8_mib_a_request_several_at_a_time(
    large: tuple[Entry, bytes], remote: Open
) -> None:
    entry, data = large
    # Long beside what reading takes, on a busy machine too: else nothing is ever behind.
    store, objects = remote(latency=0.1)
    content = store.contents.open(entry)
    for offset in range(0, entry.size, MIB):
        assert content.read(offset, MIB) == data[offset : offset + MIB]
    settle(store)
    # Some are smaller while the window opens, at the ends of packs, and for the manifest.
    assert objects.requests["get"] <= 16 + 16
    assert objects.received <= entry.size * 1.05
    assert objects.most_at_once >= 3


def test_who_begins_with_much_of_a_file_is_read_ahead_of_at_once(
    large: tuple[Entry, bytes], remote: Open
) -> None:
    entry, data = large
    for machine, size, ahead in (("b", 4096, False), ("c", 256 * 1024, True)):
        store, objects = remote(machine)
        content = store.contents.open(entry)
        assert content.read(0, size) == data[:size]
        settle(store)
        source = store.source
        assert isinstance(source, FetchingSource)
        prefetched = source.statistics().prefetched_bytes
        assert bool(prefetched) == ahead
        assert objects.received <= FIRST_BYTES + 2 * MIB


def test_requests_of_the_kernel_out_of_order_are_sequential_too(
    large: tuple[Entry, bytes], remote: Open
) -> None:
    entry, data = large
    store, objects = remote(latency=0.002)
    content = store.contents.open(entry)
    offsets = list(range(0, entry.size, 128 * 1024))
    rng = random.Random(1)
    for at in range(0, len(offsets), 8):
        few = offsets[at : at + 8]
        rng.shuffle(few)
        offsets[at : at + 8] = few
    for offset in offsets:
        assert content.read(offset, 128 * 1024) == data[offset : offset + 128 * 1024]
    settle(store)
    assert objects.requests["get"] <= 32 + 40


def test_a_random_reader_gets_little_more_than_it_needs(
    large: tuple[Entry, bytes], remote: Open
) -> None:
    entry, data = large
    store, objects = remote()
    content = store.contents.open(entry)
    rng = random.Random(9)
    content.read(0, 1)
    before, needed = objects.received, 0
    for _ in range(30):
        offset = rng.randrange(entry.size - 4096)
        assert content.read(offset, 4096) == data[offset : offset + 4096]
        for start, extent in content.extents(offset):
            if start >= offset + 4096:
                break
            needed += extent.length
    settle(store)
    assert objects.received - before <= 3 * needed


def test_one_read_fetches_all_its_parts_at_once(large: tuple[Entry, bytes], remote: Open) -> None:
    entry, data = large
    store, objects = remote(latency=0.01)
    content = store.contents.open(entry)
    assert content.read(5 * MIB, 40 * MIB) == data[5 * MIB : 45 * MIB]
    assert objects.most_at_once >= 4


def test_a_thread_that_may_not_block_gets_all_of_a_read_with_one_fetch(
    large: tuple[Entry, bytes], remote: Open
) -> None:
    entry, data = large
    store, objects = remote()
    content = store.contents.open(entry)
    with never_blocking(), pytest.raises(WouldBlock) as told:
        content.read(MIB, 3 * MIB)
    assert not objects.requests
    assert may_block()
    pieces = told.value.fetch()
    assert isinstance(pieces, list)
    assert b"".join(pieces) == data[MIB : 4 * MIB]
    with never_blocking():
        assert content.read(MIB, 3 * MIB) == data[MIB : 4 * MIB]


def test_a_closed_reader_stops_what_is_read_ahead(
    large: tuple[Entry, bytes], remote: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readahead, "MOST_BYTES", 24 * MIB)
    entry, data = large
    store, objects = remote(latency=0.02)
    content = store.contents.open(entry)
    for offset in range(0, 40 * MIB, MIB):
        content.read(offset, MIB)
    content.close()
    settle(store)
    received = objects.received
    assert received < 40 * MIB + 48 * MIB
    settle(store)
    assert objects.received == received
    assert content.read(41 * MIB, MIB) == data[41 * MIB : 42 * MIB]


def test_reading_elsewhere_stops_what_is_read_ahead(
    large: tuple[Entry, bytes], remote: Open
) -> None:
    entry, _ = large
    store, _ = remote(latency=0.02)
    content = store.contents.open(entry)
    for offset in range(0, 24 * MIB, MIB):
        content.read(offset, MIB)
    source = store.source
    assert isinstance(source, FetchingSource)
    content.read(100 * MIB, 10)
    assert not source._in_flight._prefetched


def test_the_next_process_reads_from_the_disk(large: tuple[Entry, bytes], remote: Open) -> None:
    entry, data = large
    store, _ = remote()
    assert store.contents.open(entry).read(0, 20 * MIB) == data[: 20 * MIB]
    settle(store)
    store.close()
    again, objects = remote()
    with never_blocking():
        assert again.contents.open(entry).read(0, 20 * MIB) == data[: 20 * MIB]
    assert not objects.requests


# -- walks -----------------------------------------------------------------------------------------


@pytest.fixture
def tree(local: Store) -> NodeRef:
    """100,000 files in 1,000 folders, written by one writer as by an import."""
    writer = local.metadata_writer()
    folders = []
    for number in range(1000):
        files = [
            file_entry(b"f%03d-%03d" % (number, below), b"%d %d" % (number, below), mtime_ns=below)
            for below in range(100)
        ]
        child = build_directory(local.trees, writer, files)
        folders.append(directory_entry(b"d%03d" % number, child, 0o755, 1))
    root = build_directory(local.trees, writer, folders)
    writer.finish()
    return writer.resolve(root.ref)


def walk(store: Store, root: NodeRef) -> int:
    count = 0
    for entry in store.trees.entries(root):
        count += walk(store, entry.node) if entry.is_dir else 1
    return count


def test_a_walk_over_100000_files_costs_tens_of_requests(tree: NodeRef, remote: Open) -> None:
    store, objects = remote()
    assert walk(store, tree) == 100_000
    settle(store)
    assert sum(objects.requests.values()) <= 40


def test_looking_at_one_folder_does_not_fetch_the_whole_tree(tree: NodeRef, remote: Open) -> None:
    store, objects = remote()
    folder = store.trees.lookup(tree, b"d500")
    assert folder is not None
    assert len(list(store.trees.entries(folder.node))) == 100
    settle(store)
    assert objects.requests["get"] <= 3
    assert objects.received <= 3 * MIB


@pytest.fixture
def scattered(local: Store) -> NodeRef:
    """200 folders, each of a small commit: so each lies in a pack of its own."""
    for number in range(200):
        made = commit(local, {b"d%03d/e/f" % number: b"%d" % number})
    return made.root.node


def test_a_walk_over_many_packs_fetches_them_side_by_side(scattered: NodeRef, remote: Open) -> None:
    latency = 0.1
    store, objects = remote(latency=latency)
    begun = time.monotonic()
    assert walk(store, scattered) == 200
    rounds = (time.monotonic() - begun) / latency
    settle(store)
    assert 200 <= objects.requests["get"] <= 210
    # 14 at a time; it would be more than 200 otherwise.
    assert rounds < 100
    assert objects.most_at_once >= 8


def test_looking_up_names_fetches_no_other_packs(scattered: NodeRef, remote: Open) -> None:
    store, objects = remote()
    for name in (b"d010", b"d090", b"d150"):
        folder = store.trees.lookup(scattered, name)
        assert folder is not None
        assert store.trees.lookup(folder.node, b"e") is not None
    settle(store)
    # For the root, and for each name a leaf and a folder at most.
    assert objects.requests["get"] <= 1 + 3 * 2


def test_small_files_are_fetched_by_pack(local: Store, source: Path, remote: Open) -> None:
    rng = random.Random(6)
    for number in range(3000):
        below = source / f"d{number // 100}"
        below.mkdir(exist_ok=True)
        (below / f"f{number:05}").write_bytes(rng.randbytes(rng.randrange(1000, 20_000)))
    bring(local, source)
    root = head(local).root

    def files(store: Store) -> list[Entry]:
        return [
            entry
            for folder in store.trees.entries(root.node)
            for entry in store.trees.entries(folder.node)
        ]

    stored = sum(entry.size for entry in files(local))
    for machine, shuffled in (("b", False), ("c", True)):
        store, objects = remote(machine, latency=0.002)
        found = files(store)
        if shuffled:
            rng.shuffle(found)
        with ThreadPoolExecutor(4 if shuffled else 1) as readers:
            contents = readers.map(store.contents.open, found)
            sizes = readers.map(lambda content: len(content.read(0, content.size)), contents)
            assert sum(sizes) == stored
        settle(store)
        assert sum(objects.requests.values()) <= 40
        assert objects.received <= stored * 1.3


@pytest.fixture
def pictures(local: Store, source: Path) -> dict[bytes, bytes]:
    """80 files of 200 to 800 KB, 40 MB in all: each has a manifest."""
    rng = random.Random(7)
    data = {b"f%02d" % n: rng.randbytes(rng.randrange(200_000, 800_000)) for n in range(80)}
    for name, content in data.items():
        (source / os.fsdecode(name)).write_bytes(content)
    bring(local, source)
    assert all(e.kind == Kind.LARGE for e in local.trees.entries(head(local).root.node))
    return data


def read_pictures(
    store: Store, local: Store, data: dict[bytes, bytes], names: list[bytes], most: int
) -> None:
    """Reads so much of each at most, as the kernel asks for it."""
    for name in names:
        entry = store.trees.lookup(head(local).root.node, name)
        assert entry is not None
        content = store.contents.open(entry)
        until = min(entry.size, most)
        for offset in range(0, until, 128 * 1024):
            size = min(128 * 1024, until - offset)
            assert content.read(offset, size) == data[name][offset : offset + size]
        content.close()
    settle(store)


def test_files_of_some_chunks_that_are_read_in_order_are_fetched_by_pack(
    local: Store, remote: Open, pictures: dict[bytes, bytes]
) -> None:
    store, objects = remote(latency=0.002)
    read_pictures(store, local, pictures, sorted(pictures), MIB)
    assert sum(objects.requests.values()) <= 30
    assert objects.received <= 1.1 * sum(map(len, pictures.values()))


def test_readers_side_by_side_get_what_they_read(
    local: Store, remote: Open, pictures: dict[bytes, bytes]
) -> None:
    store, objects = remote(latency=0.002)
    names = sorted(pictures)
    quarters = [names[at : at + 20] for at in range(0, 80, 20)]

    def read(part: list[bytes]) -> None:
        for name in part:
            entry = store.trees.lookup(head(local).root.node, name)
            assert entry is not None
            content = store.contents.open(entry)
            assert content.read(0, entry.size) == pictures[name]
            content.close()

    with ThreadPoolExecutor(4) as readers:
        list(readers.map(read, quarters))
    settle(store)
    assert objects.received <= 1.1 * sum(map(len, pictures.values()))


@pytest.mark.parametrize("most", [MIB, 4096])
def test_who_reads_a_few_of_them_fetches_little_else(
    local: Store, remote: Open, pictures: dict[bytes, bytes], most: int
) -> None:
    names = random.Random(9).sample(sorted(pictures), 12)
    store, objects = remote(latency=0.002)
    read_pictures(store, local, pictures, names, most)
    read = sum(min(len(pictures[name]), most) for name in names)
    # A chunk begins and ends within granules of 64 KiB; and there is the metadata.
    assert objects.received <= 1.3 * read + 12 * 400_000 + MIB


# -- damage ----------------------------------------------------------------------------------------


def flip(folder: Path) -> int:
    """Flips every byte of the packs in a cache; returns how many there are."""
    paths = list((folder / "packs").glob("*/*"))
    for path in paths:
        data = path.read_bytes()
        head = 128 * 1024
        path.write_bytes(data[:head] + bytes(byte ^ 255 for byte in data[head:]))
    return len(paths)


def test_a_damaged_cache_is_fetched_again_silently_to_the_reader(
    local: Store, source: Path, remote: Open, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "text").write_bytes(b"all work and no play\n" * 200)
    bring(local, source)
    root = head(local).root
    for number in range(2):
        store, objects = remote()
        entry = store.trees.lookup(root.node, b"text")
        assert entry is not None
        assert store.contents.open(entry).read(0, entry.size).startswith(b"all work")
        settle(store)
        assert objects.requests["get"] >= 1
        assert ("fetching damaged data again" in caplog.text) == (number == 1)
        store.close()
        assert flip(store.settings.cache_dir) == 2


def test_damage_in_the_store_names_the_pack_and_is_never_returned(
    local: Store, source: Path, remote: Open
) -> None:
    (source / "text").write_bytes(b"all work and no play\n" * 200)
    bring(local, source)
    entry = local.trees.lookup(head(local).root.node, b"text")
    assert entry is not None
    assert entry.location is not None
    path = next(Path(local.settings.store).glob(f"packs/*/{entry.location.pack.hex()}"))
    data = bytearray(path.read_bytes())
    data[entry.location.block_offset + 30] ^= 1
    path.write_bytes(data)
    store, _ = remote()
    with pytest.raises(CorruptionError) as told:
        store.contents.open(entry).read(0, entry.size)
    assert told.value.pack == entry.location.pack.hex()
    with never_blocking(), pytest.raises(WouldBlock) as asked:
        store.contents.open(entry).read(0, entry.size)
    with pytest.raises(CorruptionError):
        asked.value.fetch()
