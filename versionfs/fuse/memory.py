"""How the daemon uses memory: what is freed stays with it, and modules are no garbage."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_KEPT_BYTES: Final = 32 * 1024 * 1024
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_HEAPS: Final = 4


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
