"""The data sets: built once in a folder, the same bytes each time, and used again by later runs.

A set that is complete has a stamp ``NAME.complete`` beside it. A change of how a set is made must
change ``VERSION``.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.bench.edits import Edit, apply_edits, plan_edits
from scripts.bench.programs import remove
from scripts.bench.text import Text

VERSION: Final = "2"
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the data sets are."""

    name: str
    small_files: int
    large_mib: int
    wide_entries: int
    tree_entries: int
    parquet_rows: int
    reads_bytes: int
    """What the memory measurement reads."""
    creates: int
    written_mib: int
    random_reads: int


FULL: Final = Scale(
    "full",
    small_files=20_000,
    large_mib=512,
    wide_entries=200_000,
    tree_entries=1_000_000,
    parquet_rows=4_000_000,
    reads_bytes=16 << 30,
    creates=10_000,
    written_mib=512,
    random_reads=2_000,
)
SMALL: Final = Scale(
    "small",
    small_files=1_000,
    large_mib=16,
    wide_entries=2_000,
    tree_entries=5_000,
    parquet_rows=100_000,
    reads_bytes=64 << 20,
    creates=500,
    written_mib=16,
    random_reads=100,
)
SCALES: Final = {scale.name: scale for scale in (FULL, SMALL)}


class DataSets:
    """The data sets of one scale, in a folder."""

    def __init__(self, folder: Path, scale: Scale, say: Callable[[str], None] = print) -> None:
        self.scale = scale
        self.folder = folder / "data" / scale.name
        self._say = say

    def mixed(self) -> Path:
        """``small/dNNN/fNNNNN.txt``: text of 1 to 20 KB, 100 files to a folder; two large files.

        ``text.bin`` is text, ``random.bin`` does not compress.
        """
        return self._built("mixed", lambda folder: make_mixed(folder, self.scale))

    def mixed_edited(self) -> Path:
        """Version 2 of the mixed set; what is unchanged is a hard link to version 1."""
        mixed = self.mixed()
        return self._built("mixed-edited", lambda folder: edit_mixed(mixed, folder))

    def wide(self) -> Path:
        """One folder, ``all``, of many small files."""
        return self._built("wide", lambda folder: make_wide(folder, self.scale.wide_entries))

    def tree(self, entries: int | None = None) -> Path:
        """A tree of many small files, each of its own content, 1,000 to a folder."""
        count = entries or self.scale.tree_entries
        return self._built(f"tree-{count}", lambda folder: make_tree(folder, count))

    def parquet(self) -> Path:
        """``table.parquet``: 16 columns."""
        return self._built(
            "parquet", lambda folder: make_parquet(folder / "table.parquet", self.scale)
        )

    def _built(self, name: str, make: Callable[[Path], object]) -> Path:
        folder, stamp = self.folder / name, self.folder / f"{name}.complete"
        if stamp.exists() and stamp.read_text() == VERSION:
            return folder
        self._say(f"building the data set {name} ({self.scale.name})")
        stamp.unlink(missing_ok=True)
        remove(folder)
        folder.mkdir(parents=True)
        make(folder)
        os.sync()
        stamp.write_text(VERSION)
        return folder


def make_small(folder: Path, count: int) -> None:
    """Makes text files of 1 to 20 KB, 100 to a folder."""
    text = Text(1)
    for number in range(count):
        below = folder / f"d{number // 100:03d}"
        if number % 100 == 0:
            below.mkdir(parents=True, exist_ok=True)
        (below / f"f{number:05d}.txt").write_bytes(text(text.rng.randint(1000, 20_000)))


def make_mixed(folder: Path, scale: Scale) -> None:
    """Makes the mixed set."""
    make_small(folder / "small", scale.small_files)
    text, noise = Text(2), random.Random(3)
    with (folder / "text.bin").open("wb") as file:
        for _ in range(scale.large_mib):
            file.write(text(_MIB))
    with (folder / "random.bin").open("wb") as file:
        for _ in range(scale.large_mib):
            file.write(noise.randbytes(_MIB))


def edit_mixed(old: Path, new: Path) -> list[Edit]:
    """Makes version 2 of a mixed set: 1 % of the bytes are other or new ones."""
    paths = sorted(
        os.path.relpath(f"{top}/{name}", old) for top, _, files in os.walk(old) for name in files
    )
    sizes = {path: (old / path).stat().st_size for path in paths}
    edits = plan_edits(sizes, 0.01, random.Random(4))
    by_path: dict[str, list[Edit]] = {}
    for edit in edits:
        by_path.setdefault(edit.path, []).append(edit)
    text, noise = Text(5), random.Random(6)
    for path in paths:
        target = new / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path not in by_path:
            os.link(old / path, target)
            continue
        fresh = noise.randbytes if path == "random.bin" else text
        apply_edits(old / path, target, by_path[path], fresh)
    for top, _, _ in os.walk(old):
        shutil.copystat(top, new / os.path.relpath(top, old))
    return edits


def make_wide(folder: Path, count: int) -> None:
    """Makes one folder of many files of a few bytes."""
    below = folder / "all"
    below.mkdir()
    for number in range(count):
        _write(f"{below}/entry-{number:06d}.dat", b"%d\n" % (number % 1000))


def make_tree(folder: Path, count: int) -> None:
    """Makes a tree of files of a few bytes, 1,000 to a folder, 100 folders to a folder."""
    for number in range(count):
        if number % 1000 == 0:
            below = folder / f"t{number // 100_000:02d}" / f"s{number // 1000:04d}"
            below.mkdir(parents=True)
        _write(f"{below}/e{number:07d}", b"%d\n" % number)


def _write(path: str, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(file, data)
    os.close(file)


def make_parquet(path: Path, scale: Scale) -> None:
    """Makes a Parquet file: numbers, categories and text."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    rows = scale.parquet_rows
    generator = np.random.Generator(np.random.PCG64(8))
    columns: dict[str, object] = {"id": np.arange(rows)}
    for number in range(8):
        columns[f"value{number}"] = generator.random(rows)
    for number in range(4):
        columns[f"count{number}"] = generator.integers(0, 1000, rows)
    names = np.array([f"category-{number:03d}" for number in range(200)])
    for number in range(3):
        columns[f"name{number}"] = names[generator.integers(0, len(names), rows)]
    table = pa.table(columns)
    parquet.write_table(table, path, row_group_size=250_000, compression="zstd")
