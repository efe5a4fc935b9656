"""Numbers of files and symlinks in snapshots.

A number is a function of what the file is (content, kind, permission bits, mtime, size, owner,
extended attributes), so the same file in two snapshots is the same inode and the kernel keeps its
pages once.
"""

from __future__ import annotations

from typing import Final

from versionfs.digests import blake2b
from versionfs.tree import (
    INDEX_MASK,
    InodeTable,
    Leaf,
    LeafTable,
    compiled,
    place,
    split_place,
)
from versionfs.types import ID_BYTES

__all__ = [
    "INDEX_MASK",
    "InodeTable",
    "LeafTable",
    "compiled_numbers_agree",
    "file_number",
    "file_numbers",
    "next_number",
    "place",
    "same_file",
    "split_place",
]

FILE_BIT: Final = 1 << 62
"""Set in the numbers of files and symlinks, never in those of directories (which count up)."""

_HASH_MASK: Final = FILE_BIT - 1


def file_numbers(leaf: Leaf, start: int) -> list[int]:
    """Returns the inode numbers of the files and symlinks in a leaf from ``start`` on.

    As :func:`file_number`; several times faster for many.
    What stands in the place of a directory means nothing.
    """
    columns = zip(
        leaf.contents.cast("Q")[4 * start :: 4],
        leaf.kinds[start:],
        leaf.modes[start:],
        leaf.mtimes[start:],
        leaf.sizes[start:],
        leaf.uids[start:],
        leaf.gids[start:],
        strict=True,
    )
    numbers = [hash(values) & _HASH_MASK | FILE_BIT for values in columns]
    for index in leaf.with_extras():
        if index >= start:
            numbers[index - start] = _with_extra(numbers[index - start], leaf, index)
    return numbers


def file_number(leaf: Leaf, index: int) -> int:
    """Returns the inode number of a file or symlink in a leaf, before collisions.

    The hash of a tuple of integers is the same in every process, so numbers survive a remount.
    """
    content = leaf.contents[ID_BYTES * index : ID_BYTES * index + 8]
    values = (
        int.from_bytes(content, "little"),
        leaf.kinds[index],
        leaf.modes[index],
        leaf.mtimes[index],
        leaf.sizes[index],
        leaf.uids[index],
        leaf.gids[index],
    )
    return _with_extra(hash(values) & _HASH_MASK | FILE_BIT, leaf, index)


def _with_extra(number: int, leaf: Leaf, index: int) -> int:
    """Mixes a symlink's target and extended attributes, if there are any, into a number."""
    target, xattrs = leaf.target(index), leaf.raw_xattrs(index)
    if not target and not xattrs:
        return number
    digest = blake2b(target + b"\0" + xattrs, digest_size=8).digest()
    return hash((number, int.from_bytes(digest, "little"))) & _HASH_MASK | FILE_BIT


def compiled_numbers_agree() -> bool:
    """Whether the compiled numbers are those of this Python, whose hash of a tuple may change."""
    samples = [
        (0, 1, 0, 0, 0, 0, 0),
        (2**64 - 1, 2, 0o7777, -1, 2**63, 2**32 - 1, 2**32 - 1),
        (2**61 - 1, 1, 0o644, -(2**61), 2**61 - 1, 1000, 1000),
        (0x0123456789ABCDEF, 4, 0o777, 1_700_000_000_123_456_789, 12_345, 1, 2),
    ]
    return compiled is not None and all(
        compiled.number(*values) == hash(values) & _HASH_MASK | FILE_BIT for values in samples
    )


def next_number(number: int) -> int:
    """Returns the number to try when another file has this one."""
    return hash((number, 1)) & _HASH_MASK | FILE_BIT


def same_file(one: Leaf, i: int, other: Leaf, j: int) -> bool:
    """Whether two entries are one inode: equal in all but name and location."""
    return (
        one.content(i) == other.content(j)
        and one.kinds[i] == other.kinds[j]
        and one.modes[i] == other.modes[j]
        and one.mtimes[i] == other.mtimes[j]
        and one.sizes[i] == other.sizes[j]
        and one.uids[i] == other.uids[j]
        and one.gids[i] == other.gids[j]
        and one.target(i) == other.target(j)
        and one.raw_xattrs(i) == other.raw_xattrs(j)
    )
