"""Brings what is only in the kernel to the daemon of a mount."""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CONNECTIONS = "/sys/fs/fuse/connections"
_SETTLE_SECONDS = 1.0


def write_back(place: str, syncfs: Callable[[int], None]) -> None:
    """Has the kernel give the daemon what programs wrote through shared mappings.

    Only a process that is not the daemon can wait for that. ``place`` is a folder in the mount,
    ``syncfs`` the system call, for a descriptor.
    """
    try:
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # It is unmounted already: then nothing is left in the kernel.
    try:
        try:  # noqa: SIM105  (contextlib takes longer to load than this takes)
            syncfs(folder)
        except OSError:
            pass  # Who maps a file can ask for that himself, and is told.
        device = os.fstat(folder).st_dev
    finally:
        os.close(folder)
    # The kernel does not wait until the daemon has read the last of the requests.
    waiting = f"{_CONNECTIONS}/{os.minor(device)}/waiting"
    deadline = time.monotonic() + _SETTLE_SECONDS
    try:
        while _number_in(waiting) and time.monotonic() < deadline:
            time.sleep(0.001)
    except (OSError, ValueError):
        pass


def _number_in(path: str) -> int:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(file, 32))
    finally:
        os.close(file)
