"""Measures versionfs beside restic (import), squashfuse_ll (walk, read) and rclone (S3)."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

SMALL_FILES = 20_000
LARGE_MIB = 512


class Text:
    """Makes text-like bytes, the same each time."""

    def __init__(self) -> None:
        self.rng = random.Random(7)
        letters = b"abcdefghijklmnopqrstuvwxyz"
        self._words = [
            bytes(self.rng.choices(letters, k=self.rng.randint(2, 9))) for _ in range(5000)
        ]

    def __call__(self, size: int) -> bytes:
        return b" ".join(self.rng.choices(self._words, k=size // 3))[:size]


def make_small(folder: Path) -> Text:
    """Makes 20,000 text files of 1 to 20 KB, 100 to a folder."""
    text = Text()
    for number in range(SMALL_FILES):
        below = folder / f"d{number // 100:03d}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"f{number:05d}.txt").write_bytes(text(text.rng.randint(1000, 20_000)))
    return text


def make_data(folder: Path) -> None:
    """Makes the small files and one of 512 MiB, every other MiB of it random."""
    text = make_small(folder)
    with (folder / "large").open("wb") as large:
        for _ in range(LARGE_MIB // 2):
            large.write(text.rng.randbytes(1 << 20))
            large.write(text(1 << 20))


def drop_caches() -> None:
    """Makes the next reads cold."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def timed(run: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def command(*words: str | Path, **environment: str) -> None:
    """Runs a program; its output is shown only when it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{words[0]} failed:\n{done.stdout}{done.stderr}")


def versionfs(home: Path, *words: str | Path) -> None:
    """Runs versionfs with a home of its own."""
    command(sys.executable, "-m", "versionfs", *words, VERSIONFS_HOME=str(home))


def walk(folder: Path) -> int:
    """Lists a tree and lstats everything in it."""
    count = 0
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.lstat(f"{top}/{name}")
            count += 1
    return count


def read_small(folder: Path) -> int:
    """Opens, reads and closes each small file, in the order of the listing."""
    count = 0
    for top, _, files in os.walk(folder):
        for name in files:
            if name != "large":
                with open(f"{top}/{name}", "rb", buffering=0) as file:
                    file.read()
                count += 1
    return count


def read_large(folder: Path) -> int:
    """Reads the large file from one end to the other; returns MiB."""
    with (folder / "large").open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
    return LARGE_MIB


def compare_import(data: Path, work: Path, rounds: int) -> list[tuple[str, str, float, float]]:
    """Imports the data set into new stores, one program after the other."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds):
        home, repository = work / f"home{number}", work / f"restic{number}"
        cache = work / f"restic-cache{number}"
        ours.append(timed(lambda home=home: versionfs(home, "import", data, "set", "-m", "one")))
        restic = ("restic", "-q", "-r", repository, "--cache-dir", cache)
        command(*restic, "init", RESTIC_PASSWORD="benchmark")
        theirs.append(
            timed(
                lambda restic=restic: command(*restic, "backup", data, RESTIC_PASSWORD="benchmark")
            )
        )
        for folder in (home, repository, cache):
            shutil.rmtree(folder)
    return [("import, seconds", "restic", median(ours), median(theirs))]


def compare_walk(data: Path, work: Path, rounds: int) -> list[tuple[str, str, float, float]]:
    """Walks and reads mounts of the data set, cold and warm, one mount after the other."""
    home, image, point = work / "home", work / "image", work / "mount"
    point.mkdir()
    versionfs(home, "import", data, "set", "-m", "one")
    command("mksquashfs", data, image, "-comp", "zstd", "-quiet", "-no-progress")
    works = {
        "cold walk + lstat, /s": (walk, True),
        "warm walk + lstat, /s": (walk, False),
        "cold open + read, /s": (read_small, True),
        "warm open + read, /s": (read_small, False),
        "cold sequential, MiB/s": (read_large, True),
    }
    results: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name in ("versionfs", "squashfuse_ll"):
            if name == "versionfs":
                versionfs(home, "mount", "--read-only", point, "set/main")
            else:
                command("squashfuse_ll", image, point)
            try:
                for label, (work_on, cold) in works.items():
                    if cold:
                        drop_caches()
                    began = time.perf_counter()
                    count = work_on(point)
                    rate = count / (time.perf_counter() - began)
                    results.setdefault((label, name), []).append(rate)
            finally:
                command("fusermount3", "-u", point)
    return [
        (
            label,
            "squashfuse_ll",
            median(results[label, "versionfs"]),
            median(results[label, "squashfuse_ll"]),
        )
        for label in works
    ]


def main() -> None:
    """Runs what the arguments name and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=["import", "walk", "s3", []])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; needs about 4 GB")
    options = parser.parse_args()
    what = options.what or ["import", "walk", "s3"]
    table = Table("work", "versionfs", "peer", "peer's", "ratio")
    with tempfile.TemporaryDirectory(prefix="versionfs-bench-", dir=options.folder) as folder:
        data, work = Path(folder) / "data", Path(folder) / "work"
        work.mkdir()
        rows: list[tuple[str, str, float, float]] = []
        if {"import", "walk"} & set(what):
            make_data(data)
        if "s3" in what:
            sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
            from scripts.bench.s3 import compare_s3

            (work / "s3").mkdir()
            rows += compare_s3(work / "s3", options.rounds)
        if "import" in what:
            rows += compare_import(data, work, options.rounds)
        if "walk" in what:
            rows += compare_walk(data, work, options.rounds)
    for label, peer, ours, theirs in rows:
        ratio = theirs / ours if "seconds" in label else ours / theirs
        table.add_row(label, f"{ours:,.1f}", peer, f"{theirs:,.1f}", f"{ratio:.2f} ×")
    Console().print(table)


if __name__ == "__main__":
    main()
