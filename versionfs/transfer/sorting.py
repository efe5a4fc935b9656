"""Sorts more than fits in memory: sorted runs go to temporary files, then are merged."""

from __future__ import annotations

import heapq
import marshal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO, Any, Final

RUN_ITEMS: Final = 200_000
_BLOCK_ITEMS: Final = 1000


def external_sort(items: Iterable[Any], run_items: int = RUN_ITEMS) -> Iterator[Any]:
    """Takes all items at once and returns them sorted, with ``run_items`` in memory at most.

    Items are bytes, or tuples of what marshal knows. Temporary files are unnamed, so that a
    killed process leaves none.
    """
    runs: list[IO[bytes]] = []
    rest = iter(items)
    while len(pending := list(islice(rest, run_items))) == run_items:
        runs.append(_spill(pending))
    pending.sort()
    return _merge(runs, pending) if runs else iter(pending)


def _merge(runs: list[IO[bytes]], last: list[Any]) -> Iterator[Any]:
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(run)
        yield from heapq.merge(*(_load(run) for run in runs), last)


def _spill(items: list[Any]) -> IO[bytes]:
    import tempfile

    items.sort()
    run = tempfile.TemporaryFile(prefix="versionfs-")  # noqa: SIM115 (closed by _merge)
    for at in range(0, len(items), _BLOCK_ITEMS):
        marshal.dump(items[at : at + _BLOCK_ITEMS], run)
    run.flush()
    run.seek(0)
    items.clear()  # Before the next ones are there.
    return run


def _load(run: IO[bytes]) -> Iterator[Any]:
    while True:
        try:
            block = marshal.load(run)
        except EOFError:
            return
        yield from block
