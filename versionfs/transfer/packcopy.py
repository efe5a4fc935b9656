"""Copies packs from one object store to another, verified on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, Final

from versionfs.chunking import pack_hasher
from versionfs.chunkstore import SegmentWriter
from versionfs.errors import CorruptionError, NotFoundError, UnsupportedFormatError
from versionfs.objectstore import ObjectStore, create_temporary, translate
from versionfs.pack import PackIndex, PackKind, pack_key, read_index
from versionfs.types import PackId

_PIECE_BYTES: Final = 8 * 1024 * 1024
_ATTEMPTS: Final = 2
"""What was damaged on the way is whole the next time."""


class PackCopier:
    """Copies packs, and collects the indexes of those with chunks for a segment. Thread-safe.

    Memory is a piece of 8 MiB for each copy at the same time, and the segment's bound.
    """

    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        copied: Callable[[int], None],
        *,
        collect: bool,
    ) -> None:
        """Makes a copier.

        Args:
            source: where from.
            target: where to.
            copied: is told bytes as they come, less those that come again.
            collect: whether a segment is made; not for those who copy the source's.
        """
        self._source = source
        self._target = target
        self._copied = copied
        self._collect = collect
        self._segments = SegmentWriter(target, None)

    def publish(self) -> None:
        """Puts the segment of what was copied.

        It holds no metadata packs, for which it would vouch: what they name may not be there.
        """
        self._segments.publish()

    def copy(self, pack: bytes, size_bytes: int) -> None:
        """Copies a pack; it is durable in the target on return.

        Raises:
            CorruptionError: the source has lost it, or holds it damaged.
            StorageError: one of the stores fails.
        """
        try:
            path, file = create_temporary(self._target.temporary(), "clone-")
        except OSError as error:
            raise translate(error, self._target.url, "packs/", writing=True) from error
        with file:
            try:
                for attempt in range(1, _ATTEMPTS + 1):
                    try:
                        self._fetch(pack, size_bytes, file)
                        break
                    except CorruptionError:
                        if attempt == _ATTEMPTS:
                            raise
                listing = _listing(pack, size_bytes, file) if self._collect else None
                self._target.put_file(pack_key(pack), path)
            finally:
                path.unlink(missing_ok=True)
        if listing is not None and listing.kind is PackKind.DATA:
            self._segments.add(listing, size_bytes)

    def _fetch(self, pack: bytes, size_bytes: int, file: BinaryIO) -> None:
        hasher = pack_hasher()
        name = pack.hex()
        done = 0
        hint = "restore it from another copy of the store"
        try:
            file.seek(0)
            file.truncate()
            while done < size_bytes:
                piece = self._source.get(pack_key(pack), done, min(_PIECE_BYTES, size_bytes - done))
                if not piece:
                    break
                hasher.update(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
                done += len(piece)
                self._copied(len(piece))
        except NotFoundError as error:
            raise CorruptionError(
                f"pack {name} is missing from {self._source.url}", pack=name, hint=hint
            ) from error
        except OSError as error:
            raise translate(error, self._target.url, "packs/", writing=True) from error
        if hasher.digest() != pack:
            self._copied(-done)
            raise CorruptionError(
                f"pack {name} is damaged in {self._source.url}", pack=name, hint=hint
            )


def _listing(pack: bytes, size_bytes: int, file: BinaryIO) -> PackIndex | None:
    """Returns the index of a copied pack, or None when this versionfs cannot read it."""
    descriptor = file.fileno()
    try:
        return read_index(
            PackId(pack), size_bytes, lambda start, length: os.pread(descriptor, length, start)
        )
    except (CorruptionError, UnsupportedFormatError):
        return None
