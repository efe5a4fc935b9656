"""The LMDB index: what makes deduplication and reading fast. Every part of it can be rebuilt."""

from versionfs.index.chunks import ChunkIndex
from versionfs.index.environment import Environment, IndexDamagedError
from versionfs.index.nodes import NodePlaces
from versionfs.index.refs import KnownRefs
from versionfs.index.sources import (
    SegmentChange,
    SourceCache,
    SourceRecord,
    SourceSegment,
)

__all__ = [
    "ChunkIndex",
    "Environment",
    "IndexDamagedError",
    "KnownRefs",
    "NodePlaces",
    "SegmentChange",
    "SourceCache",
    "SourceRecord",
    "SourceSegment",
]
