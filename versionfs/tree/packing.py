"""Entries of directories as the kernel reads them: ``fuse_direntplus`` of ``linux/fuse.h``."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from versionfs.tree.node import Leaf
from versionfs.tree.numbers import InodeTable, compiled, place

_ENTRY: Final = struct.Struct("<Q120xQQII8s")
"""A ``fuse_direntplus`` with a name of at most eight bytes and nothing but the inode's type."""


class Packed(NamedTuple):
    """Packed entries, how many, and how many of them the table of inodes did not know."""

    data: bytes
    entries: int
    fresh: int


class Shown(NamedTuple):
    """How entries are shown: for how many seconds they may be kept, and owners (-1: their own)."""

    seconds: float
    uid: int = -1
    gid: int = -1


class InFolder(NamedTuple):
    """The directory of a workspace that entries are in.

    ``bits`` are set in numbers that the kernel is told; the keys of ``taken`` are the numbers of
    directories.
    """

    number: int
    bits: int
    taken: dict[int, object]


def pack_dot(name: bytes, number: int, mode: int, offset: int) -> bytes:
    """Returns ``.`` or ``..``; the kernel looks at number and type only. ``offset`` is the next."""
    return _ENTRY.pack(0, number, offset, len(name), mode >> 12, name)


def pack_leaf(
    table: InodeTable,
    leaf: Leaf,
    leaf_number: int,
    start: int,
    offset: int,
    room: int,
    shown: Shown,
    special: Callable[[int, int], int],
    folder: InFolder | None = None,
) -> Packed:
    """Packs entries from number ``start`` on, as many as fit into ``room`` bytes.

    Counts a lookup of each in the table. ``special`` does that for what is not simply a file: given
    the entry's number and the place that the table has under the file's inode number (-2: nothing
    was counted there), it returns the number to show.

    Raises:
        Exception: what ``special`` raised, at the first entry; later ones end the packing.
    """
    return Packed(
        *compiled.pack_entries(
            table,
            place(leaf_number, start),
            offset,
            room,
            shown.seconds,
            shown.uid,
            shown.gid,
            leaf.names,
            leaf.columns,
            leaf.extras,
            special,
            *(folder or ()),
        )
    )
