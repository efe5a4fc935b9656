"""File-system semantics: names to nodes, inodes, open files. Knows nothing of pyfuse3."""

from versionfs.vfs.branches import Branch, Branches
from versionfs.vfs.directories import Item
from versionfs.vfs.errnos import ENOATTR, FileSystemError, errno_of, is_expected
from versionfs.vfs.filesystem import FileSystem, Found, VfsStatistics
from versionfs.vfs.nodes import DAY_SECONDS, Attributes
from versionfs.vfs.owner import Owner
from versionfs.vfs.refresh import Refresh
from versionfs.vfs.space import NAME_MAX, Space
from versionfs.vfs.views import Invalidation

__all__ = [
    "DAY_SECONDS",
    "ENOATTR",
    "NAME_MAX",
    "Attributes",
    "Branch",
    "Branches",
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
