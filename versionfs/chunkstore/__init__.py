"""Bytes by id: deduplicating writes, verified reads. Knows nothing of versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from versionfs.lazy import names_of

if TYPE_CHECKING:
    from versionfs.chunkstore.boundedcache import BoundedCache
    from versionfs.chunkstore.diskcache import CacheUsage, DiskCache, default_cache_bytes
    from versionfs.chunkstore.fetching import FetchingSource, FetchStatistics
    from versionfs.chunkstore.locations import (
        ChangedLocations,
        LocationColumns,
        encode_locations,
    )
    from versionfs.chunkstore.metadata import MetadataObject, MetadataReader
    from versionfs.chunkstore.metadata_writer import MetadataWriter
    from versionfs.chunkstore.openpacks import OpenPackSource
    from versionfs.chunkstore.parallel import in_order
    from versionfs.chunkstore.reader import PackReader, ReadStatistics
    from versionfs.chunkstore.segments import SegmentWriter
    from versionfs.chunkstore.source import DirectSource, PackRange, PackSource, Scan
    from versionfs.chunkstore.sync import packs_in_store, sync_index
    from versionfs.chunkstore.writer import ChunkWriter, Placement, WriteStatistics

__all__ = [
    "BoundedCache",
    "CacheUsage",
    "ChangedLocations",
    "ChunkWriter",
    "DirectSource",
    "DiskCache",
    "FetchStatistics",
    "FetchingSource",
    "LocationColumns",
    "MetadataObject",
    "MetadataReader",
    "MetadataWriter",
    "OpenPackSource",
    "PackRange",
    "PackReader",
    "PackSource",
    "Placement",
    "ReadStatistics",
    "Scan",
    "SegmentWriter",
    "WriteStatistics",
    "default_cache_bytes",
    "encode_locations",
    "in_order",
    "packs_in_store",
    "sync_index",
]

__getattr__ = names_of(
    __name__,
    {
        "boundedcache": ("BoundedCache",),
        "diskcache": ("CacheUsage", "DiskCache", "default_cache_bytes"),
        "fetching": ("FetchStatistics", "FetchingSource"),
        "locations": ("ChangedLocations", "LocationColumns", "encode_locations"),
        "metadata": ("MetadataObject", "MetadataReader"),
        "metadata_writer": ("MetadataWriter",),
        "openpacks": ("OpenPackSource",),
        "parallel": ("in_order",),
        "reader": ("PackReader", "ReadStatistics"),
        "segments": ("SegmentWriter",),
        "source": ("DirectSource", "PackRange", "PackSource", "Scan"),
        "sync": ("packs_in_store", "sync_index"),
        "writer": ("ChunkWriter", "Placement", "WriteStatistics"),
    },
)
