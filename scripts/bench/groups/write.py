"""Writing in a branch folder, beside the disk's own file system; and the commit after it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.clients import create_files, write_large
from scripts.bench.figures import alternated
from scripts.bench.programs import remove, timed
from scripts.bench.rows import BRANCH, EXT4, RESTIC
from scripts.bench.text import Text

CREATE_PASSES = 3


def measure(bench: Bench) -> None:
    """Measures write.*; each round in a new store with an empty branch."""
    data = memoryview(half_random(bench.scale.written_mib))
    for number in range(bench.rounds):
        for name in alternated([BRANCH, EXT4], number):
            if name == BRANCH:
                _ours(bench, data)
            else:
                _ext4(bench, data)


def _ours(bench: Bench, data: memoryview) -> None:
    store = bench.work / "home"
    seed = bench.work / "seed"
    seed.mkdir(exist_ok=True)
    (seed / "file").write_bytes(b"one\n")
    bench.ours.create(store)
    bench.ours.take(store, seed)
    with bench.ours.ordinary(store, bench.point) as daemon:
        _creates(bench, BRANCH, daemon.branch, data)
        seconds = timed(bench.ours.run, store, "commit", "set", "-m", "files")
        bench.note("write.commit-files", BRANCH, seconds)
        _large(bench, BRANCH, daemon.branch, data)
        seconds = timed(bench.ours.run, store, "commit", "set", "-m", "large")
        bench.note("write.commit", BRANCH, seconds)
    remove(store)


def _ext4(bench: Bench, data: memoryview) -> None:
    folder = bench.work / "ext4"
    folder.mkdir()
    _creates(bench, EXT4, folder, data)
    restic = bench.peers.get(RESTIC)
    store = bench.work / "restic"
    if restic is not None:
        restic.create(store)
        seconds = timed(restic.take, store, folder)
        bench.note("write.commit-files", RESTIC, seconds)
        remove(store)
    remove(folder)
    folder.mkdir()
    _large(bench, EXT4, folder, data)
    if restic is not None:
        restic.create(store)
        seconds = timed(restic.take, store, folder)
        bench.note("write.commit", RESTIC, seconds)
        remove(store)
    remove(folder)


def _creates(bench: Bench, name: str, folder: Path, data: memoryview) -> None:
    os.sync()
    for number in range(CREATE_PASSES):
        below = folder / f"new{number}"
        below.mkdir()
        own = data[number * bench.scale.creates * 4096 :]
        began = time.perf_counter()
        count = create_files(below, bench.scale.creates, own)
        bench.note("write.create", name, count / (time.perf_counter() - began))


def _large(bench: Bench, name: str, folder: Path, data: memoryview) -> None:
    os.sync()
    began = time.perf_counter()
    mib = write_large(folder / "large", data)
    bench.note("write.sequential", name, mib / (time.perf_counter() - began))


def half_random(mib: int) -> bytes:
    """Returns data of which every other MiB is random, and the rest text."""
    text = Text(21)
    one = 1 << 20
    return b"".join(text(one) if number % 2 else text.rng.randbytes(one) for number in range(mib))
