"""The records of a workspace: a small ordered store that loses nothing it has acknowledged.

A batch of mutations is appended to the journal and then kept in memory; when memory has some
thousand records they go to LMDB in a thread, and the journal starts anew. So a batch costs one
write(2) and survives a kill of the process; :meth:`Table.sync` makes it survive a power cut.

Memory is one map that takes batches, and at most one that is *sealed*, on its way to LMDB. The
newest says what a key has.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from versionfs.errors import CorruptionError
from versionfs.objectstore import WouldBlock, may_block
from versionfs.workspace.database import Database, sync_folder
from versionfs.workspace.frozen import FrozenTable, Page, merge
from versionfs.workspace.journal import Journal, Mutation
from versionfs.workspace.memory import Memory
from versionfs.workspace.recovery import has_journals, journal_path, recover

__all__ = ["FrozenTable", "Table"]

log = logging.getLogger(__name__)

_SEAL_RECORDS: Final = 4096
_SEAL_BYTES: Final = 4 * 1024 * 1024
_FULL: Final = 2
"""Memory may become so many times what is sealed before a batch has to wait for LMDB."""

_FULL_FREEING: Final = 8
"""The same for batches that free space, when LMDB cannot be written or may not be waited for."""

_RETRY_SECONDS: Final = 1.0


class _Sealed(NamedTuple):
    memory: Memory
    sequence: int
    journals: list[Journal]
    """No longer needed once the records are in LMDB."""


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
        self._active = Memory()
        self._sealed: _Sealed | None = None
        self._generation = 0
        self._journal_distrusted = False
        self._closed = False
        self.before_flush: Callable[[], object] = _nothing
        """Called, in any thread, before batches go to LMDB: what they tell of must be on disk."""
        # A table always has a journal, so one without has never had a batch.
        self._database = Database(folder / "table", new=not has_journals(folder))
        try:
            self._snapshot = self._database.snapshot()
            self._applied = self._sequence = self._synced = self._database.sequence
            found = recover(folder, self._database.identity, self._applied)
            for sequence, mutations in found.batches:
                self._active.update(mutations)
                self._sequence = sequence
            self._journals = found.journals
            self._next_journal = found.next_number
            if not self._journals:
                self._journals.append(self._new_journal())
        except BaseException:
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

    def _new_journal(self) -> Journal:
        number = self._next_journal
        journal = Journal.create(journal_path(self.folder, number), self._database.identity)
        self._next_journal = number + 1
        sync_folder(self.folder)
        return journal

    # -- reading -----------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """The number of the last batch applied."""
        return self._sequence

    @property
    def synced(self) -> int:
        """The number of a batch that no power cut takes any more, nor any before it."""
        return self._synced

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of a key, or None when there is none."""
        with self._lock:
            if self._closed:
                self._check_open()
            if key in self._active.records:
                return self._active.records[key]
            if self._sealed is not None and key in self._sealed.memory.records:
                return self._sealed.memory.records[key]
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

    def _page(self, prefix: bytes, after: bytes | None) -> Page:
        layers = [self._active] if self._sealed is None else [self._active, self._sealed.memory]
        return merge(layers, self._database, self._snapshot, prefix, after)

    def frozen(self) -> FrozenTable:
        """Returns the state of now, for another thread to read; to be closed.

        Costs as many steps as there are records in memory, and no system call that waits.
        """
        with self._lock:
            self._check_open()
            layers = [self._active.copy()]
            if self._sealed is not None:
                layers.append(self._sealed.memory)
            return FrozenTable(layers, self._database, self._database.snapshot(), self._sequence)

    # -- writing -----------------------------------------------------------------------------------

    def apply(self, mutations: Sequence[Mutation], *, frees: bool = False) -> int:
        """Applies all mutations, or none; when it returns, no kill of this process loses them.

        ``frees`` marks what frees space on the disk (a removal, a truncation): it may use the
        space that is kept back for that. Returns the number of the batch. It waits only when LMDB
        is far behind.

        Raises:
            WouldBlock: LMDB is far behind, this thread must not wait, and nothing is freed.
            OSError: nothing was changed: ENOSPC or EDQUOT when the disk is full, EIO when it fails.
            ValueError: a key is empty or too long.
        """
        with self._lock:
            self._check_open()
            if not mutations:
                return self._sequence
            is_over = self._over(1)
            if is_over and self._over(_FULL):
                if may_block():
                    self._make_room(frees=frees)
                elif not frees:
                    raise WouldBlock(self._wait_for_room)
                elif self._over(_FULL_FREEING):
                    self._make_room(frees=True)
            sequence = self._sequence + 1
            self._journals[-1].append(sequence, mutations, frees=frees)
            self._sequence = sequence
            self._generation += 1
            self._active.update(mutations)
            if is_over and self._flusher is None:
                self._start_flusher()
            return sequence

    def _over(self, times: int) -> bool:
        active = self._active
        return (
            len(active.records) >= times * _SEAL_RECORDS or active.size_bytes >= times * _SEAL_BYTES
        )

    def _wait_for_room(self) -> None:
        with self._lock:
            if not self._closed:
                self._make_room(frees=False)

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
            self.before_flush()
            self._database.write(sealed.memory.items(), sealed.sequence)
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
        if not self._active.records:
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
            self._sealed = _Sealed(self._active.settled(), self._sequence, journals)
            self._active = Memory()
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

    @contextlib.contextmanager
    def moving(self, folder: Path) -> Iterator[None]:
        """Holds all that goes by path while the caller renames; then goes on in another folder.

        Waits for LMDB if that is being written: for threads.
        """
        with self._flushing, self._lock:
            self._check_open()
            yield
            self.folder = folder
            self._database.folder = folder / "table"
            for journal in (*(self._sealed.journals if self._sealed else ()), *self._journals):
                journal.path = folder / journal.path.name

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
                if self._applied == self._sequence:
                    journal.trim()
                journal.close()
            self._database.close()


def _nothing() -> None:
    pass
