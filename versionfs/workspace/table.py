"""The records of a workspace: a small ordered store that loses nothing it has acknowledged.

A batch of mutations is appended to the journal and then kept in memory; when memory has some
thousand records they go to LMDB in a thread, and the journal starts anew. So a batch costs one
write(2) and survives a kill of the process; :meth:`Table.sync` makes it survive a power cut.

Memory is one sorted map that takes batches, and at most one that is *sealed*, on its way to LMDB.
The newest says what a key has.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, cast

from sortedcontainers import SortedDict

from versionfs.errors import CorruptionError
from versionfs.workspace.database import Database, Snapshot, sync_folder
from versionfs.workspace.journal import Journal, Mutation, Replay, replay

log = logging.getLogger(__name__)

KEY_BYTES: Final = 511
"""The longest key (LMDB's bound)."""

_SEAL_RECORDS: Final = 4096
_SEAL_BYTES: Final = 4 * 1024 * 1024
_FULL: Final = 2
"""Memory may become so many times what is sealed before a batch has to wait for LMDB."""

_FULL_FREEING: Final = 8
"""The same for batches that free space, when LMDB cannot be written."""

_RETRY_SECONDS: Final = 1.0
_PAGE: Final = 64

_Memory = SortedDict[bytes, bytes | None]
_Page = tuple[list[tuple[bytes, bytes]], bytes | None]
"""Records, and the key to go on after, or None when there are no more."""


class _Sealed(NamedTuple):
    records: _Memory
    sequence: int
    journals: list[Journal]
    """No longer needed once ``records`` are in LMDB."""


class Table:
    """The records in a workspace's folder: LMDB in ``table/``, and files ``journal-<number>``.

    One process at a time may have it open. Thread-safe; not to be used across ``fork``.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the table, making it where there is none; replays what LMDB does not have yet.

        Raises:
            CorruptionError: LMDB or a journal is damaged; nothing was changed.
            OSError: it cannot be read or made.
        """
        self.folder = folder
        self._lock = threading.Lock()
        self._flushed = threading.Condition(self._lock)
        self._flushing = threading.Lock()
        self._syncing = threading.Lock()
        self._flusher: threading.Thread | None = None
        self._failure: OSError | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._active: _Memory = SortedDict()
        self._bytes = 0
        self._sealed: _Sealed | None = None
        self._generation = 0
        self._journal_distrusted = False
        self._closed = False
        self._database = Database(folder / "table")
        try:
            self._applied = self._sequence = self._database.sequence
            self._synced = self._applied
            self._journals: list[Journal] = []
            self._next_journal = 1
            self._recover()
            self._snapshot = self._database.snapshot()
        except BaseException:
            for journal in self._journals:
                journal.close()
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- recovery ----------------------------------------------------------------------------------

    def _recover(self) -> None:
        identity = self._database.identity
        found = sorted(
            (int(path.name.removeprefix("journal-")), path)
            for path in self.folder.glob("journal-*")
            if path.name.removeprefix("journal-").isdecimal()
        )
        ended = False
        for number, path in found:
            self._next_journal = number + 1
            content = None if ended else replay(path, identity)
            if ended or (content is not None and self._lacks_before(path, content)):
                ended = True
                _put_aside(path)
                continue
            if content is None:
                path.unlink()
                continue
            for sequence, mutations in content.batches:
                if sequence > self._sequence:
                    self._remember(mutations)
                    self._sequence = sequence
            if content.torn:
                # Of a batch that never returned, or after a power cut of some never synced. What
                # follows cannot be applied, for each batch builds on those before it.
                _put_aside(path, content.end)
                ended = True
            self._journals.append(Journal.resume(path, identity, content.end, torn=content.torn))
        if not self._journals:
            self._journals.append(self._new_journal())

    def _lacks_before(self, path: Path, content: Replay) -> bool:
        """Whether batches are lost between those applied and a journal's first.

        Raises:
            CorruptionError: they were on the disk once.
        """
        first = content.batches[0].sequence if content.batches else 0
        if first <= self._sequence + 1:
            return False
        if not self._journals:
            raise CorruptionError(
                f"the workspace in {self.folder} lacks changes: its table has the first"
                f" {self._sequence}, {path.name} goes on with number {first}",
                hint="keep the folder; nothing in it was changed",
            )
        # A power cut took the unsynced end of the journal before, not this one.
        return True

    def _new_journal(self) -> Journal:
        number = self._next_journal
        journal = Journal.create(self.folder / f"journal-{number}", self._database.identity)
        self._next_journal = number + 1
        sync_folder(self.folder)
        return journal

    # -- reading -----------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """The number of the last batch applied."""
        return self._sequence

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of a key, or None when there is none."""
        with self._lock:
            self._check_open()
            if key in self._active:
                return self._active[key]
            if self._sealed is not None and key in self._sealed.records:
                return self._sealed.records[key]
            return self._database.get(self._snapshot, key)

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yields the records whose key has a prefix, sorted; with ``after``, those beyond that key.

        Batches may be applied between the steps: a key that is there throughout comes exactly
        once, with the value it has at that step; one that comes or goes meanwhile, perhaps.
        """
        while True:
            with self._lock:
                self._check_open()
                generation = self._generation
                page, following = self._page(prefix, after)
            for key, value in page:
                if self._generation != generation:
                    break  # Values may have changed: looks again from the last key on.
                yield key, value
                after = key
            else:
                if following is None:
                    return
                after = following

    def _page(self, prefix: bytes, after: bytes | None) -> _Page:
        layers = [self._active] if self._sealed is None else [self._active, self._sealed.records]
        return _merge(layers, self._database, self._snapshot, prefix, after)

    def frozen(self) -> FrozenTable:
        """Returns the state of now, for another thread to read; to be closed.

        Costs as many steps as there are records in memory, and no system call that waits.
        """
        with self._lock:
            self._check_open()
            layers = [_Memory(self._active)]
            if self._sealed is not None:
                layers.append(self._sealed.records)
            return FrozenTable(layers, self._database, self._database.snapshot(), self._sequence)

    # -- writing -----------------------------------------------------------------------------------

    def apply(self, mutations: Sequence[Mutation], *, frees: bool = False) -> int:
        """Applies all mutations, or none; when it returns, no kill of this process loses them.

        ``frees`` marks what frees space on the disk (a removal, a truncation): it may use the
        space that is kept back for that. Returns the number of the batch. It waits only when LMDB
        is far behind.

        Raises:
            OSError: nothing was changed: ENOSPC or EDQUOT when the disk is full, EIO when it fails.
            ValueError: a key is empty or too long.
        """
        for key, _ in mutations:
            if not 0 < len(key) <= KEY_BYTES:
                raise ValueError(f"a key of {len(key)} bytes")
        with self._lock:
            self._check_open()
            if not mutations:
                return self._sequence
            if self._over(1):
                self._make_room(frees=frees)
            sequence = self._sequence + 1
            self._journals[-1].append(sequence, mutations, frees=frees)
            self._sequence = sequence
            self._remember(mutations)
            self._generation += 1
            if self._over(1):
                self._start_flusher()
            return sequence

    def _remember(self, mutations: Sequence[Mutation]) -> None:
        active = self._active
        size = 0
        for key, value in mutations:
            active[key] = value
            size += len(key) + len(value or b"")
        self._bytes += size

    def _over(self, times: int) -> bool:
        return len(self._active) >= times * _SEAL_RECORDS or self._bytes >= times * _SEAL_BYTES

    def _make_room(self, *, frees: bool) -> None:
        """Waits until memory has room, while LMDB takes what it has."""
        while self._over(_FULL):
            failures = self._failures
            self._retry_at = 0.0
            self._start_flusher()
            while self._over(_FULL) and self._failures == failures and self._flusher is not None:
                self._flushed.wait()
            if self._failures != failures and self._over(_FULL):
                if frees and not self._over(_FULL_FREEING):
                    return
                assert self._failure is not None
                raise OSError(
                    self._failure.errno, "the workspace's table cannot be written", str(self.folder)
                )

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the table in {self.folder} is closed")

    # -- to LMDB -----------------------------------------------------------------------------------

    def _start_flusher(self) -> None:
        if self._flusher is None and time.monotonic() >= self._retry_at:
            self._flusher = threading.Thread(target=self._run_flusher, name="table-flush")
            self._flusher.start()

    def _run_flusher(self) -> None:
        while True:
            try:
                self._flush()
            except OSError as error:
                self._failed(error)
                return
            except Exception as error:
                log.exception("the workspace's table in %s cannot be written", self.folder)
                self._failed(OSError(errno.EIO, str(error)))
                return
            with self._lock:
                if self._sealed is None and not self._over(1):
                    self._flusher = None
                    self._flushed.notify_all()
                    return

    def _failed(self, error: OSError) -> None:
        with self._lock:
            if self._failure is None:
                log.warning(
                    "the workspace's table in %s cannot be written (%s); its journal goes on",
                    self.folder,
                    error,
                )
            self._failure = error
            self._failures += 1
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self._flusher = None
            self._flushed.notify_all()

    def _flush(self) -> None:
        """Brings what is sealed to LMDB, or seals what is in memory and brings that."""
        with self._flushing:
            if self._sealed is None:
                self._seal()
            sealed = self._sealed
            if sealed is None:
                return
            self._database.write(sealed.records.items(), sealed.sequence)
            snapshot = self._database.snapshot()
            with self._lock:
                old, self._snapshot = self._snapshot, snapshot
                old.abort()
                self._sealed = None
                self._generation += 1
                self._applied = sealed.sequence
                self._synced = max(self._synced, sealed.sequence)
                self._failure = None
                self._flushed.notify_all()
            for journal in sealed.journals:
                journal.path.unlink(missing_ok=True)
            with self._lock:
                for journal in sealed.journals:
                    journal.close()

    def _seal(self) -> None:
        """Begins a new map in memory, and a new journal where the disk has room for one."""
        if not self._active:
            return
        try:
            fresh = [self._new_journal()]
        except OSError as error:
            log.debug("no new journal: %s", error)
            fresh = []  # The old one goes on; a replay leaves out what LMDB has.
        with self._lock:
            journals: list[Journal] = []
            if fresh:
                journals, self._journals = self._journals, fresh
                self._journal_distrusted = False
            self._sealed = _Sealed(self._active, self._sequence, journals)
            self._active = SortedDict()
            self._bytes = 0
            self._generation += 1

    def checkpoint(self) -> None:
        """Brings all batches applied so far to LMDB, on the disk.

        Raises:
            OSError: it failed; the journal still has them.
        """
        with self._lock:
            self._check_open()
            target = self._sequence
        while self._applied < target:
            self._flush()

    # -- the disk ----------------------------------------------------------------------------------

    def sync(self) -> None:
        """Makes every batch applied so far survive a power cut. Blocks: for threads.

        Those who call it at the same time share one write to the disk.

        Raises:
            OSError: the disk failed.
        """
        target = self._sequence
        with self._syncing:
            if self._synced >= target:
                return
            if self._journal_distrusted:
                # After a failed sync the kernel may have dropped pages, and says so only once.
                self.checkpoint()
                return
            pending: list[tuple[Journal, int, int]] = []
            try:
                with self._lock:
                    self._check_open()
                    target = self._sequence
                    sealed = self._sealed.journals if self._sealed is not None else []
                    for journal in (*sealed, *self._journals):
                        if journal.synced_end < journal.end:
                            descriptor = journal.duplicate()
                            pending.append((journal, journal.end, descriptor))
                for journal, end, descriptor in pending:
                    os.fdatasync(descriptor)
                    journal.synced_end = end
            except OSError:
                self._journal_distrusted = True
                raise
            finally:
                for _, _, descriptor in pending:
                    os.close(descriptor)
            with self._lock:
                self._synced = max(self._synced, target)

    def close(self) -> None:
        """Brings everything to LMDB, as far as the disk lets it, and closes. Idempotent.

        No snapshot may be in use.
        """
        with self._lock:
            if self._closed:
                return
            self._retry_at = float("inf")
            flusher = self._flusher
        if flusher is not None:
            flusher.join()
        try:
            self.checkpoint()
        except (OSError, CorruptionError) as error:
            log.warning("the journal in %s keeps what LMDB could not take: %s", self.folder, error)
        with self._lock:
            self._closed = True
            self._snapshot.abort()
            for journal in (*(self._sealed.journals if self._sealed else ()), *self._journals):
                journal.close()
            if self._applied == self._sequence:
                for journal in self._journals:
                    journal.path.unlink(missing_ok=True)
            self._database.close()


class FrozenTable:
    """A table as it was when :meth:`Table.frozen` was called. For one thread at a time."""

    def __init__(
        self, layers: list[_Memory], database: Database, snapshot: Snapshot, sequence: int
    ) -> None:
        self.sequence = sequence
        """The number of the last batch in it."""
        self._layers = layers
        self._database = database
        self._snapshot: Snapshot | None = snapshot

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of a key, or None when there is none."""
        for layer in self._layers:
            if key in layer:
                return layer[key]
        return self._database.get(self._open(), key)

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yields the records whose key has a prefix, sorted; with ``after``, those after it."""
        while True:
            page, after = _merge(self._layers, self._database, self._open(), prefix, after)
            yield from page
            if after is None:
                return

    def _open(self) -> Snapshot:
        if self._snapshot is None:
            raise ValueError("the frozen table is closed")
        return self._snapshot

    def close(self) -> None:
        """Lets LMDB use the space of what changed since. Idempotent."""
        if self._snapshot is not None:
            self._snapshot.abort()
            self._snapshot = None
            self._layers = []


def _merge(
    layers: Sequence[_Memory],
    database: Database,
    snapshot: Snapshot,
    prefix: bytes,
    after: bytes | None,
) -> _Page:
    """Returns the next records of some sorted maps, the newest first, over a database."""
    merged: dict[bytes, bytes | None] = {}
    bound: bytes | None = None  # Up to this key, every source has said what it has.
    sources: list[Iterator[tuple[bytes, bytes | None]]] = [
        *(_range(layer, prefix, after) for layer in layers),
        iter(database.items(snapshot, prefix, after)),
    ]
    for source in reversed(sources):
        found = list(islice(source, _PAGE))
        merged.update(found)
        if len(found) == _PAGE and (bound is None or found[-1][0] < bound):
            bound = found[-1][0]
    keys = sorted(key for key in merged if bound is None or key <= bound)
    page = [(key, merged[key]) for key in keys if merged[key] is not None]
    return cast("list[tuple[bytes, bytes]]", page), bound


def _range(
    records: _Memory, prefix: bytes, after: bytes | None
) -> Iterator[tuple[bytes, bytes | None]]:
    first = prefix if after is None else max(prefix, after)
    for key in records.irange(first):
        if not key.startswith(prefix):
            return
        if key != after:
            yield key, records[key]


def _put_aside(path: Path, start: int = 0) -> None:
    """Keeps what a replay leaves out, a whole journal or the rest of one, and says so."""
    lost = path.with_name(f"left-out-{path.name}")
    log.warning(
        "%s holds from byte %d on what is no whole change or follows one; it is kept as %s",
        path,
        start,
        lost.name,
    )
    if not start:
        path.rename(lost)
        return
    try:
        lost.write_bytes(path.read_bytes()[start:].rstrip(b"\0"))
    except OSError as error:
        log.warning("%s could not be written: %s", lost, error)
