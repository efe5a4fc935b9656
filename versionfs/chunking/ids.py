"""Content ids: BLAKE3-256 in keyed mode, one key per kind of object.

The key is the kind's name in ASCII, padded with zero bytes to 32. Keyed mode separates the domains
without the extra compression of ``derive_key``, which costs as much as a small chunk itself.
Source: https://github.com/BLAKE3-team/BLAKE3-specs (section 2.2, modes).
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from versionfs.types import STAMP_BYTES, ChunkId, CommitId, NodeId, ObjectKind

Buffer = bytes | bytearray | memoryview


def _key(name: str) -> bytes:
    return f"versionfs {name} v1".encode("ascii").ljust(32, b"\0")


_CHUNK: Final = _key("chunk")
_MANIFEST: Final = _key("manifest")
_TREE: Final = _key("tree")
_COMMIT: Final = _key("commit")
_STAMP: Final = _key("stamp")

_KEY_OF: Final = {
    ObjectKind.CHUNK: _CHUNK,
    ObjectKind.MANIFEST: _MANIFEST,
    ObjectKind.TREE: _TREE,
    ObjectKind.COMMIT: _COMMIT,
}


def chunk_id(plaintext: Buffer) -> ChunkId:
    """Returns the id of a chunk. Releases the interpreter lock for long input."""
    return ChunkId(blake3(plaintext, key=_CHUNK).digest())


def manifest_id(canonical: Buffer) -> NodeId:
    """Returns the id of a manifest node, from its canonical part."""
    return NodeId(blake3(canonical, key=_MANIFEST).digest())


def tree_id(canonical: Buffer) -> NodeId:
    """Returns the id of a tree node, from its canonical part."""
    return NodeId(blake3(canonical, key=_TREE).digest())


def commit_id(canonical: Buffer) -> CommitId:
    """Returns the id of a commit, from its canonical part."""
    return CommitId(blake3(canonical, key=_COMMIT).digest())


def id_of(kind: int, canonical: Buffer) -> bytes:
    """Returns the id that an object of that :class:`ObjectKind` has."""
    return blake3(canonical, key=_KEY_OF[ObjectKind(kind)]).digest()


def stamp(attributes: Buffer) -> bytes:
    """Returns the 16-byte digest of auxiliary bytes (attributes or locations of a node)."""
    return blake3(attributes, key=_STAMP).digest(STAMP_BYTES)


def pack_hasher() -> blake3:
    """Returns a hasher for a pack's id: plain BLAKE3 of the whole object, as b3sum prints it."""
    return blake3()
