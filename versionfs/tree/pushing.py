"""Which bytes of small files a mount gives the kernel before it asks for them.

A small file's bytes go to the kernel's cache with the answer to ``open``. Several small files share
a block, which costs more to decode than to send, and is soon given up again where files are read in
no order. So where several files of a folder were opened,

* in the order of their names: the next ones are pushed while no request waits, a little ahead;
* in another order: those that share the block that was just decoded are pushed with the first.

Used from one thread only.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Final, Generic, TypeVar

from versionfs.tree.content import PUSHED_BYTES, Contents
from versionfs.tree.node import Leaf
from versionfs.types import Kind

_FEW: Final = 3
"""So many files of a leaf are opened before others are expected to be."""
_IN_ORDER: Final = 4
"""How many entries further the next file may be that is read in order: not all are small files."""
_AHEAD_BYTES: Final = 128 * 1024
_AHEAD_FILES: Final = 16
_MATES: Final = 16
"""Files pushed with one that shares their block."""
_SKIPPED: Final = 16
"""Entries looked at in one step that are nothing to push."""
_GROUPS: Final = 4_096
_RUNS: Final = 16

_FILE: Final = int(Kind.FILE)

Push = tuple[int, memoryview]
"""A file's number and all of its bytes, verified."""

G = TypeVar("G", bound=Hashable)


class _Seen:
    """What was opened of a leaf: how many, which was last, how many followed one another."""

    __slots__ = ("count", "in_order", "last")

    def __init__(self) -> None:
        self.count = self.in_order = 0
        self.last = -1


class _Run(Generic[G]):
    """Files of a leaf that are opened one after the other, and what was pushed ahead of that."""

    __slots__ = ("ahead", "group", "held", "leaf", "next")

    def __init__(self, group: G, leaf: Leaf, following: int) -> None:
        self.group = group
        self.leaf = leaf
        self.next = following
        self.ahead: deque[tuple[int, int]] = deque()
        self.held = 0


class Pusher(Generic[G]):
    """Pushes the bytes of files that are read. A group is a leaf, as who makes this knows it."""

    def __init__(
        self,
        contents: Contents,
        number: Callable[[G, Leaf, int], int],
        mark: Callable[[int], None],
    ) -> None:
        """Makes it ready.

        Args:
            contents: reads the bytes.
            number: returns the number under which the kernel knows an entry of a leaf; 0 if it does
                not, if it has the bytes or may have other ones, or if the file is open: a page that
                is being read must not be pushed.
            mark: takes notice that the kernel has the bytes of a number.
        """
        self._contents = contents
        self._number = number
        self._mark = mark
        self._seen: OrderedDict[G, _Seen] = OrderedDict()
        self._runs: deque[_Run[G]] = deque()
        self._ahead: dict[int, _Run[G]] = {}
        self._due: deque[_Run[G]] = deque()

    def opened(self, group: G, leaf: Leaf, index: int, number: int) -> list[Push]:
        """Returns what to push when a file is opened that only this open has, and is not marked.

        Nothing if it is large or empty, or if its bytes cannot be read at once.
        """
        contents = self._contents
        before = contents.blocks_read
        data = contents.to_push(leaf, index)
        if data is None:
            return []
        self._mark(number)
        pushes = [(number, data)]
        seen = self._seen.get(group)
        if seen is None:
            seen = self._seen[group] = _Seen()
            if len(self._seen) > _GROUPS:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(group)
        seen.in_order = seen.in_order + 1 if 0 < index - seen.last <= _IN_ORDER else 1
        seen.count += 1
        seen.last = index
        if seen.in_order >= _FEW:
            self._begin(_Run(group, leaf, index + 1))
        elif seen.count > _FEW and contents.blocks_read != before:
            for mate in _mates(leaf, index):
                if push := self._push(group, leaf, mate):
                    pushes.append(push)
                    contents.pushed_along += 1
        return pushes

    def came(self, number: int) -> bool:
        """Takes notice that a marked file was opened; whether there may be more to push now."""
        run = self._ahead.get(number)
        if run is None:
            return False
        while run.ahead:
            passed, size = run.ahead.popleft()
            run.held -= size
            del self._ahead[passed]
            if passed == number:
                break
        self._want(run)
        return True

    def step(self) -> list[Push] | None:
        """Returns what to push next, ahead of what is read, which may be nothing; None: no more.

        To be called while no request waits: it decodes one block at most.
        """
        if not self._due:
            return None
        run = self._due[0]
        if run.held >= _AHEAD_BYTES or len(run.ahead) >= _AHEAD_FILES:
            self._due.popleft()
            return []
        end = min(run.next + _SKIPPED, run.leaf.count)
        for index in range(run.next, end):
            run.next = index + 1
            if push := self._push(run.group, run.leaf, index):
                number, data = push
                run.ahead.append((number, len(data)))
                run.held += len(data)
                self._ahead[number] = run
                self._contents.pushed_ahead += 1
                return [push]
        if run.next == run.leaf.count:
            self._due.popleft()
        return []

    def _push(self, group: G, leaf: Leaf, index: int) -> Push | None:
        if leaf.kinds[index] != _FILE or leaf.sizes[index] > PUSHED_BYTES:
            return None
        number = self._number(group, leaf, index)
        data = self._contents.to_push(leaf, index) if number else None
        if data is None:
            return None
        self._mark(number)
        return number, data

    def _begin(self, run: _Run[G]) -> None:
        self._runs.append(run)
        if len(self._runs) > _RUNS:
            self._end(self._runs.popleft())
        self._want(run)

    def _want(self, run: _Run[G]) -> None:
        if run not in self._due:
            self._due.append(run)

    def _end(self, run: _Run[G]) -> None:
        for number, _ in run.ahead:
            del self._ahead[number]
        run.ahead.clear()
        if run in self._due:
            self._due.remove(run)


def _mates(leaf: Leaf, index: int) -> Iterator[int]:
    """Yields entries next to one that share its block: those behind it first."""
    where = leaf.location(index)
    if where is None:
        return
    left = _MATES
    for way in (range(index + 1, leaf.count), range(index - 1, -1, -1)):
        for other in way:
            at = leaf.location(other)
            if at is None or at.block_offset != where.block_offset or at.pack != where.pack:
                break
            if not left:
                return
            left -= 1
            yield other
