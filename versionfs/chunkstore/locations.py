"""The location section of a metadata object: where each thing it refers to lies.

Layout, little-endian: count u32 · packs u32 · pack ids 32 B each, then five columns of ``count``
u32 values: pack number, block offset, stored length, offset in block, length. Pack number 0 means
that nothing is stored, 1 the pack that this very object is in (a pack's id depends on its content,
so an object cannot name its own), k ≥ 2 the table's entry k - 2.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

from versionfs.errors import CorruptionError
from versionfs.types import ID_BYTES, Location, PackId

THIS_PACK: Final = PackId(b"")
"""Stands for the pack that the object being written will be in."""

_COUNTS: Final = struct.Struct("<II")
_COLUMNS: Final = 5


def encode_locations(locations: Sequence[Location | None]) -> bytes:
    """Returns the section for these locations."""
    packs: dict[bytes, int] = {THIS_PACK: 1}
    numbers, blocks, stored = array("I"), array("I"), array("I")
    offsets, lengths = array("I"), array("I")
    for where in locations:
        if where is None:
            number, block, store, offset, length = 0, 0, 0, 0, 0
        else:
            pack, block, store, offset, length = where
            number = packs.get(pack, 0)
            if not number:
                number = packs[pack] = len(packs) + 1
        numbers.append(number)
        blocks.append(block)
        stored.append(store)
        offsets.append(offset)
        lengths.append(length)
    return _section(list(packs)[1:], (numbers, blocks, stored, offsets, lengths))


def _section(table: Sequence[bytes], columns: Sequence[array[int]]) -> bytes:
    counts = _COUNTS.pack(len(columns[0]), len(table))
    return b"".join((counts, *table, *[column.tobytes() for column in columns]))


class LocationColumns:
    """A decoded location section; reads one location at a time."""

    __slots__ = ("_blocks", "_lengths", "_numbers", "_offsets", "_packs", "_stored", "count")

    def __init__(self, section: memoryview, this_pack: PackId) -> None:
        if len(section) < _COUNTS.size:
            raise CorruptionError("a location section is too short")
        count, packs = _COUNTS.unpack_from(section)
        start = _COUNTS.size + packs * ID_BYTES
        if len(section) != start + 4 * _COLUMNS * count:
            raise CorruptionError("a location section has a wrong length")
        self.count = count
        self._packs = [
            None,
            this_pack,
            *(
                PackId(bytes(section[at : at + ID_BYTES]))
                for at in range(_COUNTS.size, start, ID_BYTES)
            ),
        ]
        columns = section[start:].cast("I")
        self._numbers = columns[:count]
        self._blocks = columns[count : 2 * count]
        self._stored = columns[2 * count : 3 * count]
        self._offsets = columns[3 * count : 4 * count]
        self._lengths = columns[4 * count :]

    def __getitem__(self, index: int) -> Location | None:
        """Returns location ``index``, or None where nothing is stored.

        Raises:
            CorruptionError: the pack number is not in the table.
        """
        number = self._numbers[index]
        if not number:
            return None
        return Location(
            self._pack(number),
            self._blocks[index],
            self._stored[index],
            self._offsets[index],
            self._lengths[index],
        )

    def all(self) -> list[Location | None]:
        """Returns all locations.

        Raises:
            CorruptionError: as :meth:`__getitem__`.
        """
        if 0 in self._numbers:
            return [self[index] for index in range(self.count)]
        packs = map(self._pack, self._numbers)
        return list(map(Location, packs, self._blocks, self._stored, self._offsets, self._lengths))

    def with_changed(self, changed: Mapping[int, Location | None]) -> bytes:
        """Returns the section with other locations at some places, as if it were encoded anew.

        Raises:
            CorruptionError: as :meth:`__getitem__`.
        """
        parts = (self._numbers, self._blocks, self._stored, self._offsets, self._lengths)
        columns = [array("I", bytes(part)) for part in parts]
        for index in changed:
            columns[0][index] = 0
        self._pack(max(columns[0], default=0) or 1)  # Raises, if what stays is of no pack there.
        packs = list(self._packs)
        for index, where in changed.items():
            row = (0, 0, 0, 0, 0)
            if where is not None:
                if where.pack not in packs:
                    packs.append(where.pack)
                row = (packs.index(where.pack), *where[1:])
            for column, value in zip(columns, row, strict=True):
                column[index] = value
        # In the order in which they come, and none that nothing lies in any more.
        used = [packs[number] for number in dict.fromkeys(columns[0])]
        table = [pack for pack in used if pack is not None and pack != THIS_PACK]
        again: dict[bytes | None, int] = {None: 0, THIS_PACK: 1}
        again |= {pack: number for number, pack in enumerate(table, 2)}
        numbers = [again[packs[number]] for number in columns[0]]
        return _section(table, [array("I", numbers), *columns[1:]])

    def _pack(self, number: int) -> PackId:
        try:
            pack = self._packs[number]
        except IndexError as error:
            raise CorruptionError(f"a location names pack {number} of its table") from error
        assert pack is not None
        return pack


class ChangedLocations:
    """The locations of an object that was copied, with others at some places."""

    def __init__(self, columns: LocationColumns, changed: Mapping[int, Location | None]) -> None:
        self._columns = columns
        self.changed = changed

    def encode(self, changed: Mapping[int, Location | None]) -> bytes:
        """Returns the section; ``changed`` is ``self.changed`` as it is to be written."""
        return self._columns.with_changed(changed)
