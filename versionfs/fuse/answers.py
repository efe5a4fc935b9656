"""What the accelerator calls for a request: plain functions that answer at once, or decline.

An answer is what ``_accelerator.c`` sends for its kind: attributes are the tuples of the layers
below; a negative number is an errno. None leaves the request to the coroutine of that kind, since
something must be fetched first: nothing was changed or counted then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from pyfuse3 import FUSEError

from versionfs.errors import VersionFSError
from versionfs.fuse.accelerator import Answer
from versionfs.fuse.branch_requests import BranchRequests
from versionfs.fuse.operations import report
from versionfs.objectstore import WouldBlock
from versionfs.vfs import DAY_SECONDS, ENOATTR, FileSystem, errno_of, is_expected

_DONE: Final = 0


def answers(filesystem: FileSystem, requests: BranchRequests | None) -> dict[str, Answer]:
    """Returns the functions by kind; ``requests`` serves the branch folders, if there are any."""
    methods = Reading(filesystem) if requests is None else Writing(filesystem, requests)
    kinds = [name for name in dir(methods) if not name.startswith("_")]
    return {kind: _plain(kind, getattr(methods, kind)) for kind in kinds}


def _plain(kind: str, method: Callable[..., object]) -> Answer:
    def answer(*args: object) -> object:
        try:
            return method(*args)
        except WouldBlock:
            return None
        except FUSEError as error:
            return -error.errno
        except Exception as error:  # noqa: BLE001  (every request has an answer)
            if not is_expected(error):
                report(kind, args, error)
            return -errno_of(error)

    return answer


class Reading:
    """The requests that a read-only mount serves.

    Its public methods are the kinds, and ``look_ahead`` and ``push_ahead``, which answer none.
    """

    def __init__(self, filesystem: FileSystem) -> None:
        self._fs = filesystem
        self._listed = -1
        self._opened = -1

    def lookup(self, parent: int, name: bytes) -> object:
        """Returns attributes, or None, and seconds."""
        if self._fs.preparation(parent, name) is not None:
            return None
        return self._fs.lookup(parent, name)

    def getattr(self, number: int) -> object:
        """Returns attributes and seconds."""
        return self._fs.attributes(number)

    def open(self, number: int, flags: int) -> object:
        """Returns a handle, and numbers and bytes for the kernel's cache, or None.

        A list, also an empty one, says that there may be something to push ahead.
        """
        self._opened = number
        return self._fs.open_with_bytes(number, flags)

    def push_ahead(self) -> object:
        """Returns numbers and bytes for the kernel's cache, or None when that is all."""
        return self._fs.push_ahead()

    def read(self, handle: int, offset: int, size: int) -> object:
        """Returns a list of bytes, which follow each other."""
        return self._fs.read_pieces(handle, offset, size)

    def release(self, handle: int) -> object:
        """Closes a file."""
        self._fs.release(handle)
        return _DONE

    def opendir(self, number: int) -> object:
        """Returns a handle, and whether the kernel may keep the listing."""
        if self._fs.preparation(number, None) is not None:
            return None
        return self._fs.opendir(number), self._fs.is_listing_kept(number)

    def readdir(self, handle: int, start: int, room: int) -> object:
        """Returns packed entries; or a generator of entries, and seconds."""
        self._listed = handle
        packed = self._fs.readdir_packed(handle, start, room)
        return self._fs.readdir(handle, start) if packed is None else packed

    def look_ahead(self) -> object:
        """Prepares what a listing, or a walk, will ask for next."""
        with suppress(VersionFSError):  # Who comes there is told.
            self._fs.look_ahead(self._listed)
        return _DONE

    def releasedir(self, handle: int) -> object:
        """Closes a directory."""
        self._fs.releasedir(handle)
        return _DONE

    def getxattr(self, number: int, name: bytes) -> object:
        """Returns bytes."""
        return self._fs.xattr(number, name)

    def forget(self, pairs: Sequence[tuple[int, int]]) -> object:
        """Takes lookups from inodes."""
        self._fs.forget(pairs)
        return _DONE


class Writing(Reading):
    """The requests of a mount with branch folders."""

    def __init__(self, filesystem: FileSystem, requests: BranchRequests) -> None:
        super().__init__(filesystem)
        self._requests = requests
        self._serves = requests.serves

    def lookup(self, parent: int, name: bytes) -> object:
        """Returns attributes, or None, and seconds."""
        if self._serves(parent):
            return self._requests.lookup_now(parent, name), DAY_SECONDS
        return super().lookup(parent, name)

    def getattr(self, number: int) -> object:
        """Returns attributes and seconds."""
        if self._serves(number):
            return self._requests.getattr_now(number), DAY_SECONDS
        return self._fs.attributes(number)

    def open(self, number: int, flags: int) -> object:
        """Returns a handle, and numbers and bytes for the kernel's cache, or None."""
        if self._serves(number):
            self._opened = number
            requests = self._requests
            return requests.open_now(number, flags), requests.to_push_now(number)
        return super().open(number, flags)

    def push_ahead(self) -> object:
        """Returns numbers and bytes for the kernel's cache, or None when that is all."""
        if not self._serves(self._opened):
            return super().push_ahead()
        return self._requests.push_ahead_now(self._opened)

    def create(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> object:
        """Returns attributes and seconds; the handle is the number."""
        return self._requests.create_now(parent, name, mode, uid, gid), DAY_SECONDS

    def read(self, handle: int, offset: int, size: int) -> object:
        """Returns a list of bytes, which follow each other."""
        if self._serves(handle):
            return self._requests.read_now(handle, offset, size)
        return self._fs.read_pieces(handle, offset, size)

    def write(self, handle: int, offset: int, data: memoryview) -> object:
        """Returns how many bytes were written."""
        return self._requests.write_now(handle, offset, data)

    def release(self, handle: int) -> object:
        """Closes a file."""
        if not self._serves(handle):
            return super().release(handle)
        self._requests.release_now(handle)
        return _DONE

    def opendir(self, number: int) -> object:
        """Returns a handle, and whether the kernel may keep the listing."""
        if self._serves(number):
            return self._requests.opendir_now(number), True
        return super().opendir(number)

    def readdir(self, handle: int, start: int, room: int) -> object:
        """Returns packed entries; or a generator of entries, and seconds."""
        if self._serves(handle):
            self._listed = handle
            requests = self._requests
            packed = requests.readdir_packed_now(handle, start, room, DAY_SECONDS)
            if packed is not None:
                return packed
            return requests.readdir_now(handle, start), DAY_SECONDS
        return super().readdir(handle, start, room)

    def look_ahead(self) -> object:
        """Prepares what a listing, or a walk, will ask for next."""
        if not self._serves(self._listed):
            return super().look_ahead()
        with suppress(VersionFSError):
            self._requests.look_ahead_now(self._listed)
        return _DONE

    def releasedir(self, handle: int) -> object:
        """Closes a directory."""
        if not self._serves(handle):
            return super().releasedir(handle)
        self._requests.releasedir_now(handle)
        return _DONE

    def getxattr(self, number: int, name: bytes) -> object:
        """Returns bytes."""
        if not self._serves(number):
            return self._fs.xattr(number, name)
        value = self._requests.getxattr_now(number, name)
        return -ENOATTR if value is None else value

    def forget(self, pairs: Sequence[tuple[int, int]]) -> object:
        """Takes lookups from inodes."""
        others = self._requests.forget_now(pairs)
        if others:
            self._fs.forget(others)
        return _DONE
