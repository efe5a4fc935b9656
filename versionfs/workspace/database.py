"""The LMDB environment under a table: what the journal no longer needs to say.

It is the only copy: unlike the index it is never thrown away. Its map is as large as it may ever
become, so it never has to grow while transactions are open; the file has only what was written.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import lmdb

from versionfs.errors import CorruptionError, UnsupportedFormatError
from versionfs.workspace.journal import IDENTITY_BYTES, Mutation

_SCHEMA: Final = b"1"
_MAP_BYTES: Final = (1 << 36, 1 << 32)
"""Address space asked for, less where a limit forbids it. A process has 128 TiB: with 1 TiB for
each, a mount could have no more than 170 branches with changes. 64 GiB hold the records of 200
million files."""

_READERS: Final = 510

Snapshot: TypeAlias = "lmdb.Transaction[bytes]"
"""A read transaction: a state of the database. For one thread at a time."""


class Database:
    """Records and the sequence number of the last batch in them."""

    def __init__(self, folder: Path, *, new: bool) -> None:
        """Opens the database in a folder; makes one only if it may be ``new``.

        Raises:
            CorruptionError, OSError: as :meth:`error`; nothing was changed.
        """
        self.folder = folder
        data = folder / "data.mdb"
        if not new and not (data.exists() and data.stat().st_size):
            raise CorruptionError(
                f"the workspace's table in {folder} is gone",
                hint="keep the workspace's folder: its journals and staging files are whole",
            )
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._environment = _open(folder)
            try:
                made = self._prepare()
            except BaseException:
                self._environment.close()
                raise
        except lmdb.Error as error:
            raise self.error(error) from error
        if made:
            for path in (folder, folder.parent):
                sync_folder(path)

    def _prepare(self) -> bool:
        """Returns whether it was made just now."""
        environment = self._environment
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        size = (self.folder / "data.mdb").stat().st_size
        if size < needed:  # Reading a page that is not there would kill the process.
            raise CorruptionError(
                f"the workspace's table in {self.folder} has {size} bytes of {needed}",
                hint="keep the folder: its journals and staging files are whole",
            )
        self._meta = environment.open_db(b"meta")
        self._records = environment.open_db(b"records")
        with environment.begin(write=True) as transaction:
            schema = transaction.get(b"schema", db=self._meta)
            if schema is None:
                transaction.put(b"schema", _SCHEMA, db=self._meta)
                identity = os.urandom(IDENTITY_BYTES)
                transaction.put(b"identity", identity, db=self._meta)
            elif schema != _SCHEMA:
                raise UnsupportedFormatError(
                    f"the workspace's table in {self.folder} has schema {schema!r}",
                    hint="use the versionfs that wrote it, or a newer one",
                )
            self.identity: bytes = transaction.get(b"identity", db=self._meta) or b""
            sequence = transaction.get(b"sequence", db=self._meta)
            self.sequence = int.from_bytes(sequence or b"", "big")
            """The number of the last batch in it."""
        environment.reader_check()
        return schema is None

    def error(self, error: lmdb.Error) -> Exception:
        """Returns what to raise instead: OSError with an errno, or that it is damaged."""
        if isinstance(error, (lmdb.DiskError, lmdb.MapFullError)):
            return OSError(errno.ENOSPC, "no space for the workspace's table", str(self.folder))
        if isinstance(error, (lmdb.MemoryError, lmdb.ReadersFullError)):
            return OSError(errno.ENOMEM, str(error), str(self.folder))
        text = str(error)
        if "already open" in text:
            return OSError(errno.EBUSY, "this process has it open already", str(self.folder))
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS):
            if os.strerror(number) in text:
                return OSError(number, os.strerror(number), str(self.folder))
        return CorruptionError(
            f"the workspace's table in {self.folder} is damaged ({error})",
            hint="keep the folder: it is the only copy; its journals and staging files are whole",
        )

    def snapshot(self) -> Snapshot:
        """Returns the state of now; to be aborted.

        Raises:
            OSError, CorruptionError: as :meth:`error`.
        """
        try:
            return self._environment.begin()
        except lmdb.Error as error:
            raise self.error(error) from error

    def get(self, snapshot: Snapshot, key: bytes) -> bytes | None:
        """Returns a value as of a snapshot."""
        try:
            return snapshot.get(key, db=self._records)
        except lmdb.Error as error:
            raise self.error(error) from error

    def items(
        self, snapshot: Snapshot, prefix: bytes, after: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yields the records with a prefix, those after a key only, as of a snapshot."""
        try:
            with snapshot.cursor(db=self._records) as cursor:
                if not cursor.set_range(prefix if after is None else max(prefix, after)):
                    return
                for key, value in cursor:
                    if not key.startswith(prefix):
                        return
                    if key != after:
                        yield key, value
        except lmdb.Error as error:
            raise self.error(error) from error

    def write(self, mutations: Iterable[Mutation], sequence: int) -> None:
        """Applies mutations up to a sequence number; on the disk when it returns.

        Raises:
            OSError: nothing was written.
        """
        records = self._records
        try:
            with self._environment.begin(write=True) as transaction:
                for key, value in mutations:
                    if value is None:
                        transaction.delete(key, db=records)
                    else:
                        transaction.put(key, value, db=records)
                transaction.put(b"sequence", sequence.to_bytes(8, "big"), db=self._meta)
            self._environment.reader_check()
        except lmdb.Error as error:
            raise self.error(error) from error

    def close(self) -> None:
        """Closes it; snapshots end with it. Idempotent."""
        self._environment.close()


def _open(folder: Path) -> lmdb.Environment:
    for size in _MAP_BYTES:
        try:
            return lmdb.open(
                os.fspath(folder),
                map_size=size,
                max_dbs=2,
                max_readers=_READERS,
                readahead=False,
                mode=0o600,
            )
        except lmdb.MemoryError:
            if size == _MAP_BYTES[-1]:
                raise
    raise AssertionError


def sync_folder(folder: Path) -> None:
    """Writes a folder's names to the disk.

    Raises:
        OSError: it failed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
