"""Which parts of packs to read as a whole, because reads come at random places of them.

For local stores. A read at a place that the kernel has not in memory waits for the disk, ten times
as long as at one that it has; and many blocks lie in what a disk gives in the time of a few such
waits. So where two reads in a *window* of a pack had to wait, all of it may be read.

Whether that pays depends on what is read next, and on the disk. It is accounted for in seconds of
the disk: there is a credit, a window costs what it took, and each read that finds its bytes in one
gives back what others waited (docs/design/010).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

from versionfs.chunkstore.source import PackRange
from versionfs.types import PackId

WINDOW_BYTES: Final = 8 * 1024 * 1024
CREDIT_S: Final = 0.25
"""The most that may be lost at once, in seconds of the disk, but for a window that takes longer."""
_RETURNED: Final = 0.01
"""What comes back of it with time, in seconds a second: reads may be others tomorrow."""
_AT_ONCE_S: Final = 25e-6
_COPIED_BYTES_PER_S: Final = 2e9
"""What comes sooner than this was in memory."""
_LONGEST_WAIT_S: Final = 0.02
"""No disk makes a read wait longer, but other threads of this process may."""
_LONGEST_READ_S: Final = 2.5
"""More is not held against it: a disk that stalls once is no reason to end it for hours."""
_RUNNING: Final = 2
"""Windows that are being read, or wait for it."""
_WINDOWS: Final = 4_096
"""Windows remembered: of 32 GiB."""
_PAYING: Final = 128
"""So many reads in a window pay for it: about as many blocks as it has. What is read again later
the kernel would have in memory anyhow."""
_WEIGHT: Final = 1 / 8
"""How much the last wait counts in their mean."""

_Window = tuple[bytes, int]


class ReadAround:
    """Takes notice of reads at random places, and says what to read around them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: OrderedDict[_Window, int] = OrderedDict()
        self._running: set[_Window] = set()
        # How many reads in each will still pay for it.
        self._whole: OrderedDict[_Window, int] = OrderedDict()
        self._credit = CREDIT_S
        self._at = time.monotonic()
        self._wait = 0.0

    def note(self, pack: PackId, start: int, length: int, seconds: float) -> PackRange | None:
        """Takes notice of a read and how long it took; returns what to read as a whole, or None.

        Who gets a range reads it, and then calls :meth:`done`.
        """
        window = (pack, start // WINDOW_BYTES)
        waited = seconds > _AT_ONCE_S + length / _COPIED_BYTES_PER_S
        with self._lock:
            paying = self._whole.get(window)
            if paying is not None:
                if waited:
                    # The kernel has let go of it, unless it waited for what comes behind it.
                    if start % WINDOW_BYTES + length <= WINDOW_BYTES:
                        del self._whole[window]
                elif paying:
                    self._whole[window] = paying - 1
                    self._credit = min(self._credit + self._wait, CREDIT_S)
                return None
            if not waited or window in self._running:
                return None
            seconds = min(seconds, _LONGEST_WAIT_S)
            self._wait += (seconds - self._wait) * (_WEIGHT if self._wait else 1)
            if window not in self._asked:
                _remember(self._asked, window)
                return None
            if len(self._running) >= _RUNNING or not self._has_credit():
                return None
            del self._asked[window]
            self._running.add(window)
        return PackRange(pack, window[1] * WINDOW_BYTES, WINDOW_BYTES)

    def done(self, part: PackRange, seconds: float | None) -> None:
        """Takes notice that a range was read, and how long that took; None if it was not."""
        window = (part.pack, part.start // WINDOW_BYTES)
        with self._lock:
            self._running.discard(window)
            if seconds is not None:
                _remember(self._whole, window, _PAYING)
                self._credit -= min(seconds, _LONGEST_READ_S)

    def _has_credit(self) -> bool:
        now = time.monotonic()
        self._credit = min(self._credit + (now - self._at) * _RETURNED, CREDIT_S)
        self._at = now
        return self._credit > 0


def _remember(windows: OrderedDict[_Window, int], window: _Window, paying: int = 0) -> None:
    windows[window] = paying
    if len(windows) > _WINDOWS:
        windows.popitem(last=False)
