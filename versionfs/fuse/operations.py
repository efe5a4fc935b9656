"""The pyfuse3 adapter: translates arguments, makes one call of the file system, translates back.

pyfuse3 ends the mount on any exception but ``FUSEError``, so every handler is wrapped: errors
become an errno by the one table in ``vfs.errnos``, and unexpected ones are logged.
"""

# ruff: noqa: ARG002  (the signatures are those of pyfuse3)

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, StatvfsData

from versionfs.errors import StorageTransientError, VersionFSError
from versionfs.objectstore import WouldBlock
from versionfs.vfs import NAME_MAX, Attributes, FileSystem, errno_of, is_expected

if TYPE_CHECKING:
    from pyfuse3 import ReaddirToken, RequestContext

log = logging.getLogger(__name__)

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Self = TypeVar("_Self", bound="Operations")
_Handler = Callable[Concatenate[_Self, _Arguments], Coroutine[Any, Any, _Result]]

_BLOCK_BYTES = 4096

TASKS: Final = 256
"""Requests served at a time. So many may wait for a store before others do."""

_ROUNDS: Final = 64
"""How often a request is tried that finds, each time, one more thing that must be fetched."""


def handler(
    kind: str,
) -> Callable[[_Handler[_Self, _Arguments, _Result]], _Handler[_Self, _Arguments, _Result]]:
    """Counts a request, and turns whatever goes wrong in it into an errno.

    What must be fetched first is fetched in another thread, and the handler called again.
    """

    def decorate(
        method: _Handler[_Self, _Arguments, _Result],
    ) -> _Handler[_Self, _Arguments, _Result]:
        @functools.wraps(method)
        async def answer(
            self: _Self, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
        ) -> _Result:
            self.requests[kind] += 1
            try:
                try:
                    return await method(self, *args, **kwargs)
                except WouldBlock as wait:
                    fetch = wait.fetch
                return await self._fetched(fetch, functools.partial(method, self, *args, **kwargs))
            except FUSEError:
                raise
            except Exception as error:
                if not is_expected(error):
                    report(kind, args, error)
                raise FUSEError(errno_of(error)) from error

        return answer

    return decorate


def report(kind: str, args: Sequence[object], error: Exception) -> None:
    """Logs an error that a request failed with: one line if it is ours, else all we know."""
    shown = [arg for arg in args if isinstance(arg, (int, bytes))]
    if isinstance(error, VersionFSError):
        log.error("%s%s: %s", kind, shown, error)
    else:
        log.error("%s%s failed unexpectedly", kind, shown, exc_info=error)


class Operations(pyfuse3.Operations):
    """Serves the requests of the kernel. All handlers run in one thread."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, filesystem: FileSystem) -> None:
        self._fs = filesystem
        self.requests = filesystem.requests
        # Used again for each answer: pyfuse3 copies it before another task can run.
        self._entry = EntryAttributes()
        self._limiter = trio.CapacityLimiter(TASKS)
        self._waits: set[trio.CancelScope] = set()

    def end(self) -> None:
        """Fails the requests that wait for the store: the mount ends."""
        for scope in list(self._waits):
            scope.cancel()

    async def _wait(self, work: Callable[[], _Result]) -> _Result:
        """Does work that may block in another thread; other requests are served meanwhile."""
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                return await trio.to_thread.run_sync(
                    work, abandon_on_cancel=True, limiter=self._limiter
                )
            finally:
                self._waits.discard(scope)
        raise FUSEError(errno.EIO)

    async def _fetched(
        self, fetch: Callable[[], object], again: Callable[[], Coroutine[Any, Any, _Result]]
    ) -> _Result:
        """Calls a handler again when what it needs was fetched, as often as it needs more."""
        for _ in range(_ROUNDS):
            await self._wait(fetch)
            try:
                return await again()
            except WouldBlock as wait:
                fetch = wait.fetch
        raise StorageTransientError(
            "the caches lose what is fetched before it is used", hint="raise --cache-size"
        )

    def _filled(self, attributes: Attributes, timeout: float) -> EntryAttributes:
        entry = self._entry
        number, mode, size, mtime_ns, uid, gid = attributes
        entry.st_ino = number
        entry.st_mode = mode
        entry.st_nlink = 1
        entry.st_rdev = 0
        entry.st_size = size
        entry.st_blocks = (size + 511) >> 9
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = mtime_ns
        entry.st_uid = uid
        entry.st_gid = gid
        entry.entry_timeout = entry.attr_timeout = timeout
        return entry

    async def _prepare(self, number: int, name: bytes | None) -> None:
        work = self._fs.preparation(number, name)
        if work is not None:
            await self._wait(work)

    @handler("lookup")
    async def lookup(
        self,
        parent_inode: int,
        name: bytes,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Answers what a name in a directory is."""
        return await self._lookup(parent_inode, name)

    async def _lookup(self, parent_inode: int, name: bytes) -> EntryAttributes:
        await self._prepare(parent_inode, name)
        attributes, timeout = self._fs.lookup(parent_inode, name)
        if attributes is not None:
            return self._filled(attributes, timeout)
        entry = self._entry
        entry.st_ino = 0
        entry.entry_timeout = timeout
        return entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Takes lookups from inodes."""
        self.requests["forget"] += len(inode_list)
        try:
            self._fs.forget(inode_list)
        except Exception as error:  # noqa: BLE001  (pyfuse3 would end the mount)
            report("forget", (), error)

    @handler("getattr")
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Answers the attributes of an inode."""
        return self._filled(*self._fs.attributes(inode))

    @handler("readlink")
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Answers the target of a symlink."""
        return self._fs.readlink(inode)

    @handler("open")
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Opens a file: its pages stay in the kernel's cache, since content never changes."""
        return FileInfo(fh=self._fs.open(inode, flags), keep_cache=True)

    @handler("read")
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Answers bytes of a file; blocks are decoded here, since a thread costs more.

        What is in no cache is fetched, decoded and verified in another thread.
        """
        return await self._read(fh, off, size)

    async def _read(self, fh: int, off: int, size: int) -> bytes:
        content = self._fs.content(fh)
        try:
            return content.read(off, size)
        except WouldBlock:
            pass
        return await self._wait(functools.partial(content.read, off, size))

    async def flush(self, fh: int) -> None:
        """Answers ENOSYS: the kernel does not ask again."""
        raise FUSEError(errno.ENOSYS)

    async def release(self, fh: int) -> None:
        """Closes a file."""
        try:
            self._fs.release(fh)
        except Exception as error:  # noqa: BLE001  (pyfuse3 would end the mount)
            report("release", (fh,), error)

    @handler("opendir")
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Opens a directory."""
        await self._prepare(inode, None)
        return self._fs.opendir(inode)

    @handler("readdir")
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """Answers entries of a directory with their attributes, as many as fit."""
        await self._readdir(fh, start_id, token)

    async def _readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        items, timeout = self._fs.readdir(fh, start_id)
        offset = start_id
        reply = pyfuse3.readdir_reply
        entry = self._entry
        entry.entry_timeout = entry.attr_timeout = timeout
        entry.st_nlink = 1
        entry.st_rdev = 0
        try:
            for name, number, mode, size, mtime_ns, uid, gid, offset in items:
                entry.st_ino = number
                entry.st_mode = mode
                entry.st_size = size
                entry.st_blocks = (size + 511) >> 9
                entry.st_mtime_ns = mtime_ns
                entry.st_ctime_ns = mtime_ns
                entry.st_atime_ns = mtime_ns
                entry.st_uid = uid
                entry.st_gid = gid
                if not reply(token, name, entry, offset):
                    break
        except Exception:
            # Entries that the kernel has got cannot be taken back: it asks again for those behind.
            if offset == start_id:
                raise
        finally:
            items.close()

    async def releasedir(self, fh: int) -> None:
        """Closes a directory."""
        self._fs.releasedir(fh)

    @handler("statfs")
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Answers the space of the store's disk, and the number of files."""
        space = await self._wait(self._fs.space())
        data = StatvfsData()
        data.f_bsize = data.f_frsize = space.block_bytes
        data.f_blocks = space.blocks
        data.f_bfree = space.free
        data.f_bavail = space.available
        data.f_files = space.files
        data.f_ffree = data.f_favail = 0
        data.f_namemax = NAME_MAX
        return data

    @handler("getxattr")
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Answers an extended attribute."""
        return self._fs.xattr(inode, name)

    @handler("listxattr")
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        """Answers the names of the stored extended attributes."""
        return self._fs.xattrs(inode)

    def stacktrace(self) -> None:
        """Does nothing: a hook of pyfuse3 for debugging."""


def _read_only(kind: str) -> Callable[..., Coroutine[Any, Any, None]]:
    async def answer(self: Operations, *_: object) -> None:
        self.requests[kind] += 1
        raise FUSEError(errno.EROFS)

    return answer


# The kernel answers EROFS itself on a read-only mount: this is for what it lets through.
for _kind in (
    "setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "write", "create",
    "setxattr", "removexattr", "fsync", "fsyncdir",
):  # fmt: skip
    setattr(Operations, _kind, _read_only(_kind))
