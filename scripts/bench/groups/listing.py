"""``ls -l`` of one large directory."""

from __future__ import annotations

from scripts.bench.bench import Bench
from scripts.bench.clients import list_long
from scripts.bench.programs import timed

PEERS = ("ext4", "squashfuse_ll", "borg")
WARM_PASSES = 2


def measure(bench: Bench) -> None:
    """Measures the first ``ls -l`` of a mount, and those after it."""
    contenders = bench.mounting("wide", bench.data.wide(), PEERS, ("borg",))
    for contender in bench.rounds_of(contenders):
        with bench.cold(contender) as folder:
            for number in range(2 if contender.occasional else 1 + WARM_PASSES):
                seconds = timed(list_long, folder / "all")
                state = "warm" if number else "cold"
                bench.note(f"listing.{state}", contender.name, seconds)
