"""The record of a changed file, directory or other node of a workspace, and the keys of records.

Value, little-endian: type and mode u32 · uid u32 · gid u32 · nlink u32 · rdev u64 · atime, mtime,
ctime i64 ns · sequence u64 · base kind u8 (0: no base), files u64, size u64, content 32 B, stamp
16 B, has location u8, pack 32 B, four u32 · layers u32, target length u32, xattrs length u32 ·
layers of 16 B each (content.py), target, xattrs.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import Final

from versionfs.tree import decode_xattrs, encode_xattrs
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind, Location, PackId, Xattrs
from versionfs.workspace.content import LAYER_BYTES, Layer, decode_layers, encode_layers

_HEAD: Final = struct.Struct("<IIIIQqqqQ")
_BASE: Final = struct.Struct("<BQQ32s16sB32sIIII")
_TAIL: Final = struct.Struct("<III")
_NAME: Final = struct.Struct("<QQ")
_BASE_AT: Final = _HEAD.size
_TAIL_AT: Final = _BASE_AT + _BASE.size
_DATA_AT: Final = _TAIL_AT + _TAIL.size
_NO_BASE: Final = _BASE.pack(0, 0, 0, NO_ID, NO_STAMP, 0, NO_ID, 0, 0, 0, 0)

ROOT: Final = 1
"""The number of a workspace's root directory."""

WHITEOUT: Final = 0
"""Stands in a name's record for the number: the base has the name, and it was deleted."""

TYPE_BITS: Final = (0, stat.S_IFREG, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
"""The file type in ``st_mode`` by ``Kind``."""


def inode_key(number: int) -> bytes:
    """Returns the key of an inode's record."""
    return b"i" + number.to_bytes(8, "big")


def names_prefix(parent: int) -> bytes:
    """Returns what the keys of all names in a directory begin with."""
    return b"n" + parent.to_bytes(8, "big")


def name_key(parent: int, name: bytes) -> bytes:
    """Returns the key of a name's record."""
    return b"n" + parent.to_bytes(8, "big") + name


def encode_name(number: int, sequence: int) -> bytes:
    """Returns the value of a name's record."""
    return _NAME.pack(number, sequence)


def decode_name(value: bytes) -> tuple[int, int]:
    """Returns the number that a name stands for, and when it came to."""
    number, sequence = _NAME.unpack(value)
    return number, sequence


@dataclass(slots=True)
class Inode:
    """A changed node. ``mode`` has the type; times are in ns.

    ``base`` is what lies below the changes: a file's stored content, a directory's tree. Of a file
    ``layers`` are the staging files over it, the newest first. ``sequence`` counts the changes of
    the workspace: it is that of the last one of this node.
    """

    number: int
    mode: int
    uid: int
    gid: int
    nlink: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int = 0
    sequence: int = 0
    base: Entry | None = None
    layers: tuple[Layer, ...] = ()
    target: bytes = b""
    xattrs: Xattrs = ()

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    def copy(self) -> Inode:
        """Returns another inode with the same values."""
        return Inode(
            self.number,
            self.mode,
            self.uid,
            self.gid,
            self.nlink,
            self.atime_ns,
            self.mtime_ns,
            self.ctime_ns,
            self.rdev,
            self.sequence,
            self.base,
            self.layers,
            self.target,
            self.xattrs,
        )

    def encode(self) -> bytes:
        """Returns the record's value."""
        base = self.base
        if base is None:
            base_part = _NO_BASE
        else:
            where = base.location
            base_part = _BASE.pack(
                base.kind,
                base.files,
                base.size,
                base.content,
                base.stamp,
                where is not None,
                *(where or (NO_ID, 0, 0, 0, 0)),
            )
        xattrs = encode_xattrs(self.xattrs) if self.xattrs else b""
        return b"".join(
            (
                _HEAD.pack(
                    self.mode,
                    self.uid,
                    self.gid,
                    self.nlink,
                    self.rdev,
                    self.atime_ns,
                    self.mtime_ns,
                    self.ctime_ns,
                    self.sequence,
                ),
                base_part,
                _TAIL.pack(len(self.layers), len(self.target), len(xattrs)),
                encode_layers(self.layers) if self.layers else b"",
                self.target,
                xattrs,
            )
        )

    @classmethod
    def decode(cls, number: int, value: bytes) -> Inode:
        """Returns the inode of a record.

        Raises:
            struct.error: the record is too short.
        """
        mode, uid, gid, nlink, rdev, atime, mtime, ctime, sequence = _HEAD.unpack_from(value)
        base: Entry | None = None
        if value[_BASE_AT]:
            kind, files, size, content, base_stamp, stored, *where = _BASE.unpack_from(
                value, _BASE_AT
            )
            location = Location(PackId(where[0]), *where[1:]) if stored else None
            base = Entry(b"", kind, 0, size, files, content, b"", (), 0, 0, 0, base_stamp, location)
        layer_count, target_length, xattrs_length = _TAIL.unpack_from(value, _TAIL_AT)
        layers: tuple[Layer, ...] = ()
        at = _DATA_AT
        if layer_count:
            at += LAYER_BYTES * layer_count
            layers = decode_layers(value[_DATA_AT:at])
        target = value[at : at + target_length]
        at += target_length
        xattrs = decode_xattrs(value[at : at + xattrs_length]) if xattrs_length else ()
        return cls(
            number,
            mode,
            uid,
            gid,
            nlink,
            atime,
            mtime,
            ctime,
            rdev,
            sequence,
            base,
            layers,
            target,
            xattrs,
        )

    @classmethod
    def of_entry(cls, number: int, entry: Entry) -> Inode:
        """Returns the inode that an unchanged entry of the base becomes."""
        has_base = entry.kind != Kind.SYMLINK
        return cls(
            number=number,
            mode=entry.mode | TYPE_BITS[entry.kind],
            uid=entry.uid,
            gid=entry.gid,
            nlink=1,
            atime_ns=entry.mtime_ns,
            mtime_ns=entry.mtime_ns,
            ctime_ns=entry.mtime_ns,
            base=entry if has_base else None,
            target=entry.target,
            xattrs=entry.xattrs,
        )


def without_privileges(mode: int) -> int:
    """Returns a mode without what a change of content or owner takes away (setuid, setgid)."""
    if not stat.S_ISREG(mode):
        return mode
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID
