"""Open directories of a workspace.

What is listed is settled when the directory is opened: the base as it is then, and the names that
have records then. So an offset (of telldir) stays good while entries come and go: 0 and 1 are ``.``
and ``..``, then the entries of the base by their number in it, then the changed names. What is gone
by the time it would be given is left out. Going back to the start adds what has come at the end;
only a commit in between gives offsets anew.
"""

from __future__ import annotations

import stat
from collections.abc import Generator, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from versionfs.tree import InFolder, Inner, Leaf, Shown, pack_dot, pack_leaf
from versionfs.types import Kind, NodeRef
from versionfs.workspace.folders import PACKS, Folder, hashed_number
from versionfs.workspace.inode import WHITEOUT, decode_name, names_prefix

if TYPE_CHECKING:
    from versionfs.workspace.workspace import Stat, Workspace

DOTS: Final = 2
_SPARE: Final = 10_000
"""Names that may come to an open directory before its offsets are given anew."""

_CHANGED: Final = 1 << 40
"""Where the offsets of changed names begin."""

_DIRECTORY: Final = int(Kind.DIRECTORY)

Item = tuple[bytes, "Stat", int]
"""A name, its attributes, and the offset of the next entry."""


class WorkspaceListing:
    """An open directory; memory follows the number of its changed names."""

    def __init__(self, workspace: Workspace, folder: Folder) -> None:
        self._workspace = workspace
        self._folder = folder
        self._base: NodeRef | None = None
        self._version = -1
        self._next = 0
        """The entry of the base that comes next; 0: not known."""
        self._ended = False
        """Whether what was given last goes to the end."""
        self._changed: list[bytes] = []
        self._bound = 0
        self._hidden: set[bytes] = set()
        """Names that are not given where the captured base has them."""

    def items(self, start: int) -> Generator[Item, None, None]:
        """Yields entries from an offset on; asking for the next takes the one before.

        Each entry taken counts as a lookup, but for ``.`` and ``..``.
        """
        workspace, folder = self._workspace, self._folder
        self._next, self._ended = 0, False
        if start == 0 or self._version < 0:
            self._capture()
        for offset, node in ((0, folder), (1, folder.parent or folder)):
            if start == offset:
                name = b"." if not offset else b".."
                yield name, workspace.stat(node.number), offset + 1
                start += 1
        if start < _CHANGED:
            yield from self._base_items(start)
            start = _CHANGED
        for index in range(start - _CHANGED, len(self._changed)):
            yield from self._looked_up(self._changed[index], _CHANGED + index + 1)
        self._ended = True

    def packed(self, start: int, room: int, shown: Shown, bits: int) -> bytes | None:
        """Takes entries as :meth:`items` does, as many as fit into ``room`` bytes, and packs them.

        ``bits`` are set in the numbers that the kernel is told. None: nothing is packed where
        anything was changed; ask :meth:`items`.
        """
        workspace, folder = self._workspace, self._folder
        names = workspace.names
        if not PACKS:
            return None
        if start == 0 or self._version < 0:
            self._capture()
        if (
            self._changed
            or self._hidden
            or folder.version != self._version
            or folder.base != self._base
            or not names.is_plain
        ):
            return None
        self._next, self._ended = 0, False
        parts = []
        for offset, node in ((0, folder), (1, folder.parent or folder)):
            if start == offset:
                name = b"." if not offset else b".."
                parts.append(pack_dot(name, bits | node.number, stat.S_IFDIR, offset + 1))
                room -= len(parts[-1])
                start += 1
        try:
            for first, ref, leaf in (
                () if self._base is None else self._leaves(self._base, 0, start - DOTS)
            ):
                begin = max(0, start - DOTS - first)
                if begin >= leaf.count:
                    continue
                data, taken = self._packed_leaf(ref, leaf, begin, first, room, shown, bits)
                parts.append(data)
                room -= len(data)
                if begin + taken < leaf.count:
                    self._next = first + begin + taken
                    break
            else:
                self._ended = True
        except BaseException:
            # The kernel asks again for what is behind the entries that it gets.
            if not any(parts):
                raise
        return b"".join(parts)

    def look_ahead(self) -> None:
        """Reads what comes behind the entries that were given last: a leaf, or the next folder.

        Raises:
            WouldBlock: it must be fetched.
        """
        folder = self._folder
        if self._base is not None and self._next:
            next(islice(self._leaves(self._base, 0, self._next), 1, None), None)
        elif self._ended:
            self._workspace.names.walks.listed(folder.base, self._above())

    def _above(self) -> Iterator[tuple[NodeRef | None, bytes]]:
        folder = self._folder
        while folder.parent is not None:
            yield folder.parent.base, folder.name
            folder = folder.parent

    def _packed_leaf(
        self, ref: NodeRef, leaf: Leaf, begin: int, first: int, room: int, shown: Shown, bits: int
    ) -> tuple[bytes, int]:
        folder, names = self._folder, self._workspace.names
        leaf_number = names.leaves.number(ref)
        names.leaves.use(leaf_number)

        def special(index: int, _: int) -> int:
            name = leaf.names[index]
            if leaf.kinds[index] == _DIRECTORY:
                found = names.find_in_base(folder, name)
                assert found is not None
                return bits | names.enter(folder, name, found)
            hashed = hashed_number(folder.number, name)
            return bits | names.enter_file(folder, name, hashed, leaf, leaf_number, index)

        inside = InFolder(folder.number, bits, cast("dict[int, object]", names.folders))
        try:
            packed = pack_leaf(
                names.known, leaf, leaf_number, begin, DOTS + first + begin, room, shown, special,
                inside,
            )  # fmt: skip
            names.leaves.use(leaf_number, packed.fresh)
            folder.known += packed.fresh
        finally:
            names.leaves.drop(leaf_number)
        return packed.data, packed.entries

    def _capture(self) -> None:
        """Settles what is listed. What was listed before keeps its offset while the base stays."""
        folder, names = self._folder, self._workspace.names
        if self._version < 0 or folder.base != self._base or len(self._changed) > self._bound:
            self._base, self._version = folder.base, folder.version
            self._changed, self._hidden = [], set()
            again = False
        else:
            again = True
        placed = set(self._changed)
        added, hidden = [], []
        if folder.overlaid:
            prefix = names_prefix(folder.number)
            for key, value in names.table.scan(prefix):
                name = key[len(prefix) :]
                if name in placed:
                    continue
                if again and name not in self._hidden and names.find_in_base(folder, name):
                    continue  # Given where the base has it, if it is there still.
                hidden.append(name)
                if decode_name(value)[0] != WHITEOUT:
                    added.append(name)
        self._changed += added
        self._hidden.update(hidden)
        if not again:
            self._bound = 2 * len(self._changed) + _SPARE

    def _looked_up(self, name: bytes, offset: int) -> Generator[Item, None, None]:
        """Yields a name as it is now, if it is there."""
        names = self._workspace.names
        found = names.find(self._folder, name)
        if found is None:
            return
        number = names.enter(self._folder, name, found)
        try:
            yield name, self._workspace.stat(number), offset
        except GeneratorExit:
            self._workspace.forget(number, 1)
            raise

    def _base_items(self, start: int) -> Generator[Item, None, None]:
        if self._base is None:
            return
        for first, ref, leaf in self._leaves(self._base, 0, start - DOTS):
            begin = max(0, start - DOTS - first)
            if begin >= leaf.count:
                continue
            offset = DOTS + first + begin
            if self._folder.version != self._version or self._folder.base != self._base:
                # Names have changed since: each is looked up anew.
                for index in range(begin, leaf.count):
                    offset += 1
                    if leaf.names[index] not in self._hidden:
                        yield from self._looked_up(leaf.names[index], offset)
            else:
                yield from self._unchanged(ref, leaf, begin, offset)

    def _unchanged(
        self, ref: NodeRef, leaf: Leaf, begin: int, offset: int
    ) -> Generator[Item, None, None]:
        """Yields the entries of a leaf that have no record, as fast as can be."""
        workspace, folder, hidden = self._workspace, self._folder, self._hidden
        names = workspace.names
        base_stat = workspace.base_stat
        leaf_number = names.leaves.number(ref)
        names.leaves.use(leaf_number)
        number = 0
        version = folder.version
        try:
            for index in range(begin, leaf.count):
                name = leaf.names[index]
                offset += 1
                if name in hidden:
                    continue
                if folder.version != version:
                    number = 0
                    yield from self._looked_up(name, offset)
                    continue
                if leaf.kinds[index] == _DIRECTORY:
                    found = names.find_in_base(folder, name)
                    if found is None:
                        continue
                    number = names.enter(folder, name, found)
                else:
                    hashed = hashed_number(folder.number, name)
                    number = names.enter_file(folder, name, hashed, leaf, leaf_number, index)
                yield name, base_stat(number, leaf, index), offset
        except GeneratorExit:
            if number:
                workspace.forget(number, 1)
            raise
        finally:
            names.leaves.drop(leaf_number)

    def _leaves(self, ref: NodeRef, first: int, start: int) -> Iterator[tuple[int, NodeRef, Leaf]]:
        """Yields the leaves that hold entry number ``start`` or a later one, with their first."""
        node = self._workspace.names.trees.node(ref)
        if not isinstance(node, Inner):
            yield first, ref, node
            return
        for child in node.children:
            if first + child.entries > start:
                yield from self._leaves(child.ref, first, start)
            first += child.entries
