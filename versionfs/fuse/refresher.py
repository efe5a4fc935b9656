"""Lets a running mount show refs that moved, and tells the kernel what to drop."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from versionfs.errors import StorageTransientError
from versionfs.vfs import FileSystem, Invalidation

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

POLL_SECONDS: Final = 1.0
"""How long a move by a writer that did not tell us (another home) may stay unseen in a local store.
"""

_JITTER: Final = 0.2
"""Polls of many machines must not fall into step."""

_IDLE_SHARE: Final = 20
"""A poll that takes long (many refs, a slow disk) is followed by a pause this many times longer."""


class Refresher:
    """Refreshes a file system when told to, or when polling finds that refs moved."""

    def __init__(
        self,
        filesystem: FileSystem,
        drop: Callable[[list[Invalidation]], None],
        *,
        every_seconds: float | None = None,
    ) -> None:
        """``every_seconds`` is how often a store behind a network is polled; None: it is local."""
        self._fs = filesystem
        self._drop = drop
        self._every_seconds = every_seconds
        self._told = ""
        self._lock = trio.Lock()
        self._failed: set[str | None] = set()

    async def refresh(self, repository: str | None = None, *, look: bool = True) -> None:
        """Brings the mount in line with the refs; the kernel has dropped the old on return.

        Without ``look``, what the last poll found is taken for what is so now.

        Raises:
            VersionFSError: the store cannot be read; what was not refreshed stays as it was, and
                polling tries again.
        """
        async with self._lock:
            self._failed.add(repository)
            work = self._fs.refresh(repository, look=look)
            await _in_thread(work.locate)
            for step in work.steps():
                if callable(step):
                    await _in_thread(step)
                elif step:
                    await trio.to_thread.run_sync(self._drop, step)
            self._failed.discard(repository)

    async def poll(self) -> None:
        """Watches the refs of the repositories in use, for ever."""
        while True:
            begun = trio.current_time()
            failure: Exception | None = None
            try:
                # What moved is told once: whatever is not refreshed now must be remembered.
                self._failed.update(await _in_thread(self._fs.moved))
            except Exception as error:  # noqa: BLE001  (polling goes on)
                failure = error
            for repository in list(self._failed):
                try:
                    await self.refresh(repository, look=False)
                except Exception as error:  # noqa: BLE001  (the others go on)
                    failure = error
            if failure is None:
                self._told = ""
            else:
                self._tell(failure)
            spent = trio.current_time() - begun
            if self._every_seconds is None:
                await trio.sleep(max(POLL_SECONDS, _IDLE_SHARE * spent))
            else:
                jitter = random.uniform(1 - _JITTER, 1 + _JITTER)
                await trio.sleep(self._every_seconds * jitter)

    def _tell(self, error: Exception) -> None:
        """Logs that a poll failed, once for as long as it goes on failing."""
        text = str(error)
        # That a server cannot be reached is told where it is asked.
        if text != self._told and not (
            self._every_seconds is not None and isinstance(error, StorageTransientError)
        ):
            log.warning("cannot look for new commits: %s", text)
        self._told = text


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)
