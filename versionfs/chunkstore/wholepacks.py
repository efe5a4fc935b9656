"""Whether packs that the index knows are in a local store as they were put there."""

from __future__ import annotations

import logging

from versionfs.errors import NotFoundError
from versionfs.index import ChunkIndex, IndexDamagedError
from versionfs.objectstore import ObjectStore
from versionfs.pack import pack_key
from versionfs.types import PackId

log = logging.getLogger(__name__)


class WholePacks:
    """Looks at each pack once, before anything is deduplicated against it. For one thread.

    A sync may have left it unlisted (:mod:`versionfs.chunkstore.folders`). Behind a network it has
    listed all, and to ask for one costs a request: they count as whole.
    """

    def __init__(self, objects: ObjectStore, index: ChunkIndex) -> None:
        self._objects = objects
        self._index = index
        self._found: dict[bytes, bool] = {}

    def has(self, pack: PackId) -> bool:
        """Whether a pack is there, and has its size. One that has not is forgotten, and logged.

        Raises:
            StorageError: the store cannot be read.
        """
        found = self._found.get(pack)
        if found is None:
            found = self._found[pack] = not self._objects.is_local or self._is_whole(pack)
        return found

    def _is_whole(self, pack: PackId) -> bool:
        try:
            size = self._index.size_of(pack)
            if size is None:
                return False  # The index was made anew meanwhile.
            try:
                if self._objects.size(pack_key(pack)) == size:
                    return True
            except NotFoundError:
                pass
            log.warning(
                "a pack is gone from the store or damaged: %s; not deduplicating against it",
                pack.hex(),
            )
            self._index.forget_packs([pack])
        except IndexDamagedError:
            pass
        return False
