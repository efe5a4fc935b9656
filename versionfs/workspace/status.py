"""What is changed in a workspace, against its base: cost follows what changed, not the tree."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import closing

from versionfs.tree import Change, Contents, Trees, diff, diff_directory
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind, NodeRef
from versionfs.workspace.content import LayeredFile, Stack
from versionfs.workspace.inode import ROOT, WHITEOUT, Inode, decode_name, inode_key, names_prefix
from versionfs.workspace.staging import Staging
from versionfs.workspace.table import FrozenTable

_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
_COMPARED = 1 << 20


class Status:
    """The changes of a workspace as it was when its records were frozen. Blocks: for a thread."""

    def __init__(
        self,
        trees: Trees,
        frozen: FrozenTable,
        staging: Staging,
        root: Entry,
        contents: Contents | None = None,
    ) -> None:
        """Makes it ready.

        Args:
            trees: reads the base.
            frozen: the records.
            staging: the staging files.
            root: the base's root.
            contents: reads files of the base; only :meth:`differences` needs it.
        """
        self._trees = trees
        self._frozen = frozen
        self._staging = staging
        self._root = root
        self._contents = contents

    def changes(self) -> Iterator[Change]:
        """Yields the paths that were changed, in path order; looks at nothing else.

        A file that was written counts as changed, whatever was written; times and owners alone do
        not count. The content id of what was written is not known yet: it is all zeros. Of a
        directory that was removed, or has another name now, only the directory itself is told, and
        what was changed in it. Fifos, sockets and devices are left out: a commit does not hold
        them. ``.`` is the root, where its mode or attributes changed.
        """
        yield from self._root_change()
        yield from self._below(b"", ROOT, self._root, None)

    def differences(self) -> Iterator[Change]:
        """Yields what a commit would change, in path order, as ``tree.diff`` does of two trees.

        Unlike :meth:`changes` it tells each path below a directory that came or went, and compares
        the bytes of files that were written and have the size they had.
        """
        yield from self._root_change()
        yield from self._differences(b"", ROOT, self._root, self._inode(ROOT).base)

    def _root_change(self) -> Iterator[Change]:
        inode, root = self._inode(ROOT), self._root
        if (inode.mode & 0o7777, inode.xattrs) != (root.mode, root.xattrs):
            yield Change(b".", root, root._replace(mode=inode.mode & 0o7777, xattrs=inode.xattrs))

    def _below(
        self, path: bytes, number: int, base: Entry | None, there: Entry | None
    ) -> Iterator[Change]:
        """Tells of the records in a directory that lies over ``base``.

        ``there`` is the one that the commit has at its path, if that is another: what is as it is
        there, as after a restore, is not told.
        """
        prefix = names_prefix(number)
        for key, value in self._frozen.scan(prefix):
            name = key[len(prefix) :]
            child, _ = decode_name(value)
            old = self._lookup(base, name)
            new = None if child == WHITEOUT else self._entry(name, child)
            if old is None and new is None:
                continue
            inode = self._inode(child) if new is not None and new.is_dir else None
            committed = self._lookup(there, name)
            if _is_same(committed, new) and (inode is None or _lies_over(inode, committed)):
                if inode is not None:
                    yield from self._below(path + name + b"/", child, committed, None)
                continue
            another = (
                inode is not None and old is not None and old.is_dir and not _lies_over(inode, old)
            )
            # Over another directory, what counts is what the commit has at the path.
            before = old if there is None else committed
            differs = another or there is not None or not _is_same(old, new)
            if differs and not (before is None and new is None):
                yield Change(path + name, before, new)
            if inode is not None:
                is_over = old is not None and old.is_dir and not another
                below = old if is_over else inode.base
                other = old if another and there is None else committed
                yield from self._below(path + name + b"/", child, below, other)

    def _differences(
        self, path: bytes, number: int, old: Entry | None, base: Entry | None
    ) -> Iterator[Change]:
        """Compares a directory of the base with a recorded one, which lies over ``base``."""
        prefix = names_prefix(number)
        records = self._frozen.scan(prefix)
        pairs = diff_directory(self._trees, _node(old), _node(base))
        record, pair = next(records, None), next(pairs, None)
        while record is not None or pair is not None:
            name = None if record is None else record[0][len(prefix) :]
            untouched = None if pair is None else _name(pair)
            if name is None or (untouched is not None and untouched < name):
                assert pair is not None
                yield from self._stored(path, *pair)
                pair = next(pairs, None)
                continue
            if untouched == name:
                pair = next(pairs, None)
            assert record is not None
            child, _ = decode_name(record[1])
            yield from self._recorded(path, name, self._lookup(old, name), child)
            record = next(records, None)

    def _stored(self, path: bytes, old: Entry | None, new: Entry | None) -> Iterator[Change]:
        """Tells of a name without a record: both sides are of stored trees."""
        whole = path + (new or old or self._root).name
        if not _is_same(old, new):
            yield Change(whole, old, new)
        yield from diff(self._trees, old, new, prefix=whole + b"/")

    def _recorded(
        self, path: bytes, name: bytes, old: Entry | None, child: int
    ) -> Iterator[Change]:
        new = None if child == WHITEOUT else self._entry(name, child)
        if new is not None and new.is_file and new.content == NO_ID and new.size:
            same = self._is_same_file(old, new, child)
        else:
            same = _is_same(old, new)
        if not same and not (old is None and new is None):
            yield Change(path + name, old, new)
        before = old if old is not None and old.is_dir else None
        if new is not None and new.is_dir:
            base = self._inode(child).base
            yield from self._differences(path + name + b"/", child, before, base)
        elif before is not None:
            yield from diff(self._trees, before, None, prefix=path + name + b"/")

    def _is_same_file(self, old: Entry | None, new: Entry, number: int) -> bool:
        """Compares the bytes of a file that was written with those of the base."""
        if (
            old is None
            or not old.is_file
            or self._contents is None
            or (old.size, old.mode, old.xattrs) != (new.size, new.mode, new.xattrs)
        ):
            return False
        inode = self._inode(number)
        stack = Stack(inode.base, inode.layers)
        try:
            file = LayeredFile(stack, self._frozen, self._staging, self._contents.open)
            same_base = inode.base is not None and inode.base.content == old.content
            with closing(file), closing(self._contents.open(old)) as stored:
                for start, end in file.dirty() if same_base else [(0, file.size)]:
                    for offset in range(start, end, _COMPARED):
                        size = min(_COMPARED, end - offset)
                        if file.read(offset, size) != stored.read(offset, size):
                            return False
        except OSError:
            return False  # It is being written: a layer was replaced meanwhile.
        return True

    def _lookup(self, base: Entry | None, name: bytes) -> Entry | None:
        node = _node(base)
        return None if base is None or node is None else self._trees.lookup(node, name)

    def _inode(self, number: int) -> Inode:
        value = self._frozen.get(inode_key(number))
        assert value is not None
        return Inode.decode(number, value)

    def _entry(self, name: bytes, number: int) -> Entry | None:
        inode = self._inode(number)
        kind = _KINDS.get(stat.S_IFMT(inode.mode))
        if kind is None:
            return None
        size, content = len(inode.target), NO_ID
        base = inode.base
        if base is not None:
            kind, size, content = Kind(base.kind), base.size, base.content
        if inode.layers:
            try:
                size = self._staging.status(inode.layers[0].id).size
            except FileNotFoundError:
                size = 0  # It has gone since the records were frozen.
            content = NO_ID
        return Entry(
            name,
            kind,
            inode.mode & 0o7777,
            size,
            base.files if base is not None and inode.is_dir else 1,
            content,
            inode.target,
            inode.xattrs,
            inode.mtime_ns,
            inode.uid,
            inode.gid,
            NO_STAMP,
            None if base is None or inode.layers else base.location,
        )


def _node(entry: Entry | None) -> NodeRef | None:
    """Returns the tree of a directory; None for an empty one, and for anything else."""
    if entry is None or not entry.is_dir or entry.location is None:
        return None
    return entry.node


def _lies_over(inode: Inode, entry: Entry | None) -> bool:
    """Whether a directory lies over the tree of an entry."""
    return inode.base is not None and entry is not None and inode.base.content == entry.content


def _name(pair: tuple[Entry | None, Entry | None]) -> bytes:
    entry = pair[0] or pair[1]
    assert entry is not None
    return entry.name


def _is_same(old: Entry | None, new: Entry | None) -> bool:
    if old is None or new is None:
        return False
    if old.is_dir and new.is_dir:
        # What is in them is compared by itself.
        return (old.mode, old.xattrs) == (new.mode, new.xattrs)
    written = new.is_file and new.content == NO_ID and new.size > 0
    return not written and (old.content, old.target, old.mode, old.xattrs, old.is_file) == (
        new.content,
        new.target,
        new.mode,
        new.xattrs,
        new.is_file,
    )
