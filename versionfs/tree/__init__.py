"""Directories and manifests: prolly trees that are read, edited and compared in O(difference)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from versionfs.lazy import names_of

if TYPE_CHECKING:
    from versionfs.tree.content import MOST_PIECES, Contents, FileContent, Pieces, joined
    from versionfs.tree.diffing import Change, diff, diff_directory, same_entry
    from versionfs.tree.edit import (
        TreeEditor,
        build_directory,
        directory_entry,
        edit_paths,
        empty_directory,
        with_root,
    )
    from versionfs.tree.encoding import decode_xattrs, encode_xattrs
    from versionfs.tree.fileedit import EMPTY_FILE, FileEditor, StoredFile
    from versionfs.tree.manifest import ManifestBuilder, ManifestChild
    from versionfs.tree.merge import Conflict, MergeResult, merge_trees
    from versionfs.tree.node import Child, Inner, Leaf
    from versionfs.tree.numbers import (
        INDEX_MASK,
        InodeTable,
        LeafTable,
        compiled,
        place,
        split_place,
    )
    from versionfs.tree.packing import InFolder, Shown, pack_dot, pack_leaf
    from versionfs.tree.pushing import Push, Pusher
    from versionfs.tree.reader import Trees, TreeStatistics
    from versionfs.tree.recutting import Kept, New, recut
    from versionfs.tree.walking import Walks

__all__ = [
    "EMPTY_FILE",
    "INDEX_MASK",
    "MOST_PIECES",
    "Change",
    "Child",
    "Conflict",
    "Contents",
    "FileContent",
    "FileEditor",
    "InFolder",
    "Inner",
    "InodeTable",
    "Kept",
    "Leaf",
    "LeafTable",
    "ManifestBuilder",
    "ManifestChild",
    "MergeResult",
    "New",
    "Pieces",
    "Push",
    "Pusher",
    "Shown",
    "StoredFile",
    "TreeEditor",
    "TreeStatistics",
    "Trees",
    "Walks",
    "build_directory",
    "compiled",
    "decode_xattrs",
    "diff",
    "diff_directory",
    "directory_entry",
    "edit_paths",
    "empty_directory",
    "encode_xattrs",
    "joined",
    "merge_trees",
    "pack_dot",
    "pack_leaf",
    "place",
    "recut",
    "same_entry",
    "split_place",
    "with_root",
]

__getattr__ = names_of(
    __name__,
    {
        "content": ("MOST_PIECES", "Contents", "FileContent", "Pieces", "joined"),
        "diffing": ("Change", "diff", "diff_directory", "same_entry"),
        "edit": (
            "TreeEditor",
            "build_directory",
            "directory_entry",
            "edit_paths",
            "empty_directory",
            "with_root",
        ),
        "fileedit": ("EMPTY_FILE", "FileEditor", "StoredFile"),
        "manifest": ("ManifestBuilder", "ManifestChild"),
        "merge": ("Conflict", "MergeResult", "merge_trees"),
        "encoding": ("decode_xattrs", "encode_xattrs"),
        "node": ("Child", "Inner", "Leaf"),
        "numbers": (
            "INDEX_MASK",
            "InodeTable",
            "LeafTable",
            "compiled",
            "place",
            "split_place",
        ),
        "packing": ("InFolder", "Shown", "pack_dot", "pack_leaf"),
        "pushing": ("Push", "Pusher"),
        "reader": ("Trees", "TreeStatistics"),
        "recutting": ("Kept", "New", "recut"),
        "walking": ("Walks",),
    },
)
