"""The contents of a workspace's files: opened, read and written."""

from __future__ import annotations

import contextlib
import errno
import stat
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from versionfs.errors import FileSystemError
from versionfs.objectstore import WouldBlock
from versionfs.tree import (
    Contents,
    FileContent,
    Leaf,
    Pieces,
    Push,
    Pusher,
    joined,
    place,
    split_place,
)
from versionfs.types import Kind
from versionfs.workspace.changes import Changes
from versionfs.workspace.content import Layer, LayeredFile, Stack, create_layer
from versionfs.workspace.folders import hashed_number
from versionfs.workspace.inode import Inode, without_privileges
from versionfs.workspace.journal import Mutation
from versionfs.workspace.layerbook import LayerBook
from versionfs.workspace.names import Names
from versionfs.workspace.records import Records

_KEPT: Final = 1_024
_BLOCK: Final = 512
_UNSAVED: Final = 1_024
"""Files that are closed, and whose times are not recorded yet."""
_SAVED_AT_ONCE: Final = 64

Begin = Callable[[], Changes]
"""Begins an operation."""


class Files:
    """The regular files of a workspace. One thread only, but for the work it returns."""

    def __init__(
        self, names: Names, records: Records, layers: LayerBook, contents: Contents
    ) -> None:
        self._names = names
        self._records = records
        self._layers = layers
        self._contents = contents
        self._layered: OrderedDict[int, LayeredFile] = OrderedDict()
        self._stored: OrderedDict[int, FileContent] = OrderedDict()
        self._opens: Counter[int] = Counter()
        self.pusher = Pusher(contents, self._to_push, names.known.mark)

    # -- opening ---------------------------------------------------------------------------------

    def open(self, number: int) -> None:
        """Counts one more that has a file open.

        Raises:
            FileSystemError: ENOENT, EISDIR, EINVAL (a symlink).
        """
        names = self._names
        if number in self._layered:
            self._opens[number] += 1
            return
        if number in names.folders:
            raise FileSystemError(errno.EISDIR)
        found = names.base_file(number)
        if found is not None:
            if found[1].kinds[found[2]] == Kind.SYMLINK:
                raise FileSystemError(errno.EINVAL)
        elif not names.inode(number).is_file:
            raise FileSystemError(errno.EINVAL)
        self._opens[number] += 1

    def to_push(self, number: int) -> list[Push] | None:
        """Returns what to push to the kernel's cache when a file was just opened, None if nothing.

        That is its own bytes, if it is small and unchanged, the kernel cannot have them, and nobody
        else has it open: a page that is being read must not be pushed. With them may come others.
        """
        known = self._names.known
        if self._opens[number] != 1 or known.is_marked(number):
            return [] if self.pusher.came(number) else None
        found = self._names.base_file(number)
        if found is None:
            return None
        folder, leaf, index = found
        at = split_place(known.find(number))[0]
        group = folder.number, at, self._names.leaves.key(at)
        return self.pusher.opened(group, leaf, index, number) or None

    def _to_push(self, group: tuple[int, int, bytes], leaf: Leaf, index: int) -> int:
        """Returns a file's number if the kernel knows it, without its bytes, and it is not open."""
        folder, leaf_number, key = group
        number = hashed_number(folder, leaf.names[index])
        known = self._names.known
        if (
            number in self._opens
            or known.find(number) != place(leaf_number, index)
            or known.parent(number) != folder
            or known.is_marked(number)
            # Leaves that nobody uses lose their numbers to others.
            or self._names.leaves.key(leaf_number) is not key
        ):
            return 0
        return number

    def release(self, begin: Begin, number: int) -> None:
        """Counts one less; after the last one, what is only in memory is saved, soon.

        Raises:
            OSError: the disk is full: the times of the last writes are saved later.
        """
        self._opens[number] -= 1
        if self._opens[number] > 0:
            return
        del self._opens[number]
        stored = self._stored.pop(number, None)
        if stored is not None:
            stored.close()
        layered = self._layered.get(number)
        if layered is not None:
            layered.close()
        # After a kill they come from the staging file, so that can wait, and many be saved at once.
        if len(self._names.unsaved) > _UNSAVED:
            with contextlib.suppress(WouldBlock):  # The disk is full for now: saved later.
                self._save_first(begin)

    def save(self, begin: Begin, number: int) -> None:
        """Records the times of a file that was written, if that was not done yet."""
        if number in self._names.unsaved:
            changes = begin()
            changes.inode(number)
            changes.apply()

    def save_all(self, begin: Begin) -> None:
        """Records the times of all files that were written, on a full disk too.

        Raises:
            OSError: what is kept back of the disk for that is used up; those left are not recorded.
            WouldBlock: likewise, and some of the disk is about to become free.
        """
        while self._names.unsaved:
            self._save_first(begin, frees=True)

    def _save_first(self, begin: Begin, *, frees: bool = False) -> None:
        changes = begin()
        for number in islice(self._names.unsaved, _SAVED_AT_ONCE):
            changes.inode(number)
        changes.apply(frees=frees)

    # -- reading ---------------------------------------------------------------------------------

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Returns what :meth:`read_pieces` does, as one."""
        return joined(self.read_pieces(number, offset, size))

    def read_pieces(self, number: int, offset: int, size: int) -> Pieces:
        """Returns up to ``size`` bytes at ``offset``: fewer only at the end of the file.

        Raises:
            FileSystemError: ENOENT, EINVAL.
            CorruptionError: stored bytes are damaged.
            OSError: a staging file cannot be read.
        """
        layered = self._layered.get(number)
        if layered is not None:
            return layered.read_pieces(offset, size)
        stored = self._stored.get(number)
        if stored is not None:
            return stored.read_pieces(offset, size)
        found = self._names.base_file(number)
        if found is None:
            return self.layered(self._names.inode(number)).read_pieces(offset, size)
        stored = self._contents.open(found[1].entry(found[2]))
        self._stored[number] = stored
        if len(self._stored) > _KEPT:
            self._stored.popitem(last=False)[1].close()
        return stored.read_pieces(offset, size)

    def layered(self, inode: Inode) -> LayeredFile:
        """Returns the content of a regular file that has a record."""
        file = self._layered.get(inode.number)
        if file is None:
            if not inode.is_file:
                raise FileSystemError(errno.EINVAL)
            file = LayeredFile(
                Stack(inode.base, inode.layers),
                self._records,
                self._records.staging,
                self._contents.open,
            )
            self._keep(inode.number, file)
            self._recover_times(inode)
        return file

    def _recover_times(self, inode: Inode) -> None:
        """Takes the time of the last write from the staging file, if a kill lost it."""
        if inode.layers and inode.number not in self._names.orphans:
            try:
                written_ns = self._records.staging.status(inode.layers[0].id).mtime_ns
            except FileNotFoundError:
                return
            if written_ns > inode.ctime_ns:
                late = inode.copy()
                late.mtime_ns = late.ctime_ns = written_ns
                self._names.unsaved[inode.number] = late
                self._names.drop(inode.number)

    def _keep(self, number: int, file: LayeredFile) -> None:
        # What was opened before it changed must not be read when a commit has settled it.
        stored = self._stored.pop(number, None)
        if stored is not None:
            stored.close()
        self._keep_layered(number, file)

    def _keep_layered(self, number: int, file: LayeredFile) -> None:
        self._layered[number] = file
        if len(self._layered) > _KEPT:
            self._layered.popitem(last=False)[1].close()

    def size(self, inode: Inode) -> tuple[int, int]:
        """Returns the size in bytes and the blocks of 512 bytes."""
        if not inode.layers:
            size = 0 if inode.base is None else inode.base.size
            return size, -(-size // _BLOCK)
        file = self.layered(inode)
        return file.size, -(-file.allocated // _BLOCK)

    # -- writing ---------------------------------------------------------------------------------

    def make(self, inode: Inode, changes: Changes) -> None:
        """Applies the changes that make a new file, with a layer to be written to.

        Raises:
            OSError: the disk is full or fails; nothing has changed.
            WouldBlock: the disk is full, and some of it is about to become free; likewise.
        """
        staging = self._records.staging
        layer = self._layers.take_number()
        try:
            create_layer(staging, layer)
        except OSError as error:
            if not self._records.makes_room(error):
                raise
            create_layer(staging, layer)
        inode.layers = (Layer(layer, 0),)
        reserved = self._layers.reserve(changes)
        try:
            changes.apply()
        except BaseException:
            with contextlib.suppress(OSError):
                staging.remove(layer)
            raise
        self._layers.reserved(reserved)
        stack, open_base = Stack(None, inode.layers), self._contents.open
        file = LayeredFile(stack, self._records, staging, open_base, is_new=True)
        self._keep_layered(inode.number, file)

    def write(self, begin: Begin, number: int, offset: int, data: bytes | memoryview) -> int:
        """Writes; returns how many bytes: all, or what the disk had room for.

        Raises:
            FileSystemError: ENOENT, EINVAL.
            WouldBlock: the disk is full, and some of it is about to become free.
            OSError: ENOSPC, EDQUOT, EFBIG, EIO: nothing was written.
        """
        if not data:
            return 0
        known = self._layered.get(number)
        if known is not None and known.top >= self._layers.frozen_below and known.is_whole:
            try:
                done = known.write_whole(offset, data)
            except OSError as error:
                if not self._records.makes_room(error):
                    raise
                done = known.write_whole(offset, data)
            self._written(begin, number)
            return done
        file, recorder = self._changing(begin, number)
        try:
            done = file.write(offset, data, recorder, fresh=recorder.fresh)
        except OSError as error:
            if not self._records.makes_room(error):
                raise
            file, recorder = self._changing(begin, number)
            done = file.write(offset, data, recorder, fresh=recorder.fresh)
        self._keep(number, file)
        if not recorder.called:
            self._written(begin, number)
        return done

    def truncate(self, begin: Begin, number: int, size: int) -> None:
        """Sets the size of a file, in bytes.

        Raises:
            FileSystemError: ENOENT, EINVAL (not a regular file).
            OSError: ENOSPC, EDQUOT, EFBIG, EIO: nothing has changed.
        """
        file, recorder = self._changing(begin, number)
        recorder.frees = size < file.size
        file.truncate(size, recorder, fresh=recorder.fresh)
        self._keep(number, file)

    def _changing(self, begin: Begin, number: int) -> tuple[LayeredFile, _Recorder]:
        """Returns the content of a file that is about to change."""
        file = self._layered.get(number)
        if file is None:
            names = self._names
            names.check(number)
            found = names.base_file(number)
            if found is None:
                file = self.layered(names.inode(number))
            else:
                entry = found[1].entry(found[2])
                if not entry.is_file:
                    raise FileSystemError(errno.EINVAL)
                staging = self._records.staging
                file = LayeredFile(Stack(entry), self._records, staging, self._contents.open)
        fresh = None
        if file.top < max(self._layers.frozen_below, 1):
            fresh = self._layers.take_number()
        return file, _Recorder(self._layers, self._records, begin, number, fresh)

    def _written(self, begin: Begin, number: int) -> None:
        """Notes the time of a write that changed no record."""
        names = self._names
        inode = names.unsaved.get(number)
        if inode is None:
            inode = names.orphans.get(number)
        if inode is None:
            inode = names.inode(number).copy()
            names.unsaved[number] = inode
            names.drop(number)
        if inode.mode & (stat.S_ISUID | stat.S_ISGID):
            changes = begin()
            changed = changes.adopt(number)
            changed.mode = without_privileges(changed.mode)
            changed.mtime_ns = changed.ctime_ns = changes.now
            changes.apply()
            return
        inode.mtime_ns = inode.ctime_ns = time.time_ns()

    def sync(self, begin: Begin, number: int) -> Callable[[], None]:
        """Returns the work of making a file survive a power cut, its name and its bytes."""
        self.save(begin, number)
        layers: Sequence[int] = ()
        if self._names.known.find(number) < 0:
            layers = [layer.id for layer in self._names.inode(number).layers]
        records = self._records

        def work() -> None:
            for layer in layers:
                # One that a commit has settled meanwhile is in the store.
                with contextlib.suppress(FileNotFoundError):
                    records.staging.sync(layer)
            records.sync()

        return work

    # -- going -----------------------------------------------------------------------------------

    def forget(self, number: int) -> None:
        """Forgets what is in memory of a file whose record has changed."""
        layered = self._layered.pop(number, None)
        if layered is not None:
            layered.close()

    def discard(self, inode: Inode) -> None:
        """Throws the content of a file away that has no name and that nobody has open."""
        self.forget(inode.number)
        for layer in inode.layers:
            self._layers.discard(layer.id)


class _Recorder:
    """Makes the record of a file say what its content has become."""

    def __init__(
        self,
        layers: LayerBook,
        records: Records,
        begin: Begin,
        number: int,
        fresh: int | None,
    ) -> None:
        self._layers = layers
        self._records = records
        self._begin = begin
        self._number = number
        self.fresh = fresh
        self.called = False
        self.frees = False

    def __call__(self, stack: Stack, mutations: Sequence[Mutation]) -> None:
        changes = self._begin()
        inode = changes.adopt(self._number)
        inode.layers = stack.layers
        inode.mtime_ns = inode.ctime_ns = changes.now
        inode.mode = without_privileges(inode.mode)
        changes.put_all(mutations)
        reserved = 0 if self.fresh is None else self._layers.reserve(changes)
        if stack.layers and stack.layers[0].limit:
            self._records.overwrites(stack.layers[0].id)
        changes.apply(frees=self.frees)
        self._layers.reserved(reserved)
        self.called = True
