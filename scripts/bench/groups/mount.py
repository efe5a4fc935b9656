"""From ``versionfs mount`` to the end of the first ``ls``."""

from __future__ import annotations

import os
import time
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.figures import alternated
from scripts.bench.programs import command, drop_caches

FEW = 10


def measure(bench: Bench) -> None:
    """Measures mount.first, cold and warm, of a tiny and of the large tree in turn."""
    stores = {
        f"versionfs, {FEW} files": bench.store_of(bench.ours, "tree-10", bench.data.tree(FEW)),
        "versionfs, large tree": bench.store_of(bench.ours, "tree", bench.data.tree()),
    }
    for key in ("mount.first", "mount.first-cold"):
        for number in range(2 * bench.rounds):
            for name in alternated(list(stores), number):
                if key.endswith("cold"):
                    drop_caches()
                bench.note(key, name, _mount(bench, stores[name]))


def _mount(bench: Bench, store: Path) -> float:
    began = time.perf_counter()
    with bench.ours.ordinary(store, bench.point) as daemon:
        command("ls", os.fspath(daemon.branch))
        return time.perf_counter() - began
