"""The pack format: immutable objects that hold blocks, then their own index."""

from versionfs.pack.format import (
    HEADER_BYTES,
    PackEntry,
    PackIndex,
    PackKind,
    entry_bytes,
    pack_key,
    read_index,
)
from versionfs.pack.writer import FinishedPack, PackWriter

__all__ = [
    "HEADER_BYTES",
    "FinishedPack",
    "PackEntry",
    "PackIndex",
    "PackKind",
    "PackWriter",
    "entry_bytes",
    "pack_key",
    "read_index",
]
