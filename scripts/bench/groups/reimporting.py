"""Taking a folder in again in which nothing has changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.figures import alternated
from scripts.bench.programs import timed

PEERS = {"mixed": ("restic", "borg"), "tree": ("restic",)}


def find(folder: Path) -> None:
    """Lists names, sizes and times: the least that a look for changes has to do."""
    subprocess.run(
        ["find", folder, "-printf", r"%p %s %T@\n"], stdout=subprocess.DEVNULL, check=True
    )


def measure(bench: Bench) -> None:
    """Measures reimport.*, with the metadata of the folder in the page cache for all."""
    for name, peers in PEERS.items():
        source = bench.data.mixed() if name == "mixed" else bench.data.tree()
        takers: list[tuple[str, Callable[[], None]]] = [("find", partial(find, source))]
        for peer in (bench.ours, *(bench.peers[each] for each in peers if each in bench.peers)):
            store = bench.store_of(peer, name, source)
            takers.append((peer.name, partial(peer.take, store, source)))
        for _, take in takers:
            take()
        for number in range(bench.rounds):
            for contender, take in alternated(takers, number):
                find(source)
                bench.note(f"reimport.{name}", contender, timed(take))
