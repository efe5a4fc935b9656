"""What a machine learns of packs that others wrote, and what it costs in requests."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from tests.support.folders import describe, fill
from tests.support.machines import CountingFolder, machine
from tests.support.proxied import broken, bucket, proxy, settings
from tests.support.proxy import Proxy
from tests.support.remote import RemoteFolder
from tests.support.stores import bring, head
from versionfs.chunkstore import metadata_writer, packs_in_store, sync, writer
from versionfs.objectstore import ObjectStore
from versionfs.pack import pack_key
from versionfs.repo import Store
from versionfs.transfer import export
from versionfs.transfer.reachable import Reachable
from versionfs.types import PackId

__all__ = ["broken", "bucket", "proxy", "settings"]


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PACK_TARGET_BYTES", 20_000)
    monkeypatch.setattr(metadata_writer, "PACK_TARGET_BYTES", 1_000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = Random(3)
    fill(tmp_path / "source", {f"d{i % 7}/e{i % 50}/f{i}": rng.randbytes(5000) for i in range(200)})
    return tmp_path / "source"


@pytest.fixture
def shared(tmp_path: Path, small_packs: None, source: Path) -> Path:
    """A store that one machine has imported the source into."""
    with machine(tmp_path / "first", tmp_path / "shared")[0] as store:
        bring(store, source)
    return tmp_path / "shared"


def packs(root: Path) -> list[Path]:
    return [path for path in (root / "packs").rglob("*") if path.is_file()]


def segments(root: Path) -> list[Path]:
    return list((root / "index").iterdir())


def second(tmp_path: Path, shared: Path) -> tuple[Store, CountingFolder]:
    return machine(tmp_path / "second", shared)


def test_a_second_machine_learns_all_packs_from_a_segment(tmp_path: Path, shared: Path) -> None:
    assert len(packs(shared)) > 15
    assert len(segments(shared)) == 1
    store, objects = second(tmp_path, shared)
    with store:
        assert store.sync_index() == len(packs(shared))
        assert objects.requests == {"list": 2, "get": 1}
        objects.forget()
        assert store.sync_index() == 0
        assert objects.requests == {"list": 1}


def test_a_second_machine_stores_nothing_twice(tmp_path: Path, shared: Path, source: Path) -> None:
    store, objects = second(tmp_path, shared)
    with store:
        assert bring(store, source, branch="other").new_bytes == 0
        # The commit, its segment, the reflog; nothing near the million bytes of the source.
        assert objects.sent < 4000


def test_a_machine_does_not_read_its_own_segments(tmp_path: Path, shared: Path) -> None:
    with machine(tmp_path / "first", shared)[0] as store:
        (name,) = (path.name for path in segments(shared))
        assert store.index.segments() == {name}


def test_only_new_segments_are_read(tmp_path: Path, shared: Path, source: Path) -> None:
    store, objects = second(tmp_path, shared)
    with store:
        store.sync_index()
        (source / "more").write_bytes(b"more")
        with machine(tmp_path / "first", shared)[0] as first:
            bring(first, source)
        objects.forget()
        assert store.sync_index() == 2
        assert objects.requests == {"list": 2, "get": 1}


def test_packs_in_no_segment_are_asked_for_their_index(tmp_path: Path, shared: Path) -> None:
    for path in segments(shared):
        path.unlink()
    count = len(packs(shared))
    store, objects = second(tmp_path, shared)
    objects.latency = 0.002
    with store:
        assert store.sync_index() == count
        # These packs are so small that one request brings all of one.
        assert objects.requests == {"list": 2, "get": count}
        assert objects.most_at_once > 4


def test_the_index_of_a_large_pack_takes_two_requests(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_TAIL_BYTES", 2000)
    for path in segments(shared):
        path.unlink()
    store, objects = second(tmp_path, shared)
    with store:
        count = store.sync_index()
        assert objects.requests["get"] <= 2 * count
        assert objects.received < sum(path.stat().st_size for path in packs(shared)) / 2


@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "newer"])
def test_a_damaged_segment_costs_requests_but_nothing_else(
    tmp_path: Path, shared: Path, source: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    (segment,) = segments(shared)
    data = bytearray(segment.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
    elif harm == "truncate":
        del data[len(data) // 2 :]
    elif harm == "empty":
        data.clear()
    else:
        data[7] = 9
    segment.write_bytes(data)
    store, _ = second(tmp_path, shared)
    with store, caplog.at_level(logging.WARNING, "versionfs"):
        assert store.sync_index() == len(packs(shared))
        assert ("index segment" in caplog.text) == (harm != "empty")
        assert bring(store, source, branch="other").new_bytes == 0


def test_a_segment_tells_nothing_of_packs_that_are_gone(tmp_path: Path, shared: Path) -> None:
    gone, damaged, *_ = packs(shared)
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    store, _ = second(tmp_path, shared)
    with store:
        store.sync_index()
        known = {pack.hex() for pack in store.index.known_packs()}
    assert gone.name not in known
    assert damaged.name not in known
    assert len(known) == len(packs(shared)) - 1


def test_progress_counts_packs_of_segments_and_others(tmp_path: Path, shared: Path) -> None:
    store, objects = second(tmp_path, shared)
    told: list[tuple[int, int]] = []
    with store:
        count = sync.sync_index(objects, store.index, lambda done, all_: told.append((done, all_)))
    assert told[0] == (0, count)
    assert told[-1] == (count, count)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_local_store_has_segments_too(tmp_path: Path, store: Store, source: Path) -> None:
    bring(store, source)
    assert [info.key for info in store.objects.list("index/")]


def test_metadata_that_no_segment_vouches_for_is_not_used_again(
    tmp_path: Path, shared: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed writer, or an unfinished clone, may have left parents without their children."""
    for path in segments(shared):
        path.unlink()
    metadata = [path for path in packs(shared) if path.read_bytes()[8] == 1]
    assert len(metadata) > 1
    child = min(metadata, key=lambda path: path.stat().st_mtime_ns)
    child.rename(tmp_path / "lost")
    # So that the lost pack is not made anew, byte for byte, by chance.
    monkeypatch.setattr(metadata_writer, "PACK_TARGET_BYTES", 1_000_000)
    store, _ = second(tmp_path, shared)
    with store:
        result = bring(store, source, branch="other")
        assert result.new_bytes == 0, "chunks name nothing, and are used"
        export(store, head(store, "other").root, tmp_path / "out")
        assert store.statistics().metadata_bytes == sum(
            path.stat().st_size for path in packs(shared) if path.read_bytes()[8] == 1
        )
    assert describe(tmp_path / "out") == describe(source)


def test_small_segments_are_fetched_side_by_side(
    tmp_path: Path, shared: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with machine(tmp_path / "first", shared)[0] as store:
        for number in range(12):
            (source / "more").write_bytes(b"more %d" % number)
            bring(store, source)
    for large, most in ((1 << 20, 8), (100, sync._LARGE_SEGMENTS_AT_ONCE)):
        monkeypatch.setattr(sync, "_LARGE_SEGMENT_BYTES", large)
        store, objects = machine(tmp_path / f"second-{most}", shared, latency=0.01)
        with store:
            assert sync.sync_index(objects, store.index, connections=8) == len(packs(shared))
        assert objects.requests == {"list": 2, "get": 13}
        assert 1 < objects.most_at_once <= most


@pytest.mark.parametrize(
    ("count", "requests"),
    # 256 folders take 16 rounds, in which 64 packs are listed one request after the other.
    [(3, 1), (4, 1), (50, 1), (1000, 1 + 255)],
)
def test_the_folders_of_a_large_store_are_listed_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, requests: int
) -> None:
    monkeypatch.setattr(sync, "_FIRST_PACKS", 4)
    objects = RemoteFolder(tmp_path, 0.005)
    expected = {}
    for number in range(count):
        pack = blake3(b"%d" % number).digest()
        data = bytes(number % 7 + 1)
        objects.inner.put(pack_key(PackId(pack)), data)
        expected[pack] = len(data)
    objects.inner.put("packs/zz/other", b"x")
    assert packs_in_store(objects, 16) == expected
    # The first packs may reach into the next folders.
    assert requests - 2 <= objects.requests["list"] <= requests + 1
    assert (8 < objects.most_at_once <= 16) == (requests > 1)


def test_a_large_store_on_s3_is_listed_the_same(
    broken: ObjectStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = [bytes([first]) + os.urandom(31) for first in (0, 0, 1, 1, 250, 255)]
    for pack in packs:
        broken.put(pack_key(PackId(pack)), b"pack")
    whole = packs_in_store(broken)
    assert whole == dict.fromkeys(packs, 4)
    monkeypatch.setattr(sync, "_FIRST_PACKS", 4)
    proxy.forget()
    assert packs_in_store(broken, 16) == whole
    assert proxy.count() == {"GET": 1 + 255}
    assert 4 < proxy.most_at_once <= 16


@pytest.mark.parametrize("home", ["first", "second"])
def test_importing_again_heals_what_a_lost_pack_took(
    tmp_path: Path, shared: Path, source: Path, home: str
) -> None:
    store, _ = machine(tmp_path / "first", shared)
    with store:
        entry = store.trees.walk_path(head(store).root, b"d0/e0/f0")
        assert entry is not None
        assert entry.location is not None
        key = pack_key(entry.location.pack)
        (shared / key).unlink()
    store, _ = machine(tmp_path / home, shared)
    with store:
        bring(store, source, branch="healed")
        reachable = Reachable(store)
        reachable.add_history(store.repository("photos").branch("healed").commit)
        assert set(reachable.packs) <= packs_in_store(store.objects).keys()
    store, _ = machine(tmp_path / home, shared)
    with store:
        assert store.index.lost_packs() == {entry.location.pack}, "later syncs know it"
        bring(store, source, branch="more")
        reachable = Reachable(store)
        reachable.add_history(store.repository("photos").branch("more").commit)
        assert set(reachable.packs) <= packs_in_store(store.objects).keys()


def test_a_lost_pack_that_is_back_is_lost_no_more(tmp_path: Path, shared: Path) -> None:
    pack = packs(shared)[0]
    data = pack.read_bytes()
    pack.unlink()
    store, _ = second(tmp_path, shared)
    with store:
        store.sync_index()
        assert store.index.lost_packs() == {bytes.fromhex(pack.name)}
        pack.write_bytes(data)
        store.sync_index()
        assert store.index.lost_packs() == set()
