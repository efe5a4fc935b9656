"""After a commit: what it holds becomes the base, and the records of what it holds go away.

A thread walks the cut and the new tree side by side and plans; the thread of the workspace applies
the plan, one directory at a time. In between a record may say the same as the base below it, which
changes nothing that anybody sees; so a crash at any moment loses nothing and needs no repair.
"""

from __future__ import annotations

import stat
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from versionfs.errors import FileSystemError
from versionfs.objectstore import WouldBlock
from versionfs.tree import place
from versionfs.types import Commit, Entry, Kind, Xattrs
from versionfs.workspace.base import BASE_KEY, PENDING_KEY, decode_pending, encode_base
from versionfs.workspace.content import Stack
from versionfs.workspace.following import Dropped, Moves, Step, fetched, place_folder, removed
from versionfs.workspace.inode import (
    ROOT,
    WHITEOUT,
    Inode,
    decode_name,
    inode_key,
    name_key,
)
from versionfs.workspace.journal import Mutation
from versionfs.workspace.names import InBase, base_of
from versionfs.workspace.planning import (
    ALONE,
    Cut,
    PlannedDirectory,
    PlannedName,
    Sides,
    plan,
)
from versionfs.workspace.table import FrozenTable

if TYPE_CHECKING:
    from versionfs.workspace.workspace import Workspace

_BATCH: Final = 64
"""Directories planned in one go of the thread."""

_NAMES: Final = 2_000
"""Names settled in one batch: about 20 ms of work."""


class Settling:
    """Settles one commit. One thread, but for the work it yields."""

    def __init__(
        self,
        workspace: Workspace,
        frozen: FrozenTable,
        cut: Cut,
        commit: Commit,
    ) -> None:
        """Makes it ready.

        Args:
            workspace: what was committed.
            frozen: its records at the cut, or later.
            cut: where it was cut.
            commit: what is the base now.
        """
        self._workspace = workspace
        self._names = workspace.names
        self._frozen = frozen
        self._cut = cut
        self._commit = commit
        self._merged = True

    def steps(self, *, merged: bool) -> Generator[Step, None, None]:
        """Settles, step by step; ``merged`` says whether the commit has changes of others too."""
        self._merged = merged
        planned: Iterator[PlannedDirectory] | None = None
        batch: list[PlannedDirectory] = []
        base = self._workspace.base

        def fetch() -> None:
            nonlocal planned
            if planned is None:
                root = self._commit.root
                sides = Sides(base.root, self._theirs().root) if merged else ALONE
                planned = plan(self._names.trees, self._frozen, self._cut, root, ROOT, sides)
            batch[:] = islice(planned, _BATCH)

        while True:
            yield fetch
            if not batch:
                return
            for directory in batch:
                yield from self._directory(directory, merged=merged)

    def _theirs(self) -> Commit:
        """Returns the head that ours was merged with: the new one itself, if ours added nothing."""
        value = self._workspace.records.get(PENDING_KEY)
        is_own = value is not None and decode_pending(value).commit.id == self._commit.ref.id
        if not is_own or not self._commit.parents:
            return self._commit
        return self._workspace.store.commits.read(self._commit.parents[0])

    def _directory(
        self, directory: PlannedDirectory, *, merged: bool
    ) -> Generator[Step, None, None]:
        try:
            old = base_of(self._names.inode(directory.number))
        except FileSystemError:
            return  # removed since the cut
        entry = directory.base
        new = None if entry is None or entry.location is None else entry.node
        moves = Moves(self._names, directory.number)
        while True:
            if merged:
                yield from moves.planned(old, new)
            # No step in between: a folder in memory must show the base that its record names.
            try:
                changed = self._rebase(directory)
                break
            except FileSystemError:
                return  # removed while the base was read
            except WouldBlock as wait:
                yield wait.fetch
        folder = self._names.folders.get(directory.number)
        if folder is not None and not merged and old != new:
            folder.base = new
            folder.version += 1
        yield from moves.switch()
        yield changed
        for start in range(0, len(directory.names), _NAMES):
            names = directory.names[start : start + _NAMES]
            dropped: list[Dropped] = []
            settle = partial(self._settle_names, directory.number, names, dropped)
            yield from fetched(settle)
            yield dropped

    def _rebase(self, directory: PlannedDirectory) -> list[Dropped]:
        changes = self._workspace.overlay.changes(quiet=True)
        inode = changes.inode(directory.number)
        inode.base = directory.base
        changed = self._merged and self._take_attributes(inode, directory.base)
        if changed:
            inode.ctime_ns = changes.now
        if directory.number == ROOT:
            changes.put(BASE_KEY, encode_base(self._commit.ref))
            changes.put(PENDING_KEY, None)
        changes.apply(frees=True)
        if directory.number == ROOT:
            self._workspace.base = self._commit
        return [Dropped(directory.number, None)] if changed else []

    def _take_attributes(self, inode: Inode, entry: Entry | None) -> bool:
        """Takes a directory's attributes from the merge, but for those changed since the cut.

        Else the next commit would take back what others did to them.
        """
        if entry is None or not entry.is_dir:
            return False
        then = inode
        if inode.sequence > self._cut.sequence:
            value = self._frozen.get(inode_key(inode.number))
            if value is None:
                return False
            then = Inode.decode(inode.number, value)
            if then.sequence > self._cut.sequence:
                return False  # after a restart: what it was at the cut is not known
        old, now, new = _attributes(then), _attributes(inode), _merged(inode, entry)
        inode.mode = new.mode if now.mode == old.mode else now.mode
        inode.uid = new.uid if now.uid == old.uid else now.uid
        inode.gid = new.gid if now.gid == old.gid else now.gid
        inode.xattrs = new.xattrs if now.xattrs == old.xattrs else now.xattrs
        inode.mtime_ns = new.mtime_ns if now.mtime_ns == old.mtime_ns else now.mtime_ns
        return _attributes(inode) != now

    def _settle_names(
        self, parent: int, planned: Sequence[PlannedName], dropped: list[Dropped]
    ) -> None:
        """Settles names, and adds what the kernel must drop; done again after a ``WouldBlock``."""
        batch: list[Mutation] = []
        settled: list[tuple[PlannedName, Inode]] = []
        shown: list[bytes] = []
        for item in planned:
            key = name_key(parent, item.name)
            value = self._names.table.get(key)
            if value is None or decode_name(value) != (item.number, item.sequence):
                continue
            if item.number == WHITEOUT:
                if item.found is None:
                    batch.append((key, None))
                elif item.is_theirs:
                    # It was left by something of ours that was made and removed: theirs is new.
                    batch.append((key, None))
                    shown.append(item.name)
                continue
            inode = self._names.inode(item.number)
            is_dir = item.found is not None and item.found.is_dir
            if item.is_theirs and inode.is_dir and not is_dir:
                if inode.sequence <= self._cut.sequence and not self._names.has_names(inode.number):
                    dropped += self._give_way(parent, item)
            elif item.is_theirs and (inode.is_file or stat.S_ISLNK(inode.mode)):
                # What was changed since stays as it is, over what it was changed from.
                if inode.sequence <= self._cut.sequence and item.number not in self._names.unsaved:
                    dropped += self._give_way(parent, item)
            elif self._is_settled(parent, item, inode):
                batch += [(key, None), (inode_key(item.number), None)]
                settled.append((item, inode))
            elif item.layer and item.found is not None and inode.is_file:
                self._rebase_file(item, inode)
        if batch:
            self._names.table.apply(batch, frees=True)
        folder = self._names.folders.get(parent)
        if shown and folder is not None:
            folder.version += 1
            dropped += [Dropped(parent, name) for name in (*shown, None)]
        for item, inode in settled:
            self._return_to_base(parent, item, inode)
            assert item.found is not None
            if not _says_the_same(item.found, inode):
                dropped.append(Dropped(item.number, None))

    def _give_way(self, parent: int, item: PlannedName) -> list[Dropped]:
        """Lets a name show what others made of it. Who has ours open keeps it, by its number."""
        names = self._names
        changes = self._workspace.overlay.changes(quiet=True)
        lost = changes.inode(item.number)
        lost.nlink -= 1
        if not lost.nlink:
            changes.remove(lost)
        changes.put(name_key(parent, item.name), None)
        changes.apply(frees=True)
        folder = names.folders.get(parent)
        if folder is not None:
            names.unpin(folder, item.name)
            folder.version += 1
        if not lost.nlink and item.number not in names.orphans:
            self._workspace.files.discard(lost)
        dropped = [Dropped(parent, item.name), Dropped(parent, None), Dropped(item.number, None)]
        own = names.folders.get(item.number)
        return dropped if own is None else dropped + removed(own)

    def _is_settled(self, parent: int, item: PlannedName, inode: Inode) -> bool:
        """Whether the new base says all that a record says."""
        names = self._names
        if (
            item.found is None
            or inode.sequence > self._cut.sequence
            or item.number in names.unsaved
            or (item.number in names.lookups and parent not in names.folders)
        ):
            return False
        # A merge may have taken the times and the owner of others.
        if not self._merged and not _says_the_same(item.found, inode):
            return False
        kind = item.found.kind
        if inode.is_dir:
            return kind == Kind.DIRECTORY and not self._names.has_names(inode.number)
        if inode.nlink > 1:
            return False
        return kind in (Kind.FILE, Kind.LARGE) if inode.is_file else stat.S_ISLNK(inode.mode)

    def _return_to_base(self, parent: int, item: PlannedName, inode: Inode) -> None:
        """Takes over in memory that a name has no record any more; its number stays."""
        names, found = self._names, item.found
        assert found is not None
        names.drop(item.number)
        names.pin(parent, item.name, item.number)
        folder = names.folders.get(item.number)
        if folder is not None:
            entry = found.entry
            place_folder(names, folder, found)
            folder.base = None if entry.location is None else entry.node
            folder.overlaid = False
            return
        lookups = names.lookups.pop(item.number, 0)
        if lookups:
            leaf = names.leaves.number(found.ref)
            names.leaves.use(leaf)
            names.known.add(item.number, place(leaf, found.position), parent, lookups)
            names.folders[parent].known += 1
        self._workspace.files.discard(inode)

    def _rebase_file(self, item: PlannedName, inode: Inode) -> None:
        """Lets a file that changed since the cut lie over what the commit made of it."""
        if all(layer.id != item.layer for layer in inode.layers):
            return
        assert item.found is not None
        entry = item.found.entry

        def record(stack: Stack, mutations: Sequence[Mutation]) -> None:
            changes = self._workspace.overlay.changes(quiet=True)
            changed = changes.inode(item.number)
            changed.base, changed.layers = stack.base, stack.layers
            changes.put_all(mutations)
            changes.apply(frees=True)

        file = self._workspace.files.layered(inode)
        for layer in file.settle(item.layer, entry, record):
            self._workspace.layers.discard(layer)


class _Attributes(NamedTuple):
    """What a commit keeps of a node beside its content; ``mode`` has the type."""

    mode: int
    uid: int
    gid: int
    xattrs: Xattrs
    mtime_ns: int


def _attributes(inode: Inode) -> _Attributes:
    return _Attributes(inode.mode, inode.uid, inode.gid, inode.xattrs, inode.mtime_ns)


def _says_the_same(found: InBase, inode: Inode) -> bool:
    """Whether the new base has all attributes of a node; made without the entry, for each name."""
    leaf, at = found.leaf, found.position
    return (
        leaf.mtimes[at] == inode.mtime_ns
        and leaf.modes[at] == stat.S_IMODE(inode.mode)
        and leaf.uids[at] == inode.uid
        and leaf.gids[at] == inode.gid
        and leaf.xattrs(at) == inode.xattrs
    )


def _merged(inode: Inode, entry: Entry) -> _Attributes:
    """Returns the attributes that an entry of the new base gives a node."""
    mode = stat.S_IFMT(inode.mode) | entry.mode
    return _Attributes(mode, entry.uid, entry.gid, entry.xattrs, entry.mtime_ns)
