"""Where a pack reader gets bytes of packs from: the store itself, or a cache before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from versionfs.objectstore import ObjectStore
from versionfs.pack import pack_key
from versionfs.types import PackId

VIEW_BYTES: Final = 96 * 1024
"""Shorter reads return bytes of their own. Longer ones may return a view of more."""


class Scan(IntEnum):
    """What a read tells of those that will follow."""

    NONE = 0
    NEAR = 1
    """What lies around will likely be read soon, as in a walk."""
    ALL = 2
    """So will all of the pack: much of the one before it was."""
    BEHIND = 3
    """So will what lies behind, if files begin to be read in the order in which they lie."""


class PackRange(NamedTuple):
    """``length`` bytes at ``start`` of a pack."""

    pack: PackId
    start: int
    length: int


class PackSource(Protocol):
    """Bytes of packs, not verified. Thread-safe."""

    @property
    def is_cached(self) -> bool:
        """Whether bytes may come from a cache: then what is damaged can be fetched again."""

    def read(
        self, pack: PackId, start: int, length: int, scan: Scan = Scan.NONE
    ) -> bytes | memoryview:
        """Returns the bytes ``[start, start + length)`` of a pack; fewer if that ends earlier.

        A view is of a large buffer, which is not used again for as long as the view lives: who
        keeps it keeps all of that.

        Raises:
            NotFoundError: there is no such pack.
            WouldBlock: the bytes are in no cache, and this thread may not wait for a server.
            StorageError: the store failed.
        """
        ...

    def forget(self, pack: PackId) -> None:
        """Drops what caches hold of a pack, because it is damaged."""

    def want(self, ranges: Iterable[PackRange]) -> None:
        """Begins to fetch what will be read at once, in parallel; does not wait for it."""

    def prefetch(
        self, ranges: Iterable[PackRange], token: object, *, scan: Scan = Scan.NONE
    ) -> None:
        """Fetches in the background, after all that somebody waits for; does not wait for it.

        ``token`` is who reads ahead, for :meth:`cancel` and :meth:`leave`, or None. Errors are left
        to whoever reads. For a ``scan`` what is in no cache is fetched with as much behind it as a
        read of it would.
        """

    def cancel(self, token: object) -> None:
        """Drops what was to be prefetched with this token and has not begun."""

    def leave(self, token: object) -> None:
        """Does so, and says that nothing more is prefetched with it for now."""

    def later(self, job: Callable[[], None]) -> None:
        """Runs a job that may read in another thread; its errors are left to whoever reads."""

    def close(self) -> None:
        """Ends what is being fetched; idempotent."""


class DirectSource:
    """Reads from the store each time: for local stores, where a read is a system call."""

    is_cached = False

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def read(
        self,
        pack: PackId,
        start: int,
        length: int,
        scan: Scan = Scan.NONE,  # noqa: ARG002
    ) -> bytes:
        """See ``PackSource.read``."""
        return self._objects.get(pack_key(pack), start, length)

    def forget(self, pack: PackId) -> None:
        """See ``PackSource.forget``: nothing is held."""

    def want(self, ranges: Iterable[PackRange]) -> None:
        """See ``PackSource.want``: nothing is held."""

    def prefetch(
        self, ranges: Iterable[PackRange], token: object, *, scan: Scan = Scan.NONE
    ) -> None:
        """See ``PackSource.prefetch``: nothing is held."""

    def cancel(self, token: object) -> None:
        """See ``PackSource.cancel``."""

    def leave(self, token: object) -> None:
        """See ``PackSource.leave``."""

    def later(self, job: Callable[[], None]) -> None:
        """See ``PackSource.later``: there is nothing to do ahead."""

    def close(self) -> None:
        """See ``PackSource.close``: nothing is held."""
