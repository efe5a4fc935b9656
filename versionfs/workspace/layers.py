"""What a file consists of, as records say it; see ``content.py`` for what it means."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from versionfs.tree import Pieces
from versionfs.types import Entry
from versionfs.workspace.extents import EXTENTS, extents_prefix, layer_of_key
from versionfs.workspace.journal import Mutation
from versionfs.workspace.staging import Staging

log = logging.getLogger(__name__)

_LAYER: Final = struct.Struct("<QQ")
LAYER_BYTES: Final = _LAYER.size
_DELETED_AT_ONCE: Final = 512


class Layer(NamedTuple):
    """A staging file, and how many bytes of what is below it still show where it has none."""

    id: int
    limit: int


class Stack(NamedTuple):
    """What a file consists of; ``layers`` has the newest first."""

    base: Entry | None
    layers: tuple[Layer, ...] = ()


def encode_layers(layers: Sequence[Layer]) -> bytes:
    """Returns layers as 16 bytes each."""
    return b"".join(_LAYER.pack(*layer) for layer in layers)


def decode_layers(data: bytes) -> tuple[Layer, ...]:
    """Returns the layers of :func:`encode_layers`."""
    return tuple(map(Layer._make, _LAYER.iter_unpack(data)))


class StoredContent(Protocol):
    """Content of the store (``FileContent``). Reading it may raise ``WouldBlock``."""

    def read_pieces(self, offset: int, size: int) -> Pieces:
        """Returns bytes of the file."""

    def close(self) -> None:
        """Ends what is read ahead. The file may be read again, and closed again."""


class ReadRecords(Protocol):
    """A table or a frozen one."""

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yields the records with a prefix, sorted."""


class WriteRecords(ReadRecords, Protocol):
    """A table."""

    def apply(self, mutations: Sequence[Mutation], *, frees: bool = False) -> object:
        """Applies all mutations or none."""


Record = Callable[[Stack, Sequence[Mutation]], object]
"""Makes a stack, with mutations of other records, the one on disk: all of it in one batch. When it
raises, nothing of it is."""


def create_layer(staging: Staging, layer: int, size: int = 0) -> None:
    """Makes a layer that no record names, nor ever did; one that a kill left there goes.

    Raises:
        OSError: there is no such layer.
    """
    try:
        staging.create(layer, size)
    except FileExistsError:
        log.warning("the staging file %s was left over", staging.path(layer))
        staging.remove(layer)
        staging.create(layer, size)


def forget_layers(records: WriteRecords, staging: Staging, layers: Sequence[int]) -> None:
    """Removes layers that no stack has any more, with their extents; may be called again.

    Raises:
        OSError: not all of that is removed.
    """
    # After a kill, extents are found by the layer that is still there. A full table does not keep
    # the layers, whose space may be what it needs.
    try:
        _forget_extents(records, layers)
    finally:
        staging.remove_all(layers)


def _forget_extents(records: WriteRecords, layers: Sequence[int]) -> None:
    batch: list[Mutation] = []
    for first, last in _runs(layers):
        # One look for all that were made one after the other: most have no extents.
        for key, _ in records.scan(EXTENTS, extents_prefix(first)):
            if layer_of_key(key) > last:
                break
            batch.append((key, None))
            if len(batch) == _DELETED_AT_ONCE:
                records.apply(batch, frees=True)
                batch = []
    if batch:
        records.apply(batch, frees=True)


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yields the first and the last of those that follow each other."""
    first = last = -2
    for number in sorted(numbers):
        if number != last + 1:
            if first >= 0:
                yield first, last
            first = number
        last = number
    if first >= 0:
        yield first, last
