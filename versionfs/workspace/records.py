"""The records of a workspace that may not exist yet: it comes into being with the first change.

Looking at a branch makes no files and takes no lock; so any number of processes may look, and one
may change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from versionfs.errors import ConflictError, FileSystemError
from versionfs.objectstore import WouldBlock, may_block
from versionfs.types import NodeRef
from versionfs.workspace.base import BASE_KEY, PENDING_KEY, decode_base
from versionfs.workspace.database import sync_folder
from versionfs.workspace.discards import Discards
from versionfs.workspace.inode import ROOT, Inode, inode_key, names_prefix
from versionfs.workspace.journal import Mutation
from versionfs.workspace.places import LOCK_FILE
from versionfs.workspace.staging import Staging
from versionfs.workspace.table import FrozenTable, Table

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Owned:
    """A folder that one process at a time owns, by a lock that ends with the process."""

    def __init__(self, folder: Path) -> None:
        """Takes the lock.

        Raises:
            ConflictError: another process has it.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / LOCK_FILE
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._descriptor, 64, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise ConflictError(
                f"the workspace in {folder} is in use by process {owner or 'unknown'}",
                hint="use the mount that has it, or unmount it first",
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Gives the lock up."""
        os.close(self._descriptor)


def read_base(folder: Path) -> NodeRef | None:
    """Returns the commit that the changes in a folder are on top of; None if it has none.

    Raises:
        ConflictError: another process owns the workspace.
    """
    if not (folder / "table").is_dir():
        return None
    owned = Owned(folder)
    try:
        with Table(folder) as table:
            value = table.get(BASE_KEY)
            return None if value is None else decode_base(value)
    finally:
        owned.close()


def remove(folder: Path) -> None:
    """Throws a workspace away, with all its changes; no error if there is none.

    Raises:
        ConflictError: another process owns it.
    """
    if not folder.is_dir():
        return
    owned = Owned(folder)
    try:
        shutil.rmtree(folder)
    finally:
        owned.close()


def clear(folder: Path) -> bool:
    """Throws a workspace away that has no changed names; tells whether it is gone.

    Raises:
        ConflictError: another process owns it.
    """
    if not folder.is_dir():
        return True
    owned = Owned(folder)
    try:
        if (folder / "table").is_dir():
            with Table(folder) as table:
                if next(iter(table.scan(names_prefix(0)[:1])), None) is not None:
                    return False
        shutil.rmtree(folder)
    finally:
        owned.close()
    return True


class Records:
    """Records in a table once there is one; until then, nothing but an unchanged root."""

    def __init__(
        self,
        folder: Path,
        root: Inode,
        base: Callable[[], bytes],
        quota_bytes: int | None = None,
    ) -> None:
        """Opens the table if the workspace exists.

        Args:
            folder: the workspace's.
            root: the inode of the base's root directory.
            base: returns the value of ``BASE_KEY`` for a new table.
            quota_bytes: how much of the disk the staging files may take; None: no bound.

        Raises:
            ConflictError: the workspace exists, and another process owns it.
        """
        self.folder = folder
        self._root = root
        self._base = base
        self._quota_bytes = quota_bytes
        self._owned: Owned | None = None
        self._table: Table | None = None
        self._staging: Staging | None = None
        self._discards: Discards | None = None
        self._overwritten: set[int] = set()
        self._overwritten_lock = threading.Lock()
        self._overwritten_syncing = threading.Lock()
        self.is_stale = False
        """Whether another process changed the workspace since this one found that there was none:
        what this one knows of it is wrong, and it must be opened anew."""
        if (folder / "table").is_dir():
            self._open(late=False)

    @property
    def exists(self) -> bool:
        """Whether there is a table, and this process owns it."""
        return self._table is not None

    @property
    def staging(self) -> Staging:
        """The staging files; makes the workspace.

        Raises:
            FileSystemError: EBUSY: another process owns the workspace, or changed it.
        """
        if self._staging is None:
            self._make()
        assert self._staging is not None
        return self._staging

    def _make(self) -> None:
        try:
            self._open(late=True)
        except ConflictError as error:
            raise FileSystemError(errno.EBUSY) from error

    def _open(self, *, late: bool) -> None:
        owned = Owned(self.folder)
        try:
            table = Table(self.folder)
            try:
                found = table.get(BASE_KEY)
                if found is not None and late and not self._is_like_new(table):
                    self.is_stale = True
                    raise ConflictError(
                        f"another process has changed the workspace in {self.folder}",
                        hint="look at the branch again",
                    )
                if found is None or late:
                    root = [(BASE_KEY, self._base()), (inode_key(ROOT), self._root.encode())]
                    table.apply(root)
                self._staging = Staging(self.folder / "staging", quota_bytes=self._quota_bytes)
            except BaseException:
                table.close()
                raise
        except BaseException:
            owned.close()
            raise
        table.before_flush = self._sync_overwritten
        self._owned, self._table = owned, table
        self._discards = Discards(table, self._staging, self.sync)
        self.is_stale = False

    def _is_like_new(self, table: Table) -> bool:
        """Whether a table that another process left has no changes, on top of the same commit."""
        value = table.get(inode_key(ROOT))
        assert value is not None
        root = Inode.decode(ROOT, value)
        return (
            table.get(BASE_KEY) == self._base()
            and (root.mode, root.xattrs) == (self._root.mode, self._root.xattrs)
            and table.get(PENDING_KEY) is None
            and next(iter(table.scan(names_prefix(0)[:1])), None) is None
        )

    @property
    def has_names(self) -> bool:
        """Whether any name was changed."""
        return next(iter(self.scan(names_prefix(0)[:1])), None) is not None

    def get(self, key: bytes) -> bytes | None:
        """Returns the value of a key, or None."""
        if self._table is not None:
            return self._table.get(key)
        if key == inode_key(ROOT):
            return self._root.encode()
        return self._base() if key == BASE_KEY else None

    def scan(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Yields records, as ``Table.scan``."""
        return iter(()) if self._table is None else self._table.scan(prefix, after)

    def apply(self, mutations: Sequence[Mutation], *, frees: bool = False) -> None:
        """Applies a batch, as ``Table.apply``; makes the workspace.

        Raises:
            FileSystemError: EBUSY: another process owns the workspace, or changed it.
            WouldBlock: the disk is full, and some of it is about to become free, or the table is
                far behind: nothing has changed.
        """
        if self._table is None:
            self._make()
        assert self._table is not None
        try:
            self._table.apply(mutations, frees=frees)
        except WouldBlock as wait:
            raise WouldBlock(partial(self._wait, wait.fetch)) from None
        except OSError as error:
            if not self.makes_room(error):
                raise
            self._table.apply(mutations, frees=frees)

    def _wait(self, fetch: Callable[[], object]) -> None:
        """Waits until the table takes more; where the disk is full, for what is about to go."""
        try:
            fetch()
        except OSError as error:
            if not self.makes_room(error):
                raise

    def rebase(self, root: Inode) -> None:
        """Gives a workspace that does not exist yet another base."""
        assert self._table is None
        self._root = root

    def overwrites(self, layer: int) -> None:
        """Notes that a layer hides stored bytes: its own must be on disk before its records are.

        Else a power cut could show zeros where something committed was.
        """
        with self._overwritten_lock:
            self._overwritten.add(layer)

    def _sync_overwritten(self) -> None:
        staging = self._staging
        # One at a time: who finds nothing to do must not sync records before others have done it.
        with self._overwritten_syncing:
            with self._overwritten_lock:
                layers, self._overwritten = self._overwritten, set()
            try:
                for layer in layers:
                    # Of one that has failed the file's own fsync tells; all others go on.
                    with contextlib.suppress(FileNotFoundError):
                        if staging is not None and not staging.has_failed(layer):
                            staging.sync(layer)
            except BaseException:
                with self._overwritten_lock:
                    self._overwritten |= layers
                raise

    def sync(self) -> None:
        """Makes every batch survive a power cut. For threads."""
        if self._table is not None:
            self._sync_overwritten()
            self._table.sync()

    def discard(self, layer: int) -> None:
        """Removes a layer that no record names any more, once the disk has that; in a thread."""
        if self._discards is not None:  # Else it is swept when the workspace is opened again.
            self._discards.add(layer)

    @property
    def has_discards(self) -> bool:
        """Whether there are layers that will be removed."""
        return bool(self._discards)

    def makes_room(self, error: OSError) -> bool:
        """Returns when what is about to be removed has left room on a disk that was full.

        Whoever calls tries once more. False: nothing is about to be removed, or the error is
        another one. (It is not raised here: it would hold this frame, and the frame it; until that
        is found, what its other frames have open takes room.)

        Raises:
            OSError: the disk failed, or is full.
            WouldBlock: this thread must not wait for it.
        """
        if error.errno not in _NO_SPACE:
            return False
        if not self.has_discards:
            # True: they went between the error and now.
            return self._discards is not None and self._discards.gave_back_lately
        if not may_block():
            raise WouldBlock(self.drain) from error
        self.drain()
        return True

    def drain(self) -> None:
        """Removes what ``discard`` was told. Blocks: for threads.

        Raises:
            OSError: the disk failed, or is full.
        """
        if self._discards is not None:
            self._discards.drain()

    def frozen(self) -> FrozenTable | None:
        """Returns the state of now for another thread; None if there is no table."""
        return None if self._table is None else self._table.frozen()

    def move(self, folder: Path) -> None:
        """Makes another folder, which must not exist, that of the workspace; it stays owned.

        Blocks: for a thread, while others go on reading and changing.

        Raises:
            OSError: it cannot be renamed; nothing has changed.
        """
        assert self._table is not None
        assert self._staging is not None
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._table.moving(folder), self._staging.moving(folder / "staging"):
            self.folder.rename(folder)
            old, self.folder = self.folder, folder
        for changed in {old.parent, folder.parent}:
            sync_folder(changed)

    def close(self) -> None:
        """Closes the table and gives the workspace up; idempotent."""
        if self._discards is not None:
            self._discards.close()
            self._discards = None
        if self._table is not None:
            self._table.close()
            self._table = None
        if self._staging is not None:
            self._staging.close()
            self._staging = None
        if self._owned is not None:
            self._owned.close()
            self._owned = None
