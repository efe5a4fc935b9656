"""What waits in the queue of an import: files that have no entry yet, and what comes after them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from versionfs.chunkstore import Placement
from versionfs.transfer.attributes import Attributes
from versionfs.tree import ManifestBuilder
from versionfs.types import NO_ID, NO_STAMP, Entry, Extent, Kind, Location

Done = Callable[[Entry, bytes], None]
"""Gets a file's entry, and what was seen of it as it was read (attributes.seen)."""


class Host(Protocol):
    """What a step needs of the pipeline."""

    def manifest_builder(self) -> ManifestBuilder:
        """Returns a builder for the manifest of one file."""
        ...

    def count(self, files: int, size: int) -> None:
        """Counts files that are done, with their bytes."""


class Step(Protocol):
    """Something in the queue."""

    def advance(self, host: Host, /) -> bool:
        """Does what can be done now; returns whether the step is complete."""


class Action:
    """Something to run when all before it is done."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run

    def advance(self, _host: Host) -> bool:
        """See ``Step.advance``."""
        self._run()
        return True


class WaitingFile:
    """A file between being handed in and having its entry."""

    __slots__ = (
        "attributes",
        "complete",
        "done",
        "failed",
        "gone",
        "manifest",
        "name",
        "path",
        "pieces",
        "seen",
        "size",
    )

    def __init__(self, name: bytes, path: bytes, done: Done, gone: Callable[[], None]) -> None:
        self.name = name
        self.path = path
        self.done = done
        self.gone = gone
        self.seen = b""
        self.attributes: Attributes | None = None
        # A list, and no stat_result: files wait here by the ten thousand.
        self.pieces: list[tuple[int, bytes, Placement | None]] = []
        self.manifest: ManifestBuilder | None = None
        self.size = 0
        self.complete = False
        self.failed = False

    def restart(self) -> None:
        """Forgets what was read, because the file changed."""
        self.pieces.clear()
        self.manifest = None
        self.size = 0

    def advance(self, host: Host) -> bool:
        """See ``Step.advance``: the entry needs the places of all pieces."""
        if self.failed:
            self.gone()
            return True
        pieces = self.pieces
        if self.manifest is None:
            if not self.complete:
                if len(pieces) < 2:
                    return False
            elif len(pieces) < 2 and (not pieces or pieces[0][2] is not None):
                return self._finish_single(host)
            self.manifest = host.manifest_builder()
        for at, (length, chunk, placement) in enumerate(pieces):
            location = None
            if placement is not None:
                location = placement.location
                if location is None:
                    del pieces[:at]
                    return False
            self.manifest.add(Extent(length, chunk, location))
        pieces.clear()
        if not self.complete:
            return False
        root = self.manifest.finish()
        self._report(host, Kind.LARGE, root.ref.id, root.ref.stamp, root.ref.location, root.length)
        return True

    def _finish_single(self, host: Host) -> bool:
        if not self.pieces:
            self._report(host, Kind.FILE, NO_ID, NO_STAMP, None, 0)
            return True
        length, chunk, placement = self.pieces[0]
        assert placement is not None
        location = placement.location
        if location is None:
            return False
        self._report(host, Kind.FILE, chunk, NO_STAMP, location, length)
        return True

    def _report(
        self,
        host: Host,
        kind: Kind,
        content: bytes,
        stamp: bytes,
        location: Location | None,
        size: int,
    ) -> None:
        assert self.attributes is not None
        mode, mtime_ns, uid, gid, xattrs = self.attributes
        entry = Entry(
            self.name,
            kind,
            mode,
            size,
            1,
            content,
            b"",
            xattrs,
            mtime_ns,
            uid,
            gid,
            stamp,
            location,
        )
        host.count(1, size)
        self.done(entry, self.seen)
