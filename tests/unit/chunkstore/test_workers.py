"""Threads in the background, where the system has no more of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from versionfs.chunkstore.workers import Workers
from versionfs.errors import StorageTransientError


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(2, "test")
    yield workers
    workers.close()


def _start(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_job_that_no_thread_comes_to_is_refused(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _start)
        with pytest.raises(StorageTransientError, match="no thread can be started"):
            workers.submit(lambda: done.append("refused"))
    finished = threading.Event()
    workers.submit(lambda: done.append("taken"))
    workers.submit(finished.set)
    assert finished.wait(20)
    assert "refused" not in done


def test_a_thread_that_runs_comes_to_what_no_other_can_be_started_for(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, finished = threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        go.wait(20)

    workers.submit(job)
    assert begun.wait(20)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _start)
        workers.submit(finished.set)
    go.set()
    assert finished.wait(20)
