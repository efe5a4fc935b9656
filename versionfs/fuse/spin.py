"""A short spin before sleep: three times the requests per second (PERFORMANCE.md).

Waking a sleeping thread costs more than serving a request. A client that just got an answer often
asks again within microseconds, so the daemon polls its descriptor for a moment before it goes to
sleep in trio. pyfuse3 takes its loop primitives from the module attribute ``pyfuse3.trio``, which
its own asyncio support replaces too; :func:`enable` puts a stand-in there.

The rules it keeps: it spins only right after a request was served, so an idle mount sleeps; it lets
other tasks run at least every ``YIELD_NS``; when spins keep failing it all but stops; and it never
spins where there is only one processor. One mount per process.
"""

from __future__ import annotations

import os
import select
from time import perf_counter_ns
from types import TracebackType
from typing import Final

import pyfuse3
import trio

SPIN_NS: Final = 30_000
"""Covers the time from an answer to the next request of a client that does little in between."""

YIELD_NS: Final = 1_000_000
_PATIENCE: Final = 16
"""Failed spins in a row after which only one in ``_RARELY`` is tried."""
_RARELY: Final = 16


class SpinLock:
    """A lock without checkpoint when it is free; the one who frees it may take it again at once.

    So one worker serves requests in a row without a task switch. The one that waits runs when that
    worker sleeps or waits for a thread, and then finds the lock free or waits again.
    """

    def __init__(self) -> None:
        self._held = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._held:
            await self._waiting.park()
        self._held = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held = False
        if self._waiting:
            self._waiting.unpark()


class SpinningLowlevel:
    """The part of ``trio.lowlevel`` that pyfuse3 uses."""

    current_task = staticmethod(trio.lowlevel.current_task)
    current_trio_token = staticmethod(trio.lowlevel.current_trio_token)

    def __init__(self, processors: int) -> None:
        self._spins = processors > 1
        self._poll = select.poll()
        self._descriptor = -1
        self._closing = False
        self._misses = 0
        self._last_yield = 0

    def notify_closing(self, descriptor: int) -> None:
        """Ends the waits on a descriptor, those to come as well."""
        self._closing = True
        trio.lowlevel.notify_closing(descriptor)

    async def wait_readable(self, descriptor: int) -> None:
        """Waits until the descriptor is readable."""
        if descriptor != self._descriptor:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
            self._descriptor = descriptor
        now = perf_counter_ns()
        if now - self._last_yield > YIELD_NS:
            await trio.lowlevel.checkpoint()
            self._last_yield = now = perf_counter_ns()
        if self._closing:
            raise trio.ClosedResourceError
        if self._spins:
            poll = self._poll.poll
            if poll(0):
                return
            misses = self._misses
            if misses < _PATIENCE or misses % _RARELY == 0:
                deadline = now + SPIN_NS
                while perf_counter_ns() < deadline:
                    if poll(0):
                        self._misses = 0
                        return
            self._misses = misses + 1
        await trio.lowlevel.wait_readable(descriptor)
        self._last_yield = perf_counter_ns()


class SpinningTrio:
    """Stands in for the module trio in pyfuse3."""

    ClosedResourceError = trio.ClosedResourceError
    Lock = SpinLock
    open_nursery = staticmethod(trio.open_nursery)

    def __init__(self, processors: int) -> None:
        self.lowlevel = SpinningLowlevel(processors)


def is_useful() -> bool:
    """Whether there is a processor for a client while this process spins."""
    return len(os.sched_getaffinity(0)) > 1


def enable(processors: int | None = None) -> None:
    """Lets pyfuse3 spin from now on; before ``pyfuse3.init``.

    ``processors`` is how many this process may use, None to ask the system.
    """
    count = len(os.sched_getaffinity(0)) if processors is None else processors
    pyfuse3.trio = SpinningTrio(count)  # type: ignore[attr-defined]


def disable() -> None:
    """Undoes :func:`enable`."""
    pyfuse3.trio = trio  # type: ignore[attr-defined]
