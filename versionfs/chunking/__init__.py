"""Pure functions over bytes: content ids, cut points, compressed blocks."""

from versionfs.chunking.blocks import BlockCodec, decode_block
from versionfs.chunking.cut import DEFAULT_CHUNKING, ChunkingParameters, Cut, Cutter
from versionfs.chunking.ids import (
    chunk_id,
    commit_id,
    id_of,
    manifest_id,
    pack_hasher,
    stamp,
    tree_id,
)

__all__ = [
    "DEFAULT_CHUNKING",
    "BlockCodec",
    "ChunkingParameters",
    "Cut",
    "Cutter",
    "chunk_id",
    "commit_id",
    "decode_block",
    "id_of",
    "manifest_id",
    "pack_hasher",
    "stamp",
    "tree_id",
]
