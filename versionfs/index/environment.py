"""One LMDB environment: transactions, a map that grows by itself, and healing.

The index is a cache: losing it costs time, never data. So damage is not reported to the user as a
failure; the environment is thrown away, made anew and refilled from the packs by the chunk store.

Several processes share an environment. Inside a process one lock serialises transactions, because
LMDB may change its map only while no transaction of the process is active; all of them are short.
Never hold one across an ``await`` or a wait for another thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import lmdb

from versionfs.errors import StorageTransientError, VersionFSError

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = b"4"
DATABASES: Final = (
    b"meta",  # b"schema" -> SCHEMA_VERSION; b"next-pack" -> u32; b"lost-packs" -> ids (chunks.py);
    # b"folders" -> how the folders of packs were (chunkstore/folders.py)
    b"chunks",  # chunk id -> row (chunks.py)
    b"packs",  # pack id -> pack number u32 big-endian, size u64, kind u8 (absent in old rows)
    b"pack-numbers",  # pack number u32 big-endian -> pack id
    b"segments",  # name of an index segment whose rows are here -> empty (chunks.py)
    b"places",  # id + stamp -> row (nodes.py)
    b"refs",  # repository NUL kind NUL name -> last value seen (refs.py)
    b"sources",  # what imports saw (sources.py)
)
_TOUCHED_BOUND: Final = 16_384
"""Pages (of 4 KiB) that may have been mapped in before the map is let go of: 64 MiB. What the map
holds counts as resident memory of the process, though the kernel could take it back."""

_INITIAL_MAP_BYTES: Final = 256 * 1024 * 1024
_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
)

T = TypeVar("T")


class IndexDamagedError(VersionFSError):
    """The index was damaged and has been made anew, empty. Callers sync it and try once more."""


class Environment:
    """An LMDB environment in a folder of its own. Thread-safe; do not use across ``fork``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._environment: lmdb.Environment | None = None
        self._databases: dict[bytes, lmdb._Database] = {}
        self._touched = 0
        self._closed = False
        self.generation = 0
        """Grows each time the environment is opened, when another process may have made it anew:
        caches of its content compare it, inside a transaction."""
        self._open()

    def _open(self) -> None:
        try:
            self._open_once()
        except _DAMAGE as error:
            log.warning("the index in %s is damaged (%s); making it anew", self.folder, error)
            self._discard()
            self._open_once()

    def _open_once(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            data = self.folder / "data.mdb"
            size = data.stat().st_size if data.exists() else 0
            environment = lmdb.open(
                os.fspath(self.folder),
                map_size=max(_INITIAL_MAP_BYTES, size),
                max_dbs=len(DATABASES),
                metasync=False,
                max_spare_txns=4,
                readahead=False,
            )
        except (lmdb.DiskError, lmdb.LockError, lmdb.ReadonlyError, OSError) as error:
            raise StorageTransientError(
                f"cannot open the index in {self.folder}: {error}",
                hint="check the disk and the permissions, or set VERSIONFS_HOME",
            ) from error
        except lmdb.Error as error:
            if isinstance(error, _DAMAGE):
                raise
            if "already open" in str(error):
                raise StorageTransientError(
                    f"this process has the index in {self.folder} open already",
                    hint="share one open store, or close the other first",
                ) from error
            if "Permission" in str(error) or "space" in str(error):
                raise StorageTransientError(
                    f"cannot open the index in {self.folder}: {error}",
                    hint="check the disk and the permissions, or set VERSIONFS_HOME",
                ) from error
            raise lmdb.InvalidError(str(error)) from error
        try:
            _check_not_truncated(environment, self.folder / "data.mdb")
            # One transaction, as each that makes a database waits for the disk.
            with _begin(environment, write=True) as transaction:
                self._databases = {
                    name: environment.open_db(name, transaction) for name in DATABASES
                }
                meta = self._databases[b"meta"]
                schema = transaction.get(b"schema", db=meta)
                if schema is None:
                    transaction.put(b"schema", SCHEMA_VERSION, db=meta)
                elif bytes(schema) != SCHEMA_VERSION:
                    raise lmdb.InvalidError(f"schema {bytes(schema)!r}")
            environment.reader_check()
        except BaseException:
            environment.close()
            raise
        self._environment = environment
        self.generation += 1

    def _discard(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        # Other processes that have the old files open go on with those until they end.
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)

    def rebuild(self, reason: str) -> None:
        """Throws all content away and starts empty."""
        with self._lock:
            log.warning("the index in %s is damaged (%s); making it anew", self.folder, reason)
            self._discard()
            self._open_once()

    @contextlib.contextmanager
    def _transaction(self, *, write: bool) -> Iterator[lmdb.Transaction]:
        with self._lock:
            if self._environment is None:
                if self._closed:
                    raise StorageTransientError(f"the index in {self.folder} is closed")
                self._open()
            assert self._environment is not None
            transaction = _begin(self._environment, write=write)
            with transaction:
                yield transaction

    def _count_touched(self, items: int) -> None:
        """Counts items read or written at random, each in a page of its own at worst."""
        self._touched += items
        if self._touched > _TOUCHED_BOUND:
            self._touched = 0
            with self._lock:
                if self._environment is not None:
                    # The next transaction opens it again.
                    self._environment.close()
                    self._environment = None

    def read(self, work: Callable[[lmdb.Transaction], T], items: int = 1) -> T:
        """Runs ``work`` in a read transaction; buffers it gets are valid only inside.

        ``items`` is about how many it looks up. Ask for :meth:`database` inside ``work`` only.

        Raises:
            IndexDamagedError: the index was damaged and is now empty.
        """
        try:
            with self._transaction(write=False) as transaction:
                result = work(transaction)
            self._count_touched(items)
            return result
        except _DAMAGE as error:
            self.rebuild(str(error))
            raise IndexDamagedError("the index was damaged") from error

    def write(self, work: Callable[[lmdb.Transaction], T], items: int = 1) -> T:
        """Runs ``work`` in a write transaction, growing the map and running it again as needed.

        ``items`` is about how many it writes. Ask for :meth:`database` inside ``work`` only.

        Raises:
            IndexDamagedError: the index was damaged and is now empty.
            StorageTransientError: the disk of the index is full.
        """
        while True:
            try:
                with self._transaction(write=True) as transaction:
                    result = work(transaction)
                self._count_touched(items)
                return result
            except lmdb.MapFullError:
                self._grow()
            except _DAMAGE as error:
                self.rebuild(str(error))
                raise IndexDamagedError("the index was damaged") from error
            except lmdb.Error as error:
                raise StorageTransientError(
                    f"cannot write the index in {self.folder}: {error}",
                    hint="free some space, or move it with VERSIONFS_HOME",
                ) from error

    def database(self, name: bytes) -> lmdb._Database:
        """Returns the handle of a named database."""
        return self._databases[name]

    def _grow(self) -> None:
        with self._lock:
            if self._environment is None:
                return  # Let go of meanwhile; whoever called tries again.
            # Zero adopts what another process may have grown the map to meanwhile.
            self._environment.set_mapsize(0)
            self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def close(self) -> None:
        """Closes the environment; idempotent."""
        with self._lock:
            self._closed = True
            if self._environment is not None:
                self._environment.close()
                self._environment = None


def _begin(environment: lmdb.Environment, *, write: bool) -> lmdb.Transaction:
    """Begins a transaction, however often another process grows the map meanwhile."""
    while True:
        try:
            return environment.begin(write=write, buffers=True)
        except lmdb.MapResizedError:
            environment.set_mapsize(0)  # Adopts the size that the file has now.


def _check_not_truncated(environment: lmdb.Environment, data: Path) -> None:
    """Raises when the file ends before its last page: reading that page would kill the process."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = data.stat().st_size
    if size < needed:
        raise lmdb.CorruptedError(f"data.mdb has {size} bytes of {needed}")
