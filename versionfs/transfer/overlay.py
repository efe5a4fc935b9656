"""Lays one directory over another: what both have is taken from the upper one, nothing is lost."""

from __future__ import annotations

from versionfs.chunkstore import MetadataWriter
from versionfs.tree import TreeEditor, Trees, diff_directory, same_entry, with_root
from versionfs.types import Entry


def overlay(trees: Trees, writer: MetadataWriter, lower: Entry, upper: Entry) -> Entry:
    """Returns the upper directory with what only the lower one has; cost follows the difference."""
    editor = TreeEditor(trees, writer, lower.node)
    for old, new in diff_directory(trees, lower.node, upper.node, attributes=True):
        if new is None:
            continue
        if old is not None and old.is_dir and new.is_dir:
            merged = overlay(trees, writer, old, new)
            if not same_entry(merged, old, attributes=True):
                editor.set(merged)
        else:
            editor.set(new)
    return with_root(upper, editor.finish())
