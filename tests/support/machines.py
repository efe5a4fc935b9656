"""Machines that share a store behind a network: each has a home, and so an index, of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.remote import RemoteFolder
from tests.support.stores import settings_in
from versionfs.chunking import ChunkingParameters
from versionfs.repo import Store
from versionfs.repo.format import FORMAT_KEY, StoreFormat


class CountingFolder(RemoteFolder):
    """A ``RemoteFolder`` that counts what is sent too, and fails where ``fail`` says so.

    ``fail(operation, key)`` may raise; ``kept`` are the keys put, in the order of their end.
    """

    def __init__(self, root: Path, latency: float = 0.0) -> None:
        super().__init__(root, latency)
        self.sent = 0
        self.kept: list[str] = []
        self.fail: Callable[[str, str], None] = lambda _operation, _key: None

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        self.fail("get", key)
        return super().get(key, start, length)

    def put(self, key: str, data: bytes | memoryview) -> None:
        self.fail("put", key)
        super().put(key, data)
        self.sent += len(data)
        self.kept.append(key)

    def put_file(self, key: str, path: Path) -> None:
        self.fail("put", key)
        size = path.stat().st_size
        super().put_file(key, path)
        self.sent += size
        self.kept.append(key)

    def replace(self, key: str, data: bytes, expected: Any) -> Any:
        self.fail("replace", key)
        version = super().replace(key, data, expected)
        self.kept.append(key)
        return version

    def forget(self) -> None:
        """Counts from zero again."""
        self.requests.clear()
        self.ranges.clear()
        self.kept.clear()
        self.received = self.sent = self.most_at_once = 0


def machine(
    home: Path, root: Path, *, latency: float = 0.0, chunking: ChunkingParameters | None = None
) -> tuple[Store, CountingFolder]:
    """Opens the store in ``root``, as if behind a network, for the machine whose home it is.

    The store is made when it is missing.
    """
    objects = CountingFolder(root, latency)
    settings = settings_in(home, store=root)
    if not (root / FORMAT_KEY).exists():
        Store.create(settings, chunking).close()
    store_format = StoreFormat.decode((root / FORMAT_KEY).read_bytes(), str(root))
    return Store(settings, objects, store_format), objects
