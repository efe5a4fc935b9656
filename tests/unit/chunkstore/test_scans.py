"""What a pack reader tells its source of the reads that will follow."""

from __future__ import annotations

from pathlib import Path

from versionfs.chunkstore import PackReader
from versionfs.chunkstore.source import DirectSource, Scan
from versionfs.objectstore import LocalStore
from versionfs.types import Location, PackId

_STORED = b"\0block"
_ONE, _TWO, _THREE = (PackId(bytes([number]) * 32) for number in (1, 2, 3))


class Source(DirectSource):
    """Has the same block everywhere, and keeps what it was told."""

    def __init__(self, objects: LocalStore) -> None:
        super().__init__(objects)
        self.told: list[tuple[PackId, int]] = []

    def read(self, pack: PackId, start: int, length: int, scan: Scan = Scan.NONE) -> bytes:
        assert (start % 100, length) == (0, len(_STORED))
        self.told.append((pack, scan))
        return _STORED


def read(reader: PackReader, pack: PackId, blocks: int, *, scan: Scan = Scan.NEAR) -> None:
    for number in range(blocks):
        reader.read(Location(pack, number * 100, len(_STORED), 0, 5), bytes, scan=scan)


def told(source: Source, pack: PackId) -> set[int]:
    return {scan for of, scan in source.told if of == pack}


def test_a_scan_that_read_many_blocks_of_a_pack_needs_all_of_the_next(tmp_path: Path) -> None:
    source = Source(LocalStore(tmp_path))
    reader = PackReader(source, 10_000)
    read(reader, _ONE, 100)
    read(reader, _TWO, 100)
    assert told(source, _ONE) == {Scan.NEAR}
    assert told(source, _TWO) == {Scan.ALL}


def test_a_scan_of_few_blocks_or_another_reader_s_says_nothing_of_the_next(tmp_path: Path) -> None:
    source = Source(LocalStore(tmp_path))
    nodes, files = PackReader(source, 10_000), PackReader(source, 10_000)
    read(nodes, _ONE, 100)
    read(files, _TWO, 10)
    read(files, _THREE, 1)
    assert told(source, _TWO) == told(source, _THREE) == {Scan.NEAR}
    read(files, _ONE, 1, scan=Scan.NONE)
    assert source.told[-1] == (_ONE, Scan.NONE)
