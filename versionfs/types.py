"""The vocabulary: ids, locations, entries, commits. No I/O, no behaviour beyond formatting.

They are named tuples. Those are immutable, cost a third of a frozen dataclass to make (entries,
extents and locations exist by the million), and a tenth to define, as each command does at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple, NewType

ChunkId = NewType("ChunkId", bytes)
"""BLAKE3-256 of a chunk's plaintext, keyed by its domain; 32 bytes."""

NodeId = NewType("NodeId", bytes)
"""BLAKE3-256 of a node's canonical part, keyed by the node's domain; 32 bytes."""

CommitId = NewType("CommitId", bytes)
"""BLAKE3-256 of a commit's canonical part; 32 bytes."""

PackId = NewType("PackId", bytes)
"""BLAKE3-256 of a whole pack; 32 bytes."""

ID_BYTES: Final = 32
STAMP_BYTES: Final = 16
NO_ID: Final = bytes(ID_BYTES)
NO_STAMP: Final = bytes(STAMP_BYTES)
SHORT_ID_DIGITS: Final = 12


def short(object_id: bytes) -> str:
    """Returns the id in hex, shortened to 12 digits, as shown to people."""
    return object_id.hex()[:SHORT_ID_DIGITS]


class Kind(IntEnum):
    """What a directory entry is; the value is the byte in the tree format."""

    FILE = 1
    """A regular file that is one chunk, or empty (then its content id is all zeros)."""
    LARGE = 2
    """A regular file whose content is a manifest."""
    DIRECTORY = 3
    SYMLINK = 4


class ObjectKind(IntEnum):
    """What a pack index entry is; the value is the byte in the pack format."""

    CHUNK = 0
    MANIFEST = 1
    TREE = 2
    COMMIT = 3


class Location(NamedTuple):
    """Where stored bytes lie: ``length`` bytes at ``offset`` of a decoded block of a pack.

    All numbers are bytes. ``block_offset`` and ``stored_length`` address the block in the pack as
    it is stored, its codec byte included.
    """

    pack: PackId
    block_offset: int
    stored_length: int
    offset: int
    length: int


class NodeRef(NamedTuple):
    """A reference to a tree or manifest node, or to a commit.

    ``id`` says what it holds; ``stamp`` (16 bytes) distinguishes nodes of the same id that differ
    in auxiliary attributes (mtimes, owners). ``(id, stamp)`` is the key in every cache.
    """

    id: bytes
    stamp: bytes
    location: Location

    @property
    def key(self) -> bytes:
        """The 48 bytes under which caches hold the node."""
        return self.id + self.stamp


class Extent(NamedTuple):
    """``length`` bytes of a file that are one chunk, or a hole (``chunk`` is ``NO_ID``)."""

    length: int
    chunk: bytes
    location: Location | None


Xattrs = tuple[tuple[bytes, bytes], ...]
"""Extended attributes, as (full name, value), sorted by name."""


class Entry(NamedTuple):
    """One name in a directory.

    ``size`` is the length in bytes of a file or of a symlink's target, and the total of the
    regular files below a directory; ``files`` counts what is not a directory in the subtree (1 for
    anything but a directory). ``content`` is a chunk id (FILE), a manifest's root (LARGE), a tree
    id (DIRECTORY), or ``NO_ID`` (SYMLINK, empty FILE). ``stamp`` is that of the root node of a
    manifest or tree. ``location`` is that of the chunk or root node; None where nothing is stored.
    """

    name: bytes
    kind: int
    mode: int
    size: int
    files: int
    content: bytes
    target: bytes
    xattrs: Xattrs
    mtime_ns: int
    uid: int
    gid: int
    stamp: bytes
    location: Location | None

    @property
    def is_dir(self) -> bool:
        """Whether the entry is a directory."""
        return self.kind == Kind.DIRECTORY

    @property
    def is_file(self) -> bool:
        """Whether the entry is a regular file, of either storage form."""
        return self.kind in (Kind.FILE, Kind.LARGE)

    @property
    def node(self) -> NodeRef:
        """The root node of a LARGE file's manifest or a directory's tree."""
        if self.location is None:
            raise ValueError(f"entry {self.name!r} has no node")
        return NodeRef(self.content, self.stamp, self.location)


class Commit(NamedTuple):
    """One version: a root directory with its history.

    ``root`` is the root directory as an entry with an empty name. ``number`` counts commits along
    first parents, from 1. ``time_ns`` is nanoseconds since the epoch. ``ref`` addresses the commit
    itself (its ``id`` is the commit id); ``parents`` likewise, first parent first.
    """

    ref: NodeRef
    root: Entry
    parents: tuple[NodeRef, ...]
    author: str
    time_ns: int
    message: str
    number: int
    metadata: Mapping[str, str] = MappingProxyType({})

    @property
    def id(self) -> CommitId:
        """The commit id."""
        return CommitId(self.ref.id)

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.message.split("\n", 1)[0]


class Ref(NamedTuple):
    """The value of a branch or tag: a commit and where it lies.

    ``nonce`` is unique to the write that made this value; ``time_ns`` is when it was written.
    """

    commit: NodeRef
    nonce: str
    time_ns: int
