"""Slabs: the files that hold small layers, 1,024 each.

Layer ``n`` is slot ``n % SLOTS`` of the slab ``slabs/<n / SLOTS in hex>``; see ``slab.py`` for what
is in one. A slab goes with its last layer; few are kept open, and always the one that gets more.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from versionfs.workspace.descriptor import Descriptor
from versionfs.workspace.slab import MOVING, SLOTS, Freed, Slab, Slot

_FOLDER: Final = "slabs"


class Slabs:
    """The slabs in a staging folder. The caller serialises all calls.

    A layer that is named has a slot, but for ``find`` and ``create``.
    """

    def __init__(
        self,
        staging: Path,
        bound: int,
        open_file: Callable[[Path, int], int],
        make_file: Callable[[Path, int], int],
        is_own: Callable[[int], bool],
        leaving: Collection[int],
    ) -> None:
        """Begins.

        Args:
            staging: the staging folder.
            bound: how many slabs are kept open.
            open_file: opens a file, by its path and flags.
            make_file: the same, and makes it with its folder.
            is_own: whether a layer that a kill found on its way has got to a file of its own.
            leaving: the layers that are on their way now.
        """
        self.staging = staging
        self._bound = bound
        self._open_file = open_file
        self._make_file = make_file
        self._is_own = is_own
        self._leaving = leaving
        self._slabs: OrderedDict[int, Slab] = OrderedDict()
        self._newest: Slab | None = None
        self._numbers: set[int] = set()
        with contextlib.suppress(FileNotFoundError):
            numbers = map(_number, os.listdir(staging / _FOLDER))
            self._numbers = {number for number in numbers if number >= 0}

    # -- slabs -------------------------------------------------------------------------------------

    def path(self, number: int) -> Path:
        """Returns where a slab is."""
        return self.staging / _FOLDER / f"{number:014x}"

    def _slab(self, number: int) -> Slab | None:
        newest = self._newest
        if newest is not None and newest.number == number:
            return newest
        slab = self._slabs.get(number)
        if slab is not None:
            self._slabs.move_to_end(number)
            return slab
        if number not in self._numbers:
            return None
        try:
            opened = Descriptor(self._open_file(self.path(number), os.O_RDWR))
        except FileNotFoundError:
            self._numbers.discard(number)
            return None
        return self._add(number, opened)

    def _add(self, number: int, descriptor: Descriptor) -> Slab:
        slab = Slab(number, descriptor, self.path(number))
        for index in slab.moving():
            layer = number * SLOTS + index
            if layer in self._leaving:
                continue
            # A kill came in between; which file has the layer, the names say.
            if self._is_own(layer):
                slab.clear(index).give_back()
            else:
                slab.mark(index, MOVING, on=False)
        self._slabs[number] = slab
        if len(self._slabs) > self._bound:
            self._slabs.popitem(last=False)
        return slab

    def _made(self, number: int) -> Slab:
        """Returns a slab; makes its file.

        Raises:
            OSError: there is no space for it.
        """
        path = self.path(number)
        descriptor = Descriptor(self._make_file(path, 0))
        try:
            Slab.begin(descriptor.number)
        except OSError:
            path.unlink()
            raise
        self._numbers.add(number)
        return self._add(number, descriptor)

    def _slab_of(self, layer: int) -> Slab:
        """Returns the slab of a layer that has a slot."""
        slab = self._slab(layer // SLOTS)
        assert slab is not None
        return slab

    def _drop(self, slab: Slab) -> Descriptor | None:
        """Removes a slab without layers, but for the one that gets more; returns it if it is gone.

        Its name goes at once, for one of its number may be made again; its space, when it is
        closed.
        """
        if slab.live or slab is self._newest:
            return None
        self.path(slab.number).unlink(missing_ok=True)
        self._numbers.discard(slab.number)
        self._slabs.pop(slab.number, None)
        return slab.descriptor

    def drop(self, number: int) -> Descriptor | None:
        """Removes a slab without layers, but for the one that gets more.

        Returns its file, to be let go of when no lock is held; None if nothing was removed.
        """
        slab = self._slab(number)
        return None if slab is None else self._drop(slab)

    def layers(self, number: int) -> list[int]:
        """Returns the layers of a slab."""
        slab = self._slab(number)
        if slab is None:
            return []
        return [number * SLOTS + index for index in slab.used()]

    def numbers(self) -> list[int]:
        """Returns the slabs there are, ascending."""
        return sorted(self._numbers)

    def close(self) -> None:
        """Closes all files; calls under way still finish."""
        self._slabs.clear()
        self._newest = None
        self._numbers.clear()

    # -- layers ------------------------------------------------------------------------------------

    def find(self, layer: int) -> Slot | None:
        """Returns what is known of a layer."""
        slab = self._slab(layer // SLOTS)
        return None if slab is None else slab.slot(layer % SLOTS)

    def create(self, layer: int, size: int) -> Descriptor | None:
        """Makes a layer of ``size`` zeros.

        Returns the file of a slab that is gone since this one gets more, to be let go of when no
        lock is held.

        Raises:
            FileExistsError: it is there.
            OSError: there is no space.
        """
        number = layer // SLOTS
        slab = self._slab(number)
        if slab is None:
            slab = self._made(number)
        newest, gone = self._newest, None
        if newest is None or number > newest.number:
            self._newest = slab
            if newest is not None:
                gone = self._drop(newest)
        slab.create(layer % SLOTS, size)
        return gone

    def file(self, layer: int) -> Descriptor:
        """Returns the file of a layer that has a slot."""
        return self._slab_of(layer).descriptor

    def place(self, layer: int, offset: int) -> tuple[Descriptor, int]:
        """Returns the file of a layer that has a slot, and where in it a byte of the layer is."""
        slab = self._slab_of(layer)
        return slab.descriptor, slab.place(layer % SLOTS, offset)

    def mark(self, layer: int, flag: int, *, on: bool = True) -> None:
        """Sets a flag of a layer that has a slot, or takes it away."""
        self._slab_of(layer).mark(layer % SLOTS, flag, on=on)

    def write(self, layer: int, offset: int, data: bytes | memoryview) -> tuple[int, int]:
        """See ``Slab.write``."""
        return self._slab_of(layer).write(layer % SLOTS, offset, data)

    def truncate(self, layer: int, size: int) -> Freed:
        """See ``Slab.truncate``."""
        return self._slab_of(layer).truncate(layer % SLOTS, size)

    def remove(self, layers: Sequence[int]) -> Freed:
        """Removes layers of one slab, in order, and the slab after the last one in it.

        Returns the space to be given back, before one of these layers is made again.
        """
        slab = self._slab_of(layers[0])
        freed = slab.remove([layer % SLOTS for layer in layers])
        return freed if self._drop(slab) is None else freed._replace(ranges=[])


def _number(name: str) -> int:
    try:
        number = int(name, 16)
    except ValueError:
        return -1
    return number if name == f"{number:014x}" else -1
