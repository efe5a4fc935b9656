"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.datasets import SCALES
from scripts.bench.programs import ROOT
from scripts.bench.results import load, publish, save
from scripts.bench.rows import GROUPS
from scripts.bench.screen import show


def main() -> int:
    """Measures what the arguments name; writes docs/benchmarks.md for the full scale."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench/run",
        description="Measures versionfs beside its peers, in one run, alternating.",
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="what to measure; all without")
    parser.add_argument("--list", action="store_true", help="list the groups")
    parser.add_argument("--rounds", type=int, default=None, help="5; 2 for --scale small")
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".bench", help="data sets and stores, kept; .bench"
    )
    parser.add_argument(
        "--code", type=Path, default=ROOT, help="measure the versionfs of another checkout"
    )
    parser.add_argument("--profile", action="store_true", help="also where the time goes")
    parser.add_argument("--peers", help="only these, as in ext4,borg; writes nothing to docs")
    parser.add_argument("--page", action="store_true", help="write the page again; measure nothing")
    parser.add_argument("--no-page", action="store_true", help="print only; write nothing to docs")
    options = parser.parse_args()
    if options.list:
        for name, title in GROUPS.items():
            print(f"{name:12} {title}")
        return 0
    if options.page:
        publish(load())
        return 0
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))} (--list shows them)")
    if os.geteuid() != 0:
        parser.error("the page cache is dropped before cold measurements: this needs root")
    scale = SCALES[options.scale]
    rounds = options.rounds or (5 if scale.name == "full" else 2)
    peers = None if options.peers is None else options.peers.split(",")
    bench = Bench(options.folder.resolve(), scale, rounds, peers, options.code.resolve())
    keep = scale.name == "full" and peers is None and not options.no_page and options.code == ROOT
    for name in options.groups or GROUPS:
        print(f"{name}: {GROUPS[name]}", flush=True)
        module = importlib.import_module(
            f"scripts.bench.groups.{name.replace('import', 'importing')}"
        )
        module.measure(bench)
        if options.profile:
            from scripts.bench.profiling import profile

            profile(bench, name)
        # Each group is kept as soon as it is there.
        if keep:
            save(bench, sys.argv[1:])
    show(bench)
    return 0
