"""The object store in a local folder: one file per object, its key being its relative path.

Besides the objects the folder has ``tmp/`` (files being written) and ``lock`` (held while a mutable
object is compared and moved); neither is a key.

Durability: the data of a file is fsynced before rename(2) gives it its name, the folder with the
name after that, and the folders above it the first time a process uses them. Atomicity is that of
rename. A power cut therefore leaves at most files in ``tmp/``.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from blake3 import blake3

from versionfs.errors import ConflictError, InvalidInputError, NotFoundError
from versionfs.objectstore.oserrors import translate
from versionfs.objectstore.protocol import (
    COMPONENT,
    ObjectInfo,
    RequestStatistics,
    Version,
    validate_key,
    validate_prefix,
)
from versionfs.objectstore.temporary import clean_temporary, create_temporary, is_temporary
from versionfs.syscalls import pread_all

TEMPORARY_FOLDER: Final = "tmp"
LOCK_FILE: Final = "lock"
_RESERVED: Final = frozenset({TEMPORARY_FOLDER, LOCK_FILE})
_COPY_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 100

# O_NONBLOCK: a fifo where an object should be must not block the reader; files ignore it.
_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class LocalStore:
    """Objects in the folder ``root``, which is made by the first write. Holds no open files."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))
        self._prefix = os.path.join(self._root, "")
        self._durable: set[str] = set()  # folders whose own name is known to be on disk

    @property
    def root(self) -> Path:
        """The folder, as an absolute path."""
        return self._root

    @property
    def is_local(self) -> bool:
        """See ``ObjectStore.is_local``."""
        return True

    @property
    def url(self) -> str:
        """The folder as a ``file://`` URL."""
        return self._root.as_uri()

    def __repr__(self) -> str:
        return f"LocalStore({str(self._root)!r})"

    def local_path(self, key: str) -> Path:
        """Returns the path of the object's file, whether it exists or not.

        For readers that keep file descriptors of immutable objects; nobody writes there.
        """
        return Path(self._path(key))

    def is_used(self) -> bool:
        """Tells whether the folder holds anything but what a first write left there by dying."""
        try:
            names = set(os.listdir(self._root)) - {LOCK_FILE}
            if TEMPORARY_FOLDER in names:
                names.remove(TEMPORARY_FOLDER)
                # Not what somebody else keeps in a folder of that name: it would be cleaned.
                inside = os.listdir(self._root / TEMPORARY_FOLDER)
                names.update(name for name in inside if not is_temporary(name))
        except OSError:
            return False
        return bool(names)

    # -- reading ---------------------------------------------------------------------------------

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``ObjectStore.get``."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"negative range: start {start}, length {length}")
        try:
            descriptor = os.open(self._path(key), _READ_FLAGS)
            try:
                if length is None:
                    length = max(0, os.fstat(descriptor).st_size - start)
                return pread_all(descriptor, length, start)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise translate(error, self.url, key, writing=False) from error

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        path = self._path(key)
        try:
            status = os.stat(path)
            if not _is_file(status):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        except OSError as error:
            raise translate(error, self.url, key, writing=False) from error
        return status.st_size

    def read(self, key: str) -> tuple[bytes, Version]:
        """See ``ObjectStore.read``."""
        data = self.get(key)
        return data, _version(data)

    def read_if_changed(self, key: str, known: Version) -> tuple[bytes, Version] | None:
        """See ``ObjectStore.read_if_changed``."""
        data, version = self.read(key)
        return None if version == known else (data, version)

    def statistics(self) -> RequestStatistics:
        """See ``ObjectStore.statistics``: there is no server."""
        return RequestStatistics()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        validate_prefix(prefix)
        if prefix.split("/", 1)[0] in _RESERVED:
            raise InvalidInputError(f"{prefix!r} is not an object prefix")
        return self._list(prefix)

    def folders(self, prefix: str) -> Sequence[str]:
        """See ``ObjectStore.folders``."""
        validate_prefix(prefix)
        try:
            with os.scandir(self._prefix + prefix) as entries:
                names = [entry.name for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise translate(error, self.url, prefix, writing=False) from error
        found = [name for name in names if COMPONENT.fullmatch(name) is not None]
        # A folder may be empty: its last object was removed, or its first is being written.
        found = [name for name in found if prefix or name not in _RESERVED]
        return sorted(name for name in found if next(self._list(f"{prefix}{name}/"), None))

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        # A folder sorts as its name with "/", which is how its keys compare with its siblings.
        found: dict[str, ObjectInfo | None] = {}
        try:
            with os.scandir(self._prefix + prefix) as entries:
                for entry in entries:
                    name = entry.name
                    if COMPONENT.fullmatch(name) is None or (not prefix and name in _RESERVED):
                        continue
                    if entry.is_dir():
                        found[f"{prefix}{name}/"] = None
                    elif entry.is_file():
                        try:
                            status = entry.stat()
                        except FileNotFoundError:
                            continue
                        info = ObjectInfo(prefix + name, status.st_size, status.st_mtime_ns)
                        found[info.key] = info
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise translate(error, self.url, prefix, writing=False) from error
        for key in sorted(found):
            item = found[key]
            if item is not None:
                yield item
            else:
                yield from self._list(key)

    # -- writing ---------------------------------------------------------------------------------

    def put(self, key: str, data: bytes | memoryview) -> None:
        """See ``ObjectStore.put``."""
        path = self._path(key)
        with self._writing(key):
            if self._has(path, len(data)):
                return
            with self._written(data) as temporary:
                self._rename(temporary, path)

    def put_file(self, key: str, path: Path) -> None:
        """See ``ObjectStore.put_file``."""
        target = self._path(key)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with self._writing(key), os.fdopen(descriptor, "rb", buffering=0) as source:
            if not self._has(target, os.fstat(source.fileno()).st_size):
                os.fsync(source.fileno())
                try:
                    self._rename(path, target)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    import shutil  # Few stores need it, and it loads all compressors.

                    temporary, copy = create_temporary(self._temporary())
                    with copy, _removed_on_exit(temporary):
                        shutil.copyfileobj(source, copy, _COPY_BYTES)
                        os.fsync(copy.fileno())
                        self._rename(temporary, target)
            path.unlink(missing_ok=True)

    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        """See ``ObjectStore.replace``."""
        path = self._path(key)
        # Written before the lock is taken, so that the lock is held for a comparison and a rename.
        with self._writing(key), self._written(data) as temporary, self._locked():
            self._compare(key, expected)
            self._rename(temporary, path)
        return _version(data)

    def remove(self, key: str, expected: Version | None = None) -> None:
        """See ``ObjectStore.remove``."""
        path = self._path(key)
        self.size(key)  # NotFoundError, and no store made just to hold a lock file
        with self._writing(key), self._locked():
            if expected is not None:
                self.size(key)
                self._compare(key, expected)
            try:
                os.unlink(path)
            except FileNotFoundError as error:
                raise translate(error, self.url, key, writing=False) from error
            self._prune(os.path.dirname(path))

    def temporary(self) -> Path:
        """See ``ObjectStore.temporary``; this is the folder ``tmp`` in the root."""
        with self._writing(TEMPORARY_FOLDER):
            return self._temporary()

    def clean_temporary(self) -> int:
        """Removes the temporary files of writers that died; returns how many.

        Harmless at any time: the files of living writers, in any process, are locked.
        """
        with self._writing(TEMPORARY_FOLDER):
            return clean_temporary(self._root / TEMPORARY_FOLDER)

    # -- parts -----------------------------------------------------------------------------------

    def _path(self, key: str) -> str:
        validate_key(key)
        if key.split("/", 1)[0] in _RESERVED:
            raise InvalidInputError(f"{key!r} is not an object key: the local store uses that name")
        return self._prefix + key

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise translate(error, self.url, key, writing=True) from error

    def _temporary(self) -> Path:
        folder = self._root / TEMPORARY_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def _written(self, data: bytes | memoryview) -> Iterator[Path]:
        """Makes a temporary file with the data, on disk; removes it unless it was renamed."""
        path, file = create_temporary(self._temporary())
        with file, _removed_on_exit(path):
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            yield path

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Excludes every other compare-and-swap of this store, in any thread or process."""
        descriptor = os.open(self._prefix + LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _compare(self, key: str, expected: Version | None) -> None:
        try:
            current = self.read(key)[1]
        except NotFoundError as error:
            if expected is None:
                return
            raise ConflictError(f"{key} was removed by someone else") from error
        if expected is None:
            raise ConflictError(f"{key} exists already: someone else made it")
        if current != expected:
            raise ConflictError(f"{key} was changed by someone else")

    def _has(self, path: str, size: int) -> bool:
        """Whether the object is there whole; then it is also durable on return."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return False
        if not _is_file(status) or status.st_size != size:
            return False
        # Another writer may have renamed it just now, and not yet have synced the folder.
        try:
            self._sync_names(os.path.dirname(path))
        except FileNotFoundError:
            return False
        return True

    def _rename(self, source: Path, path: str) -> None:
        """Gives a synced file its name, durably. Makes the folders above it."""
        folder = os.path.dirname(path)
        for attempt in range(_ATTEMPTS):
            try:
                os.makedirs(folder, exist_ok=True)
                os.rename(source, path)
                break
            except (FileNotFoundError, FileExistsError):
                # A remove() has pruned the folder in between, or just while it was being made.
                if attempt == _ATTEMPTS - 1 or not source.exists():
                    raise
        # A folder that is gone by now held an object that someone has removed already.
        with suppress(FileNotFoundError):
            self._sync_names(folder)

    def _sync_names(self, folder: str) -> None:
        """Makes the names in the folder durable, and those of the folders that lead to it."""
        _sync_folder(folder)
        inside = os.path.dirname(self._prefix)
        while folder not in self._durable:
            parent = os.path.dirname(folder)
            _sync_folder(parent)
            self._durable.add(folder)
            if folder == inside:
                break
            folder = parent

    def _prune(self, folder: str) -> None:
        """Makes a removal durable, and removes the folders that it left empty."""
        while True:
            try:
                _sync_folder(folder)
                break
            except FileNotFoundError:  # pruned by someone else, so look above
                folder = os.path.dirname(folder)
        while len(folder) > len(self._prefix):
            self._durable.discard(folder)
            try:
                os.rmdir(folder)
            except OSError:
                return  # not empty, or someone else was faster
            folder = os.path.dirname(folder)


def _version(data: bytes) -> Version:
    return Version(blake3(data).hexdigest())


def _is_file(status: os.stat_result) -> bool:
    return (status.st_mode & 0o170000) == 0o100000


@contextmanager
def _removed_on_exit(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _sync_folder(folder: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a folder above the store that may be passed but not read
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync folders (CIFS, some FUSE ones); they keep no promise anyway.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
