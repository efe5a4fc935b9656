"""Requests under way, where the store is closed before they begin."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from versionfs.chunkstore import inflight
from versionfs.chunkstore.diskcache import GRANULE_BYTES
from versionfs.chunkstore.inflight import Fetch, InFlight
from versionfs.chunkstore.workers import Workers
from versionfs.errors import StorageTransientError
from versionfs.types import PackId


def _holds(_bytes: int, _idle: bool) -> None:
    pass


def test_a_request_that_no_thread_came_to_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inflight, "_CLOSE_SECONDS", 0.0)
    hold, begun = threading.Event(), threading.Semaphore(0)

    def get(_fetch: Fetch) -> bytes:
        begun.release()
        hold.wait(30)
        return b"x"

    requests = InFlight(get, lambda _fetch, _data: None, lambda _pack, _number: False, _holds, 2)
    # As if the threads were busy writing what arrived.
    requests._threads.close()
    requests._threads = Workers(1, "fetch")
    try:
        (first,) = requests.ask(PackId(b"a" * 32), [0], demand=True)
        (second,) = requests.ask(PackId(b"b" * 32), [0], demand=True)
        begun.acquire()
        assert second.is_started
        requests.close()
        outcome = []

        def wait() -> None:
            try:
                second.granule(0)
            except StorageTransientError:
                outcome.append("told")

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        waiting.join(20)
        assert outcome == ["told"]
    finally:
        hold.set()
    assert bytes(first.granule(0)) == b"x", "what had begun is brought to its end"


def test_what_waits_behind_a_store_that_is_away_fails_with_it() -> None:
    hold = threading.Event()
    sent = []

    def get(fetch: Fetch) -> bytes:
        sent.append(fetch.first)
        hold.wait(30)
        raise StorageTransientError("no answer")

    requests = InFlight(get, lambda _fetch, _data: None, lambda _pack, _number: False, _holds, 1)
    asked = [
        fetch
        for number in range(20)
        for fetch in requests.ask(PackId(bytes([number]) * 32), [0], demand=True)
    ]
    hold.set()
    for fetch in asked:
        with pytest.raises(StorageTransientError, match="no answer"):
            fetch.granule(0)
    requests.close()
    assert len(sent) == 1, "they do not each wait until their time is up"


def test_a_request_that_no_thread_can_be_started_for_fails_and_is_sent_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = InFlight(
        lambda _fetch: b"x",
        lambda _fetch, _data: None,
        lambda _pack, _number: False,
        _holds,
        2,
    )

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for demand in (True, False):
            (fetch,) = requests.ask(PackId(b"a" * 32), [0], demand=demand)
            with pytest.raises(StorageTransientError, match="no thread can be started"):
                fetch.granule(0)
    (fetch,) = requests.ask(PackId(b"a" * 32), [0], demand=True)
    assert bytes(fetch.granule(0)) == b"x"
    requests.close()
    assert (requests._connected, requests._running, requests._running_bytes) == (0, 0, 0)


def test_a_request_that_failed_holds_no_memory() -> None:
    """Its error would hold the frame that had the buffer, until cycles are looked for."""
    made: list[weakref.ref[bytearray]] = []
    ended = threading.Semaphore(0)

    class Memory(bytearray):
        pass

    def get(_fetch: Fetch) -> bytes:
        memory = Memory(100)
        made.append(weakref.ref(memory))
        try:
            raise OSError("the cable is out")
        except OSError as error:
            raise StorageTransientError("the store is away") from error

    requests = InFlight(
        get, lambda _fetch, _data: None, lambda _pack, _number: False, lambda *_: ended.release(), 2
    )
    gc.disable()
    try:
        for number in range(4):
            requests.ask(PackId(b"a" * 32), [number], demand=False)
            for _ in range(3):  # It is sent, has failed, and is over.
                assert ended.acquire(timeout=20)
        requests.close()
        assert len(made) == 4
        assert [memory() for memory in made] == [None] * 4
    finally:
        gc.enable()


def test_what_arrived_and_is_being_written_is_not_on_its_way_any_more() -> None:
    """What is kept in memory counts it already."""
    told: list[tuple[int, bool]] = []

    def holds(awaited: int, idle: bool) -> None:
        told.append((awaited, idle))

    arriving, written = threading.Event(), threading.Event()

    def arrived(_fetch: Fetch, _data: object) -> None:
        arriving.set()
        assert written.wait(20)

    requests = InFlight(
        lambda fetch: bytes(fetch.count * GRANULE_BYTES),
        arrived,
        lambda _pack, _number: False,
        holds,
        2,
    )
    requests.ask(PackId(b"a" * 32), [0, 1], demand=True)
    assert arriving.wait(20)
    assert told == [(2 * GRANULE_BYTES, False), (0, False)]
    assert requests._running_bytes == 2 * GRANULE_BYTES
    written.set()
    requests.close()
    assert requests._running_bytes == 0
    assert told[2:] == [(0, True)]
