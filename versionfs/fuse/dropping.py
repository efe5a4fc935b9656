"""Tells the kernel what to drop, when something has changed that it did not do itself."""

from __future__ import annotations

import errno
import logging
import threading
from typing import Final

import pyfuse3
import trio

from versionfs.vfs import Invalidation

log = logging.getLogger(__name__)

_HARMLESS: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EBUSY)
"""The kernel does not know what it should drop, or it is in use and was marked already."""

_AGAIN_SECONDS: Final = 1.0
"""Longer than it takes a process that got the entries of a directory to hand them to the kernel."""


class Dropper:
    """Drops entries, attributes and listings.

    Not to be called from the thread that serves requests: the kernel may hold a lock that a request
    waits for.
    """

    def __init__(self) -> None:
        self._listings: set[int] = set()
        self._lock = threading.Lock()

    def __call__(self, batch: list[Invalidation]) -> None:
        """Drops what is listed; with a name, also what is kept of its directory's names."""
        listings = set()
        for item in batch:
            if item.name is None:
                _drop(item.number, None, attr_only=not item.is_listing)
            else:
                _drop(item.number, item.name)
            if item.is_listing or item.name is not None:
                listings.add(item.number)
        self._drop_listings(listings)
        with self._lock:
            self._listings |= listings

    @staticmethod
    def _drop_listings(numbers: set[int]) -> None:
        for number in numbers:
            _drop(number, None, attr_only=False)

    async def repeat(self) -> None:
        """Drops listings once more, a little later, for ever.

        What a process had asked for before they were dropped it may have put in place after that.
        """
        while True:
            await trio.sleep(_AGAIN_SECONDS)
            with self._lock:
                listings, self._listings = self._listings, set()
            if listings:
                await trio.to_thread.run_sync(self._drop_listings, listings, abandon_on_cancel=True)


def _drop(number: int, name: bytes | None, *, attr_only: bool = False) -> None:
    try:
        if name is None:
            pyfuse3.invalidate_inode(number, attr_only=attr_only)
        else:
            pyfuse3.invalidate_entry(number, name)
    except OSError as error:
        if error.errno not in _HARMLESS:
            log.warning("cannot invalidate %r in inode %d: %s", name, number, error)
