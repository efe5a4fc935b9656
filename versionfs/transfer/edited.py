"""A file that is stored as an edit of an old one: what is kept of it, and new chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from versionfs.chunkstore import Placement
from versionfs.transfer.waiting import Host
from versionfs.tree import FileEditor, Kept
from versionfs.types import NO_ID, NO_STAMP, Entry, Extent, Kind


class EditedFile:
    """A step of the pipeline: an edited file between being handed in and having its entry."""

    __slots__ = ("_done", "_editor", "_name", "complete", "items")

    def __init__(
        self, name: bytes, editor: FileEditor, done: Callable[[Entry, bytes], None]
    ) -> None:
        self._name = name
        self._editor = editor
        self._done = done
        self.items: deque[Kept | tuple[int, bytes, Placement | None]] = deque()
        self.complete = False

    def advance(self, host: Host, /) -> bool:
        """Takes what is in the store; returns whether the file is complete."""
        items, editor = self.items, self._editor
        while items:
            item = items[0]
            if isinstance(item, Kept):
                editor.keep(item.start, item.end)
            else:
                length, chunk, placement = item
                location = None if placement is None else placement.location
                if placement is not None and location is None:
                    return False
                editor.add(Extent(length, chunk, location))
            items.popleft()
        if not self.complete:
            return False
        stored = editor.finish()
        empty = Entry(self._name, Kind.FILE, 0, 0, 1, NO_ID, b"", (), 0, 0, 0, NO_STAMP, None)
        host.count(1, stored.size)
        self._done(stored.put_into(empty), b"")
        return True
