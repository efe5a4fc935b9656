"""A table as it was: records in memory over a state of LMDB, read as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Final, Self, cast

from versionfs.workspace.database import Database, Snapshot
from versionfs.workspace.memory import Memory

_PAGE: Final = 64

Page = tuple[list[tuple[bytes, bytes]], bytes | None]
"""Records, and the key to go on after, or None when there are no more."""


class FrozenTable:
    """A table as it was when :meth:`Table.frozen` was called. For one thread at a time."""

    def __init__(
        self, layers: list[Memory], database: Database, snapshot: Snapshot, sequence: int
    ) -> None:
        self.sequence = sequence
        """The number of the last batch in it."""
        self._layers = layers
        self._database = database
        self._snapshot: Snapshot | None = snapshot

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of a key, or None when there is none."""
        for layer in self._layers:
            if key in layer.records:
                return layer.records[key]
        return self._database.get(self._open(), key)

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yields the records whose key has a prefix, sorted; with ``after``, those after it."""
        while True:
            page, after = merge(self._layers, self._database, self._open(), prefix, after)
            yield from page
            if after is None:
                return

    def _open(self) -> Snapshot:
        if self._snapshot is None:
            raise ValueError("the frozen table is closed")
        return self._snapshot

    def close(self) -> None:
        """Lets LMDB use the space of what changed since. Idempotent."""
        if self._snapshot is not None:
            self._snapshot.abort()
            self._snapshot = None
            self._layers = []


def merge(
    layers: Sequence[Memory],
    database: Database,
    snapshot: Snapshot,
    prefix: bytes,
    after: bytes | None,
) -> Page:
    """Returns the next records of some sorted maps, the newest first, over a database."""
    merged: dict[bytes, bytes | None] = {}
    bound: bytes | None = None  # Up to this key, every source has said what it has.
    sources: list[Iterator[tuple[bytes, bytes | None]]] = [
        *(layer.range(prefix, after) for layer in layers),
        iter(database.items(snapshot, prefix, after)),
    ]
    for source in reversed(sources):
        found = list(islice(source, _PAGE))
        merged.update(found)
        if len(found) == _PAGE and (bound is None or found[-1][0] < bound):
            bound = found[-1][0]
    keys = sorted(key for key in merged if bound is None or key <= bound)
    page = [(key, merged[key]) for key in keys if merged[key] is not None]
    return cast("list[tuple[bytes, bytes]]", page), bound
