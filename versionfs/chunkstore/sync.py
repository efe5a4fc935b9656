"""Brings the index in line with the packs that are in the store.

This is all of "rebuilding": an empty index lacks every pack, an index beside another machine's
writes lacks some, and one whose store lost packs has some too many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from versionfs.errors import CorruptionError, NotFoundError
from versionfs.index import ChunkIndex, IndexDamagedError
from versionfs.objectstore import ObjectStore
from versionfs.pack import PackKind, pack_key, read_index
from versionfs.types import PackId

log = logging.getLogger(__name__)


def packs_in_store(objects: ObjectStore) -> dict[bytes, int]:
    """Returns the id and size in bytes of each pack in the store."""
    packs: dict[bytes, int] = {}
    for info in objects.list("packs/"):
        name = info.key.rsplit("/", 1)[-1]
        try:
            pack = bytes.fromhex(name)
        except ValueError:
            continue
        if len(pack) == 32:
            packs[pack] = info.size
    return packs


def sync_index(
    objects: ObjectStore,
    index: ChunkIndex,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Adds packs that the index lacks, forgets those that are gone; returns how many were added.

    A pack whose index cannot be read is left out and logged: nothing is deduplicated against it.
    ``progress`` is called with the packs done and their number.
    """
    # First what is known, then what is there: a pack that comes in between is indexed once more,
    # the other way round it would count as gone.
    try:
        known = index.known_packs()
    except IndexDamagedError:
        known = {}
    present = packs_in_store(objects)
    # One of another size is damaged: nothing may be deduplicated against it.
    gone = {pack for pack, size in known.items() if present.get(pack) != size}
    if gone:
        log.warning(
            "packs that are gone from the store or damaged: %d; not deduplicating against them",
            len(gone),
        )
        index.forget_packs(gone)
    missing = sorted(present.keys() - known)
    for done, pack in enumerate(missing):
        if progress is not None:
            progress(done, len(missing))
        try:
            _add(objects, index, PackId(pack), present[pack])
        except (CorruptionError, NotFoundError) as error:
            log.error("leaving a pack out of the index: %s", error)
    if missing:
        log.info("indexed %d packs", len(missing))
    return len(missing)


def _add(objects: ObjectStore, index: ChunkIndex, pack: PackId, size: int) -> None:
    key = pack_key(pack)
    listing = read_index(pack, size, lambda start, length: objects.get(key, start, length))
    if listing.kind is PackKind.METADATA:
        index.add_pack(pack, (), ((e.id + e.stamp, e.location) for e in listing), size_bytes=size)
    else:
        index.add_pack(pack, ((e.id, e.location) for e in listing), size_bytes=size)
