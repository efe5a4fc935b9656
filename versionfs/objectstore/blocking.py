"""Threads that must not wait for a server: the event loop of a mount.

Code below the mount reads through caches. On a thread that may not block, what is in no cache is
answered by :class:`WouldBlock`; the caller runs its ``fetch`` in another thread, which fills the
cache, and tries again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_state = threading.local()


class WouldBlock(Exception):  # noqa: N818  (not an error: it asks for something)
    """What was asked for must be fetched first. ``fetch`` does that; it blocks."""

    def __init__(self, fetch: Callable[[], object]) -> None:
        super().__init__()
        self.fetch = fetch


@contextmanager
def never_blocking() -> Iterator[None]:
    """Within it, this thread gets :class:`WouldBlock` instead of waiting for a server."""
    before = may_block()
    _state.may_block = False
    try:
        yield
    finally:
        _state.may_block = before


def may_block() -> bool:
    """Whether this thread may wait for a server."""
    return getattr(_state, "may_block", True)
