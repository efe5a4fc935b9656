"""How the daemon uses memory: what is freed stays with it, and what stays is no garbage."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_KEPT_BYTES: Final = 32 * 1024 * 1024
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_HEAPS: Final = 4
_SELDOM: Final = 50_000
"""Objects made, and not freed again, after which cycles are looked for: Python's own number is 700
to 2,000."""

_now_seldom = 0
_usual = gc.get_threshold()


def keep_freed_memory() -> None:
    """Sets how much freed memory stays with the process: 32 MiB at the end of each of four heaps.

    Blocks and answers are of 64 KiB to 1 MiB, and live shortly. The C library would give such
    memory back to the kernel each time and get it again, cleared, page by page: up to 90 page
    faults for each MiB that is read. Does nothing where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, _HEAPS)


def begin_to_collect() -> None:
    """Leaves all that there is out of garbage collection from now on, and begins to collect.

    Nearly everything is freed when its last reference goes. To find the rest, Python would look
    through all that it has imported now and then: up to a tenth of the daemon's time. To be called
    when the daemon is ready to serve.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Has cycles looked for less often meanwhile, however many do so at a time. For one thread.

    For what makes objects by the ten thousand that stay until it ends, and no cycles: to look
    through all of them again and again was a sixth of a commit of new files.
    """
    global _now_seldom, _usual  # noqa: PLW0603  (the collector is one for all)
    if not _now_seldom:
        _usual = gc.get_threshold()
        gc.set_threshold(_SELDOM, *_usual[1:])
    _now_seldom += 1
    try:
        yield
    finally:
        _now_seldom -= 1
        if not _now_seldom:
            gc.set_threshold(*_usual)
