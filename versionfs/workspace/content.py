"""The content of a changed file: layers of written bytes over the stored content they change.

A *stack* is a base (an entry of a tree, or none) and layers, the newest first. A layer is a staging
file and a *limit*: of what is below it, the first ``limit`` bytes still show, except where its
extents say that it has the bytes itself. From the limit on it has all bytes itself, and needs no
extents for them. So a new file, and one that was emptied, is a layer with limit 0; appending needs
no record; truncating lowers the limit, and nothing ever raises it.

A layer's staging file is as long as the file was when the layer was on top. Only the topmost is
ever written. To keep a file as it is now for a commit to read, put a fresh layer on top of it
before the next change: pass ``fresh``.

What is written reaches the staging file first and the records then. In between a kill leaves a
change that never returned: bytes that no extent claims, a size that already counts, or a staging
file that no record names.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from versionfs.errors import CorruptionError
from versionfs.tree import MOST_PIECES, Pieces, joined
from versionfs.types import Entry
from versionfs.workspace.extents import Extents, extents_prefix, load
from versionfs.workspace.journal import Mutation
from versionfs.workspace.layers import (
    LAYER_BYTES,
    Layer,
    ReadRecords,
    Record,
    Stack,
    StoredContent,
    create_layer,
    decode_layers,
    encode_layers,
    forget_layers,
)
from versionfs.workspace.staging import Staging

__all__ = [
    "LAYER_BYTES",
    "Layer",
    "LayeredFile",
    "Stack",
    "create_layer",
    "decode_layers",
    "encode_layers",
    "forget_layers",
]

log = logging.getLogger(__name__)


class Piece(NamedTuple):
    """``[start, end)`` of a file, and the staging file that has it: None for the base."""

    start: int
    end: int
    layer: int | None


class LayeredFile:
    """A file of a workspace: its content and its size. One thread at a time.

    Made from a frozen table, it reads the file as it was then, in another thread and while the file
    goes on: whoever changes that puts a fresh layer on top first.

    Only :meth:`read_pieces` reads the base, and so may raise ``WouldBlock``.
    """

    def __init__(
        self,
        stack: Stack,
        records: ReadRecords,
        staging: Staging,
        open_base: Callable[[Entry], StoredContent],
        *,
        is_new: bool = False,
    ) -> None:
        """Takes a stack as it was recorded. Reads the sizes of staging files, nothing else.

        ``is_new`` says that it is a layer without anything.

        Raises:
            OSError: the staging folder cannot be read.
        """
        self._records = records
        self._staging = staging
        self._open_base = open_base
        self._stored: StoredContent | None = None
        self._base = stack.base
        self._layers = list(stack.layers)
        self._extents: list[Extents | None] = [None] * len(stack.layers)
        self._unrecorded = False
        self._lost: set[int] = set()
        self.size = 0 if is_new else self._fit()
        """The length of the file, in bytes."""

    def _fit(self) -> int:
        """Makes limits agree with the staging files, and returns the size.

        They differ where a truncation was killed before its record, or a power cut took what was
        never synced. A staging file that is gone leaves a file that can only be emptied or removed.
        """
        size = 0 if self._base is None else self._base.size
        for index in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[index]
            try:
                own = self._staging.status(layer.id).size
            except FileNotFoundError:
                log.warning("the staging file %s is gone", self._staging.path(layer.id))
                self._lost.add(layer.id)
                size = min(size, layer.limit)
                continue
            if layer.limit > min(size, own) and not self._lost:
                self._layers[index] = Layer(layer.id, min(size, own))
                self._unrecorded = True
            size = own
        return size

    @property
    def stack(self) -> Stack:
        """What it consists of now."""
        return Stack(self._base, tuple(self._layers))

    @property
    def top(self) -> int:
        """The topmost layer; 0 if there is none."""
        return self._layers[0].id if self._layers else 0

    @property
    def is_whole(self) -> bool:
        """Whether the topmost layer is the content, and :meth:`write_whole` may be used."""
        return bool(self._layers) and not (self._layers[0].limit or self._unrecorded or self._lost)

    def write_whole(self, offset: int, data: bytes | memoryview) -> int:
        """Writes where no record can change; else like :meth:`write`."""
        done = self._staging.write(self._layers[0].id, offset, data)
        self.size = max(self.size, offset + done)
        return done

    @property
    def whole_layer(self) -> int | None:
        """The layer whose staging file is the content, byte for byte; None if none is."""
        return self._layers[0].id if self._layers and not self._layers[0].limit else None

    def check(self) -> None:
        """Finds out whether all of its layers are there.

        Raises:
            OSError: EIO: one is lost.
        """
        if self._lost:
            path = os.fspath(self._staging.path(min(self._lost)))
            raise OSError(errno.EIO, "a staging file is gone", path)

    # -- reading -----------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Returns what :meth:`read_pieces` does, as one."""
        return joined(self.read_pieces(offset, size))

    def read_pieces(self, offset: int, size: int) -> Pieces:
        """Returns up to ``size`` bytes at ``offset``: fewer only at the end of the file.

        Raises:
            WouldBlock: bytes of the base must be fetched first.
            CorruptionError: bytes of the base are damaged.
            OSError: a staging file cannot be read.
        """
        self.check()
        end = min(offset + size, self.size)
        if offset < 0 or offset >= end:
            return []
        layers = self._layers
        if layers and offset >= layers[0].limit:
            return [self._read_layer(layers[0].id, offset, end)]
        parts: Pieces = []
        for start, stop, layer in self.pieces(offset, end):
            if layer is None:
                parts += self._read_base(start, stop)
            else:
                parts.append(self._read_layer(layer, start, stop))
        return parts if len(parts) <= MOST_PIECES else [joined(parts)]

    def _read_layer(self, layer: int, start: int, end: int) -> bytes:
        data = self._staging.read(layer, start, end - start)
        if len(data) != end - start:
            path = os.fspath(self._staging.path(layer))
            raise OSError(errno.EIO, "a staging file is shorter than it was", path)
        return data

    def _read_base(self, start: int, end: int) -> Pieces:
        if self._stored is None:
            assert self._base is not None
            self._stored = self._open_base(self._base)
        parts = self._stored.read_pieces(start, end - start)
        if sum(map(len, parts)) != end - start:
            raise CorruptionError(f"stored content ends before byte {end}")
        return parts

    def close(self) -> None:
        """Ends what is read ahead of the base. The file may be used on, and closed again."""
        if self._stored is not None:
            self._stored.close()
            self._stored = None

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[Piece]:
        """Yields ``[start, end)`` in pieces by where they are; neighbours may be of one place.

        The file must not be changed meanwhile.
        """
        self.check()
        end = self.size if end is None else min(end, self.size)
        if start < end:
            yield from self._below(0, start, end)

    def _below(self, depth: int, start: int, end: int) -> Iterator[Piece]:
        if depth == len(self._layers):
            yield Piece(start, end, None)
            return
        layer = self._layers[depth]
        middle = min(end, layer.limit)
        if start < middle:
            for low, high, own in self._extents_of(depth).pieces(start, middle):
                if own:
                    yield Piece(low, high, layer.id)
                else:
                    yield from self._below(depth + 1, low, high)
        if end > layer.limit:
            yield Piece(max(start, layer.limit), end, layer.id)

    def _extents_of(self, depth: int) -> Extents:
        extents = self._extents[depth]
        if extents is None:
            layer = self._layers[depth]
            extents = load(self._records.scan(extents_prefix(layer.id)), layer.limit)
            self._extents[depth] = extents
        return extents

    # -- what changed ------------------------------------------------------------------------------

    @property
    def base_visible(self) -> int:
        """Bytes of the base that may still show; all from there on is no longer the base's."""
        size = 0 if self._base is None else self._base.size
        return min((layer.limit for layer in self._layers), default=size)

    def dirty(self) -> Iterator[tuple[int, int]]:
        """Yields the ranges that may differ from the base, ascending; none touch."""
        low = high = 0
        for start, end, layer in self.pieces():
            if layer is None:
                continue
            if start != high:
                if low < high:
                    yield low, high
                low = start
            high = end
        if low < high:
            yield low, high

    def next_zeros(self, offset: int, least: int = 1) -> tuple[int, int] | None:
        """Returns the first range from ``offset`` on that is known to be zeros, unread; or None.

        Those shorter than ``least`` bytes are passed over.
        """
        for start, end, layer in self.pieces(offset):
            if layer is None or end - start < least:
                continue
            for low, high in self._staging.data_ranges(layer, start, end):
                if low - start >= least:
                    return start, low
                start = high
            if end - start >= least:
                return start, end
        return None

    @property
    def allocated(self) -> int:
        """Bytes that it takes: of its staging files, and of the base what still shows."""
        covered = sum(
            self._extents_of(depth).covered
            for depth, layer in enumerate(self._layers)
            if layer.limit
        )
        return max(self.base_visible - covered, 0) + sum(
            self._staging.status(layer.id).allocated
            for layer in self._layers
            if layer.id not in self._lost
        )

    # -- changing ----------------------------------------------------------------------------------

    def write(
        self,
        offset: int,
        data: bytes | memoryview,
        record: Record,
        *,
        fresh: int | None = None,
    ) -> int:
        """Writes; returns how many bytes: all, or what the disk had room for.

        Calls ``record`` only when the stack or an extent changes: never for what is appended, or
        written where it was written before. A file without layers needs ``fresh``.

        Args:
            offset: where, in bytes; may lie beyond the end.
            data: at least one byte.
            record: see ``Record``.
            fresh: the id of a new layer to be put on top; no record may ever have named it, for a
                staging file that it has is thrown away.

        Raises:
            OSError: nothing was written. Where the failure was of ``record``, bytes in places that
                were written since the last commit may have changed.
        """
        self.check()
        pushed = fresh is not None
        if fresh is not None:
            self._push(fresh, self.size, self.size)
        try:
            return self._write(offset, data, record, pushed=pushed)
        except BaseException:
            if pushed:
                self._pop()
            raise

    def _write(self, offset: int, data: bytes | memoryview, record: Record, *, pushed: bool) -> int:
        if not self._layers:
            raise ValueError("the first write needs a fresh layer")
        layer = self._layers[0]
        before = self.size
        if self._unrecorded and not pushed and offset + len(data) > before:
            # Else what the record's limit still shows would appear as the file grows over it.
            self._record(record, ())
        done = self._staging.write(layer.id, offset, data)
        end = offset + done
        claimed = min(end, layer.limit)
        mutations: list[Mutation] = []
        if offset < claimed:
            extents = self._extents_of(0)
            mutations = extents.records_to_add(layer.id, offset, claimed)
        if mutations or pushed:
            try:
                self._record(record, mutations)
            except BaseException:
                if end > before and not pushed:
                    with contextlib.suppress(OSError):
                        self._staging.truncate(layer.id, before)
                    self.size = self._staging.status(layer.id).size
                raise
            if mutations:
                extents.add(offset, claimed)
        self.size = max(before, end)
        return done

    def truncate(self, size: int, record: Record, *, fresh: int | None = None) -> None:
        """Makes the file shorter, or longer by zeros. Calls ``record`` exactly once.

        Args:
            size: the new length, in bytes.
            record: see ``Record``.
            fresh: as for :meth:`write`.

        Raises:
            OSError: the size has not changed; where ``record`` failed, it may have become smaller.
        """
        if size:
            self.check()
        if fresh is not None:
            before = self.size
            self._push(fresh, min(size, before), size)
            self.size = size
            try:
                self._record(record, ())
            except BaseException:
                self._pop()
                self.size = before
                raise
            self._lost.clear()  # Hidden, if there are any.
            return
        if not self._layers:
            raise ValueError("the first change needs a fresh layer")
        layer = self._layers[0]
        if layer.id in self._lost:
            self._staging.create(layer.id)
            self._lost.discard(layer.id)
        if size >= self.size and not self._lost:
            # The record first: as for a write that lets the file grow.
            self._record(record, ())
            if size > self.size:
                self._staging.truncate(layer.id, size)
                self.size = size
            return
        self._staging.truncate(layer.id, size)
        self.size = size
        if size < layer.limit:
            if self._extents[0] is not None:
                self._extents[0].clip(size)
            self._layers[0] = Layer(layer.id, size)
            self._unrecorded = True
        self._record(record, ())
        self._lost.clear()

    def settle(self, cut: int, base: Entry, record: Record) -> list[int]:
        """After a commit: what it read is the base now. Returns the layers to be forgotten.

        Args:
            cut: the layer that was on top when the commit read the file.
            base: what the commit made of it.
            record: see ``Record``.

        Raises:
            ValueError: there is no such layer.
            OSError: nothing has changed.
        """
        index = [layer.id for layer in self._layers].index(cut)
        record(Stack(base, tuple(self._layers[:index])), ())
        gone = [layer.id for layer in self._layers[index:]]
        del self._layers[index:], self._extents[index:]
        self._base = base
        self.close()
        self._unrecorded = False
        if self._lost:
            self._lost.clear()
            self.size = self._fit()
        return gone

    def _record(self, record: Record, mutations: Sequence[Mutation]) -> None:
        record(self.stack, mutations)
        self._unrecorded = False

    def _push(self, layer: int, limit: int, size: int) -> None:
        create_layer(self._staging, layer, size)
        self._layers.insert(0, Layer(layer, limit))
        self._extents.insert(0, Extents())

    def _pop(self) -> None:
        layer = self._layers.pop(0)
        del self._extents[0]
        with contextlib.suppress(OSError):  # A file that no record names is removed at recovery.
            self._staging.remove(layer.id)
