"""Which layers a workspace has: what numbers are used up, which a commit reads, which may go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from versionfs.workspace.changes import Changes
from versionfs.workspace.inode import WHITEOUT, Inode, decode_name, name_key
from versionfs.workspace.layers import forget_layers
from versionfs.workspace.names import Names
from versionfs.workspace.records import Records
from versionfs.workspace.table import FrozenTable

_RESERVED: Final = 4_096
"""Numbers that one record says are used up."""
NEXT_LAYER_KEY: Final = b"mlayer"


class LayerBook:
    """Keeps count of layers. One thread only, but for the work it returns.

    Numbers only grow: a commit reads all layers below the next number at its cut.
    """

    def __init__(self, names: Names, records: Records) -> None:
        self._names = names
        self._records = records
        self._is_counting = False
        self._next = self._reserved = self._first = 1
        self.frozen_below = 0
        """Layers below stay as they are, for a commit reads them; 0: none does."""
        self._cut: FrozenTable | None = None
        self._doomed: list[int] = []
        if records.exists:
            self._count()

    # -- numbers ---------------------------------------------------------------------------------

    def _count(self) -> None:
        """Begins to number layers: above all that were ever recorded, and all that are there."""
        if not self._is_counting:
            staging = self._records.staging
            reserved = self._records.get(NEXT_LAYER_KEY)
            self._reserved = 1 if reserved is None else int.from_bytes(reserved, "little")
            self._next = self._first = max(self._reserved, staging.highest() + 1)
            self._is_counting = True

    def take_number(self) -> int:
        """Returns the number of a layer that is about to be made."""
        self._count()
        number = self._next
        self._next += 1
        return number

    def reserve(self, changes: Changes) -> int:
        """Records that layer numbers are used up, before one is; see ``reserved``."""
        if self._next <= self._reserved:
            return self._reserved
        reserved = self._next + _RESERVED
        changes.put(NEXT_LAYER_KEY, reserved.to_bytes(8, "little"))
        return reserved

    def reserved(self, below: int) -> None:
        """Notes that the record that ``reserve`` has made is there."""
        self._reserved = max(self._reserved, below)

    # -- commits ---------------------------------------------------------------------------------

    @property
    def is_frozen(self) -> bool:
        """Whether a commit is reading what there was at its cut."""
        return self.frozen_below > 0

    def freeze(self, below: int | None = None, cut: FrozenTable | None = None) -> int:
        """From now on what was written stays as it is: changes go to new layers.

        Returns the number that all layers frozen are below of; ``below`` gives it. ``cut`` has the
        records as the commit reads them, and is closed by ``forget_cut``.
        """
        self.frozen_below = self._next if below is None else below
        self._cut = cut
        return self.frozen_below

    def may_commit(self, parent: int, name: bytes) -> bool:
        """Whether a commit is under way that has a name, or has it for all that is known."""
        if not self.frozen_below or self._cut is None:
            return self.frozen_below > 0
        value = self._cut.get(name_key(parent, name))
        return value is not None and decode_name(value)[0] != WHITEOUT

    def forget_cut(self) -> None:
        """Lets go of the records of a commit that has ended, or of which nothing is heard."""
        if self._cut is not None:
            self._cut.close()
            self._cut = None

    def thaw(self) -> None:
        """Ends what ``freeze`` began, and throws away what was kept only for it."""
        self.forget_cut()
        self.frozen_below = 0
        doomed, self._doomed = self._doomed, []
        for layer in doomed:
            self._records.discard(layer)

    def sweep(self) -> Callable[[], int]:
        """Returns the work of removing layers that no record names, as a kill may leave.

        For a thread, at any time; it returns how many it removed.
        """
        records, staging, before = self._records, self._records.staging, self._first
        used = {layer.id for inode in self._names.orphans.values() for layer in inode.layers}
        used.update(self._doomed)
        frozen = records.frozen()

        def work() -> int:
            if frozen is None:
                return 0
            with frozen:
                for key, value in frozen.scan(b"i"):
                    inode = Inode.decode(int.from_bytes(key[1:], "big"), value)
                    used.update(layer.id for layer in inode.layers)
            # A power cut must not bring back a record of what is removed here.
            records.sync()
            strays = [layer for layer in staging.layers() if layer < before and layer not in used]
            forget_layers(records, staging, strays)
            return len(strays)

        return work

    def discard(self, layer: int) -> None:
        """Throws a layer away that no record has; later, if a commit may read it."""
        if layer < self.frozen_below:
            self._doomed.append(layer)
        else:
            self._records.discard(layer)
