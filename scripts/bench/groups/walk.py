"""Walking and stating a tree of small files."""

from __future__ import annotations

import time

from scripts.bench.bench import Bench
from scripts.bench.clients import walk

PEERS = ("ext4", "squashfuse_ll", "borg", "restic", "casync")
WARM_PASSES = 3


def measure(bench: Bench) -> None:
    """Measures walk.cold and walk.warm: the first walk of a mount, and the next three."""
    contenders = bench.mounting("mixed", bench.data.mixed(), PEERS)
    for contender in bench.rounds_of(contenders):
        with bench.cold(contender) as folder:
            for number in range(2 if contender.occasional else 1 + WARM_PASSES):
                began = time.perf_counter()
                count = walk(folder / "small")
                rate = count / (time.perf_counter() - began)
                bench.note("walk.warm" if number else "walk.cold", contender.name, rate)
