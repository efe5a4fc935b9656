"""Staging files: sparse layers, few descriptors, on the disk when asked."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from pathlib import Path

import pytest

from versionfs.workspace.staging import Staging


@pytest.fixture
def staging(tmp_path):
    staging = Staging(tmp_path / "staging", descriptors=4)
    yield staging
    staging.close()


LARGE = 1 << 20
"""More than a layer in a slab can have."""


def test_large_layers_are_named_by_their_number(staging, tmp_path):
    staging.create(0x12AB, LARGE)
    assert (tmp_path / "staging" / "ab" / "00000000000012ab").exists()
    assert list(staging.layers()) == [0x12AB]


def test_bytes_are_where_they_were_put(staging):
    staging.create(1, 100)
    assert staging.write(1, 50, b"hello") == 5
    assert staging.write(1, 200, memoryview(b"end")) == 3
    assert staging.status(1).size == 203
    assert staging.read(1, 48, 9) == b"\0\0hello\0\0"
    assert staging.read(1, 200, 100) == b"end"
    assert staging.read(1, 300, 10) == b""
    staging.truncate(1, 52)
    staging.truncate(1, 60)
    assert staging.read(1, 48, 100) == b"\0\0he" + bytes(8)


def test_holes_take_no_space_and_are_known(staging):
    staging.create(1, 1 << 40)
    staging.write(1, 1 << 30, b"x" * 4096)
    assert staging.status(1).allocated <= 64 * 1024
    assert list(staging.data_ranges(1, 0, 1 << 40)) == [(1 << 30, (1 << 30) + 4096)]
    assert list(staging.data_ranges(1, (1 << 30) + 10, (1 << 30) + 20)) == [
        ((1 << 30) + 10, (1 << 30) + 20)
    ]
    assert list(staging.data_ranges(1, 0, 1 << 30)) == []


def test_a_layer_is_made_once_and_removed_once(staging):
    staging.create(1)
    with pytest.raises(FileExistsError):
        staging.create(1)
    staging.remove(1)
    staging.remove(1)
    for work in (lambda: staging.read(1, 0, 1), lambda: staging.write(1, 0, b"x")):
        with pytest.raises(FileNotFoundError):
            work()


def test_any_number_of_layers_share_few_descriptors(staging):
    before = len(os.listdir("/proc/self/fd"))
    for layer in range(50):
        staging.create(layer)
        staging.write(layer, 0, b"%d" % layer)
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    assert [staging.read(layer, 0, 9) for layer in range(50)] == [b"%d" % n for n in range(50)]
    staging.close()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="closed"):
        staging.read(1, 0, 1)


def test_too_few_descriptors_of_the_process_are_shared_too(staging, monkeypatch):
    for layer in range(3):
        staging.create(layer)
    real, failures = os.open, [2]

    def scarce(*arguments):
        if failures[0]:
            failures[0] -= 1
            raise OSError(errno.EMFILE, "too many")
        return real(*arguments)

    monkeypatch.setattr(os, "open", scarce)
    staging.create(9)
    staging.write(9, 0, b"x")
    assert staging.read(9, 0, 1) == b"x"


def test_no_descriptor_is_closed_under_a_running_call(tmp_path):
    staging = Staging(tmp_path / "staging", descriptors=1)
    for layer in range(8):
        staging.create(layer)
        staging.write(layer, 0, b"%d" % layer * 1000)
    wrong: list[bytes] = []

    def work(layer: int) -> None:
        reads = (staging.read(layer, 0, 1000) for _ in range(300))
        wrong.extend(data for data in reads if data != b"%d" % layer * 1000)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    staging.close()
    assert not wrong


@pytest.mark.parametrize("size", [0, LARGE])
def test_names_are_synced_once(staging, monkeypatch, size):
    synced = []
    real = os.fsync

    def watch(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    folder = "01" if size else "slabs"
    staging.create(0x101, size)
    staging.sync(0x101)
    assert [path.rsplit("/", 1)[-1] for path in synced[:2]] == [folder, "staging"]
    synced.clear()
    staging.write(0x101, 0, b"x")
    staging.sync(0x101)
    assert synced == []
    staging.create(0x10001, size)
    staging.sync(0x10001)
    assert [path.rsplit("/", 1)[-1] for path in synced] == [folder]


@pytest.fixture
def failing(monkeypatch):
    """The disk fails as often as this says; the kernel says so once."""
    left = [0]
    real = os.fdatasync

    def fail(descriptor):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "a bad disk")
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fail)
    return left


def test_a_failed_sync_is_told_to_all_whose_bytes_it_may_have_lost(staging, failing):
    for layer in (1, 2, 3, 5000):
        staging.create(layer)
        staging.write(layer, 0, b"x")
    failing[0] = 1
    with pytest.raises(OSError, match="bad disk"):
        staging.sync(1)
    for layer in (1, 2, 3) * 2:
        with pytest.raises(OSError, match="may not be on the disk") as error:
            staging.sync(layer)
        assert error.value.errno == errno.EIO
    staging.sync(5000)
    staging.create(4)
    staging.sync(4)
    staging.truncate(2, 0)
    staging.write(2, 0, b"again")
    staging.sync(2)
    staging.remove(3)
    staging.create(3)
    staging.sync(3)
    # It is still so in a file of its own.
    staging.write(1, 0, b"y" * 100_000)
    with pytest.raises(OSError, match="may not be on the disk"):
        staging.sync(1)


def test_a_failed_sync_of_a_large_layer_is_its_own(staging, failing):
    for layer in (1, 2):
        staging.create(layer, 100_000)
    failing[0] = 1
    with pytest.raises(OSError, match="bad disk"):
        staging.sync(1)
    with pytest.raises(OSError, match="may not be on the disk"):
        staging.sync(1)
    staging.sync(2)
    staging.truncate(1, 0)
    staging.sync(1)


@pytest.mark.parametrize("size", [0, LARGE])
def test_a_layer_that_is_removed_while_its_sync_fails_is_forgotten(staging, monkeypatch, size):
    staging.create(1, size)
    staging.create(2)

    def fail(_descriptor):
        staging.remove(1)
        raise OSError(errno.EIO, "a bad disk")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="bad disk"):
        staging.sync(1)
    assert not staging.has_failed(1)
    assert staging.has_failed(2) == (size == 0)


def test_a_layer_whose_sync_fails_while_it_is_removed_is_forgotten(staging, failing, monkeypatch):
    staging.create(1, LARGE)
    failing[0] = 1
    real = Path.unlink

    def unlink(path, *, missing_ok=False):
        with pytest.raises(OSError, match="bad disk"):
            staging.sync(1)
        assert staging.has_failed(1)
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    staging.remove(1)
    assert not staging.has_failed(1)


def test_those_who_sync_a_slab_at_once_share_a_write_and_its_failure(staging, monkeypatch):
    for layer in (1, 2, 3):
        staging.create(layer)
    entered, go, results = threading.Event(), threading.Event(), []
    calls = itertools.count()

    def slow(descriptor):
        if next(calls) == 0:
            entered.set()
            assert go.wait(10)
            raise OSError(errno.EIO, "a bad disk")

    def work(layer):
        try:
            staging.sync(layer)
        except OSError as error:
            results.append(error.errno)

    monkeypatch.setattr(os, "fdatasync", slow)
    threads = [threading.Thread(target=work, args=(layer,)) for layer in (1, 2, 3)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while staging._slabs.file(1).asked < 3:
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join()
    assert results == [errno.EIO] * 3
    assert next(calls) == 2


def test_what_another_process_left_unsynced_is_synced(staging, tmp_path, monkeypatch):
    staging.create(1)
    again = Staging(tmp_path / "staging")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    again.sync(1)
    assert len(synced) == 3  # The layer's folder, that of all, and the one above.
    again.close()


@pytest.mark.parametrize("size", [0, LARGE])
def test_what_was_written_before_the_disk_was_full_counts(staging, monkeypatch, size):
    staging.create(1, size)
    staging.truncate(1, 0)
    real, room = os.pwrite, [7]

    def full(descriptor, data, offset):
        if len(data) == 16:  # An entry: its space was taken when the slab was made.
            return real(descriptor, data, offset)
        if not room[0]:
            raise OSError(errno.ENOSPC, "full")
        done = real(descriptor, bytes(data)[: room[0]], offset)
        room[0] -= done
        return done

    monkeypatch.setattr(os, "pwrite", full)
    assert staging.write(1, 0, b"0123456789") == 7
    with pytest.raises(OSError, match="full"):
        staging.write(1, 7, b"789")
    assert staging.status(1).size == 7


def test_whatever_else_lies_in_the_folder_is_no_layer(staging, tmp_path):
    staging.create(5, LARGE)
    staging.create(6)
    for name in ("05/notes", "05/0000000000000006", "readme", "05/5", "slabs/1", "slabs/x"):
        (tmp_path / "staging" / name).write_bytes(b"")
    assert sorted(staging.layers()) == [5, 6]
    staging.close()
    assert sorted(Staging(tmp_path / "staging").layers()) == [5, 6]


def test_a_quota_counts_what_the_layers_take(tmp_path):
    staging = Staging(tmp_path / "staging", quota_bytes=1 << 20)
    staging.create(1)
    staging.write(1, 0, b"x" * 900_000)
    staging.create(2, 1 << 30)
    with pytest.raises(OSError, match="quota") as caught:
        staging.write(2, 5_000, b"x" * 200_000)
    assert caught.value.errno == errno.EDQUOT
    assert staging.status(2).allocated == 0
    assert staging.write(1, 100, b"y" * 500_000) == 500_000
    staging.truncate(1, 500_000)
    assert staging.write(2, 5_000, b"x" * 200_000) == 200_000
    staging.close()
    again = Staging(tmp_path / "staging", quota_bytes=1 << 20)
    with pytest.raises(OSError, match="quota"):
        again.write(2, 1_000_000, b"x" * 500_000)
    again.remove(1)
    assert again.write(2, 1_000_000, b"x" * 500_000) == 500_000
    again.close()


def test_the_status_of_a_layer_takes_no_descriptor(tmp_path):
    staging = Staging(tmp_path / "staging", descriptors=1)
    for layer in (1, 2):
        staging.create(layer)
        staging.write(layer, 0, b"x" * layer)
    before = len(os.listdir("/proc/self/fd"))
    assert [staging.status(layer).size for layer in (1, 2, 1)] == [1, 2, 1]
    assert len(os.listdir("/proc/self/fd")) == before
    staging.close()
