"""Puts the entries of a walk, depth first in name order, together to directories."""

from __future__ import annotations

from versionfs.chunkstore import MetadataWriter
from versionfs.transfer.attributes import Attributes
from versionfs.tree import TreeEditor, Trees, directory_entry, same_entry
from versionfs.types import Entry


class Assembler:
    """A stack of open directories. Names within each come in ascending order, each once."""

    def __init__(self, trees: Trees, writer: MetadataWriter) -> None:
        self._trees = trees
        self._writer = writer
        self._stack: list[TreeEditor] = []
        self.root: Entry | None = None
        """The directory that was opened first, when it is closed again."""

    def enter(self, base: Entry | None) -> None:
        """Opens a directory that begins with what is in ``base`` (None: with nothing)."""
        old = base.node if base is not None and base.location is not None else None
        self._stack.append(TreeEditor(self._trees, self._writer, old))

    def set(self, entry: Entry) -> None:
        """Sets an entry of the open directory."""
        self._stack[-1].set(entry)

    def remove(self, name: bytes) -> None:
        """Removes a name from the open directory."""
        self._stack[-1].remove(name)

    def leave(self, name: bytes, attributes: Attributes, base: Entry | None) -> None:
        """Closes the open directory and sets it in its parent, unless it is just as ``base``."""
        editor = self._stack.pop()
        mode, mtime_ns, uid, gid, xattrs = attributes
        if base is not None and not editor.edited:
            # What is in it is as it was: no need to read the node that says so.
            entry = base._replace(name=name, mode=mode, mtime_ns=mtime_ns, uid=uid, gid=gid)
        else:
            entry = directory_entry(name, editor.finish(), mode, mtime_ns, uid, gid)
        entry = entry._replace(xattrs=xattrs)
        if not self._stack:
            self.root = entry
        elif base is None or not same_entry(entry, base, attributes=True):
            self._stack[-1].set(entry)
