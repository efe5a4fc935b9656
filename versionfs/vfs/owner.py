"""Whose files a mount shows."""

from __future__ import annotations


class Owner:
    """The owner shown: as stored when root mounts, else the mounting user for everything.

    So a user can read what the permission bits let the owner read, whoever that was where the data
    came from; root sees, and can copy, the real owners.
    """

    __slots__ = ("fixed", "own")

    def __init__(self, uid: int, gid: int) -> None:
        self.own = (uid, gid)
        self.fixed = None if uid == 0 else self.own

    def shown(self, uid: int, gid: int) -> tuple[int, int]:
        """Returns the user and group to show for stored ones."""
        return self.fixed or (uid, gid)
