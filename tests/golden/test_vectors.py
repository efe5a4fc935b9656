"""The format, frozen: what these vectors say, every later version must still read and produce.

When one of these tests fails, the format has changed: that needs a new format version, not a new
vector.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.support.stores import ROOT
from versionfs.chunking import (
    DEFAULT_CHUNKING,
    BlockCodec,
    ChunkingParameters,
    Cutter,
    chunk_id,
    decode_block,
    id_of,
    stamp,
)
from versionfs.chunkstore import encode_locations
from versionfs.chunkstore.locations import THIS_PACK
from versionfs.chunkstore.metadata import frame
from versionfs.pack import PackKind, PackWriter, read_index
from versionfs.repo.format import StoreFormat
from versionfs.repo.refs import decode_ref, encode_ref
from versionfs.tree.encoding import encode_inner, encode_leaf
from versionfs.tree.node import Child
from versionfs.tree.splitter import id_ends_node, name_ends_leaf, name_ends_node
from versionfs.types import (
    NO_ID,
    NO_STAMP,
    Entry,
    Kind,
    Location,
    NodeRef,
    ObjectKind,
    PackId,
    Ref,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors.json").read_text())
PACK = Path(__file__).parent / "pack.bin"
SIZES = ChunkingParameters(64 * 1024, 256 * 1024, 1024 * 1024)
PLACE = Location(PackId(bytes(range(32))), 16, 300, 4, 200)


def noise(size: int) -> bytes:
    """Returns bytes of a linear congruential generator: x → 1103515245 x + 12345 mod 2^31."""
    state = 1
    found = bytearray()
    while len(found) < size:
        state = (1103515245 * state + 12345) & 0x7FFFFFFF
        found += (state >> 8).to_bytes(3, "little")
    return bytes(found[:size])


def entries() -> list[Entry]:
    """Returns one entry of each kind, with all that an entry may have."""
    small, large = chunk_id(b"small"), id_of(ObjectKind.MANIFEST, b"manifest")
    owner = {"uid": 1000, "gid": 100}
    xattrs = ((b"user.a", b"1"), (b"user.b", b"\x00\xff"))
    return [
        Entry(b"empty", Kind.FILE, 0o600, 0, 1, NO_ID, b"", (), -1, 0, 0, NO_STAMP, None),
        Entry(
            b"file", Kind.FILE, 0o4755, 5, 1, small, b"", xattrs, 10**18, stamp=NO_STAMP,
            location=PLACE, **owner,
        ),
        Entry(
            b"folder", Kind.DIRECTORY, 0o755, 99, 3, NO_ID, b"", (), 7, stamp=stamp(b"x"),
            location=PLACE._replace(pack=THIS_PACK), **owner,
        ),
        Entry(
            b"large", Kind.LARGE, 0o644, 10**12, 1, large, b"", (), 8, stamp=stamp(b""),
            location=PLACE, **owner,
        ),
        Entry(
            b"link\xff", Kind.SYMLINK, 0o777, 6, 1, NO_ID, b"target", (), 9, stamp=NO_STAMP,
            location=None, **owner,
        ),
    ]  # fmt: skip


def node(kind: ObjectKind, parts: tuple[bytes, bytes, list[Location | None]]) -> dict[str, str]:
    canonical, attributes, locations = parts
    return {
        "canonical": canonical.hex(),
        "id": id_of(kind, canonical).hex(),
        "stamp": stamp(attributes).hex(),
        "frame": frame(canonical, attributes, encode_locations(locations)).hex(),
    }


def compute() -> dict[str, Any]:
    """Returns what the code makes today, in the shape of ``vectors.json``."""
    data = noise(3_000_000) + bytes(1_500_000) + noise(100_000)
    cutter = Cutter(SIZES)
    cuts = [*cutter.feed(data), *cutter.finish()]
    ref = Ref(NodeRef(b"\x11" * 32, b"\x22" * 16, PLACE), "01J0000000000000000000000A", 123)
    children = [
        Child(NodeRef(bytes([n]) * 32, bytes([n]) * 16, PLACE), b"k%d" % n, n, 2 * n, 3 * n)
        for n in range(1, 4)
    ]
    names = [b"%d" % n for n in range(2000)]
    return {
        "ids": {
            kind.name: id_of(kind, b"versionfs").hex() for kind in ObjectKind
        } | {"stamp": stamp(b"versionfs").hex(), "empty chunk": chunk_id(b"").hex()},
        "cuts": [[cut.offset, cut.length, cut.data is None] for cut in cuts],
        "raw block": BlockCodec().encode(noise(100)).hex(),
        "leaf": node(ObjectKind.TREE, encode_leaf(entries())),
        "empty leaf": node(ObjectKind.TREE, encode_leaf([])),
        "inner": node(ObjectKind.TREE, encode_inner(1, children)),
        "ref": encode_ref(ref).decode(),
        "format file": StoreFormat("STOREID", SIZES).encode().decode(),
        "leaf ends": [n.decode() for n in names if name_ends_leaf(n)],
        "inner ends": [n.decode() for n in names if name_ends_node(n, 1)],
        "manifest ends": [n.decode() for n in names if id_ends_node(chunk_id(n), 0)],
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_the_code_makes_what_the_vector_says(name: str) -> None:
    assert compute()[name] == VECTORS[name]


def test_every_vector_is_compared() -> None:
    assert compute().keys() == VECTORS.keys()


def test_stored_forms_are_read() -> None:
    assert bytes(decode_block(bytes.fromhex(VECTORS["raw block"]))) == noise(100)
    ref = decode_ref(VECTORS["ref"].encode(), "key")
    assert ref.commit == NodeRef(b"\x11" * 32, b"\x22" * 16, PLACE)
    assert StoreFormat.decode(VECTORS["format file"].encode(), "here").store_id == "STOREID"


def write_pack(folder: Path) -> Path:
    """Writes the pack of the vector: two raw blocks, three chunks."""
    writer = PackWriter(folder, PackKind.DATA)
    first, second = b"\0" + b"one" + b"two", b"\0" + noise(500)
    at = writer.append(first)
    writer.add(ObjectKind.CHUNK, chunk_id(b"one"), NO_STAMP, at, len(first), 0, 3)
    writer.add(ObjectKind.CHUNK, chunk_id(b"two"), NO_STAMP, at, len(first), 3, 3)
    at = writer.append(second)
    writer.add(ObjectKind.CHUNK, chunk_id(noise(500)), NO_STAMP, at, len(second), 0, 500)
    path = writer.finish().path
    writer.close()
    return path


def test_a_pack_is_written_as_ever(tmp_path: Path) -> None:
    assert write_pack(tmp_path).read_bytes() == PACK.read_bytes()


def test_a_pack_of_old_is_read() -> None:
    data = PACK.read_bytes()
    index = read_index(PackId(bytes(32)), len(data), lambda at, size: data[at : at + size])
    found = {}
    for entry in index:
        where = entry.location
        block = decode_block(data[where.block_offset :][: where.stored_length])
        found[entry.id] = bytes(block[where.offset : where.offset + where.length])
    assert found == {chunk_id(chunk): chunk for chunk in (b"one", b"two", noise(500))}


def test_the_default_sizes_cut_as_the_documentation_says() -> None:
    said = (ROOT / "docs" / "format.md").read_text()
    data = b"".join(blake3(number.to_bytes(4, "little")).digest() for number in range(65536))
    cutter = Cutter(DEFAULT_CHUNKING)
    cuts = [*cutter.feed(data), *cutter.finish()]
    lengths = [str(cut.length) for cut in cuts]
    assert f"into chunks of {', '.join(lengths[:-1])} and {lengths[-1]} bytes" in " ".join(
        said.split()
    )
    assert cuts[0].data is not None
    assert chunk_id(cuts[0].data).hex()[:16] in said
    short = Cutter(DEFAULT_CHUNKING)
    cuts = [*short.feed(data[:150_000]), *short.finish()]
    assert [cut.length for cut in cuts] == [150_000]
    assert cuts[0].data is not None
    assert f"alone are one chunk, `{chunk_id(cuts[0].data).hex()[:16]}`" in said
