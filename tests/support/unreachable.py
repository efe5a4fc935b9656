"""Stores behind a network that can be cut off."""

from __future__ import annotations

from pathlib import Path

from tests.mount.support import settings_at
from tests.support.remote import RemoteFolder
from versionfs.errors import StorageTransientError
from versionfs.repo import Store, StoreFormat
from versionfs.repo.format import FORMAT_KEY


class Unreachable(RemoteFolder):
    """A ``RemoteFolder`` that fails while ``down``."""

    down = False

    def _request(self, kind: str) -> None:
        super()._request(kind)
        if self.down:
            raise StorageTransientError("no answer")


def remote_store(folder: Path, home: Path) -> Store:
    """Returns the store in a folder as another machine, with a home of its own, sees it."""
    objects = Unreachable(folder)
    store_format = StoreFormat.decode(objects.inner.get(FORMAT_KEY), "there")
    return Store(settings_at(home), objects, store_format)


def link_of(store: Store) -> Unreachable:
    assert isinstance(store.objects, Unreachable)
    return store.objects
