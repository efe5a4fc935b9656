"""A store that behaves as if it were behind a network: counted requests, each taking a while."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from versionfs.objectstore import (
    LocalStore,
    ObjectInfo,
    RequestStatistics,
    Version,
    may_block,
)


class RemoteFolder:
    """A ``LocalStore`` with ``is_local`` false. Thread-safe.

    ``requests`` counts by operation, ``ranges`` holds (key, start, length) of each ``get``,
    ``most_at_once`` how many requests ran at the same time at most; ``latency`` is in seconds.
    """

    def __init__(self, root: Path, latency: float = 0.0) -> None:
        self.inner = LocalStore(root)
        self.latency = latency
        self.requests: Counter[str] = Counter()
        self.ranges: list[tuple[str, int, int | None]] = []
        self.received = 0
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return "s3://" + str(self.inner.root).strip("/")

    @property
    def is_local(self) -> bool:
        return False

    def _request(self, kind: str) -> None:
        if not may_block():
            raise AssertionError(f"a {kind} request on a thread that must not block")
        with self._lock:
            self.requests[kind] += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self.latency)
        with self._lock:
            self._now -= 1

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self._request("get")
        data = self.inner.get(key, start, length)
        with self._lock:
            self.ranges.append((key, start, length))
            self.received += len(data)
        return data

    def size(self, key: str) -> int:
        self._request("head")
        return self.inner.size(key)

    def put(self, key: str, data: bytes | memoryview) -> None:
        self._request("put")
        self.inner.put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        self._request("put")
        self.inner.put_file(key, path)

    def temporary(self) -> Path:
        return self.inner.temporary()

    def clean_temporary(self) -> int:
        return self.inner.clean_temporary()

    def read(self, key: str) -> tuple[bytes, Version]:
        self._request("get")
        return self.inner.read(key)

    def read_if_changed(self, key: str, known: Version) -> tuple[bytes, Version] | None:
        self._request("get")
        return self.inner.read_if_changed(key, known)

    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        self._request("put")
        return self.inner.replace(key, data, expected)

    def remove(self, key: str, expected: Version | None = None) -> None:
        self._request("delete")
        self.inner.remove(key, expected)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._request("list")
        yield from self.inner.list(prefix)

    def folders(self, prefix: str) -> Sequence[str]:
        self._request("list")
        return self.inner.folders(prefix)

    def statistics(self) -> RequestStatistics:
        return RequestStatistics(dict(self.requests), self.received)


class FillingFolder(RemoteFolder):
    """A ``RemoteFolder`` that reads into memory that the caller has, as S3 does."""

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        data = self.get(key, start, len(buffer))
        buffer[: len(data)] = data
        return len(data)
