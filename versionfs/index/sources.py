"""What imports saw of a source, so that the next import of it reads only what changed.

For each source: a header (the tree the last import made, as an opaque value), and for each of its
folders a run of segments. A segment holds up to a few hundred names of the folder, in order, each
with 32 bytes that stand for what ``lstat`` said of it. Segments are cut by name, as tree nodes are,
so that a new file rewrites one of them.

Without a header the segments mean nothing: whoever changes segments removes the header first and
writes it last. One import of a source at a time does (the importer holds a lock).

Keys: ``source id (16) | b"H"`` and ``source id (16) | b"D" | folder id (16) | first name (≤ 400)``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import lmdb

from versionfs.index.environment import Environment
from versionfs.syscalls import SEEN_BYTES

_NAME_BYTES: Final = 400
_BATCH: Final = 64


class SourceRecord(NamedTuple):
    """One name of a folder, and what was seen of it."""

    name: bytes
    seen: bytes


class SourceSegment(NamedTuple):
    """Consecutive records of a folder: the first name, and the records encoded."""

    first: bytes
    value: bytes

    @classmethod
    def encode(cls, records: Sequence[SourceRecord]) -> SourceSegment:
        """Returns the segment of these records, of which there is at least one."""
        names = b"\0".join([record.name for record in records])
        body = b"".join(
            [len(records).to_bytes(4, "little"), *[record.seen for record in records], names]
        )
        return cls(records[0].name[:_NAME_BYTES], zlib.crc32(body).to_bytes(4, "little") + body)

    def decode(self) -> tuple[list[bytes], list[bytes]]:
        """Returns the names, and what was seen of each; none when the segment is damaged."""
        body = self.value[4:]
        if zlib.crc32(body) != int.from_bytes(self.value[:4], "little"):
            return [], []
        end = 4 + int.from_bytes(body[:4], "little") * SEEN_BYTES
        names = body[end:].split(b"\0")
        seen = [body[at : at + SEEN_BYTES] for at in range(4, end, SEEN_BYTES)]
        return (names, seen) if len(names) == len(seen) else ([], [])


class SegmentChange(NamedTuple):
    """A segment of a folder to be written, or removed when ``value`` is None."""

    folder: bytes
    first: bytes
    value: bytes | None


class SourceCache:
    """Reads and writes what is remembered of sources. Thread-safe."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def header(self, source: bytes) -> bytes | None:
        """Returns the value remembered for a source, or None."""

        def work(transaction: lmdb.Transaction) -> bytes | None:
            value = transaction.get(source + b"H", db=self._environment.database(b"sources"))
            return None if value is None else bytes(value)

        return self._environment.read(work)

    def set_header(self, source: bytes, value: bytes | None) -> None:
        """Remembers a value for a source, or forgets it."""

        def work(transaction: lmdb.Transaction) -> None:
            database = self._environment.database(b"sources")
            if value is None:
                transaction.delete(source + b"H", db=database)
            else:
                transaction.put(source + b"H", value, db=database)

        self._environment.write(work)

    def segments(self, source: bytes, folder: bytes) -> Iterator[SourceSegment]:
        """Yields the segments of a folder, in name order; no transaction stays open."""
        prefix = source + b"D" + folder
        start = prefix

        def work(transaction: lmdb.Transaction) -> tuple[list[SourceSegment], bytes | None]:
            cursor = transaction.cursor(self._environment.database(b"sources"))
            found: list[SourceSegment] = []
            if not cursor.set_range(start):
                return found, None
            for key, value in cursor.iternext(keys=True, values=True):
                if key[: len(prefix)] != prefix:
                    return found, None
                if len(found) == _BATCH:
                    return found, bytes(key)
                found.append(SourceSegment(bytes(key[len(prefix) :]), bytes(value)))
            return found, None

        following: bytes | None = start
        while following is not None:
            start = following
            found, following = self._environment.read(work, 3 * _BATCH)
            yield from found

    def change(self, source: bytes, changes: Iterable[SegmentChange]) -> None:
        """Writes and removes segments, in one transaction."""
        listed = list(changes)

        def work(transaction: lmdb.Transaction) -> None:
            database = self._environment.database(b"sources")
            for folder, first, value in listed:
                key = source + b"D" + folder + first
                if value is None:
                    transaction.delete(key, db=database)
                else:
                    transaction.put(key, value, db=database)

        self._environment.write(work, 3 * len(listed))
