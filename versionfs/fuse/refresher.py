"""Lets a running mount show refs that moved, and tells the kernel what to drop."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final

import pyfuse3
import trio

from versionfs.vfs import FileSystem, Invalidation

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
"""How long a move by a writer that did not tell us (another home or machine) may stay unseen."""

_IDLE_SHARE: Final = 20
"""A poll that takes long (many refs, a slow disk) is followed by a pause this many times longer."""

_HARMLESS: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EBUSY)
"""The kernel does not know what it should drop, or it is in use and was marked already."""


def invalidate(batch: list[Invalidation]) -> None:
    """Tells the kernel to drop entries and attributes.

    Never from the thread that serves requests: the kernel may hold a lock that a request waits for.
    """
    for number, name in batch:
        try:
            if name is None:
                pyfuse3.invalidate_inode(number, attr_only=True)
            else:
                pyfuse3.invalidate_entry(number, name)
        except OSError as error:
            if error.errno not in _HARMLESS:
                log.warning("cannot invalidate %r in inode %d: %s", name, number, error)


class Refresher:
    """Refreshes a file system when told to, or when polling finds that refs moved."""

    def __init__(
        self,
        filesystem: FileSystem,
        drop: Callable[[list[Invalidation]], None] = invalidate,
    ) -> None:
        self._fs = filesystem
        self._drop = drop
        self._lock = trio.Lock()
        self._failed: set[str | None] = set()

    async def refresh(self, repository: str | None = None) -> None:
        """Brings the mount in line with the refs; the kernel has dropped the old on return.

        Raises:
            VersionFSError: the store cannot be read; what was not refreshed stays as it was, and
                polling tries again.
        """
        async with self._lock:
            self._failed.add(repository)
            work = self._fs.refresh(repository)
            await trio.to_thread.run_sync(work.locate)
            for batch in work.steps():
                if batch:
                    await trio.to_thread.run_sync(self._drop, batch)
            self._failed.discard(repository)

    async def poll(self) -> None:
        """Watches the refs of the repositories in use, for ever."""
        while True:
            begun = trio.current_time()
            try:
                moved = await trio.to_thread.run_sync(self._fs.moved)
                for repository in {*moved, *self._failed}:
                    await self.refresh(repository)
            except Exception as error:  # noqa: BLE001  (polling goes on)
                log.warning("cannot look for new commits: %s", error)
            spent = trio.current_time() - begun
            await trio.sleep(max(POLL_SECONDS, _IDLE_SHARE * spent))
