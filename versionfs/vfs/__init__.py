"""File-system semantics: names to nodes, inodes, open files. Knows nothing of pyfuse3."""

from versionfs.vfs.directories import Item
from versionfs.vfs.errnos import FileSystemError, errno_of, is_expected
from versionfs.vfs.filesystem import FileSystem, Found, Refresh, VfsStatistics
from versionfs.vfs.nodes import Attributes
from versionfs.vfs.owner import Owner
from versionfs.vfs.space import NAME_MAX, Space
from versionfs.vfs.views import Invalidation

__all__ = [
    "NAME_MAX",
    "Attributes",
    "FileSystem",
    "FileSystemError",
    "Found",
    "Invalidation",
    "Item",
    "Owner",
    "Refresh",
    "Space",
    "VfsStatistics",
    "errno_of",
    "is_expected",
]
