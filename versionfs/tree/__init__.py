"""Directories and manifests: prolly trees that are read, edited and compared in O(difference)."""

from versionfs.tree.content import Contents, FileContent
from versionfs.tree.diff import Change, diff, diff_directory, same_entry
from versionfs.tree.edit import (
    TreeEditor,
    build_directory,
    directory_entry,
    edit_paths,
    empty_directory,
    with_root,
)
from versionfs.tree.manifest import ManifestBuilder, ManifestChild
from versionfs.tree.node import Child, Inner, Leaf, decode_xattrs, encode_xattrs
from versionfs.tree.reader import Trees, TreeStatistics

__all__ = [
    "Change",
    "Child",
    "Contents",
    "FileContent",
    "Inner",
    "Leaf",
    "ManifestBuilder",
    "ManifestChild",
    "TreeEditor",
    "TreeStatistics",
    "Trees",
    "build_directory",
    "decode_xattrs",
    "diff",
    "diff_directory",
    "directory_entry",
    "edit_paths",
    "empty_directory",
    "encode_xattrs",
    "same_entry",
    "with_root",
]
