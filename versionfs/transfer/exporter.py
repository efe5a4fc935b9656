"""Export: a folder of a version becomes a plain folder on disk."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from versionfs.errors import (
    InvalidInputError,
    StoragePermanentError,
    StorageTransientError,
    VersionFSError,
)
from versionfs.repo import Store
from versionfs.types import Entry, Kind, Xattrs

log = logging.getLogger(__name__)

_PROGRESS_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far an export is, and how far it goes. Bytes of plaintext."""

    files: int
    bytes: int
    files_total: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote."""

    files: int
    bytes: int
    seconds: float


def export(
    store: Store,
    root: Entry,
    destination: Path,
    *,
    progress: Callable[[ExportProgress], None] | None = None,
    warn: Callable[[str], None] = log.warning,
) -> ExportResult:
    """Writes a folder or file of a version to a path that does not exist or is an empty folder.

    Permission bits, mtimes, symlinks, ``user.*`` attributes and holes are restored; owners when
    this process is root's.

    Raises:
        InvalidInputError: the destination is in the way, or cannot be made.
        CorruptionError: stored data is damaged; what was written stays, the damaged file does not.
        StorageTransientError: the disk of the destination is full.
    """
    started = time.monotonic()
    path = os.fsencode(destination)
    exporter = _Exporter(store, root, progress, warn)
    try:
        if root.is_dir:
            _make_destination(destination)
            exporter.folder(path, root)
        else:
            if os.path.lexists(path):
                raise InvalidInputError(f"{destination} exists", hint="name a new path")
            exporter.leaf(path, root)
    except VersionFSError:
        raise
    except OSError as error:
        kind = StorageTransientError if error.errno == 28 else StoragePermanentError
        where = os.fsdecode(error.filename) if error.filename else destination
        raise kind(
            f"cannot write {where}: {error.strerror}",
            hint="what was written so far stays there",
        ) from error
    return ExportResult(exporter.files, exporter.bytes, time.monotonic() - started)


def _make_destination(destination: Path) -> None:
    try:
        destination.mkdir(parents=False, exist_ok=True)
        if any(destination.iterdir()):
            raise InvalidInputError(
                f"{destination} is not empty", hint="name a new or empty folder"
            )
    except FileExistsError as error:
        raise InvalidInputError(
            f"{destination} is not a folder", hint="name a new or empty folder"
        ) from error
    except OSError as error:
        raise InvalidInputError(f"cannot make {destination}: {error.strerror}") from error


class _Exporter:
    def __init__(
        self,
        store: Store,
        root: Entry,
        progress: Callable[[ExportProgress], None] | None,
        warn: Callable[[str], None],
    ) -> None:
        self._store = store
        self._root = root
        self._progress = progress
        self._reported = 0.0
        self._warn = warn
        self._is_root = os.geteuid() == 0
        self.files = 0
        self.bytes = 0

    def folder(self, path: bytes, entry: Entry) -> None:
        """Fills a folder that exists; its own attributes come last, when nothing changes them."""
        # Writable while it is filled, whatever its mode is to be.
        os.chmod(path, 0o700)
        if entry.location is not None:
            for child in self._store.trees.entries(entry.node):
                child_path = path + b"/" + child.name
                if child.is_dir:
                    os.mkdir(child_path, 0o700)
                    self.folder(child_path, child)
                else:
                    self.leaf(child_path, child)
        self._attributes(path, entry)

    def leaf(self, path: bytes, entry: Entry) -> None:
        """Writes a file or symlink."""
        if entry.kind == Kind.SYMLINK:
            os.symlink(entry.target, path)
            if self._is_root:
                os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
            os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        else:
            self._file(path, entry)
        self.files += 1
        self._tell()

    def _file(self, path: bytes, entry: Entry) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        try:
            for offset, extent, data in self._store.contents.open(entry).pieces():
                if data is None:
                    self.bytes += extent.length
                    continue
                written = 0
                while written < len(data):
                    written += os.pwrite(descriptor, data[written:], offset + written)
                self.bytes += len(data)
                self._tell()
            os.ftruncate(descriptor, entry.size)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        self._attributes(path, entry)

    def _attributes(self, path: bytes, entry: Entry) -> None:
        self._xattrs(path, entry.xattrs)
        if self._is_root:
            os.chown(path, entry.uid, entry.gid)
        os.chmod(path, entry.mode)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))

    def _xattrs(self, path: bytes, xattrs: Xattrs) -> None:
        for name, value in xattrs:
            try:
                os.setxattr(path, name, value)
            except OSError as error:
                self._warn(
                    f"{os.fsdecode(path)!a}: cannot set {os.fsdecode(name)}: {error.strerror}"
                )

    def _tell(self) -> None:
        if self._progress is not None and time.monotonic() - self._reported > _PROGRESS_SECONDS:
            self._reported = time.monotonic()
            self._progress(
                ExportProgress(self.files, self.bytes, self._root.files, self._root.size)
            )
