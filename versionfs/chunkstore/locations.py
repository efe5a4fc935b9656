"""The location section of a metadata object: where each thing it refers to lies.

Layout, little-endian: count u32 · packs u32 · pack ids 32 B each, then five columns of ``count``
u32 values: pack number, block offset, stored length, offset in block, length. Pack number 0 means
that nothing is stored, 1 the pack that this very object is in (a pack's id depends on its content,
so an object cannot name its own), k ≥ 2 the table's entry k - 2.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
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
    table = list(packs)[1:]
    return b"".join(
        (
            _COUNTS.pack(len(locations), len(table)),
            *table,
            numbers.tobytes(),
            blocks.tobytes(),
            stored.tobytes(),
            offsets.tobytes(),
            lengths.tobytes(),
        )
    )


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
        try:
            pack = self._packs[number]
        except IndexError as error:
            raise CorruptionError(f"a location names pack {number} of its table") from error
        assert pack is not None
        return Location(
            pack,
            self._blocks[index],
            self._stored[index],
            self._offsets[index],
            self._lengths[index],
        )
