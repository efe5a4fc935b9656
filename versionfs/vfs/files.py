"""Open files. A handle is the inode number: what a number stands for never changes."""

from __future__ import annotations

import errno
from collections import Counter, OrderedDict
from typing import Final

from versionfs.errors import VersionFSError
from versionfs.objectstore import WouldBlock
from versionfs.tree import Contents, FileContent
from versionfs.types import Kind
from versionfs.vfs.directories import Directories
from versionfs.vfs.errnos import FileSystemError

PUSHED_BYTES: Final = 128 * 1024
"""The largest file whose bytes go to the kernel with the answer to ``open``."""

_KEPT: Final = 512
"""Contents kept for the next read. One that fell out is opened again, which costs no I/O."""


class Files:
    """Reads files by inode number. The kernel keeps the number known while a file is open."""

    def __init__(self, directories: Directories, contents: Contents) -> None:
        self._directories = directories
        self._contents = contents
        self._open: OrderedDict[int, FileContent] = OrderedDict()
        self._opens: Counter[int] = Counter()

    def open(self, number: int) -> None:
        """Counts one more that has a file open.

        Raises:
            FileSystemError: ENOENT: the number is not known; EINVAL: it is a symlink.
        """
        self.content(number)
        self._opens[number] += 1

    def release(self, number: int) -> None:
        """Counts one less; after the last one, nothing is read ahead any more."""
        self._opens[number] -= 1
        if self._opens[number] > 0:
            return
        del self._opens[number]
        content = self._open.get(number)
        if content is not None:
            content.close()

    def bytes_to_push(self, number: int) -> bytes | None:
        """Returns the bytes of a small file just opened that the kernel cannot have; else None."""
        if number in self._directories.pushed or self._opens[number] != 1:
            return None
        content = self.content(number)
        if not 0 < content.size <= PUSHED_BYTES:
            return None
        try:
            data = content.read(0, content.size)
        except (WouldBlock, VersionFSError):
            return None  # Who reads it waits for it, or gets the error.
        self._directories.pushed.add(number)
        return data

    def content(self, number: int) -> FileContent:
        """Returns the content of a regular file.

        Raises:
            FileSystemError: ENOENT: the number is not known; EINVAL: it is a symlink.
        """
        content = self._open.get(number)
        if content is not None:
            return content
        found = self._directories.file(number)
        if found is None:
            raise FileSystemError(errno.ENOENT)
        leaf, index = found
        if leaf.kinds[index] == Kind.SYMLINK:
            raise FileSystemError(errno.EINVAL)
        content = self._contents.open(leaf.entry(index))
        self._open[number] = content
        if len(self._open) > _KEPT:
            _, dropped = self._open.popitem(last=False)
            dropped.close()
        return content

    def target(self, number: int) -> bytes:
        """Returns the target of a symlink.

        Raises:
            FileSystemError: ENOENT: the number is not known; EINVAL: it is no symlink.
        """
        found = self._directories.file(number)
        if found is None:
            raise FileSystemError(errno.ENOENT)
        leaf, index = found
        if leaf.kinds[index] != Kind.SYMLINK:
            raise FileSystemError(errno.EINVAL)
        return leaf.target(index)
