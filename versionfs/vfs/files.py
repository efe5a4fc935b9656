"""Open files. A handle is the inode number: what a number stands for never changes."""

from __future__ import annotations

import errno
from collections import OrderedDict
from typing import Final

from versionfs.tree import Contents, FileContent, Leaf, Push, Pusher, place, split_place
from versionfs.types import Kind
from versionfs.vfs.directories import Directories
from versionfs.vfs.errnos import FileSystemError
from versionfs.vfs.inodes import file_number

_KEPT: Final = 512
"""Contents kept for the next read. One that fell out is opened again, which costs no I/O."""


class Files:
    """Reads files by inode number. The kernel keeps the number known while a file is open."""

    def __init__(self, directories: Directories, contents: Contents) -> None:
        self._directories = directories
        self._contents = contents
        self._open: OrderedDict[int, FileContent] = OrderedDict()
        self._opens: dict[int, int] = {}
        self.pusher = Pusher(contents, self._to_push, directories.inodes.mark)

    def open(self, number: int) -> None:
        """Counts one more that has a file open.

        Raises:
            FileSystemError: ENOENT: the number is not known; EINVAL: it is a symlink.
        """
        opens = self._opens
        if number not in opens:
            self._regular(number)
        opens[number] = opens.get(number, 0) + 1

    def open_with_bytes(self, number: int) -> list[Push] | None:
        """Opens a file; returns what to push to the kernel's cache now, None if nothing.

        That is its own bytes, if it is small, the kernel cannot have them, and nobody else has it
        open: a page that is being read must not be pushed. With them may come others.

        Raises:
            FileSystemError: as :meth:`open`.
        """
        opens, inodes = self._opens, self._directories.inodes
        count = opens.get(number, 0)
        if count or inodes.is_marked(number):
            opens[number] = count + 1
            return [] if self.pusher.came(number) else None
        leaf, index = self._regular(number)
        opens[number] = 1
        at = split_place(inodes.find(number))[0]
        group = at, self._directories.leaves.key(at)
        return self.pusher.opened(group, leaf, index, number) or None

    def _to_push(self, group: tuple[int, bytes], leaf: Leaf, index: int) -> int:
        """Returns a file's number if the kernel knows it, without its bytes, and it is not open."""
        leaf_number, key = group
        number = file_number(leaf, index)
        inodes = self._directories.inodes
        if (
            number in self._opens
            or inodes.find(number) != place(leaf_number, index)
            or inodes.is_marked(number)
            # Leaves that nobody uses lose their numbers to others.
            or self._directories.leaves.key(leaf_number) is not key
        ):
            return 0
        return number

    def _regular(self, number: int) -> tuple[Leaf, int]:
        found = self._directories.file(number)
        if found is None:
            raise FileSystemError(errno.ENOENT)
        if found[0].kinds[found[1]] == Kind.SYMLINK:
            raise FileSystemError(errno.EINVAL)
        return found

    def release(self, number: int) -> None:
        """Counts one less; after the last one, nothing is read ahead any more."""
        opens = self._opens.pop(number, 1) - 1
        if opens > 0:
            self._opens[number] = opens
            return
        content = self._open.get(number)
        if content is not None:
            content.close()

    def content(self, number: int) -> FileContent:
        """Returns the content of a regular file.

        Raises:
            FileSystemError: ENOENT: the number is not known; EINVAL: it is a symlink.
        """
        content = self._open.get(number)
        if content is not None:
            return content
        leaf, index = self._regular(number)
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
