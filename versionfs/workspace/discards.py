"""Layers that no record names any more, and that go when the disk knows that.

Were a staging file removed before the change that made it unneeded is on disk, a power cut could
bring the record back that names it, and its bytes, synced as they were, would be gone.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from versionfs.workspace.layers import forget_layers
from versionfs.workspace.staging import Staging
from versionfs.workspace.table import Table

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4096
"""Layers: four slabs, so that most are removed as they are, and no hole is made in them."""

_LATELY_S: Final = 5.0


class Discards:
    """The layers to be removed, in a thread of its own while there are any. Thread-safe."""

    def __init__(self, table: Table, staging: Staging, sync: Callable[[], object]) -> None:
        """Begins; ``sync`` brings all batches of the table to the disk, with what they need."""
        self._table = table
        self._staging = staging
        self._sync = sync
        self._waiting: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self._draining = threading.Lock()
        self._gave_back_at = -math.inf
        self._thread: threading.Thread | None = None
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def gave_back_lately(self) -> bool:
        """Whether layers went some seconds ago: what failed for want of space may succeed now."""
        return time.monotonic() - self._gave_back_at < _LATELY_S

    def add(self, layer: int) -> None:
        """Lets a layer go once every batch applied so far is on the disk."""
        with self._lock:
            self._waiting.append((self._table.sequence, layer))
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="discards")
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self.drain()
            except Exception as error:  # noqa: BLE001  (tried again with the next one)
                log.warning("what is not needed in %s stays for now: %s", self._table.folder, error)
                with self._lock:
                    self._thread = None
                return
            with self._lock:
                if not self._waiting or self._closed:
                    self._thread = None
                    return

    def drain(self) -> None:
        """Removes all that were added so far. Blocks: for threads.

        Raises:
            OSError: the disk failed, or is full; they stay for the next time.
        """
        with self._draining:
            if not self._waiting:
                return
            self._sync()
            synced = self._table.synced
            while self._waiting and self._waiting[0][0] <= synced:
                with self._lock:  # Others may come meanwhile.
                    some = list(islice(self._waiting, _AT_ONCE))
                layers = [layer for sequence, layer in some if sequence <= synced]
                forget_layers(self._table, self._staging, layers)
                self._gave_back_at = time.monotonic()
                for _ in layers:
                    self._waiting.popleft()

    def close(self) -> None:
        """Removes what it can, and ends; what is left is swept when the workspace is opened."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            thread.join()
        try:
            self.drain()
        except Exception as error:  # noqa: BLE001  (no reason not to close)
            log.warning("what is not needed in %s is left: %s", self._table.folder, error)
