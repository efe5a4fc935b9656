"""What a store holds, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class StoreStatistics(NamedTuple):
    """Sizes in bytes.

    ``logical_bytes`` is what all versions would take as plain folders; ``unique_bytes`` is the
    plaintext of all distinct chunks; ``stored_bytes`` is what all packs take, of which
    ``metadata_bytes`` hold trees, manifests and commits.
    """

    repositories: int
    branches: int
    tags: int
    commits: int
    files: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    metadata_bytes: int
    chunks: int
    packs: int

    @property
    def dedup_ratio(self) -> float:
        """How many times each distinct byte is used."""
        return self.logical_bytes / self.unique_bytes if self.unique_bytes else 1.0

    @property
    def compression_ratio(self) -> float:
        """How many bytes of distinct plaintext one stored byte of data packs holds."""
        data = self.stored_bytes - self.metadata_bytes
        return self.unique_bytes / data if data > 0 and self.unique_bytes else 1.0

    @property
    def total_ratio(self) -> float:
        """How many logical bytes one stored byte holds."""
        return self.logical_bytes / self.stored_bytes if self.stored_bytes else 1.0


class TransferStatistics(NamedTuple):
    """What an open store asked of its server so far, and what its caches saved; zeros without one.

    ``requests`` are attempts by operation, ``retries`` those of them that repeat a failed one,
    ``failures`` the operations given up. A read of the cache is a hit where all its bytes were
    there. ``damaged`` counts cached packs that were thrown away because their bytes were wrong.
    """

    requests: Mapping[str, int] = MappingProxyType({})
    retries: int = 0
    failures: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    memory_hits: int = 0
    disk_hits: int = 0
    misses: int = 0
    prefetched_bytes: int = 0
    damaged: int = 0
    cache_bytes: int = 0
    cache_bound_bytes: int = 0
