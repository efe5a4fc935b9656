"""Which bytes of small files a mount gives the kernel before it asks for them.

A small file's bytes go to the kernel's cache with the answer to ``open``. Several small files share
a block, which costs more to decode than to send, and is soon given up again where files are read in
no order. So where several files of a leaf were opened,

* in the order of their names: the next ones are pushed while no request waits, a little ahead; and
  at once in the leaf that is opened next from its begin, as who reads folder by folder does;
* in another order: those beside it in the block that was just decoded are pushed with the next.

Used from one thread only.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from versionfs.errors import VersionFSError
from versionfs.objectstore import WouldBlock
from versionfs.tree.content import PUSHED_BYTES, Contents
from versionfs.tree.node import Leaf
from versionfs.types import Kind

log = logging.getLogger(__name__)

_FEW: Final = 3
"""So many files of a leaf are opened before others are expected to be."""
_IN_ORDER: Final = 4
"""How many entries further the next file may be that is read in order: not all are small files."""
_AHEAD_BYTES: Final = 128 * 1024
_AHEAD_FILES: Final = 16
_MATES: Final = 16
"""Files pushed with one that shares their block."""
_VAIN: Final = 2
"""After so many that had nothing beside them to push, only one in ``_RARELY`` is looked at."""
_RARELY: Final = 16
_SKIPPED: Final = 16
"""Entries looked at in one step that are nothing to push."""
_GROUPS: Final = 4_096
_RUNS: Final = 16

_FILE: Final = int(Kind.FILE)

Push = tuple[int, memoryview]
"""A file's number and all of its bytes, verified."""

G = TypeVar("G", bound=Hashable)


class _Run(Generic[G]):
    """Files of a leaf that are opened one after the other, and what was pushed ahead of that."""

    __slots__ = ("ahead", "group", "has_pushed", "held", "leaf", "next")

    def __init__(self, group: G, leaf: Leaf) -> None:
        self.group = group
        self.leaf = leaf
        self.next = 0
        self.has_pushed = False
        # Positions, numbers and sizes.
        self.ahead: deque[tuple[int, int, int]] = deque()
        self.held = 0


class _Seen(Generic[G]):
    """What was opened of a leaf: how many, which was last, how many followed one another."""

    __slots__ = ("count", "in_order", "last", "run", "vain")

    def __init__(self) -> None:
        self.count = self.in_order = self.vain = 0
        self.last = -1
        self.run: _Run[G] | None = None


class Pusher(Generic[G]):
    """Pushes the bytes of files that are read. A group is a leaf, as who makes this knows it.

    What goes wrong here is logged: a file whose bytes are not pushed is read as usual.
    """

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
        self._seen: OrderedDict[G, _Seen[G]] = OrderedDict()
        self._runs: deque[_Run[G]] = deque()
        # A number is in the last run that pushed it: the kernel may have forgotten it meanwhile.
        self._ahead: dict[int, _Run[G]] = {}
        self._due: deque[_Run[G]] = deque()
        self._ended = False
        """Whether a reader came to the end of a leaf in order, and was not followed since."""

    def opened(self, group: G, leaf: Leaf, index: int, number: int) -> list[Push]:
        """Returns what to push when a file is opened that only this open has, and is not marked.

        Nothing if it is large or empty, or if its bytes cannot be read at once.
        """
        try:
            return self._opened(group, leaf, index, number)
        except (WouldBlock, VersionFSError):
            return []  # Who reads it waits for it, or gets the error.
        except Exception:
            log.exception("file %d could not be pushed", number)
            return []

    def _opened(self, group: G, leaf: Leaf, index: int, number: int) -> list[Push]:
        before = self._contents.blocks_read
        data = self._contents.to_push(leaf, index)
        if data is None:
            return []
        self._mark(number)
        pushes = [(number, data)]
        seen = self._note(group, index)
        if seen.in_order >= _FEW:
            self._go_on(seen, group, leaf, index)
        elif (
            seen.count > _FEW
            and self._contents.blocks_read != before
            and (seen.vain < _VAIN or seen.count % _RARELY == 0)
        ):
            with suppress(WouldBlock, VersionFSError):
                self._push_mates(group, leaf, index, pushes)
            seen.vain = seen.vain + 1 if len(pushes) == 1 else 0
        return pushes

    def _push_mates(self, group: G, leaf: Leaf, index: int, pushes: list[Push]) -> None:
        """Adds files beside one that share its block, up to the first that is not to be pushed.

        Where files are looked up by names that were known before, the kernel knows none of them.
        """
        for way in (range(index + 1, leaf.count), range(index - 1, -1, -1)):
            for mate in way:
                if len(pushes) > _MATES or not _share_block(leaf, index, mate):
                    break
                push = self._push(group, leaf, mate)
                if push is None:
                    break
                pushes.append(push)
                self._contents.pushed_along += 1

    def came(self, number: int) -> bool:
        """Takes notice that a marked file was opened; whether there may be more to push now."""
        run = self._ahead.get(number)
        if run is None:
            return False
        position = next((at for at, ahead, _ in run.ahead if ahead == number), None)
        if position is not None:
            self._pass(run, position)
            self._note_end(run)
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
        for index in range(run.next, min(run.next + _SKIPPED, run.leaf.count)):
            try:
                push = self._push(run.group, run.leaf, index, once=True)
            except Exception as error:
                if not isinstance(error, WouldBlock):
                    run.next = index + 1
                if not isinstance(error, WouldBlock | VersionFSError):
                    log.exception("entry %d of a leaf could not be pushed", index)
                self._due.popleft()  # Until the next of its files is opened.
                return []
            run.next = index + 1
            if push is not None:
                number, data = push
                run.ahead.append((index, number, len(data)))
                run.has_pushed = True
                run.held += len(data)
                self._ahead[number] = run
                self._contents.pushed_ahead += 1
                return [push]
        if run.next >= run.leaf.count:
            self._due.popleft()
            self._note_end(run)
        return []

    def _note(self, group: G, index: int) -> _Seen[G]:
        seen = self._seen.get(group)
        if seen is None:
            seen = self._seen[group] = _Seen()
            if self._ended and index < _IN_ORDER:
                self._ended = False
                seen.in_order = _FEW
            if len(self._seen) > _GROUPS:
                _, old = self._seen.popitem(last=False)
                if old.run is not None:
                    self._runs.remove(old.run)
                    self._end(old.run)
        else:
            self._seen.move_to_end(group)
        seen.in_order = seen.in_order + 1 if 0 < index - seen.last <= _IN_ORDER else 1
        seen.count += 1
        seen.last = index
        return seen

    def _push(self, group: G, leaf: Leaf, index: int, *, once: bool = False) -> Push | None:
        if leaf.kinds[index] != _FILE or leaf.sizes[index] > PUSHED_BYTES:
            return None
        number = self._number(group, leaf, index)
        data = self._contents.to_push(leaf, index, once=once) if number else None
        if data is None:
            return None
        self._mark(number)
        return number, data

    # -- runs ------------------------------------------------------------------------------------

    def _go_on(self, seen: _Seen[G], group: G, leaf: Leaf, index: int) -> None:
        """Begins the run of a leaf, or goes on with it behind a file that was not pushed ahead."""
        run = seen.run
        if run is None:
            run = seen.run = _Run(group, leaf)
            self._runs.append(run)
            if len(self._runs) > _RUNS:
                self._end(self._runs.popleft())
        if not run.ahead or run.ahead[0][0] <= index:
            # What was pushed was passed, or the kernel has forgotten it.
            self._pass(run, run.leaf.count)
            run.next = index + 1
            self._note_end(run)
        self._want(run)

    def _note_end(self, run: _Run[G]) -> None:
        """Takes notice, once, that the reader of a run has got to the end of its leaf."""
        # Not where the kernel knew none of the files: there is nothing to push.
        if run.has_pushed and not run.ahead and run.next >= run.leaf.count:
            run.has_pushed = False
            self._ended = True

    def _pass(self, run: _Run[G], position: int) -> None:
        """Takes what was pushed ahead, up to a position, from a run: its reader has got there."""
        while run.ahead and run.ahead[0][0] <= position:
            self._forget(run)

    def _want(self, run: _Run[G]) -> None:
        if run not in self._due:
            self._due.append(run)

    def _end(self, run: _Run[G]) -> None:
        while run.ahead:
            self._forget(run)
        if run in self._due:
            self._due.remove(run)
        seen = self._seen.get(run.group)
        if seen is not None and seen.run is run:
            seen.run = None  # It holds a leaf.

    def _forget(self, run: _Run[G]) -> None:
        _, number, size = run.ahead.popleft()
        run.held -= size
        if self._ahead.get(number) is run:
            del self._ahead[number]


def _share_block(leaf: Leaf, one: int, other: int) -> bool:
    here, there = leaf.location(one), leaf.location(other)
    if here is None or there is None:
        return False
    return here.block_offset == there.block_offset and here.pack == there.pack
