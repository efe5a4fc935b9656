"""What the measured programs do. Each returns how much it did (entries, files, MiB, reads)."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_BUFFER: Final = 1 << 20


def walk(folder: Path) -> int:
    """Lists a tree and lstats everything in it."""
    count = 0
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.lstat(f"{top}/{name}")
            count += 1
    return count


def read_in_order(folder: Path) -> int:
    """Lists a tree, and opens, reads and closes each file in the order of the listing."""
    count = 0
    for top, _, files in os.walk(folder):
        for name in files:
            _read_file(f"{top}/{name}")
            count += 1
    return count


def read_paths(folder: Path, paths: Sequence[str]) -> int:
    """Opens, reads and closes files whose names are known."""
    top = f"{folder}/"
    for path in paths:
        _read_file(top + path)
    return len(paths)


def _read_file(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    while os.read(file, _BUFFER):
        pass
    os.close(file)


def read_large(path: Path) -> float:
    """Reads a file from one end to the other, 1 MiB at a time; returns MiB."""
    buffer = bytearray(_BUFFER)
    total = 0
    with path.open("rb", buffering=0) as file:
        while got := file.readinto(buffer):
            total += got
    return total / _BUFFER


def read_random(path: Path, count: int) -> int:
    """Reads 4 KiB at random places, the same places each time."""
    rng = random.Random(11)
    file = os.open(path, os.O_RDONLY)
    pages = os.fstat(file).st_size // 4096
    for page in rng.sample(range(pages), min(count, pages)):
        os.pread(file, 4096, page * 4096)
    os.close(file)
    return min(count, pages)


def list_long(folder: Path) -> int:
    """Runs ``ls -l``; what it writes is thrown away."""
    subprocess.run(
        ["ls", "-l", folder],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"LC_ALL": "C"},
        check=True,
    )
    return 1


def create_files(folder: Path, count: int, data: memoryview) -> int:
    """Creates files, writes 4 KiB of its own to each and closes it."""
    top = f"{folder}/"
    for number in range(count):
        file = os.open(f"{top}{number:06d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(file, data[number * 4096 : number * 4096 + 4096])
        os.close(file)
    return count


def write_large(path: Path, data: memoryview) -> float:
    """Writes 1 MiB at a time, and syncs the file at the end; returns MiB."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    for start in range(0, len(data), _BUFFER):
        os.write(file, data[start : start + _BUFFER])
    os.fsync(file)
    os.close(file)
    return len(data) / _BUFFER


def file_names(folder: Path) -> list[str]:
    """Returns the names of all files below a folder, sorted: the order of a directory."""
    return sorted(
        os.path.relpath(f"{top}/{name}", folder)
        for top, _, files in os.walk(folder)
        for name in files
    )


def digest_of(folder: Path, paths: Sequence[str], most: int) -> str:
    """Returns a digest of the first bytes of some files: all contenders have to serve the same."""
    digest = hashlib.sha256()
    for path in paths:
        with open(f"{folder}/{path}", "rb") as file:
            digest.update(file.read(most))
    return digest.hexdigest()


@contextmanager
def readers(folder: Path, paths: Sequence[str], processes: int) -> Iterator[Callable[[], float]]:
    """Starts processes that read files in shuffled order, each its part.

    Yields a call that lets them begin and returns the seconds until the last one was done; so
    neither their start nor the shuffling counts.
    """
    shuffled = list(paths)
    random.Random(12).shuffle(shuffled)
    fork = multiprocessing.get_context("fork")
    begin, end = fork.Barrier(processes + 1), fork.Barrier(processes + 1)

    def work(part: list[str]) -> None:
        begin.wait()
        read_paths(folder, part)
        end.wait()

    workers = [
        fork.Process(target=work, args=(shuffled[number::processes],))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()

    def run() -> float:
        begin.wait(60)
        began = time.perf_counter()
        end.wait(3600)
        return time.perf_counter() - began

    try:
        yield run
    finally:
        for worker in workers:
            worker.join(5)
            if worker.is_alive():
                worker.terminate()
