"""The memory of the daemon after much work."""

from __future__ import annotations

import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.clients import read_large
from scripts.bench.peers.ours import Daemon
from scripts.bench.programs import drop_caches, memory_of
from scripts.bench.rows import BRANCH, READ_ONLY

MIB = 1 << 20


def measure(bench: Bench) -> None:
    """Measures memory.find and memory.reads once for each kind of mount; they do not vary."""
    tree = bench.store_of(bench.ours, "tree", bench.data.tree())
    mixed = bench.store_of(bench.ours, "mixed", bench.data.mixed())
    for name in (BRANCH, READ_ONLY):
        with _mounted(bench, name, tree) as daemon:
            folder = daemon.branch if name == BRANCH else daemon.point
            # -printf asks for the attributes of each entry; find without it trusts the listing.
            subprocess.run(
                ["find", folder, "-printf", r"%p %s\n"], stdout=subprocess.DEVNULL, check=True
            )
            _note(bench, "memory.find", name, daemon)
        with _mounted(bench, name, mixed) as daemon:
            folder = daemon.branch if name == BRANCH else daemon.point
            _read(folder, bench.scale.reads_bytes)
            _note(bench, "memory.reads", name, daemon)


def _mounted(bench: Bench, name: str, store: Path) -> AbstractContextManager[Daemon]:
    if name == BRANCH:
        return bench.ours.ordinary(store, bench.point)
    return bench.ours.read_only(store, bench.point)


def _read(folder: Path, size: int) -> None:
    """Reads the large files, over and over; each time from the daemon, not the page cache."""
    done = 0.0
    while done < size:
        for name in ("random.bin", "text.bin"):
            done += read_large(folder / name) * MIB
        drop_caches()


def _note(bench: Bench, key: str, name: str, daemon: Daemon) -> None:
    now, most = memory_of(daemon.pid)
    bench.note(key, name, now / MIB)
    bench.note(key, f"{name}, at most", most / MIB)
