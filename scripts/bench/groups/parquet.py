"""Reading columns of a Parquet file."""

from __future__ import annotations

import time

from scripts.bench.bench import Bench

PEERS = ("ext4", "squashfuse_ll", "borg", "restic")
COLUMNS = ["id", "value3", "name1"]


def measure(bench: Bench) -> None:
    """Measures parquet.columns."""
    from pyarrow import parquet

    contenders = bench.mounting("parquet", bench.data.parquet(), PEERS)
    # What pyarrow loads on its first read is no part of it.
    parquet.read_table(bench.data.parquet() / "table.parquet", columns=COLUMNS)
    for contender in bench.rounds_of(contenders):
        with bench.cold(contender) as folder:
            began = time.perf_counter()
            parquet.read_table(folder / "table.parquet", columns=COLUMNS)
            bench.note("parquet.columns", contender.name, time.perf_counter() - began)
