"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import compileall
import fcntl
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.bench.bench import Bench
from scripts.bench.datasets import SCALES
from scripts.bench.programs import ROOT, ProgramError, drop_caches
from scripts.bench.results import DOCS, FILE, PAGE, load, publish, save
from scripts.bench.rows import GROUPS
from scripts.bench.screen import show
from scripts.bench.steady import steady_memory

MODULES: Final = {"import": "importing", "reimport": "reimporting"}


def main() -> int:
    """Measures what the arguments name; writes docs/benchmarks.md for the full scale."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench/run",
        description="Measures versionfs beside its peers, in one run, alternating.",
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="what to measure; all without")
    parser.add_argument("--list", action="store_true", help="list the groups")
    parser.add_argument("--rounds", type=int, default=None, help="5; 1 for --scale small")
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".bench", help="data sets and stores, kept; .bench"
    )
    parser.add_argument(
        "--code", type=Path, default=ROOT, help="measure the versionfs of another checkout"
    )
    parser.add_argument("--profile", action="store_true", help="also where the time goes")
    parser.add_argument("--peers", help="only these, as in ext4,borg; implies --no-page")
    parser.add_argument("--page", action="store_true", help="write the page again; measure nothing")
    parser.add_argument("--no-page", action="store_true", help="write to FOLDER/page, not to docs")
    options = parser.parse_args()
    if options.list:
        for name, title in GROUPS.items():
            print(f"{name:12} {title}")
        return 0
    if options.page:
        publish(load(DOCS / FILE), DOCS)
        return 0
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))} (--list shows them)")
    if os.geteuid() != 0:
        parser.error("the page cache is dropped before cold measurements: this needs root")
    scale = SCALES[options.scale]
    rounds = options.rounds or (5 if scale.name == "full" else 1)
    peers = None if options.peers is None else options.peers.split(",")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    kept = scale.name == "full" and peers is None and not options.no_page and options.code == ROOT
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another run uses {folder}; give another --folder")
        bench = Bench(folder, scale, rounds, peers, options.code.resolve())
        docs = DOCS if kept else folder / "page"
        # As an installed package is; the environment may say that Python is not to do it.
        compileall.compile_dir(options.code / "versionfs", quiet=1)
        drop_caches()
        with steady_memory():
            failed = run(bench, options.groups or list(GROUPS), docs, profiled=options.profile)
    show(bench)
    print(f"the page is {docs / PAGE}")
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


def run(bench: Bench, groups: Sequence[str], docs: Path, *, profiled: bool) -> list[str]:
    """Measures groups; returns those that failed. Each is kept as soon as it is there."""
    failed = []
    for name in groups:
        print(f"{name}: {GROUPS[name]}", flush=True)
        module = importlib.import_module(f"scripts.bench.groups.{MODULES.get(name, name)}")
        try:
            module.measure(bench)
            if profiled:
                from scripts.bench.profiling import profile

                profile(bench, name)
        except (ProgramError, OSError):
            traceback.print_exc()
            bench.discard(name)
            failed.append(name)
            continue
        save(bench, sys.argv[1:], docs)
    return failed
