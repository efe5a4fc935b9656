"""Records in memory that LMDB does not have yet: written often, put in order when asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sortedcontainers import SortedList

from versionfs.workspace.journal import Mutation

Change = tuple[bytes, bytes | None]


class Memory:
    """A map from keys to values, None for deleted ones. The caller serialises all calls.

    Keys that came since the last look in order are only listed: most come and go unlooked at.
    """

    __slots__ = ("_fresh", "_keys", "records", "size_bytes")

    def __init__(self) -> None:
        self.records: dict[bytes, bytes | None] = {}
        self.size_bytes = 0
        """Bytes of all keys and values ever set: an upper bound of what they take."""
        self._keys: SortedList[bytes] = SortedList()
        self._fresh: list[bytes] = []

    def update(self, mutations: Sequence[Mutation]) -> None:
        """Sets values in order."""
        records = self.records
        fresh = self._fresh
        size = 0
        for key, value in mutations:
            if key not in records:
                fresh.append(key)
            records[key] = value
            size += len(key)
            if value is not None:
                size += len(value)
        self.size_bytes += size

    def settled(self) -> Memory:
        """Puts the keys in order; while nothing is set any more, any thread may read then."""
        if self._fresh:
            self._keys.update(self._fresh)
            self._fresh = []
        return self

    def copy(self) -> Memory:
        """Returns another with the same records."""
        copy = Memory()
        copy.records = self.records.copy()
        copy._fresh = list(copy.records)
        copy.size_bytes = self.size_bytes
        return copy

    def range(self, prefix: bytes, after: bytes | None) -> Iterator[Change]:
        """Yields the records with a prefix in order, those after a key only."""
        records = self.records
        first = prefix if after is None else max(prefix, after)
        for key in self.settled()._keys.irange(first):
            if not key.startswith(prefix):
                return
            if key != after:
                yield key, records[key]

    def items(self) -> Iterator[Change]:
        """Yields all records in order."""
        return self.range(b"", None)
