"""Where metadata objects lie: ``id + stamp`` → location, so that none is written twice."""

from __future__ import annotations

from versionfs.index.chunks import ChunkIndex
from versionfs.types import Location


class NodePlaces:
    """Locations of metadata objects that the store has. Thread-safe."""

    def __init__(self, chunks: ChunkIndex) -> None:
        self._chunks = chunks

    def locate(self, key: bytes) -> Location | None:
        """Returns where a node lies in the store, or None when that is not known."""
        return self._chunks.locate([key], b"places")[0]
