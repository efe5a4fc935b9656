"""What ``df`` is told: the disk that the store is on, and how many files the mount shows."""

from __future__ import annotations

import os
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from versionfs.repo import Store
from versionfs.vfs.resolver import Resolver

NAME_MAX: Final = 255


class Space(NamedTuple):
    """Numbers for statvfs: blocks are of ``block_bytes`` bytes."""

    block_bytes: int
    blocks: int
    free: int
    available: int
    files: int


class SpaceCounter:
    """Tells the space of a store. Thread-safe; may block."""

    def __init__(self, store: Store, resolver: Resolver) -> None:
        self._store = store
        self._resolver = resolver
        self._counted: dict[str, tuple[str, int]] = {}

    def space(self, repositories: list[str] | None, files: int | None) -> Space:
        """Returns the space now.

        ``files`` is how many files the mount shows, None to count those of all branches of
        ``repositories`` (None: of the store).
        """
        if files is None:
            names = self._store.repositories() if repositories is None else repositories
            files = sum(self._count(name) for name in names)
        url = urlsplit(self._store.url)
        if url.scheme not in ("", "file"):
            return Space(4096, 0, 0, 0, files)
        disk = os.statvfs(unquote(url.path))
        return Space(disk.f_frsize, disk.f_blocks, disk.f_bfree, disk.f_bavail, files)

    def _count(self, name: str) -> int:
        repository = self._resolver.repository(name)
        if repository is None:
            return 0
        version = repository.refs_version()
        known = self._counted.get(name)
        if known is not None and known[0] == version:
            return known[1]
        heads = [ref.commit for ref in repository.branches().values()]
        files = sum(repository.commit(head).root.files for head in heads)
        self._counted[name] = (version, files)
        return files
