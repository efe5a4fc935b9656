"""A store behind a network: scripts/bench/s3.py measures it."""

from __future__ import annotations

from scripts.bench.bench import Bench

_KEYS = {
    "sequential": ("s3.sequential", "parallel range GETs"),
    "tar": ("s3.small", "rclone mount"),
    "find": ("s3.find", "rclone mount"),
}


def measure(bench: Bench) -> None:
    """Measures s3.*; only at full scale, as its data sets have one size."""
    if bench.scale.name != "full":
        bench.say("  s3: only at full scale")
        return
    from scripts.bench.s3 import compare_s3

    folder = bench.work / "s3"
    folder.mkdir()
    for label, _, ours, theirs in compare_s3(folder, min(3, bench.rounds)):
        key, peer = next(pair for word, pair in _KEYS.items() if word in label)
        for name, values in (("versionfs", ours), (peer, theirs)):
            for value in values:
                bench.note(key, name, value)
