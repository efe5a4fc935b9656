"""Reading 4 KiB at random places of a large compressible file."""

from __future__ import annotations

import time

from scripts.bench.bench import Bench
from scripts.bench.clients import read_random

PEERS = ("ext4", "squashfuse_ll", "borg", "restic")


def measure(bench: Bench) -> None:
    """Measures random.cold."""
    contenders = bench.mounting("mixed", bench.data.mixed(), PEERS, ("borg",))
    for contender in bench.rounds_of(contenders):
        with bench.cold(contender) as folder:
            began = time.perf_counter()
            count = read_random(folder / "text.bin", bench.scale.random_reads)
            bench.note("random.cold", contender.name, count / (time.perf_counter() - began))
