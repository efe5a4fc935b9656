"""The node cache: ``id + stamp`` → the node itself, and where each node lies.

``nodes`` holds copies (32 bytes of pack id, CRC-32 of key and pack id, then the blob), ``places``
only locations. Copies are dropped, all of them, when they outgrow their bound: what is in use comes
back at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import lmdb

from versionfs.index.chunks import ChunkIndex
from versionfs.index.environment import Environment
from versionfs.types import ID_BYTES, Location, PackId

_HEAD_BYTES: Final = ID_BYTES + 4
DEFAULT_BOUND_BYTES: Final = 4 * 1024 * 1024 * 1024


class NodeCache:
    """Copies and locations of metadata objects. Thread-safe."""

    def __init__(
        self,
        environment: Environment,
        chunks: ChunkIndex,
        bound_bytes: int = DEFAULT_BOUND_BYTES,
    ) -> None:
        self._environment = environment
        self._chunks = chunks
        self._bound_bytes = bound_bytes

    def get(self, key: bytes) -> tuple[PackId, bytes] | None:
        """Returns a copy of a node and the pack its own locations are relative to, or None."""

        def work(transaction: lmdb.Transaction) -> tuple[PackId, bytes] | None:
            value = transaction.get(key, db=self._environment.database(b"nodes"))
            if value is None or len(value) < _HEAD_BYTES:
                return None
            pack = bytes(value[:ID_BYTES])
            # The blob has checksums of its own; the pack has none.
            if value[ID_BYTES:_HEAD_BYTES] != _crc(key, pack):
                return None
            return PackId(pack), bytes(value[_HEAD_BYTES:])

        return self._environment.read(work)

    def locate(self, key: bytes) -> Location | None:
        """Returns where a node lies in the store, or None when that is not known."""
        return self._chunks.locate([key], b"places")[0]

    def put(self, nodes: Sequence[tuple[bytes, PackId, bytes]]) -> None:
        """Adds copies: key, pack, blob. Idempotent."""
        if not nodes:
            return
        added = sum(len(key) + _HEAD_BYTES + len(blob) for key, _, blob in nodes)

        def work(transaction: lmdb.Transaction) -> None:
            meta = self._environment.database(b"meta")
            copies = self._environment.database(b"nodes")
            held = transaction.get(b"node-bytes", db=meta)
            total = added + (0 if held is None else int.from_bytes(held, "little"))
            if total > self._bound_bytes:
                transaction.drop(copies, delete=False)
                total = added
            transaction.put(b"node-bytes", total.to_bytes(8, "little"), db=meta)
            transaction.cursor(copies).putmulti(
                sorted((key, pack + _crc(key, pack) + blob) for key, pack, blob in nodes)
            )

        self._environment.write(work)

    def forget(self, key: bytes) -> None:
        """Drops one copy, because it turned out to be damaged."""
        self._environment.write(
            lambda transaction: transaction.delete(key, db=self._environment.database(b"nodes"))
        )


def _crc(key: bytes, pack: bytes) -> bytes:
    return zlib.crc32(pack, zlib.crc32(key)).to_bytes(4, "little")
