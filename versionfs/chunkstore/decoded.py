"""Decoded blocks that are kept for those who read of them next, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict

Key = tuple[bytes, int]
"""The pack that a block lies in, and where it begins there."""


class Block:
    """A decoded block and the offsets of the chunks in it that were verified."""

    __slots__ = ("data", "verified")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.verified: set[int] = set()


class Blocks:
    """Keeps what was used last; one block at least, however large. For one thread at a time."""

    def __init__(self, bound_bytes: int) -> None:
        self._bound = bound_bytes
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self.held = 0
        """Bytes of plaintext."""

    def __contains__(self, key: Key) -> bool:
        return key in self._blocks

    def get(self, key: Key) -> Block | None:
        """Returns a block, which is used by that; None if it is not kept."""
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    def put(self, key: Key, block: Block) -> None:
        """Keeps a block, in place of those that were used longest ago; not twice."""
        if key in self._blocks:
            return
        self._blocks[key] = block
        self.held += len(block.data)
        while self.held > self._bound and len(self._blocks) > 1:
            _, old = self._blocks.popitem(last=False)
            self.held -= len(old.data)

    def drop(self, key: Key) -> None:
        """Keeps a block no longer."""
        block = self._blocks.pop(key, None)
        if block is not None:
            self.held -= len(block.data)
