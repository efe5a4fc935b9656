"""What is kept, bounded in bytes."""

from __future__ import annotations

from versionfs.chunkstore import BoundedCache
from versionfs.chunkstore.reader import Block


def block(size: int) -> Block:
    return Block(memoryview(bytes(size)))


def key(number: int) -> tuple[bytes, int]:
    return b"pack", number


def test_what_was_used_last_is_kept() -> None:
    blocks: BoundedCache[tuple[bytes, int], Block] = BoundedCache(1000)
    made = [block(300) for _ in range(4)]
    for number in range(3):
        blocks.put(key(number), made[number])
    assert blocks.held == 900
    assert blocks.get(key(0)) is made[0]
    blocks.put(key(3), made[3])
    assert blocks.held == 900
    assert [key(number) in blocks for number in range(4)] == [True, False, True, True]
    assert blocks.get(key(1)) is None


def test_one_block_is_kept_however_large() -> None:
    blocks: BoundedCache[tuple[bytes, int], Block] = BoundedCache(1000)
    blocks.put(key(0), block(10))
    blocks.put(key(1), block(5000))
    assert (key(0) in blocks, key(1) in blocks, blocks.held) == (False, True, 5000)
    blocks.put(key(2), block(10))
    assert (key(1) in blocks, blocks.held) == (False, 10)


def test_a_block_counts_once_and_is_dropped_once() -> None:
    blocks: BoundedCache[tuple[bytes, int], Block] = BoundedCache(1000)
    first = block(100)
    blocks.put(key(0), first)
    blocks.put(key(0), block(100))
    assert blocks.get(key(0)) is first, "what is verified of it stays known"
    assert blocks.held == 100
    blocks.drop(key(0))
    blocks.drop(key(0))
    assert (blocks.held, blocks.get(key(0))) == (0, None)
