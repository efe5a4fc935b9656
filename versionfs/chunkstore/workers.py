"""Threads that the end of a process does not wait for.

The interpreter joins the threads of an executor before it exits, however long a server that hangs
keeps them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from versionfs.errors import StorageTransientError

log = logging.getLogger(__name__)


class Workers:
    """At most ``count`` daemon threads that do jobs in the order of :meth:`submit`. Thread-safe.

    A job may be cut off anywhere when the process ends: nothing may depend on its end.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count: Final = count
        self._name = name
        self._jobs: deque[Callable[[], object]] = deque()
        self._started = self._idle = 0
        self._closed = False
        self._changed = threading.Condition()

    def submit(self, job: Callable[[], object]) -> None:
        """Has a job done; drops it when this is closed. An error of a job is logged.

        Raises:
            StorageTransientError: the system starts no thread, and there is none to come to it.
        """
        with self._changed:
            if self._closed:
                return
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._changed.notify()
                return
            if self._started == self._count:
                return
            name = f"{self._name}_{self._started + 1}"
            try:
                threading.Thread(target=self._work, name=name, daemon=True).start()
            except RuntimeError as error:
                if self._started:
                    return  # One of those that run comes to it.
                self._jobs.pop()
                raise StorageTransientError(
                    "no thread can be started to read from the store",
                    hint="look at the limits of processes and memory (`ulimit -u`)",
                ) from error
            self._started += 1

    def close(self) -> None:
        """Drops what has not begun, and waits for nothing; idempotent."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._idle -= 1
                if self._closed:
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:
                log.exception("a job in the background failed")
            del job
