"""Moves files from a source into the store: reading and compressing in threads, results in order.

One thread calls. It hands small files in batches to reader threads and large ones to a stream
thread; what they read goes to the chunk writer in the order it was handed in; and what was asked to
happen (``then``) happens in that same order, once the chunks of all files before it are in the
store. Memory is bounded by the bytes in flight and by ``_QUEUE_BOUND`` waiting files.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, Self

from versionfs.chunking import chunk_id
from versionfs.chunkstore import ChunkWriter, MetadataWriter, SegmentWriter
from versionfs.repo import Store
from versionfs.syscalls import reads_at_once, seen
from versionfs.transfer.ahead import Ahead, InThread, open_ahead
from versionfs.transfer.attributes import Attributes, read_xattrs
from versionfs.transfer.edited import EditedFile
from versionfs.transfer.executors import PatientExecutor
from versionfs.transfer.leftovers import remove_leftovers
from versionfs.transfer.reading import (
    WHOLE_BYTES,
    ChangingError,
    FileRead,
    Piece,
    begin_reading,
    finish_reading,
    open_for_reading,
    read_many,
    read_opened,
    same_content,
    stream_descriptor,
    with_ids,
)
from versionfs.transfer.waiting import Action, Done, Step, WaitingFile
from versionfs.tree import FileEditor, Kept, ManifestBuilder, New
from versionfs.types import NO_ID

_BATCH_FILES: Final = 64
_BATCH_BYTES: Final = 2 * 1024 * 1024
_BATCHES_IN_FLIGHT: Final = 12
_QUEUE_BOUND: Final = 40_000
_SLOW_SECONDS: Final = 0.0005
"""A source that takes longer for a small file is read by threads. One in the page cache is read
faster here: handing the interpreter lock to and fro costs more than the reads."""
_DISK_SHARE: Final = 8
"""If of so many files one came from a disk, the disk is asked for files some batches ahead."""
_BATCHES_AHEAD: Final = 3
_PAGE_SECTORS: Final = 8
_PROBE_EVERY: Final = 32
_READERS: Final = 6
"""A disk with queues answers as many requests in hardly more time than one (docs/design/006)."""
_STREAM_AHEAD: Final = 2
_STREAM_ATTEMPTS: Final = 3
_SEALS: Final = 2
_UPLOADS: Final = 4
"""Data packs that go to the store at once: a local folder, or one behind a network."""
_PROGRESS_SECONDS: Final = 0.1


class ImportProgress(NamedTuple):
    """How far an import is. Bytes of plaintext; ``new_bytes`` are those not in the store before.

    The totals are None while they are not known.
    """

    files: int
    bytes: int
    new_bytes: int
    files_total: int | None = None
    bytes_total: int | None = None


_Read = Future[list[FileRead | OSError]] | Ahead | InThread


class Pipeline:
    """See the module. Use as a context manager: an exception throws unfinished packs away."""

    def __init__(
        self,
        store: Store,
        failed: Callable[[bytes, str], None],
        progress: Callable[[ImportProgress], None] | None = None,
        *,
        little: bool = False,
    ) -> None:
        """Makes a pipeline.

        Args:
            store: where to store.
            failed: is told each file that cannot be read, with the reason.
            progress: is told now and then how far it is.
            little: whether there may be little to store: threads begin when there is more.
        """
        # To put a pack behind a network takes long, however small it is.
        first = 1 if little and store.objects.is_local else 0
        self._store = store
        self._failed = failed
        self._progress = progress
        self._reported = 0.0
        self._workers = PatientExecutor(2, "compress", first=first)
        self._packer = PatientExecutor(1, "pack", first=first)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        # Data packs in any order; metadata packs one after the other, beside them.
        seals = _SEALS if store.objects.is_local else _UPLOADS
        self._seals = PatientExecutor(seals, "seal", first=first)
        self._metadata_seals = PatientExecutor(1, "seal-metadata", first=first)
        self.segments: SegmentWriter = store.segment_writer()
        self.chunks = ChunkWriter(
            store.objects,
            store.index,
            store.codec,
            self._workers,
            self._packer,
            seals=self._seals,
            segments=self.segments,
        )
        self.metadata: MetadataWriter = store.metadata_writer(
            uploads=self._metadata_seals, segments=self.segments
        )
        self._queue: deque[Step] = deque()
        self._batch: list[WaitingFile] = []
        self._batch_bytes = 0
        self._batch_number = 0
        self._slow_source = False
        self._from_disk = False
        self._batches: deque[tuple[_Read, list[WaitingFile]]] = deque()
        self._given: list[tuple[WaitingFile, list[Piece]]] = []
        self._given_bytes = 0
        self.files = 0
        self.bytes = 0
        self.files_read = 0
        self.totals: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        remove_leftovers(self._store)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for executor in (self._readers, self._reader):
            executor.shutdown(cancel_futures=True)
        for read, _ in self._batches:
            if isinstance(read, Ahead):
                read.close()
        if kind is not None:
            self.chunks.abort()
            self.metadata.abort()
        for executor in (self._workers, self._packer, self._seals, self._metadata_seals):
            executor.shutdown(cancel_futures=True)

    def manifest_builder(self) -> ManifestBuilder:
        """Returns a builder for the manifest of one file."""
        return ManifestBuilder(self._store.metadata, self.metadata)

    def count(self, files: int, size: int) -> None:
        """Counts files that are done, with their bytes, and tells of the progress."""
        self.files += files
        self.bytes += size
        if self._progress is not None and time.monotonic() - self._reported > _PROGRESS_SECONDS:
            self._reported = time.monotonic()
            files_total, bytes_total = self.totals or (None, None)
            new = self.chunks.statistics().bytes_new
            self._progress(ImportProgress(self.files, self.bytes, new, files_total, bytes_total))

    def then(self, run: Callable[[], None]) -> None:
        """Runs something when all that was handed in before is done; at once when it is."""
        if self._queue:
            self._queue.append(Action(run))
            if len(self._queue) > _QUEUE_BOUND:
                self._shrink()
        else:
            run()

    def file(
        self,
        name: bytes,
        path: bytes,
        size: int,
        done: Done,
        gone: Callable[[], None],
        listed: bytes = b"",
    ) -> None:
        """Hands in a file to be read.

        ``done`` gets its entry and what was seen of it as it was read; ``gone`` is called instead
        when it could not be read. ``listed`` is what was seen of it before, if anything.
        """
        item = WaitingFile(name, path, done, gone)
        item.size, item.seen = size, listed
        self._queue.append(item)
        self.files_read += 1
        if size > WHOLE_BYTES:
            self._submit_batch()
            item.size = 0
            self._read_large(item)
        else:
            self._batch.append(item)
            self._batch_bytes += size
            if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
                self._submit_batch()
                self._pump()

    def content(
        self,
        name: bytes,
        pieces: Iterator[list[Piece]],
        attributes: Attributes,
        done: Done,
    ) -> None:
        """Hands in a file whose pieces the caller provides; they are taken in this thread."""
        item = WaitingFile(name, b"", done, _nothing)
        item.attributes = attributes
        self._queue.append(item)
        self.files_read += 1
        for batch in pieces:
            self._store_pieces([(item, batch)])
            self._pump()
        item.complete = True

    def whole(self, name: bytes, pieces: list[Piece], attributes: Attributes, done: Done) -> None:
        """Hands in a small file whose pieces are all there; they are looked up with others."""
        item = WaitingFile(name, b"", done, _nothing)
        item.attributes = attributes
        self._queue.append(item)
        self.files_read += 1
        self._given.append((item, pieces))
        self._given_bytes += sum(piece.length for piece in pieces)
        if len(self._given) >= _BATCH_FILES or self._given_bytes >= _BATCH_BYTES:
            self._pump()

    def edited(
        self, name: bytes, pieces: Iterable[Kept | New], editor: FileEditor, done: Done
    ) -> None:
        """Hands in a file as an edit of an old one; ``pieces`` are taken in this thread."""
        item = EditedFile(name, editor, done)
        self._queue.append(item)
        self.files_read += 1
        for piece in pieces:
            if isinstance(piece, Kept):
                item.items.append(piece)
            elif piece.data is None:
                item.items.append((piece.length, NO_ID, None))
            else:
                chunk = chunk_id(piece.data)
                (placement,) = self.chunks.add([(chunk, piece.data)])
                item.items.append((piece.length, chunk, placement))
                self._pump()
        item.complete = True

    # Small files

    def _submit_batch(self) -> None:
        if not self._batch:
            return
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        files = [(item.path, item.size, item.seen) for item in batch]
        self._batch_number += 1
        parameters = self._store.chunking
        read: _Read
        if self._slow_source and self._batch_number % _PROBE_EVERY:
            read = self._readers.submit(read_many, files, parameters)
        elif reads_at_once():
            read = InThread(
                self._reader,
                partial(begin_reading, files, parameters),
                partial(finish_reading, files, parameters),
            )
        elif self._from_disk and self._batch_number % _PROBE_EVERY:
            opened = [open_ahead(path, size) for path, size, _ in files]
            read = Ahead(opened, partial(read_opened, files, parameters, opened))
        else:
            began, disk = time.monotonic(), _disk_reads()
            read = Future()
            read.set_result(read_many(files, parameters))
            self._slow_source = time.monotonic() - began > _SLOW_SECONDS * len(files)
            disk = _disk_reads() - disk
            self._from_disk = disk * _DISK_SHARE > len(files) * _PAGE_SECTORS
        self._batches.append((read, batch))

    def _take_batch(self) -> None:
        """Stores what the oldest batch has read, waiting for it."""
        future, batch = self._batches.popleft()
        read: list[tuple[WaitingFile, list[Piece]]] = []
        results = future.result()
        if isinstance(future, InThread):
            self._slow_source = future.seconds > _SLOW_SECONDS * len(batch)
        for item, result in zip(batch, results, strict=True):
            if isinstance(result, OSError):
                self._fail(item, result)
                continue
            item.seen = result.seen
            item.size = 0
            item.attributes = result.attributes
            read.append((item, result.pieces))
        self._store_files(read)

    def _fail(self, item: WaitingFile, error: OSError) -> None:
        item.failed = True
        self._failed(item.path, error.strerror or str(error))

    # Large files

    def _read_large(self, item: WaitingFile) -> None:
        try:
            descriptor = open_for_reading(item.path)
        except OSError as error:
            self._fail(item, error)
            return
        try:
            for _ in range(_STREAM_ATTEMPTS):
                before = os.fstat(descriptor)
                item.attributes = Attributes.of(before, read_xattrs(descriptor))
                item.seen = seen(before)
                self._take_stream(item, descriptor, before.st_size)
                if item.size == before.st_size and same_content(before, os.fstat(descriptor)):
                    item.complete = True
                    return
                item.restart()
            raise ChangingError(item.path)
        except OSError as error:
            self._fail(item, error)
        finally:
            os.close(descriptor)

    def _take_stream(self, item: WaitingFile, descriptor: int, size: int) -> None:
        source = stream_descriptor(descriptor, size, self._store.chunking)
        ahead = deque(self._reader.submit(next, source, None) for _ in range(_STREAM_AHEAD))
        try:
            while (cuts := ahead.popleft().result()) is not None:
                ahead.append(self._reader.submit(next, source, None))
                self._store_pieces([(item, with_ids(cuts))])
                self._pump()
                self.count(0, 0)
        finally:
            # The descriptor is about to be closed: nothing may still read from it.
            for future in ahead:
                with contextlib.suppress(Exception):
                    future.result()

    def _take_given(self) -> None:
        """Stores the small files that were handed in with their bytes."""
        given, self._given, self._given_bytes = self._given, [], 0
        if given:
            self._store_files(given)

    def _store_files(self, files: list[tuple[WaitingFile, list[Piece]]]) -> None:
        """Stores whole files."""
        self._store_pieces(files)
        for item, _ in files:
            item.complete = True

    def _store_pieces(self, files: list[tuple[WaitingFile, list[Piece]]]) -> None:
        """Stores pieces, which come behind those that their files have."""
        data = [(p.chunk, p.data) for _, pieces in files for p in pieces if p.data is not None]
        placements = iter(self.chunks.add(data))
        for item, pieces in files:
            for piece in pieces:
                item.size += piece.length
                where = None if piece.data is None else next(placements)
                item.pieces.append((piece.length, piece.chunk, where))

    # The queue

    def _pump(self) -> None:
        batches = self._batches
        while batches:
            read = batches[0][0]
            bound = _BATCHES_AHEAD if isinstance(read, Ahead) else _BATCHES_IN_FLIGHT
            if len(batches) <= bound and not read.done():
                break
            self._take_batch()
        self._take_given()
        self.chunks.pump()
        self._drain()
        if len(self._queue) > _QUEUE_BOUND:
            self._shrink()

    def _drain(self) -> None:
        queue = self._queue
        while queue and queue[0].advance(self):
            queue.popleft()

    def _shrink(self) -> None:
        """Makes the queue shorter by completing the pack that its head waits for."""
        self._drain()
        if len(self._queue) <= _QUEUE_BOUND:
            return
        self._submit_batch()
        while self._batches:
            self._take_batch()
        self._take_given()
        self.chunks.seal()
        self._drain()

    def flush(self) -> None:
        """Finishes all that was handed in: every chunk is in the store, every action has run."""
        self._submit_batch()
        while self._batches:
            self._take_batch()
        self._take_given()
        self.chunks.seal()
        self._drain()


def _disk_reads() -> int:
    """Returns the sectors of 512 bytes that this thread has had read from disks."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock


def _nothing() -> None:
    pass
