"""Memory that is used again: never while somebody may still read what is in it."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import mmap
import random
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.remote import FillingFolder
from versionfs.chunking import chunk_id
from versionfs.chunkstore import DiskCache, FetchingSource, PackRange, PackReader, Scan
from versionfs.chunkstore.buffers import Buffers, pages
from versionfs.chunkstore.fetching import _BUFFERS
from versionfs.chunkstore.source import VIEW_BYTES
from versionfs.pack import pack_key
from versionfs.types import Location, PackId

MIB = 1 << 20


class Reader:
    """Who reads ahead."""


ONE, OTHER = Reader(), Reader()
SIZE = 300_000


def test_a_piece_is_free_again_when_no_view_of_it_is_left() -> None:
    buffers = Buffers(SIZE, 1)
    view = buffers.take(100)
    assert view is not None
    view[:] = bytes(100)
    part = view[10:20].toreadonly()
    del view
    assert buffers.take(1) is None, "a part of it is in use"
    del part
    assert buffers.take(SIZE) is not None
    assert buffers.made == 1


def test_memory_is_used_again_however_python_counts_references(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From 3.14 on a variable that is passed on counts once less."""
    count = sys.getrefcount
    monkeypatch.setattr(sys, "getrefcount", lambda piece: count(piece) - 3)
    found = importlib.util.find_spec("versionfs.chunkstore.buffers")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    buffers = module.Buffers(SIZE, 1)
    held = buffers.take(1)
    assert buffers.take(1) is None
    del held
    assert buffers.take(1) is not None
    assert buffers.made == 1


def test_there_are_no_more_pieces_than_said_and_none_larger() -> None:
    buffers = Buffers(SIZE, 3)
    assert buffers.take(SIZE + 1) is None
    held = [buffers.take(1) for _ in range(3)]
    assert None not in held
    assert buffers.take(1) is None
    assert buffers.made == 3


def test_what_is_free_can_be_given_back() -> None:
    buffers = Buffers(SIZE, 3)
    held = [buffers.take(10) for _ in range(3)]
    kept = held[1]
    assert kept is not None
    kept[:] = b"0123456789"
    held.clear()
    buffers.trim()
    assert buffers.made == 1
    assert bytes(kept) == b"0123456789"
    others = [buffers.take(10) for _ in range(3)]
    assert others.count(None) == 1, "one is in use still"
    del kept
    buffers.trim()
    assert buffers.made == 2


def test_pages_are_private_and_may_be_large() -> None:
    """In small ones, or shared ones, which are never large, a disk may be a third as fast."""
    piece = pages(4 * MIB)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(piece))
    assert begin % mmap.PAGESIZE == 0
    found: dict[str, str] = {}
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            first, last = (int(each, 16) for each in line.split()[0].split("-"))
            found = {"rights": line.split()[1]} if first <= begin < last else {}
        elif found:
            name, _, value = line.partition(":")
            found[name] = value
            if name == "VmFlags":
                break
    assert found["rights"] == "rw-p"
    if Path("/sys/kernel/mm/transparent_hugepage").exists():
        assert "hg" in found["VmFlags"].split()


def test_threads_never_share_a_piece() -> None:
    buffers = Buffers(SIZE, 4)
    barrier = threading.Barrier(8)

    def work(number: int) -> int:
        barrier.wait(20)
        taken = 0
        for _ in range(300):
            view = buffers.take(1000)
            if view is not None:
                taken += 1
                view[:] = bytes([number]) * 1000
                assert view == bytes([number]) * 1000
        return taken

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
    assert buffers.made <= 4


def test_what_a_reader_keeps_is_not_overwritten_by_what_is_fetched_next(tmp_path: Path) -> None:
    remote = FillingFolder(tmp_path / "store")
    packs = [PackId(bytes([number]) * 32) for number in range(24)]
    data = {pack: random.Random(pack).randbytes(4 * MIB) for pack in packs}
    for pack in packs:
        remote.inner.put(pack_key(pack), data[pack])
    source = FetchingSource(remote, DiskCache(tmp_path / "cache", 1 << 30), 8)
    kept = []
    for pack in packs:
        source.prefetch([PackRange(pack, 0, 4 * MIB)], None)
        kept.append((pack, source.read(pack, 70_000, 2 * MIB)))
    for pack, read in kept:
        assert read == data[pack][70_000 : 70_000 + 2 * MIB]
    assert any(isinstance(read, memoryview) for _, read in kept)
    assert source._buffers.made <= _BUFFERS
    source.close()


def test_reading_on_takes_the_same_memory_again(tmp_path: Path) -> None:
    remote = FillingFolder(tmp_path / "store")
    source = FetchingSource(remote, DiskCache(tmp_path / "cache", 1 << 30), 4)
    reader = PackReader(source, 64 * MIB)
    size = 250_000
    for number in range(60):
        pack = PackId(bytes([number]) * 32)
        body = random.Random(number).randbytes(size)
        remote.inner.put(pack_key(pack), b"\0" + (body + b"\0") * 16)
        source.prefetch([PackRange(pack, 0, 4 * MIB)], None)
        for block in range(16):
            at = Location(pack, block * (size + 1), size + 1, 0, size)
            assert reader.chunk(chunk_id(body), at) == body
    gc.collect()
    assert source._buffers.made <= _BUFFERS
    assert source._buffers.take(1) is not None or source._recent._held > 24 * MIB
    assert reader._kept.held == reader._once_large.held == 0, (
        "blocks that are views are no part of the cache of decoded blocks"
    )
    source.close()


def settled(source: FetchingSource) -> None:
    deadline = time.monotonic() + 20
    while source._in_flight._running and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("early", [False, True])
def test_when_the_last_reader_has_closed_his_file_its_memory_is_given_back(
    tmp_path: Path, early: bool
) -> None:
    """Also what comes after that, because it was on its way."""
    remote = FillingFolder(tmp_path / "store")
    source = FetchingSource(remote, DiskCache(tmp_path / "cache", 1 << 30), 8)
    packs = [PackId(bytes([number]) * 32) for number in range(24)]
    for pack in packs:
        remote.inner.put(pack_key(pack), bytes(4 * MIB))
        for token in (ONE, OTHER):
            source.prefetch([PackRange(pack, 0, 4 * MIB)], token)
    if not early:
        settled(source)
    source.leave(ONE)
    if not early:
        assert source._recent._held > 80 * MIB, "there is another reader"
    source.cancel(OTHER)
    assert OTHER in source._readers, "he reads elsewhere"
    source.leave(OTHER)
    settled(source)
    assert source._recent._held <= 24 * MIB
    assert source._buffers.made <= 24 // 4
    # It begins again as it began.
    pack = PackId(b"z" * 32)
    remote.inner.put(pack_key(pack), b"z" * 4 * MIB)
    source.prefetch([PackRange(pack, 0, 4 * MIB)], ONE)
    assert source.read(pack, 0, 4 * MIB) == b"z" * 4 * MIB
    source.close()


def test_memory_is_given_back_once_what_came_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = FillingFolder(tmp_path / "store")
    cache = DiskCache(tmp_path / "cache", 1 << 30)
    source = FetchingSource(remote, cache, 8)
    write, written = cache.write, threading.Event()

    def slow(*arguments: Any) -> None:
        assert written.wait(20)
        write(*arguments)

    monkeypatch.setattr(cache, "write", slow)
    for number in range(10):
        pack = PackId(bytes([number]) * 32)
        remote.inner.put(pack_key(pack), bytes(8 * MIB))
        source.prefetch([PackRange(pack, 0, 8 * MIB)], ONE)
    deadline = time.monotonic() + 20
    while source._in_flight._awaited_bytes and time.monotonic() < deadline:
        time.sleep(0.01)
    source.leave(ONE)
    assert source._buffers.made > 24 // 8
    written.set()
    settled(source)
    assert source._buffers.made <= 24 // 8 + 1, "the last one may still be in hand"
    source.close()


def test_a_scan_keeps_what_it_kept_before(tmp_path: Path) -> None:
    remote = FillingFolder(tmp_path / "store")
    source = FetchingSource(remote, DiskCache(tmp_path / "cache", 1 << 30), 8)
    for number in range(24):
        pack = PackId(bytes([number]) * 32)
        remote.inner.put(pack_key(pack), bytes(4 * MIB))
        source.prefetch([PackRange(pack, 0, 4 * MIB)], None)
    settled(source)
    assert 56 * MIB <= source._recent._held <= 64 * MIB
    source.leave(ONE)
    assert source._recent._held >= 56 * MIB, "he had read nothing"
    source.close()


def test_what_is_kept_of_a_little_is_its_own(tmp_path: Path) -> None:
    remote = FillingFolder(tmp_path / "store")
    pack = PackId(b"\1" * 32)
    remote.inner.put(pack_key(pack), bytes(4 * MIB))
    source = FetchingSource(remote, DiskCache(tmp_path / "cache", 1 << 30), 4)
    source.read(pack, 0, 4 * MIB)
    assert isinstance(source.read(pack, 0, VIEW_BYTES), memoryview)
    assert isinstance(source.read(pack, 0, VIEW_BYTES - 1), bytes)
    # So are nodes and files that share a block, which their readers keep for long.
    reader = PackReader(source, 64 * MIB)
    at = Location(pack, 0, 2 * VIEW_BYTES, 0, 100)
    kept = reader.read(at, lambda found: found, scan=Scan.NEAR)
    assert isinstance(kept.obj, bytes)
    source.close()
