"""Brings the index in line with the packs in the store: adds what others wrote.

What is new is looked up in index segments first, thousands of packs for one request; only packs in
no segment are asked for their own index.

A segment vouches for its metadata: whatever that names was in the store before. A metadata pack in
no segment may be of a writer that was killed, or of a clone that is not complete, and name packs
that are not there; its objects are of no use to others. A chunk names nothing.

Once a pack is lost, any metadata may name it, whoever vouched for it. So while a pack that was
known or that a segment names is absent, no metadata of others is taken, and what was is forgotten:
what is imported again is then written again, and names what is there.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Final

from versionfs.chunkstore.folders import Folders, folder_key, look, look_again
from versionfs.chunkstore.parallel import in_order
from versionfs.chunkstore.segments import SEGMENT_PREFIX, SegmentPack, decode_segment
from versionfs.errors import CorruptionError, NotFoundError, UnsupportedFormatError
from versionfs.index import ChunkIndex, IndexDamagedError
from versionfs.objectstore import LocalStore, ObjectStore
from versionfs.pack import HEADER_BYTES, PackIndex, PackKind, pack_key, read_index
from versionfs.syscalls import UNSEEN
from versionfs.types import PackId

log = logging.getLogger(__name__)

_TAIL_BYTES: Final = 256 * 1024
"""What is read at once of a pack's end behind a network: index and trailer of nearly all packs."""
_FIRST_PACKS: Final = 1000
"""One request lists so many."""
_FEW_FOLDERS: Final = 32
"""More than some commits and a small import change."""
_LARGE_SEGMENT_BYTES: Final = 1024 * 1024
_LARGE_SEGMENTS_AT_ONCE: Final = 4
"""They have 8 MiB and more. Most are of one small commit, and as many come as may."""

Progress = Callable[[int, int], None]


def packs_in_store(objects: ObjectStore, connections: int = 8) -> dict[bytes, int]:
    """Returns the id and size in bytes of each pack in the store.

    A listing is one request after the other. Of a large store the folders of packs are listed side
    by side, at most ``connections`` of them.
    """
    packs: dict[bytes, int] = {}
    for pack, size in _listed(objects, "packs/"):
        packs[pack] = size
        # Ids are spread evenly, so how far the first of them reach tells how many there are; there
        # are 256 folders, and a request at least for each.
        if len(packs) == _FIRST_PACKS and pack[0] + 1 < connections and not objects.is_local:
            folders = [f"packs/{first:02x}/" for first in range(pack[0], 256)]
            for found in in_order(lambda f: list(_listed(objects, f)), folders, connections):
                packs.update(found)
            break
    return packs


def _listed(objects: ObjectStore, prefix: str) -> Iterator[tuple[bytes, int]]:
    """Yields the packs below a prefix, sorted."""
    for info in objects.list(prefix):
        with contextlib.suppress(ValueError):
            pack = bytes.fromhex(info.key.rsplit("/", 1)[-1])
            if len(pack) == 32:
                yield pack, info.size


def sync_index(
    objects: ObjectStore,
    index: ChunkIndex,
    progress: Progress | None = None,
    *,
    connections: int = 8,
    quick: bool = False,
    ahead: bool = False,
) -> int:
    """Adds packs that the index lacks, forgets those that are gone; returns how many were added.

    ``quick`` leaves folders unlisted that are as they were, where the store is local. ``ahead`` is
    for who does not need it yet: it does nothing where that would not be quick.
    A pack whose index cannot be read is left out and logged: nothing is deduplicated against it.
    ``progress`` is called with the packs done and their number. At most ``connections`` requests go
    out at once.
    """
    generation = index.generation
    changed, remember = _changed(objects, index, quick=quick)
    if ahead and (changed is None or len(changed) > _FEW_FOLDERS):
        return 0
    # First what is known, then what is there: a pack that comes in between is indexed once more,
    # the other way round it would count as gone.
    try:
        known = index.known_packs(changed)
    except IndexDamagedError:
        known, changed = {}, None
    if changed is None:
        present = packs_in_store(objects, connections)
    else:
        present = dict(chain.from_iterable(_listed(objects, folder_key(at)) for at in changed))
    # One of another size is damaged: nothing may be deduplicated against it.
    gone = {pack for pack, size in known.items() if present.get(pack) != size}
    if gone:
        log.warning(
            "packs that are gone from the store or damaged: %d; not deduplicating against them",
            len(gone),
        )
        index.forget_packs(gone)
    _note_found(objects, index, present)
    missing = {pack: present[pack] for pack in sorted(present.keys() - known)}
    total = len(missing)
    if missing:
        _add_missing(objects, index, missing, present, progress, connections)
    if remember is not None and index.generation == generation:
        # Not before: what is in a folder that is as it was must be in the index.
        with contextlib.suppress(IndexDamagedError):
            remember()
    return total


def _add_missing(
    objects: ObjectStore,
    index: ChunkIndex,
    missing: dict[bytes, int],
    present: dict[bytes, int],
    progress: Progress | None,
    connections: int,
) -> None:
    """Adds packs that the index lacks, and takes them out of ``missing``."""
    total = len(missing)

    def report() -> None:
        if progress is not None:
            progress(total - len(missing), total)

    report()
    threads = 1 if objects.is_local else connections
    _add_segments(objects, index, missing, present, report, threads)
    _add_packs(objects, index, missing, report, threads)
    log.info("indexed %d packs", total)


def _changed(
    objects: ObjectStore, index: ChunkIndex, *, quick: bool
) -> tuple[list[int] | None, Callable[[], None] | None]:
    """Returns the folders of packs to look at, None for all; and what remembers them afterwards."""
    if not isinstance(objects, LocalStore):
        return None, None
    written, kept, lost = b"", b"", True
    with contextlib.suppress(IndexDamagedError):
        (written, kept), lost = index.folders(), bool(index.lost_packs())
    last, before = Folders.decode(written), Folders.decode(kept)
    packs, now_ns = objects.local_path("packs"), time.time_ns()
    changed: list[int] | None = None
    # While one is lost, all that are there have to be told from those that are not.
    if before is not None and quick and not lost and before.are_recent(now_ns):
        now, changed = look_again(packs, before)
        if now.top != before.top or now.top == UNSEEN:
            # A folder may have come and gone in between, with a pack that the index knows.
            try:
                gone = {pack[0] for pack in index.known_packs(now.missing())}
                changed = sorted({*changed, *gone})
            except IndexDamagedError:
                changed = None
    else:
        now = look(packs, now_ns)
    if last is None or not last.are_recent(now_ns) or last.is_worth_writing(now):
        return changed, partial(index.put_folders, now.encode())
    return changed, partial(index.keep_folders, written, now.encode())


def _note_found(objects: ObjectStore, index: ChunkIndex, present: dict[bytes, int]) -> None:
    """Notes lost packs that are back: whole, and not only with their name."""
    with contextlib.suppress(IndexDamagedError):
        back = index.lost_packs() & present.keys()
        whole = {pack for pack in back if _is_readable(objects, PackId(pack), present[pack])}
        if whole:
            index.found_packs(whole)


def _is_readable(objects: ObjectStore, pack: PackId, size: int) -> bool:
    try:
        _read_index(objects, pack, size)
    except (CorruptionError, NotFoundError, UnsupportedFormatError):
        return False
    return True


class _Losses:
    """The packs that segments name and the store has not."""

    def __init__(self, objects: ObjectStore, index: ChunkIndex, present: dict[bytes, int]) -> None:
        self._objects = objects
        self._index = index
        self._present = present
        try:
            self._known = index.lost_packs()
        except IndexDamagedError:
            self._known = set()
        self._more: set[bytes] = set()

    def any(self) -> bool:
        """Tells whether any pack is lost."""
        return bool(self._known)

    def look(self, pack: PackId, size: int) -> None:
        """Takes note of a pack that a segment names, with its size in bytes."""
        if self._present.get(pack) == size or pack in self._known:
            return
        if self._known:
            # Should it only be newer than the listing, the next sync finds it.
            self._more.add(bytes(pack))
            return
        if not self._has(pack, size):
            log.warning("a pack is gone or damaged: %s; using no metadata", pack.hex())
            self._index.forget_packs([pack])
            self._known.add(bytes(pack))

    def _has(self, pack: PackId, size: int) -> bool:
        try:
            return self._objects.size(pack_key(pack)) == size
        except NotFoundError:
            return False

    def keep(self) -> None:
        """Lets later syncs know."""
        if self._more:
            self._index.add_lost(self._more)


def _add_segments(
    objects: ObjectStore,
    index: ChunkIndex,
    missing: dict[bytes, int],
    present: dict[bytes, int],
    report: Callable[[], None],
    threads: int,
) -> None:
    """Adds what segments tell of missing packs, and takes those out of ``missing``."""
    try:
        read = index.segments()
    except IndexDamagedError:
        read = set()
    sizes = {
        info.key.removeprefix(SEGMENT_PREFIX): info.size for info in objects.list(SEGMENT_PREFIX)
    }
    new = [name for name in sizes if name not in read]
    small = [name for name in new if sizes[name] <= _LARGE_SEGMENT_BYTES]
    large = [name for name in new if sizes[name] > _LARGE_SEGMENT_BYTES]

    def fetch(name: str) -> tuple[str, bytes]:
        try:
            return name, objects.get(SEGMENT_PREFIX + name)
        except NotFoundError:
            return name, b""

    losses = _Losses(objects, index, present)
    # All of them, though nothing may be missing any more: the last may name a pack that is lost.
    for name, data in chain(
        in_order(fetch, large, min(threads, _LARGE_SEGMENTS_AT_ONCE)),
        in_order(fetch, small, threads),
    ):
        if not data:
            continue
        try:
            # A segment of packs that came after the listing tells of them in vain; they are then
            # asked for their own index. That is rare, and better than to read it again each time.
            _add(objects, index, decode_segment(data, name), missing, losses, report)
        except (CorruptionError, UnsupportedFormatError) as error:
            log.warning("reading the indexes of packs instead: %s", error)
        index.add_segment(name)
    losses.keep()


def _add(
    objects: ObjectStore,
    index: ChunkIndex,
    packs: Iterable[SegmentPack],
    missing: dict[bytes, int],
    losses: _Losses,
    report: Callable[[], None],
) -> None:
    for listing, size in packs:
        losses.look(listing.pack, size)
        if missing.get(listing.pack) == size and _is_there(objects, listing.pack, size):
            _add_rows(index, listing, size, vouched=not losses.any())
            del missing[listing.pack]
            report()


def _is_there(objects: ObjectStore, pack: PackId, size: int) -> bool:
    """Looks behind the listing where that costs nothing; S3 lists what is there, and no more."""
    try:
        return not objects.is_local or objects.size(pack_key(pack)) == size
    except NotFoundError:
        return False


def _add_packs(
    objects: ObjectStore,
    index: ChunkIndex,
    missing: dict[bytes, int],
    report: Callable[[], None],
    threads: int,
) -> None:
    """Adds missing packs by their own indexes."""

    def fetch(item: tuple[bytes, int]) -> tuple[bytes, PackIndex | None]:
        pack, size = item
        try:
            return pack, _read_index(objects, PackId(pack), size)
        except (CorruptionError, NotFoundError) as error:
            log.error("leaving a pack out of the index: %s", error)
            return pack, None

    for pack, listing in in_order(fetch, list(missing.items()), threads):
        size = missing.pop(pack)
        if listing is not None:
            _add_rows(index, listing, size, vouched=False)
        report()


def _read_index(objects: ObjectStore, pack: PackId, size: int) -> PackIndex:
    key = pack_key(pack)
    if objects.is_local:
        return read_index(pack, size, lambda start, length: objects.get(key, start, length))
    # Two requests, mostly: the end of the pack, in which index and trailer are, and the header.
    tail_at = 0 if size <= _TAIL_BYTES + HEADER_BYTES else size - _TAIL_BYTES
    tail = objects.get(key, tail_at, size - tail_at)

    def read(start: int, length: int) -> bytes:
        if start >= tail_at:
            return tail[start - tail_at : start - tail_at + length]
        return objects.get(key, start, length)

    return read_index(pack, size, read)


def _add_rows(index: ChunkIndex, listing: PackIndex, size: int, *, vouched: bool) -> None:
    if listing.kind is PackKind.METADATA:
        nodes = listing.places() if vouched else ()
        index.add_pack(listing.pack, (), nodes, size_bytes=size, is_metadata=True)
    else:
        index.add_pack(listing.pack, listing.places(), size_bytes=size)
