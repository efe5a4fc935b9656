"""A store may have been made to harm: no name in it leads out of its folder."""

from __future__ import annotations

import pytest

from versionfs.chunkstore import MetadataObject, encode_locations
from versionfs.errors import CorruptionError
from versionfs.tree.encoding import encode_leaf
from versionfs.tree.node import decode
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind, PackId


def leaf_of(*names: bytes) -> MetadataObject:
    """Returns a leaf as a hostile writer would store it: well framed, with these names."""
    entries = [
        Entry(name, Kind.FILE, 0o644, 0, 1, NO_ID, b"", (), 0, 0, 0, NO_STAMP, None)
        for name in names
    ]
    canonical, attributes, locations = encode_leaf(entries)
    section = encode_locations(locations)
    return MetadataObject(
        memoryview(canonical), memoryview(attributes), memoryview(section), PackId(bytes(32))
    )


@pytest.mark.parametrize(
    "names",
    [
        (b"..",),
        (b".",),
        (b"",),
        (b"../evil",),
        (b"a/b",),
        (b"a", b".."),
        (b"b", b"a"),
        (b"a", b"a"),
    ],
)
def test_a_leaf_with_a_name_that_is_none_is_damage(names: tuple[bytes, ...]) -> None:
    with pytest.raises(CorruptionError):
        decode(leaf_of(*names))


def test_odd_names_that_linux_allows_are_read() -> None:
    names = [b"...", b"..a", b".a", b"\n", b"\xff\xfe"]
    assert decode(leaf_of(*sorted(names))).count == len(names)
