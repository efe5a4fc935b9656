"""Tables of what a mount's kernel knows, compact because it may know millions of files.

``InodeTable``, compiled if it was, says for a file's number where it is found: which leaf node, and
which entry in it; that costs about 35 bytes a file, where a Python object would cost ten times
that. ``LeafTable`` gives leaf nodes small numbers.

Used from one thread only.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from versionfs.syscalls import load_compiled
from versionfs.types import Location, NodeRef, PackId

_INDEX_BITS: Final = 20
INDEX_MASK: Final = (1 << _INDEX_BITS) - 1
"""The part of a place that is the number of the entry."""

_SHARDS: Final = 256
_SHARD_MASK: Final = _SHARDS - 1
_SHARD_BITS: Final = 8
_SMALLEST: Final = 32
_COUNT_MAX: Final = 0xFFFF_FFFF
"""A lookup count that got this far stays: the inode is then never forgotten."""


def place(leaf: int, index: int) -> int:
    """Packs the number of a leaf and of an entry in it into one integer."""
    return leaf << _INDEX_BITS | index


def split_place(packed: int) -> tuple[int, int]:
    """Returns the number of the leaf and of the entry in it."""
    return packed >> _INDEX_BITS, packed & INDEX_MASK


class _Shard:
    """Open addressing with linear probing; a key of 0 is a free slot."""

    __slots__ = ("capacity", "counts", "keys", "marks", "parents", "places", "used")

    def __init__(self, capacity: int, *, parents: bool) -> None:
        self.capacity = capacity
        self.used = 0
        self.keys = array("Q", bytes(8 * capacity))
        self.places = array("Q", bytes(8 * capacity))
        self.counts = array("I", bytes(4 * capacity))
        self.marks = bytearray(capacity)
        self.parents = array("Q", bytes(8 * capacity)) if parents else None


class PlainInodeTable:
    """The files and symlinks that the kernel knows, with their lookup counts.

    With ``parents`` it also says for each the number of the directory that it is in. A mark
    says that the kernel has the file's bytes.
    """

    def __init__(self, *, parents: bool = False) -> None:
        self._parents = parents
        self._shards = [_Shard(_SMALLEST, parents=parents) for _ in range(_SHARDS)]
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def size_bytes(self) -> int:
        """What the table occupies, about."""
        each = 29 if self._parents else 21
        return sum(each * shard.capacity for shard in self._shards)

    def intern(self, number: int, at: int, parent: int = 0) -> int:
        """Counts one lookup of ``number``; makes it known as ``at`` when it is new.

        Returns the place the number already had, or -1 when it is new.
        """
        shard = self._shards[number & _SHARD_MASK]
        keys = shard.keys
        capacity = shard.capacity
        slot = (number >> _SHARD_BITS) % capacity
        while key := keys[slot]:
            if key == number:
                if shard.counts[slot] != _COUNT_MAX:
                    shard.counts[slot] += 1
                return shard.places[slot]
            slot += 1
            if slot == capacity:
                slot = 0
        keys[slot] = number
        shard.places[slot] = at
        shard.counts[slot] = 1
        shard.marks[slot] = 0
        if shard.parents is not None:
            shard.parents[slot] = parent
        shard.used += 1
        self._used += 1
        if shard.used * 5 > capacity * 4:
            self._resize(shard, capacity * 3 // 2)
        return -1

    def find(self, number: int) -> int:
        """Returns the place of a number, or -1 when it is not known."""
        shard = self._shards[number & _SHARD_MASK]
        slot = self._slot(shard, number)
        return -1 if slot < 0 else shard.places[slot]

    def parent(self, number: int) -> int:
        """Returns the directory's number that a known number was made known with."""
        shard = self._shards[number & _SHARD_MASK]
        slot = self._slot(shard, number)
        return 0 if slot < 0 or shard.parents is None else shard.parents[slot]

    def lookups(self, number: int) -> int:
        """Returns how often a number was looked up and not forgotten; 0 if it is not known."""
        shard = self._shards[number & _SHARD_MASK]
        slot = self._slot(shard, number)
        return 0 if slot < 0 else shard.counts[slot]

    def add(self, number: int, at: int, parent: int, lookups: int) -> None:
        """Makes a number known with a count of lookups; it must not be known yet."""
        self.intern(number, at, parent)
        shard = self._shards[number & _SHARD_MASK]
        shard.counts[self._slot(shard, number)] = min(lookups, _COUNT_MAX)

    def move(self, number: int, at: int) -> None:
        """Gives a known number another place."""
        shard = self._shards[number & _SHARD_MASK]
        shard.places[self._slot(shard, number)] = at

    def mark(self, number: int) -> None:
        """Marks a known number, until it is forgotten; others are ignored."""
        shard = self._shards[number & _SHARD_MASK]
        slot = self._slot(shard, number)
        if slot >= 0:
            shard.marks[slot] = 1

    def is_marked(self, number: int) -> bool:
        """Whether a number is known, and marked."""
        shard = self._shards[number & _SHARD_MASK]
        slot = self._slot(shard, number)
        return slot >= 0 and shard.marks[slot] == 1

    def __iter__(self) -> Iterator[int]:
        """Yields the known numbers, in no order; the table must not change meanwhile."""
        for shard in self._shards:
            for number in shard.keys:
                if number:
                    yield number

    def forget(self, number: int, lookups: int) -> int:
        """Takes ``lookups`` from the count; at zero the number is no longer known.

        Returns the place it had if it is gone now, else -1.
        """
        shard = self._shards[number & _SHARD_MASK]
        slot = self._slot(shard, number)
        if slot < 0:
            return -1
        count = shard.counts[slot]
        if count == _COUNT_MAX:
            return -1
        if count > lookups:
            shard.counts[slot] = count - lookups
            return -1
        at = shard.places[slot]
        self._remove(shard, slot)
        shard.used -= 1
        self._used -= 1
        if shard.capacity > _SMALLEST and shard.used * 4 < shard.capacity:
            self._resize(shard, max(_SMALLEST, shard.capacity // 2))
        return at

    @staticmethod
    def _slot(shard: _Shard, number: int) -> int:
        keys = shard.keys
        capacity = shard.capacity
        slot = (number >> _SHARD_BITS) % capacity
        while key := keys[slot]:
            if key == number:
                return slot
            slot += 1
            if slot == capacity:
                slot = 0
        return -1

    @staticmethod
    def _remove(shard: _Shard, hole: int) -> None:
        """Closes the gap, so that no probe sequence is interrupted (Knuth 6.4, algorithm R)."""
        keys, places, counts, capacity = shard.keys, shard.places, shard.counts, shard.capacity
        parents = shard.parents
        slot = hole
        while True:
            slot += 1
            if slot == capacity:
                slot = 0
            key = keys[slot]
            if not key:
                break
            home = (key >> _SHARD_BITS) % capacity
            # The entry may move into the hole unless its home lies in (hole, slot], cyclically.
            if (hole < home <= slot) if hole < slot else (home > hole or home <= slot):
                continue
            keys[hole], places[hole], counts[hole] = key, places[slot], counts[slot]
            shard.marks[hole] = shard.marks[slot]
            if parents is not None:
                parents[hole] = parents[slot]
            hole = slot
        keys[hole] = 0

    @staticmethod
    def _resize(shard: _Shard, capacity: int) -> None:
        bigger = _Shard(capacity, parents=shard.parents is not None)
        keys, places, counts = bigger.keys, bigger.places, bigger.counts
        for old, number in enumerate(shard.keys):
            if number:
                slot = (number >> _SHARD_BITS) % capacity
                while keys[slot]:
                    slot += 1
                    if slot == capacity:
                        slot = 0
                keys[slot] = number
                places[slot] = shard.places[old]
                counts[slot] = shard.counts[old]
                bigger.marks[slot] = shard.marks[old]
                if bigger.parents is not None and shard.parents is not None:
                    bigger.parents[slot] = shard.parents[old]
        shard.keys, shard.places, shard.counts = keys, places, counts
        shard.parents, shard.marks = bigger.parents, bigger.marks
        shard.capacity = capacity


compiled: Final = load_compiled("versionfs.tree._numbers")
"""What of this is compiled, or None."""

if TYPE_CHECKING or compiled is None:  # noqa: SIM108  (a type, for the checker)
    InodeTable = PlainInodeTable
else:
    InodeTable = compiled.InodeTable


class LeafTable:
    """Leaf nodes by a small number, kept while an inode or a directory is found in them."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._keys: list[bytes] = []
        self._uses = array("I")
        self._pack = array("I")
        self._block_offset = array("Q")
        self._stored_length = array("I")
        self._offset = array("I")
        self._length = array("I")
        self._free: list[int] = []
        self._packs: list[PackId] = []
        self._pack_numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, ref: NodeRef) -> int:
        """Returns the number of a leaf. It is valid while the leaf is in use: see :meth:`use`.

        A leaf that nobody uses by the time of :meth:`sweep` loses its number.
        """
        key = ref.id + ref.stamp
        number = self._numbers.get(key)
        if number is not None:
            return number
        where = ref.location
        pack = self._pack_numbers.get(where.pack)
        if pack is None:
            pack = self._pack_numbers[where.pack] = len(self._packs)
            self._packs.append(where.pack)
        if self._free:
            number = self._free.pop()
        else:
            number = len(self._keys)
            self._keys.append(b"")
            for column in self._columns():
                column.append(0)
        self._keys[number] = key
        self._numbers[key] = number
        self._uses[number] = 0
        self._pack[number] = pack
        self._block_offset[number] = where.block_offset
        self._stored_length[number] = where.stored_length
        self._offset[number] = where.offset
        self._length[number] = where.length
        return number

    def _columns(self) -> tuple[array[int], ...]:
        return (
            self._uses,
            self._pack,
            self._block_offset,
            self._stored_length,
            self._offset,
            self._length,
        )

    def ref(self, number: int) -> NodeRef:
        """Returns the leaf that has a number."""
        key = self._keys[number]
        return NodeRef(
            key[:32],
            key[32:],
            Location(
                self._packs[self._pack[number]],
                self._block_offset[number],
                self._stored_length[number],
                self._offset[number],
                self._length[number],
            ),
        )

    def key(self, number: int) -> bytes:
        """Returns what identifies a leaf: another object when the number goes to another one."""
        return self._keys[number]

    def use(self, number: int, times: int = 1) -> None:
        """Counts one more inode or directory that is found in a leaf, or several."""
        self._uses[number] += times

    def drop(self, number: int) -> None:
        """Undoes one :meth:`use`; a leaf without any is forgotten."""
        self._uses[number] -= 1
        if not self._uses[number]:
            self.sweep(number)

    def sweep(self, number: int) -> None:
        """Forgets a leaf if nothing is found in it."""
        key = self._keys[number]
        if key and not self._uses[number]:
            del self._numbers[key]
            self._keys[number] = b""
            self._free.append(number)
