"""A reader of stores made from docs/format.md alone: it shares no code with versionfs.

It is slow, verifies all that it uses, and yields everything that a version holds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from blake3 import blake3

KEYS = [f"versionfs {kind} v1".encode().ljust(32, b"\0") for kind in
        ("chunk", "manifest", "tree", "commit", "stamp")]  # fmt: skip
CHUNK, MANIFEST, TREE, COMMIT, STAMP = range(5)
ZEROS = bytes(32)


class Place(NamedTuple):
    pack: str
    block_offset: int
    stored_length: int
    offset: int
    length: int


class Item(NamedTuple):
    """A name of a version, with all that the format keeps of it; ``data`` is content or target."""

    path: bytes
    kind: int
    mode: int
    mtime_ns: int
    uid: int
    gid: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    data: bytes


class Object(NamedTuple):
    canonical: bytes
    attributes: bytes
    places: list[Place | None]


def keyed(kind: int, data: bytes) -> bytes:
    return blake3(data, key=KEYS[kind]).digest()


def stamp(data: bytes) -> bytes:
    return keyed(STAMP, data)[:16]


class Reader:
    """Reads the store in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        form = json.loads((root / "versionfs.json").read_bytes())
        assert (form["versionfs"], form["format"]) == ("store", 1)

    def ref(self, repository: str, kind: str, name: str) -> tuple[bytes, bytes, Place]:
        """Returns id, stamp and place of the commit that a branch or tag names."""
        base = self.root / "repos" / repository
        assert (base / "repo.json").exists()
        value = json.loads((base / kind / name).read_bytes())
        assert value["version"] == 1
        identity, mark = bytes.fromhex(value["commit"]), bytes.fromhex(value["stamp"])
        return identity, mark, Place(*value["location"])

    def commit(self, identity: bytes, mark: bytes, place: Place) -> tuple[dict[str, Any], Object]:
        found = self.metadata(COMMIT, identity, mark, place)
        value = json.loads(found.canonical)
        assert value["version"] == 1
        return value, found

    def version(self, repository: str, branch: str) -> Iterator[Item]:
        """Yields all that is in the head of a branch, folders before what is in them."""
        value, found = self.commit(*self.ref(repository, "branches", branch))
        attributes = json.loads(found.attributes)
        place = found.places[0]
        assert place is not None
        mark = bytes.fromhex(attributes["stamp"])
        yield from self.folder(b"", bytes.fromhex(value["root"]["tree"]), mark, place)

    def bytes_at(self, place: Place) -> bytes:
        data = (self.root / "packs" / place.pack[:2] / place.pack).read_bytes()
        assert data[:8] == b"VFSPACK\1"
        stored = data[place.block_offset : place.block_offset + place.stored_length]
        block = stored[1:]
        if stored[0] == 1:
            block = zstandard.ZstdDecompressor().decompress(block)
        else:
            assert stored[0] == 0
        found = block[place.offset : place.offset + place.length]
        assert len(found) == place.length
        return found

    def metadata(self, kind: int, identity: bytes, mark: bytes, place: Place) -> Object:
        data = self.bytes_at(place)
        a, b, c = struct.unpack_from("<III", data)
        assert len(data) == 12 + a + b + c + 16
        canonical, attributes = data[12 : 12 + a], data[12 + a : 12 + a + b]
        section = data[12 + a + b : 12 + a + b + c]
        assert keyed(kind, canonical) == identity
        assert stamp(attributes) == mark
        assert stamp(section) == data[-16:]
        return Object(canonical, attributes, self.places(section, place.pack))

    @staticmethod
    def places(section: bytes, this_pack: str) -> list[Place | None]:
        count, packs = struct.unpack_from("<II", section)
        table = ["", this_pack] + [section[8 + 32 * i : 40 + 32 * i].hex() for i in range(packs)]
        at = 8 + 32 * packs
        assert len(section) == at + 20 * count
        numbers = struct.unpack_from(f"<{5 * count}I", section, at)
        rows = zip(*(numbers[count * i : count * (i + 1)] for i in range(5)), strict=True)
        return [Place(table[number], *rest) if number else None for number, *rest in rows]

    def folder(self, path: bytes, identity: bytes, mark: bytes, place: Place) -> Iterator[Item]:
        node = self.metadata(TREE, identity, mark, place)
        data = node.canonical
        level, count, names_length = struct.unpack_from("<B3xII", data)
        names = data[12 : 12 + names_length].split(b"\0") if count else []
        at = 12 + names_length
        if level:
            at += 24 * count
            for i in range(count):
                where = node.places[i]
                assert where is not None
                child = data[at + 32 * i : at + 32 * (i + 1)]
                yield from self.folder(path, child, node.attributes[16 * i :][:16], where)
            return
        kinds = data[at : at + count]
        modes = struct.unpack_from(f"<{count}H", data, at + count)
        sizes = struct.unpack_from(f"<{count}Q", data, at + 3 * count)
        contents = at + 19 * count
        extras = self.extras(data, contents + 32 * count)
        mtimes = struct.unpack_from(f"<{count}q", node.attributes)
        uids = struct.unpack_from(f"<{count}I", node.attributes, 8 * count)
        gids = struct.unpack_from(f"<{count}I", node.attributes, 12 * count)
        for i in range(count):
            content = data[contents + 32 * i : contents + 32 * (i + 1)]
            below = node.attributes[16 * (count + i) :][:16]
            where = node.places[i]
            target, xattrs = extras.get(i, (b"", ()))
            body = b""
            if kinds[i] == 1 and where is not None:
                body = self.chunk(content, where)
            elif kinds[i] == 2:
                assert where is not None
                body = b"".join(self.extents(content, below, where))
            elif kinds[i] == 4:
                body = target
            assert kinds[i] == 3 or len(body) == sizes[i]
            name = path + names[i]
            yield Item(name, kinds[i], modes[i], mtimes[i], uids[i], gids[i], xattrs, body)
            if kinds[i] == 3 and where is not None:
                yield from self.folder(name + b"/", content, below, where)

    @staticmethod
    def extras(data: bytes, at: int) -> dict[int, tuple[bytes, tuple[tuple[bytes, bytes], ...]]]:
        (count,) = struct.unpack_from("<I", data, at)
        rows = [struct.unpack_from("<III", data, at + 4 + 12 * i) for i in range(count)]
        at += 4 + 12 * count
        found = {}
        for number, target_length, xattrs_length in rows:
            target = data[at : at + target_length]
            at += target_length
            end = at + xattrs_length
            xattrs = []
            while at < end:
                name_length, value_length = struct.unpack_from("<HI", data, at)
                middle = at + 6 + name_length
                xattrs.append((data[at + 6 : middle], data[middle : middle + value_length]))
                at = middle + value_length
            found[number] = (target, tuple(xattrs))
        assert at == len(data)
        return found

    def extents(self, identity: bytes, mark: bytes, place: Place) -> Iterator[bytes]:
        node = self.metadata(MANIFEST, identity, mark, place)
        level, count = struct.unpack_from("<B3xI", node.canonical)
        lengths = struct.unpack_from(f"<{count}Q", node.canonical, 8)
        at = 8 + 8 * count
        for i in range(count):
            child, where = node.canonical[at + 32 * i : at + 32 * (i + 1)], node.places[i]
            if level == 0 and child == ZEROS:
                yield bytes(lengths[i])
                continue
            assert where is not None
            if level:
                data = b"".join(self.extents(child, stamp(b""), where))
            else:
                data = self.chunk(child, where)
            assert len(data) == lengths[i]
            yield data

    def chunk(self, identity: bytes, place: Place) -> bytes:
        data = self.bytes_at(place)
        assert keyed(CHUNK, data) == identity
        return data

    def check_packs(self) -> int:
        """Verifies each pack: its name, its index, and each object in it. Returns how many."""
        packs = 0
        for path in sorted((self.root / "packs").glob("*/*")):
            packs += 1
            data = path.read_bytes()
            assert blake3(data).hexdigest() == path.name
            assert path.parent.name == path.name[:2]
            assert data[:8] == b"VFSPACK\1"
            metadata = data[8] == 1
            offset, length, count, mark, end = struct.unpack("<QQI4x16s8s", data[-48:])
            index = data[offset : offset + length]
            assert end == b"VFSPEND\1"
            assert offset + length + 48 == len(data)
            assert stamp(index) == mark
            assert length == count * (65 if metadata else 49)
            at = (48 if metadata else 32) * count
            numbers = struct.unpack_from(f"<{4 * count}I", index, at + count)
            for i in range(count):
                place = Place(path.name, *numbers[i::count])
                identity = index[32 * i : 32 * (i + 1)]
                if metadata:
                    own = index[32 * count + 16 * i :][:16]
                    self.metadata(index[at + i], identity, own, place)
                else:
                    assert index[at + i] == CHUNK
                    self.chunk(identity, place)
        return packs
