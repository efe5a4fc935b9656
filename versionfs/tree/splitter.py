"""Where nodes end: by name in a directory, by chunk id in a manifest, never by position.

A node ends behind an item whose hash is below a threshold, once it has at least ``MIN_ITEMS``; and
in any case at ``MAX_ITEMS``. With p = 1/96 the expected size is about 32 + 96 = 128 items, and only
(1 - p) ** 480 = 0.7 % of nodes are cut at the maximum. What follows a node depends only on what
comes behind its end, so an edit changes nodes only up to the next end that old and new share.

The hash is of the *name* in a directory (changing a file never moves an end) and of the chunk in a
manifest (inserting bytes never moves a later end). Each level needs a hash of its own, because the
keys of a level were selected by the hash of the one below.
"""

from __future__ import annotations

import zlib
from typing import Final

from blake3 import blake3

MIN_ITEMS: Final = 32
MAX_ITEMS: Final = 512
_THRESHOLD: Final = (1 << 32) // 96
_MIX: Final = 0x9E3779B1
_MASK: Final = 0xFFFFFFFF


def name_ends_leaf(name: bytes) -> bool:
    """Tells whether a leaf may end behind this name."""
    return (zlib.crc32(name) * _MIX) & _MASK < _THRESHOLD


def name_ends_node(name: bytes, level: int) -> bool:
    """Tells whether a node of a level ≥ 1 may end behind the child whose last name this is."""
    digest = blake3(name).digest(4, seek=4 * level)
    return int.from_bytes(digest, "little") < _THRESHOLD


def id_ends_node(object_id: bytes, level: int) -> bool:
    """Tells whether a manifest node of a level may end behind this chunk or child."""
    at = 4 * (level % 8)
    return int.from_bytes(object_id[at : at + 4], "little") < _THRESHOLD
