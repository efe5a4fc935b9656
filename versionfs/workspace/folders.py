"""The directories of a workspace that the kernel knows, and the numbers of what is in them.

An unchanged file or directory has no record: its number is a hash of its directory's number and
its name, so it is the same whenever it is looked at; when that number is taken, the next is tried.
"""

from __future__ import annotations

from typing import Final

from versionfs.tree import compiled
from versionfs.types import NodeRef

NUMBER_BITS: Final = 48
_HASHED: Final = 1 << (NUMBER_BITS - 1)
"""Set in numbers that are hashes, never in those that count up."""

_MASK: Final = _HASHED - 1


def hashed_number(parent: int, name: bytes) -> int:
    """Returns the number of a name in a directory, before collisions; the same in any process."""
    return hash((parent, int.from_bytes(name, "little"))) & _MASK | _HASHED


def _agrees() -> bool:
    """Whether the compiled numbers are those of this Python, whose hash of a tuple may change."""
    samples = [(1, b"a"), (1 << 47 | 5, b"name.txt"), (77, bytes(range(1, 256))), (3, b"\xff" * 8)]
    return compiled is not None and all(
        compiled.named_number(*sample) == hashed_number(*sample) for sample in samples
    )


PACKS: Final = _agrees()
"""Whether the entries of directories can be packed."""


def next_number(number: int) -> int:
    """Returns the number to try when another node has this one."""
    return hash((number, 1)) & _MASK | _HASHED


class Folder:
    """A directory that the kernel knows, or that lies above something it knows.

    ``base`` is the tree below the changes, None if there is none or it is empty. ``recorded`` says
    whether it has a record; one that has not is entry ``index`` of leaf ``leaf`` of its parent's
    base. ``overlaid`` says whether any name in it has a record. ``version`` grows with each change
    of its names, ``known`` counts the files in it that the kernel knows.
    """

    __slots__ = (
        "base",
        "children",
        "gone",
        "index",
        "known",
        "leaf",
        "lookups",
        "name",
        "number",
        "overlaid",
        "parent",
        "recorded",
        "version",
    )

    def __init__(
        self,
        number: int,
        parent: Folder | None,
        name: bytes,
        base: NodeRef | None,
        *,
        leaf: int = -1,
        index: int = 0,
        recorded: bool = False,
        overlaid: bool = False,
    ) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.base = base
        self.leaf = leaf
        self.index = index
        self.recorded = recorded
        self.overlaid = overlaid
        self.lookups = 0
        self.known = 0
        self.version = 0
        self.gone = False
        self.children: dict[bytes, Folder] | None = None

    def attach(self, parent: Folder, name: bytes) -> None:
        """Makes it a child of a folder, under a name."""
        self.parent = parent
        self.name = name
        if parent.children is None:
            parent.children = {}
        parent.children[name] = self

    def detach(self) -> None:
        """Takes it out of its parent's children."""
        parent = self.parent
        if parent is not None and parent.children is not None:
            if parent.children.get(self.name) is self:
                del parent.children[self.name]
            if not parent.children:
                parent.children = None

    @property
    def is_needed(self) -> bool:
        """Whether the kernel knows it or anything below it."""
        return bool(self.lookups or self.known or self.children) or self.parent is None

    @property
    def is_gone(self) -> bool:
        """Whether it, or a directory above it, was removed."""
        folder: Folder | None = self
        while folder is not None:
            if folder.gone:
                return True
            folder = folder.parent
        return False

    def path(self) -> bytes:
        """Returns the path in the workspace, ``b""`` for its root."""
        names = []
        folder: Folder | None = self
        while folder is not None and folder.parent is not None:
            names.append(folder.name)
            folder = folder.parent
        return b"/".join(reversed(names))
