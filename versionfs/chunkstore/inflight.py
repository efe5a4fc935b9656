"""Requests for granules of packs: each granule once at a time, what is waited for first."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Final

from versionfs.chunkstore.diskcache import GRANULE_BYTES
from versionfs.chunkstore.workers import Workers
from versionfs.errors import StorageError, StorageTransientError, VersionFSError, let_go
from versionfs.types import PackId

log = logging.getLogger(__name__)

RUN_GRANULES: Final = 64
"""A request that somebody waits for is for 4 MiB at most: so that many run side by side."""
AHEAD_GRANULES: Final = 148
"""A prefetch is for 9.25 MiB at most: requests take processor time, here and in the server. More is
split into equal parts, so that no small request is left over: a pack of 33 MiB into four."""
_GAP_GRANULES: Final = 2
"""Up to 128 KiB that nobody wants are fetched rather than sending another request."""
IN_FLIGHT_BYTES: Final = 80 * 1024 * 1024
"""Of requests that run, and of what arrived but is not on disk yet: the disk may be slower for a
moment, and writing must not keep a connection idle."""
_CLOSE_SECONDS: Final = 5.0

Data = bytes | memoryview


class Fetch:
    """One request: ``count`` granules of a pack from ``first`` on."""

    __slots__ = (
        "_future", "_is_forgotten", "_keeping", "count", "first", "is_demanded", "is_started",
        "pack", "token",
    )  # fmt: skip

    def __init__(
        self, pack: PackId, first: int, count: int, *, is_demanded: bool, token: object
    ) -> None:
        self.pack = pack
        self.first = first
        self.count = count
        self.token = token
        self.is_demanded = is_demanded
        self.is_started = False
        self._future: Future[Data] = Future()
        self._keeping = threading.Lock()
        self._is_forgotten = False

    def granule(self, number: int) -> memoryview:
        """Waits, and returns a granule; it is short, or empty, where the pack ends."""
        try:
            data = self._future.result()
        except CancelledError as error:
            raise StorageTransientError("the store was closed meanwhile") from error
        at = (number - self.first) * GRANULE_BYTES
        return memoryview(data)[at : at + GRANULE_BYTES]

    def run(self, get: Callable[[Fetch], Data]) -> Data | None:
        """Sends the request and tells those who wait; None if it failed or was dropped."""
        if not self._future.set_running_or_notify_cancel():
            return None
        try:
            data = get(self)
        except BaseException as error:  # noqa: BLE001  (goes to whoever waits)
            if isinstance(error, VersionFSError):
                let_go(error)  # The future holds it, and this frame the future and a buffer.
            self._future.set_exception(error)
            if not self.is_demanded:
                log.debug("a prefetch failed: %s", error)
            return None
        self._future.set_result(data)
        return data

    @property
    def store_failed(self) -> bool:
        """Whether the store, rather than this one object, is in trouble."""
        return not self._future.cancelled() and isinstance(self._future.exception(), StorageError)

    def fail(self, error: StorageError) -> None:
        """Ends a request that was never sent, as another failed for the sake of the store."""
        if self._future.set_running_or_notify_cancel():
            self._future.set_exception(error)

    @property
    def transient_error(self) -> StorageTransientError | None:
        """That the store could not be reached, for as long as it was tried; None if it was."""
        error = None if self._future.cancelled() else self._future.exception()
        return error if isinstance(error, StorageTransientError) else None

    def drop(self) -> None:
        """Ends a request that was never sent; does nothing to others."""
        self._future.cancel()

    @property
    def was_sent(self) -> bool:
        """Whether the request runs, or ended."""
        return self._future.running() or self._future.done()

    def keep(self, data: Data, store: Callable[[Fetch, Data], None]) -> None:
        """Has the bytes put into a cache by ``store``, unless they are to be forgotten."""
        with self._keeping:
            if not self._is_forgotten:
                store(self, data)

    def forget(self) -> None:
        """Lets nobody keep the bytes from here on; waits for who is at it."""
        with self._keeping:
            self._is_forgotten = True


class InFlight:
    """The requests that wait or run, in threads of its own. Thread-safe.

    ``connections`` run at once at most, and 80 MiB; a part of the connections is kept for what
    somebody waits for. ``get`` sends a request. ``arrived`` gets its bytes while the granules still
    count as under way; ``is_here`` tells of a granule whether it arrived just now, so that nobody
    fetches it again who looked for it too early. ``holds`` is told the bytes that are on their way,
    and whether nothing is written any more either.
    What ``get`` puts into a cache goes there by way of :meth:`Fetch.keep`, as what ``arrived``
    gets.
    """

    def __init__(
        self,
        get: Callable[[Fetch], Data],
        arrived: Callable[[Fetch, Data], None],
        is_here: Callable[[PackId, int], bool],
        holds: Callable[[int, bool], None],
        connections: int,
    ) -> None:
        self._get = get
        self._arrived = arrived
        self._is_here = is_here
        self._holds = holds
        self._connections = connections
        self._background = max(1, connections - max(1, connections // 8))
        self._by_granule: dict[tuple[bytes, int], Fetch] = {}
        self._demanded: deque[Fetch] = deque()
        self._prefetched: deque[Fetch] = deque()
        self._connected = self._running = self._running_bytes = 0
        self._awaited_bytes = 0
        self._closed = False
        self._idle = threading.Condition()
        # Twice as many threads as connections: those that write what arrived have none.
        self._threads = Workers(2 * connections, "fetch")

    def ask(
        self, pack: PackId, granules: Sequence[int], *, demand: bool, token: object = None
    ) -> list[Fetch]:
        """Returns the requests that bring these granules: those under way, new ones for the rest.

        ``granules`` are sorted; those that arrived just now are left out. Neighbours share a
        request. With ``demand`` they go before all prefetches.

        Raises:
            StorageTransientError: it is closed.
        """
        found: dict[int, Fetch] = {}
        with self._idle:
            if self._closed:
                raise StorageTransientError("the store is closed")
            rest = []
            for number in granules:
                fetch = self._by_granule.get((pack, number))
                if fetch is None:
                    if not self._is_here(pack, number):
                        rest.append(number)
                elif id(fetch) not in found:
                    found[id(fetch)] = fetch
                    if demand and not fetch.is_demanded:
                        self._promote(fetch)
            queue = self._demanded if demand else self._prefetched
            most = RUN_GRANULES if demand else AHEAD_GRANULES
            for first, count in self._runs(pack, rest, most):
                fetch = Fetch(pack, first, count, is_demanded=demand, token=token)
                found[id(fetch)] = fetch
                for number in range(first, first + count):
                    self._by_granule[pack, number] = fetch
                queue.append(fetch)
            self._pump()
        return list(found.values())

    def tell(self) -> None:
        """Calls ``holds``."""
        with self._idle:
            self._holds(self._awaited_bytes, self._running == 0)

    def cancel(self, token: object) -> None:
        """Drops the prefetches of this token that have not begun and nobody waits for."""
        with self._idle:
            self._drop([fetch for fetch in self._prefetched if fetch.token is token])

    def forget(self, pack: PackId) -> None:
        """Lets what was sent for a pack be sent again when it is asked for: its bytes are damaged.

        Who waits gets what comes, and finds out by itself. When this returns, nothing of it is put
        into a cache any more.
        """
        with self._idle:
            doubted = {f for f in self._by_granule.values() if f.pack == pack and f.was_sent}
            for fetch in doubted:
                self._done(fetch)
        for fetch in doubted:
            fetch.forget()

    def close(self) -> None:
        """Drops what has not begun and waits, a few seconds, for what has; idempotent."""
        with self._idle:
            self._closed = True
            self._drop([*self._demanded, *self._prefetched])
            self._idle.wait_for(lambda: not self._running, _CLOSE_SECONDS)
        self._threads.close()
        with self._idle:
            # Those that a thread was to send, and now none will: who waits must not do so for ever.
            for fetch in set(self._by_granule.values()):
                fetch.drop()

    # -- under the lock --------------------------------------------------------------------------

    def _runs(self, pack: PackId, granules: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
        """Yields (first, count) of the requests to send for granules that are not under way."""
        spans: list[tuple[int, int]] = []
        for number in granules:
            if spans:
                first, end = spans[-1]
                gap = range(end, number)
                if len(gap) <= _GAP_GRANULES and all(
                    (pack, between) not in self._by_granule for between in gap
                ):
                    spans[-1] = (first, number + 1)
                    continue
            spans.append((number, number + 1))
        for first, end in spans:
            parts = -(-(end - first) // most)
            step = -(-(end - first) // parts)
            for begin in range(first, end, step):
                yield begin, min(step, end - begin)

    def _promote(self, fetch: Fetch) -> None:
        fetch.is_demanded = True
        if not fetch.is_started:
            self._prefetched.remove(fetch)
            self._demanded.append(fetch)

    def _drop(self, fetches: Iterable[Fetch]) -> None:
        for fetch in fetches:
            (self._demanded if fetch.is_demanded else self._prefetched).remove(fetch)
            self._done(fetch)
            fetch.drop()

    def _done(self, fetch: Fetch) -> None:
        for number in range(fetch.first, fetch.first + fetch.count):
            if self._by_granule.get((fetch.pack, number)) is fetch:
                del self._by_granule[fetch.pack, number]

    def _pump(self) -> None:
        while self._connected < self._connections:
            if self._demanded:
                queue = self._demanded
            elif self._prefetched and self._connected < self._background:
                queue = self._prefetched
            else:
                return
            size = queue[0].count * GRANULE_BYTES
            if self._running and self._running_bytes + size > IN_FLIGHT_BYTES:
                return
            fetch = queue.popleft()
            fetch.is_started = True
            try:
                self._threads.submit(partial(self._run, fetch))
            except StorageTransientError as error:
                self._done(fetch)
                fetch.fail(error)
                continue
            # In time for the thread: what it counts down at its end, it does under the lock.
            self._connected += 1
            self._running += 1
            self._running_bytes += size
            self._awaited_bytes += size
            self._holds(self._awaited_bytes, self._running == 0)

    def _run(self, fetch: Fetch) -> None:
        """Sends one request. Runs in a worker thread."""
        data = None
        try:
            try:
                data = fetch.run(self._get)
            finally:
                with self._idle:
                    self._connected -= 1
                    self._awaited_bytes -= fetch.count * GRANULE_BYTES
                    self._holds(self._awaited_bytes, self._running == 0)
                    if not self._closed and data is not None:
                        self._pump()
            if data is not None:
                fetch.keep(data, self._arrived)
        finally:
            with self._idle:
                self._done(fetch)
                self._running -= 1
                self._running_bytes -= fetch.count * GRANULE_BYTES
                self._holds(self._awaited_bytes, self._running == 0)
                if data is None and fetch.store_failed:
                    # The others would each wait for the store until their time is up.
                    self._drop(list(self._prefetched))
                    # Those who wait were as long without the store as this one.
                    error = fetch.transient_error
                    while error is not None and self._demanded:
                        waiting = self._demanded.popleft()
                        self._done(waiting)
                        waiting.fail(error)
                if not self._closed:
                    self._pump()
                self._idle.notify_all()
