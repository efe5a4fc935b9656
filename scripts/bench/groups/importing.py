"""Taking a folder in, and its second version, by programs that store versions.

The folder is seen at the same path for both versions (by a bind mount), and what is unchanged in
version 2 has the same inode and times as in version 1, as if it had been edited in place.
"""

from __future__ import annotations

from scripts.bench.bench import Bench
from scripts.bench.figures import alternated
from scripts.bench.peers.base import Peer
from scripts.bench.peers.git import Dvc
from scripts.bench.peers.squashfs import FastSquashfs, Squashfs
from scripts.bench.programs import bound, drop_caches, remove, timed

PEERS = ("squashfuse_ll", "restic", "borg", "casync", "dvc", "git")
MIB = 1 << 20


def measure(bench: Bench) -> None:
    """Measures import.* in a new store each time."""
    peers = [bench.ours, *(bench.peers[name] for name in PEERS if name in bench.peers)]
    if "squashfuse_ll" in bench.peers:
        peers.append(FastSquashfs())
    for number in range(bench.rounds):
        for peer in alternated(peers, number):
            if number == 0 or peer.name not in ("dvc", "git"):
                _measure(bench, peer)


def _measure(bench: Bench, peer: Peer) -> None:
    first, second = bench.data.mixed(), bench.data.mixed_edited()
    name = "mksquashfs" if peer.name == "squashfuse_ll" else peer.name
    store, place = bench.work / "store", bench.folder / "source"
    peer.create(store)
    for source, key in ((first, "import."), (second, "import.v2-")):
        if isinstance(peer, Squashfs) and source is second:
            continue
        before = peer.stored(store)
        with bound(source, place):
            if isinstance(peer, Dvc):
                peer.prepare(store, place)
            drop_caches()
            bench.note(f"{key}seconds", name, timed(peer.take, store, place))
        bench.note(f"{key}stored", name, (peer.stored(store) - before) / MIB)
    remove(store)
