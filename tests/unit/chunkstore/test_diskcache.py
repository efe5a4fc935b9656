"""The disk cache: what it keeps, its bound over many processes, kills, damage and full disks."""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stores import ROOT
from versionfs.chunkstore import DiskCache, default_cache_bytes, diskcache
from versionfs.chunkstore.direct import DirectWriter
from versionfs.chunkstore.diskcache import GRANULE_BYTES
from versionfs.types import PackId

G = GRANULE_BYTES
DATA = random.Random(1).randbytes(10 * G + 777)


def pack(number: int) -> PackId:
    return PackId(number.to_bytes(2, "big") * 16)


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "packs", 1 << 30)


def file_of(folder: Path, number: int = 1) -> Path:
    digits = pack(number).hex()
    return folder / "packs" / digits[:2] / digits


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_it_gives_what_it_was_given_and_nothing_else(cache: DiskCache) -> None:
    assert cache.read(pack(1), 0, 10) is None
    cache.write(pack(1), 2 * G, DATA[2 * G : 5 * G])
    assert cache.read(pack(1), 2 * G, 3 * G) == DATA[2 * G : 5 * G]
    assert cache.read(pack(1), 3 * G - 5, 10) == DATA[3 * G - 5 : 3 * G + 5]
    assert cache.read(pack(1), 2 * G - 1, 2) is None
    assert cache.read(pack(1), 5 * G - 1, 2) is None
    assert cache.read(pack(2), 2 * G, 1) is None
    assert cache.missing(pack(1), 0, 7) == [0, 1, 5, 6, 7]
    assert cache.granules(pack(1), 0, 3) == {2: DATA[2 * G : 3 * G], 3: DATA[3 * G : 4 * G]}


def test_the_last_granule_of_a_pack_may_be_short(cache: DiskCache) -> None:
    cache.write(pack(1), 9 * G, DATA[9 * G :])
    assert cache.read(pack(1), 10 * G, 777) == DATA[10 * G :]
    cache.write(pack(1), 0, DATA[: 9 * G])
    assert cache.read(pack(1), 0, len(DATA)) == DATA


def test_bytes_at_four_gib_of_a_pack_take_no_more_room_than_others(
    cache: DiskCache, tmp_path: Path
) -> None:
    start = (1 << 32) - G
    cache.write(pack(1), start, DATA[:G])
    assert cache.read(pack(1), start + 5, 100) == DATA[5:105]
    assert on_disk(tmp_path) < 4 * G


def test_a_write_must_begin_at_a_granule(cache: DiskCache) -> None:
    with pytest.raises(ValueError, match="no granule"):
        cache.write(pack(1), 5, b"x")


def test_it_is_shared_and_survives_its_process(cache: DiskCache, tmp_path: Path) -> None:
    cache.write(pack(1), 0, DATA)
    assert DiskCache(tmp_path / "packs", 1 << 30).read(pack(1), 0, len(DATA)) == DATA


def test_a_pack_in_a_file_is_adopted(cache: DiskCache, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(DATA)
    cache.adopt(pack(1), tmp_path / "pack")
    assert cache.read(pack(1), 0, len(DATA)) == DATA


def test_what_is_forgotten_is_gone_and_frees_its_room(cache: DiskCache) -> None:
    cache.write(pack(1), 0, DATA)
    assert cache.usage().held_bytes > len(DATA)
    cache.forget(pack(1))
    cache.forget(pack(1))
    assert cache.read(pack(1), 0, 1) is None
    assert cache.usage().held_bytes == 0


# -- the bound -------------------------------------------------------------------------------------


def test_the_least_recently_used_pack_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "packs", 50 * G)
    for number in range(1, 5):
        cache.write(pack(number), 0, DATA)
        os.utime(file_of(tmp_path, number), (number, number))
    assert cache.read(pack(1), 0, 1) is not None  # used now, so the second is the oldest
    cache.write(pack(5), 0, DATA)
    assert cache.read(pack(2), 0, 1) is None
    assert cache.read(pack(1), 0, 1) is not None
    assert cache.read(pack(5), 0, len(DATA)) == DATA
    assert cache.usage().held_bytes <= 50 * G


def test_writing_the_same_again_takes_no_more(cache: DiskCache) -> None:
    cache.write(pack(1), 0, DATA)
    held = cache.usage().held_bytes
    cache.write(pack(1), 0, DATA)
    cache.write(pack(1), G, DATA[G : 3 * G])
    assert cache.usage().held_bytes == held


def test_what_is_larger_than_the_bound_is_left_out(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "packs", 3 * G)
    cache.write(pack(1), 0, DATA)
    assert cache.read(pack(1), 0, 1) is None


def _fill(folder: Path, bound: int, seed: int) -> None:
    cache = DiskCache(folder, bound)
    rng = random.Random(seed)
    for _ in range(150):
        number = rng.randrange(40)
        first = rng.randrange(8)
        cache.write(pack(number), first * G, DATA[first * G : (first + 2) * G])
        first = rng.randrange(8)
        found = cache.read(pack(number), first * G, G)
        if found is not None and found != DATA[first * G : (first + 1) * G]:
            raise AssertionError("wrong bytes")
        with cache._locked():  # so that nothing comes or goes while it is summed up
            held = on_disk(folder)
        if held > bound + 4096:  # the counter itself
            raise AssertionError(f"{held} bytes with a bound of {bound}")


def test_the_bound_holds_while_many_processes_write(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    bound = 60 * G
    running = [
        context.Process(target=_fill, args=(tmp_path / "packs", bound, seed)) for seed in range(4)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0] * 4
    assert DiskCache(tmp_path / "packs", bound).usage().held_bytes <= bound


def test_a_lost_counter_is_counted_again(cache: DiskCache, tmp_path: Path) -> None:
    cache.write(pack(1), 0, DATA)
    cache.write(pack(2), 0, DATA)
    taken = sum(file_of(tmp_path, number).stat().st_blocks * 512 for number in (1, 2))
    for damage in (b"", b"garbage", b"\0" * 16):
        (tmp_path / "packs" / "usage").write_bytes(damage)
        assert cache.usage().held_bytes == taken


def test_what_a_killed_writer_left_is_counted(cache: DiskCache, tmp_path: Path) -> None:
    cache.write(pack(1), 0, DATA)
    with file_of(tmp_path).open("r+b") as file:
        # As if its kill came before the bytes that say so.
        file.seek(diskcache._DATA_AT + 100 * G)
        file.write(bytes(16 * G))
    (tmp_path / "packs" / "usage").unlink()
    assert cache.usage().held_bytes >= 26 * G


def test_the_default_bound_is_a_part_of_the_disk(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    tenth = status.f_blocks * status.f_frsize // 10
    assert default_cache_bytes(tmp_path / "not" / "there") == min(20 * 1024**3, tenth)


# -- what may happen to it -------------------------------------------------------------------------


def test_a_writer_may_be_killed_at_any_time(tmp_path: Path) -> None:
    script = (
        "import sys, random\n"
        "from pathlib import Path\n"
        "from tests.unit.chunkstore.test_diskcache import DATA, G, pack\n"
        "from versionfs.chunkstore import DiskCache\n"
        "cache = DiskCache(Path(sys.argv[1]), 60 * G)\n"
        "print('ready', flush=True)\n"
        "rng = random.Random(int(sys.argv[2]))\n"
        "while True:\n"
        "    first = rng.randrange(8)\n"
        "    data = DATA[first * G : (first + 3) * G]\n"
        "    cache.write(pack(rng.randrange(40)), first * G, data)\n"
    )
    rng = random.Random(5)
    for seed in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "packs"), str(seed)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        with process, process.stdout:
            process.stdout.readline()
            # Not timed: wherever it is by then, it must do no harm.
            for _ in range(rng.randrange(20_000)):
                pass
            process.send_signal(signal.SIGKILL)
        cache = DiskCache(tmp_path / "packs", 60 * G)
        for number in range(40):
            for granule, data in cache.granules(pack(number), 0, 10).items():
                assert data == DATA[granule * G : (granule + 1) * G]
        assert on_disk(tmp_path) <= 60 * G + 4096
        cache.write(pack(99), 0, DATA)
        assert cache.read(pack(99), 0, len(DATA)) == DATA


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000, b"VFSCACHE" + b"\1" * 5000])
def test_a_file_with_another_head_is_replaced(
    cache: DiskCache, tmp_path: Path, damage: bytes
) -> None:
    cache.write(pack(1), 0, DATA)
    file_of(tmp_path).write_bytes(damage)
    assert cache.read(pack(1), 0, 10) is None
    assert cache.missing(pack(1), 0, 1) == [0, 1]
    cache.write(pack(1), 0, DATA)
    assert cache.read(pack(1), 0, len(DATA)) == DATA


def test_a_cut_file_is_fetched_again(
    cache: DiskCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write(pack(1), 0, DATA)
    os.truncate(file_of(tmp_path), 128 * 1024 + 3 * G)
    assert cache.read(pack(1), G, 100) == DATA[G : G + 100]
    assert cache.read(pack(1), 5 * G, 100) is None
    assert "damaged" in caplog.text
    cache.write(pack(1), 0, DATA)
    assert cache.read(pack(1), 5 * G, 100) == DATA[5 * G : 5 * G + 100]


def test_a_folder_that_cannot_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "packs").write_bytes(b"a file where the folder should be")
    cache = DiskCache(tmp_path / "packs", 1 << 30)
    for number in range(5):
        cache.write(pack(number), 0, DATA)
        assert cache.read(pack(number), 0, 1) is None
    cache.forget(pack(1))
    assert cache.usage().held_bytes == 0
    assert caplog.text.count("working without the disk cache") == 1


def test_a_full_disk_is_one_warning_and_nothing_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    cache = DiskCache(tmp_path / "packs", 1 << 30)
    cache.write(pack(1), 0, DATA[: 2 * G])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # A write beyond it fails in the middle, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (128 * 1024 + 5 * G + 10, before[1]))
        cache.write(pack(1), 2 * G, DATA[2 * G :])
        cache.write(pack(2), 0, DATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not cache.is_writable
    assert cache.granules(pack(1), 0, 10) == {0: DATA[:G], 1: DATA[G : 2 * G]}
    assert caplog.text.count("working without the disk cache") == 1


@pytest.mark.parametrize("failing", ["open", "pwrite"])
def test_where_the_kernel_cannot_be_gone_past_writes_go_through_it(
    failing: str, cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(2).randbytes(40 * G + 777)
    refused: list[int] = []
    past: set[int] = set()
    real_open, real_pwrite = os.open, os.pwrite

    def open_(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_DIRECT and failing == "open":
            refused.append(flags)
            raise OSError(errno.EINVAL, "no O_DIRECT here")
        descriptor = real_open(path, flags, *more, **named)
        past.discard(descriptor)
        if flags & os.O_DIRECT:
            past.add(descriptor)
        return descriptor

    def pwrite(descriptor: int, bytes_: bytes, offset: int) -> int:
        if descriptor in past:
            refused.append(offset)
            raise OSError(errno.EINVAL, "not aligned as this disk wants it")
        return real_pwrite(descriptor, bytes_, offset)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "pwrite", pwrite)
    for number in (1, 2):
        cache.write(pack(number), 0, data)
        assert cache.read(pack(number), 0, len(data)) == data
    # A write is refused as it lies in memory, then from the aligned buffer; then never tried again.
    assert len(refused) == {"open": 1, "pwrite": 2}[failing]
    assert cache.is_writable


def test_aligned_memory_is_written_from_where_it_lies(
    cache: DiskCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mmap.mmap(-1, 40 * G) as memory:
        memory[:] = random.Random(2).randbytes(40 * G)
        monkeypatch.setattr(DirectWriter, "_copied", None)
        with memoryview(memory) as data:
            cache.write(pack(1), 0, data.toreadonly())
            assert cache.read(pack(1), 0, len(data)) == bytes(data)
    assert cache.is_writable


def test_a_lock_that_is_held_for_long_stops_nobody(
    cache: DiskCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diskcache, "_LOCK_SECONDS", 0.0)
    cache.write(pack(1), 0, DATA[:G])
    with (tmp_path / "packs" / "usage").open("rb") as usage:
        fcntl.flock(usage, fcntl.LOCK_EX)
        cache.write(pack(2), 0, DATA[:G])  # returns
        assert cache.read(pack(1), 0, G) == DATA[:G]
        assert cache.read(pack(2), 0, G) is None
    cache._pause_until = 0.0
    cache.write(pack(2), 0, DATA[:G])
    assert cache.read(pack(2), 0, G) == DATA[:G]
