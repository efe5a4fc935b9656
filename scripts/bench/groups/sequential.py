"""Reading large files from one end to the other."""

from __future__ import annotations

import time

from scripts.bench.bench import Bench
from scripts.bench.clients import read_large

PEERS = ("ext4", "squashfuse_ll", "borg", "restic", "casync")
WARM_PASSES = 5
"""The first one still moves pages to the list of those in use: it takes twice as long."""


def measure(bench: Bench) -> None:
    """Measures each of the two large files in a fresh mount: first cold, then warm."""
    contenders = bench.mounting("mixed", bench.data.mixed(), PEERS)
    for kind in ("random", "text"):
        for contender in bench.rounds_of(contenders):
            with bench.cold(contender) as folder:
                for number in range(1 + WARM_PASSES):
                    began = time.perf_counter()
                    mib = read_large(folder / f"{kind}.bin")
                    rate = mib / (time.perf_counter() - began)
                    state = "warm" if number else "cold"
                    bench.note(f"sequential.{state}-{kind}", contender.name, rate)
