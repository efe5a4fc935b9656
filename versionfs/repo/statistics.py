"""What a store holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreStatistics:
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
