"""Decodes what a sequential reader of a large file will ask for next, in other threads.

For local stores: a disk gives compressed bytes faster than one processor decompresses and verifies
them, and the thread that answers has the answer to write and the next request to take meanwhile.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

_MOST: Final = 16
"""Answers held for all files: of 1 MiB at most each, as the kernel asks for; each holds blocks of
four times its size at most."""

_STALE_S: Final = 5.0
"""An answer that nobody has asked for by then makes room for another."""

_MOST_THREADS: Final = 4

_Key = tuple[object, int, int]

Answer = list[bytes | memoryview]


class DecodeAhead:
    """The answers that were begun. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[_Key, tuple[float, Future[Answer]]] = OrderedDict()
        self._count = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self._threads: ThreadPoolExecutor | None = None

    def begin(self, file: object, offset: int, end: int, work: Callable[[], Answer]) -> None:
        """Begins to make the answer to a read, if there is room for it; returns at once."""
        key = (file, offset, end)
        now = time.monotonic()
        with self._lock:
            if key in self._jobs or self._count < 2 or not self._has_room(now):
                return
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._count, "versionfs-decode")
            with suppress(RuntimeError):  # There can be no more threads.
                self._jobs[key] = now, self._threads.submit(work)

    def _has_room(self, now: float) -> bool:
        # What was begun for one reader is not dropped for another: all would be decoded twice.
        if len(self._jobs) < _MOST:
            return True
        key, (begun, job) = next(iter(self._jobs.items()))
        if now - begun < _STALE_S:
            return False
        job.cancel()
        del self._jobs[key]
        return True

    def take(self, file: object, offset: int, end: int) -> Answer | None:
        """Returns the answer to a read, and forgets it; None if it was not begun, or failed."""
        with self._lock:
            _, job = self._jobs.pop((file, offset, end), (0.0, None))
        # What still waits for a thread is had sooner without it.
        if job is None or job.cancel() or job.exception() is not None:
            return None
        return job.result()

    def drop(self, file: object) -> None:
        """Forgets the answers to reads of a file."""
        with self._lock:
            for key in [key for key in self._jobs if key[0] is file]:
                self._jobs.pop(key)[1].cancel()
