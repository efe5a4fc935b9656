"""Opening, reading and closing small files."""

from __future__ import annotations

import time

from scripts.bench.bench import Bench
from scripts.bench.clients import file_names, read_in_order, read_paths, readers

PEERS = ("ext4", "squashfuse_ll", "borg", "restic", "casync")
PROCESSES = 4
WARM_PASSES = 3


def measure(bench: Bench) -> None:
    """Measures read.cold and read.warm in one mount, and read.shuffled in another."""
    source = bench.data.mixed()
    names = file_names(source / "small")
    contenders = bench.mounting("mixed", source, PEERS)
    for contender in bench.rounds_of(contenders):
        with bench.cold(contender) as folder:
            began = time.perf_counter()
            count = read_in_order(folder / "small")
            bench.note("read.cold", contender.name, count / (time.perf_counter() - began))
            for _ in range(1 if contender.occasional else WARM_PASSES):
                began = time.perf_counter()
                count = read_paths(folder / "small", names)
                bench.note("read.warm", contender.name, count / (time.perf_counter() - began))
        with bench.cold(contender) as folder, readers(folder / "small", names, PROCESSES) as run:
            bench.note("read.shuffled", contender.name, len(names) / run())
