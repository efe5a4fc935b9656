"""Layers that have a sparse file each: layer ``0x12ab`` is ``ab/00000000000012ab``."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from versionfs.workspace.database import sync_folder
from versionfs.workspace.descriptor import Descriptor

_LAYER_NAME: Final = re.compile("[0-9a-f]{16}")
_PART: Final = ".part"
_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})


class OwnFiles:
    """The files in a staging folder, and what of its names is on the disk.

    The caller serialises all calls but for :meth:`sync_names`.
    """

    def __init__(self, folder: Path, bound: int) -> None:
        """Begins; ``bound`` is how many files are kept open."""
        self.folder = folder
        self._bound = bound
        self._open: OrderedDict[int, Descriptor] = OrderedDict()
        self.names_lock = threading.Lock()
        """Held while names are synced; whoever renames the folder holds it too."""
        # A name is on the disk only after its folder was synced: not known of those found here.
        self._unsynced: dict[str, bool] = {}
        self._closed = False

    def path(self, layer: int) -> Path:
        """Returns where a layer's file is."""
        return self.folder / f"{layer & 0xFF:02x}" / f"{layer:016x}"

    def part(self, layer: int) -> Path:
        """Returns where a layer's file is until it is whole."""
        return self.path(layer).with_suffix(_PART)

    def has_whole(self, layer: int) -> bool:
        """Whether a layer that a kill found on its way from a slab has got here; else tidies up."""
        if self.path(layer).exists():
            return True
        self.part(layer).unlink(missing_ok=True)
        return False

    def get(self, layer: int) -> Descriptor:
        """Returns the file of a layer.

        Raises:
            FileNotFoundError: it has none.
        """
        found = self._open.get(layer)
        if found is None:
            return self.keep(layer, Descriptor(self.open(self.path(layer), os.O_RDWR)))
        self._open.move_to_end(layer)
        return found

    def status(self, layer: int) -> os.stat_result:
        """Returns what the file of a layer says of itself; opens nothing."""
        found = self._open.get(layer)
        return os.stat(self.path(layer)) if found is None else os.fstat(found.number)

    def keep(self, layer: int, descriptor: Descriptor) -> Descriptor:
        """Keeps a file open that is a layer's."""
        self._open[layer] = descriptor
        if len(self._open) > self._bound:
            self._open.popitem(last=False)
        return descriptor

    def forget(self, layer: int) -> Descriptor | None:
        """Keeps a layer's file open no more.

        Returns it, to be let go of when no lock is held: one that was removed is freed then.
        """
        return self._open.pop(layer, None)

    def open(self, path: Path, flags: int) -> int:
        """Opens a file in the staging folder; closes others where there are too many."""
        self.check_open()
        while True:
            try:
                return os.open(path, flags | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno not in _TOO_MANY or not self._open:
                    raise
                self._open.popitem(last=False)

    def make(self, path: Path, flags: int) -> int:
        """Makes a file, with the folder that it is in."""
        flags |= os.O_RDWR | os.O_CREAT
        try:
            number = self.open(path, flags)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            self._unsynced[""] = True
            number = self.open(path, flags)
        self._unsynced[path.parent.name] = True
        return number

    def check_open(self) -> None:
        """Raises EBADF when all is closed."""
        if self._closed:
            raise OSError(errno.EBADF, "the staging folder is closed")

    def layers(self) -> Iterator[int]:
        """Yields the layers there are, in no order; leaves out whatever else lies there."""
        for folder in sorted(self.folder.iterdir()):
            if len(folder.name) != 2 or not folder.is_dir():
                continue
            for file in os.scandir(folder):
                try:
                    layer = int(file.name, 16)
                except ValueError:
                    continue
                if self.path(layer) == folder / file.name:
                    yield layer

    def highest(self) -> int:
        """Returns the highest layer there is; 0 if there is none."""
        names = (name for folder in self.folder.iterdir() for name in _names(folder))
        return max((int(name, 16) for name in names), default=0)

    def sync_names(self, name: str) -> None:
        """Writes the names in one of the folders to the disk, where they are not. Blocks.

        ``names_lock`` must be held: who finds a name synced must not return before it is.

        Raises:
            OSError: the disk failed.
        """
        unsynced = self._unsynced
        for part, folders in (
            (name, [self.folder / name]),
            ("", [self.folder, self.folder.parent]),
        ):
            if unsynced.get(part, True):
                # Said before it is done: a name that comes meanwhile is not synced by this.
                unsynced[part] = False
                try:
                    for folder in folders:
                        sync_folder(folder)
                except BaseException:
                    unsynced[part] = True
                    raise

    def close(self) -> None:
        """Closes all files; calls under way still finish. Idempotent."""
        self._closed = True
        self._open.clear()


def _names(folder: Path) -> list[str]:
    """Returns the names in a folder that may be those of layers: the highest one only."""
    if len(folder.name) != 2 or not folder.is_dir():
        return []
    return sorted(filter(_LAYER_NAME.fullmatch, os.listdir(folder)))[-1:]
