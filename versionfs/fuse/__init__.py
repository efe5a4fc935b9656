"""Mounts: the pyfuse3 adapter, the daemon that serves one, and how to make, list and end them."""

from versionfs.fuse.doctor import Check, checks
from versionfs.fuse.mounting import (
    mount,
    mounts,
    notify_moved,
    request,
    statistics,
    unmount,
)
from versionfs.fuse.registry import MountInfo

__all__ = [
    "Check",
    "MountInfo",
    "checks",
    "mount",
    "mounts",
    "notify_moved",
    "request",
    "statistics",
    "unmount",
]
