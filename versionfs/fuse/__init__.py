"""Mounts: the pyfuse3 adapter, the daemon that serves one, and how to make, list and end them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from versionfs.lazy import names_of

if TYPE_CHECKING:
    from versionfs.fuse.client import notify_moved
    from versionfs.fuse.doctor import Check, checks
    from versionfs.fuse.mounting import ask, mount, mounts, statistics, unmount
    from versionfs.fuse.registry import MountInfo

__all__ = [
    "Check",
    "MountInfo",
    "ask",
    "checks",
    "mount",
    "mounts",
    "notify_moved",
    "statistics",
    "unmount",
]

__getattr__ = names_of(
    __name__,
    {
        "client": ("notify_moved",),
        "doctor": ("Check", "checks"),
        "mounting": ("ask", "mount", "mounts", "statistics", "unmount"),
        "registry": ("MountInfo",),
    },
)
