"""Memory that costs the same for all who are measured, on a virtual machine too."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

_REPORTING: Final = Path("/sys/module/page_reporting/parameters/page_reporting_order")
"""From which order on free blocks of memory are given back to the host of a virtual machine."""

_NEVER: Final = "11"
"""An order that no block has."""

_RECLAIM: Final = "/sys/kernel/mm/damon/admin"
"""Where the kernel is told to let go of memory that nobody seems to use."""

_WANTED: Final = 8 << 30
"""Bytes: more than what is measured ever needs. What was let go of last is taken first."""


@contextmanager
def steady_memory() -> Iterator[None]:
    """Has the machine keep its memory meanwhile, free or not; takes root.

    A virtual machine may give back to its host what has been free for a second. The first write
    to such memory then waits for the host, for a multiple of what a copy takes: who is measured
    after a pause, or needs more of the page cache, would pay for that.

    And its kernel may let go of pages of files that were not mapped for a minute, as if nobody had
    read them (DAMON): who is measured warm would then be cold in parts, at random.
    """
    with ExitStack() as stack:
        for path in Path(_RECLAIM).glob("kdamonds/*/state"):
            if path.read_text() == "on\n":
                stack.enter_context(_set(path, "off"))
        if _REPORTING.exists():
            stack.enter_context(_set(_REPORTING, _NEVER))
            _touch(min(_WANTED, _free() // 2))
        yield


@contextmanager
def _set(path: Path, value: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


def _free() -> int:
    """Returns how many bytes of memory hold nothing."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":") for line in lines)
    return int(fields["MemFree"].split()[0]) * 1024


def _touch(size: int) -> None:
    """Takes memory from the host, and lets go of it."""
    if size > 0:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, size, flags=flags).close()
