"""Restores paths: they are as in the commit again. What is open stays readable until it is closed.

What was changed is discarded; where the directory lies over another one, or was made anew, what the
commit has at the path is brought back into it.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple

from versionfs.errors import ConflictError, NotFoundError
from versionfs.tree import same_entry
from versionfs.types import Entry
from versionfs.workspace.discarding import Discarding, lies_over, lose
from versionfs.workspace.folders import Folder
from versionfs.workspace.following import Dropped, Step, fetched, removed
from versionfs.workspace.inode import (
    WHITEOUT,
    Inode,
    decode_name,
    name_key,
)
from versionfs.workspace.names import InBase

if TYPE_CHECKING:
    from versionfs.workspace.workspace import Workspace


def restore(
    workspace: Workspace, paths: list[bytes], branch: str = ""
) -> Generator[Step, None, int]:
    """Discards what was changed at and below some paths; ``b""`` is everything.

    Returns how many names were restored. ``branch`` is what a SPEC calls it, for hints.

    Raises:
        NotFoundError: neither the workspace nor its base has anything at a path.
        ConflictError: programs, or a commit of others, changed a path meanwhile; likewise.
        OSError: the disk is full; what was restored before stays restored.
    """
    count = 0
    for path in paths:
        count += yield from _Restoring(workspace, branch).path(path)
    return count


class _At(NamedTuple):
    """A name in a directory, as it was when it was looked for, and the base's root of that time."""

    folder: Folder
    above: bytes
    name: bytes
    root: Entry

    @property
    def key(self) -> bytes:
        """That of its record, if it has one."""
        return name_key(self.folder.number, self.name)


class _Restoring:
    """One path. What programs make meanwhile, between the steps, stays as it is."""

    def __init__(self, workspace: Workspace, branch: str) -> None:
        self._workspace = workspace
        self._branch = branch
        self._names = workspace.names
        self._discarding = Discarding(workspace)

    def path(self, path: bytes) -> Generator[Step, None, int]:
        parts = [part for part in path.split(b"/") if part]
        names = self._names
        if not parts:
            yield from self._discarding.below(names.root)
            return self._discarding.count
        held: list[int] = []
        try:
            folder = names.root
            for depth, part in enumerate(parts[:-1]):
                found = yield from fetched(lambda f=folder, n=part: names.find(f, n))  # type: ignore[misc]
                child = None
                if found is not None:
                    held.append(names.enter(folder, part, found))
                    child = names.folders.get(held[-1])
                if child is None:
                    raise (yield from self._without(parts, depth + 1, found is not None))
                folder = child
            yield from self._one(folder, parts)
        finally:
            for number in reversed(held):
                self._workspace.forget(number, 1)
        return self._discarding.count

    def _one(self, folder: Folder, parts: list[bytes]) -> Generator[Step, None, None]:
        names, name = self._names, parts[-1]
        root, walk = self._workspace.base.root, self._names.trees.walk_path
        entry = yield from fetched(lambda: walk(root, b"/".join(parts)))
        at = _At(folder, b"/".join(parts[:-1]), name, root)
        value = names.table.get(at.key)
        if entry is None and value is None:
            if (yield from fetched(lambda: names.find(folder, name))) is None:
                raise self._nothing(parts)
            return
        if entry is not None and (yield from fetched(lambda: self._is_back(at, entry))):
            return
        brought = entry is not None and (yield from fetched(lambda: self._is_brought(at, entry)))
        if not self._is_there(at):
            raise self._changed(parts)
        value = names.table.get(at.key)
        if value is not None and (entry is None or self._is_folder(value)):
            if entry is not None and brought:
                yield from self._in_place(folder, name, value, entry)
                return
            yield from self._discarding.name(folder, name)
        if entry is not None:
            dropped = yield from fetched(lambda: self._bring(at, entry))
            if dropped is None:
                raise self._changed(parts)
            yield dropped

    def _is_brought(self, at: _At, entry: Entry) -> bool:
        """Whether a directory was brought back before, into one that is another one.

        What is in it may have changed since.
        """
        value = self._names.table.get(at.key)
        if value is None or not self._is_folder(value):
            return False
        found = self._names.find_in_base(at.folder, at.name)
        return self._lies_over(value, entry) and not _is_entry(found, entry)

    def _lies_over(self, value: bytes, entry: Entry) -> bool:
        return lies_over(self._names.inode(decode_name(value)[0]), entry)

    def _in_place(
        self, folder: Folder, name: bytes, value: bytes, entry: Entry
    ) -> Generator[Step, None, None]:
        """Restores what is in such a directory, which keeps its record."""
        number, sequence = decode_name(value)
        if self._discarding.is_later(sequence) or not self._lies_over(value, entry):
            return
        with self._discarding.held(folder, name, self._names.inode(number)) as child:
            yield from self._discarding.below(child)
            if self._discarding.is_at(folder, name, child):
                yield from fetched(lambda: self._discarding.reset(child, entry))
                yield [Dropped(child.number, None)]
        self._discarding.count = self._discarding.count or 1

    def _is_there(self, at: _At) -> bool:
        """Whether the directory is where it was, and the base is what it was."""
        folder = at.folder
        return (
            self._workspace.base.root is at.root
            and not folder.is_gone
            and folder.path() == at.above
        )

    def _is_folder(self, value: bytes) -> bool:
        number, _ = decode_name(value)
        return number != WHITEOUT and self._names.inode(number).is_dir

    def _is_back(self, at: _At, entry: Entry) -> bool:
        """Whether a name in a directory over another one has what the commit has there already."""
        names = self._names
        value = names.table.get(at.key)
        found = names.find_in_base(at.folder, at.name)
        if value is None or _is_entry(found, entry):
            return False  # Without the record it would be so, too.
        number, _ = decode_name(value)
        if number == WHITEOUT:
            return False
        if names.has_names(number):
            return False
        return _is_unchanged(names.inode(number), entry)

    def _bring(self, at: _At, entry: Entry) -> list[Dropped] | None:
        """Gives a name what the commit has there, in place of the record that it has, all at once.

        If the directory lies over another one, that takes a record: it was made anew, or moved
        there, and without changes shows nothing, or something else. None: it changed meanwhile.
        """
        names, folder, name = self._names, at.folder, at.name
        found = names.find_in_base(folder, name)
        value = names.table.get(at.key)
        if not self._is_there(at):
            return None
        if value is None and _is_entry(found, entry):
            return []
        if value is not None and self._is_folder(value):
            # What was made in it meanwhile stays.
            return [] if self._lies_over(value, entry) else None
        if value is not None and self._discarding.is_later(decode_name(value)[1]):
            return None
        child = folder.children.get(name) if folder.children else None
        changes = self._workspace.overlay.changes()
        lost = None if value is None else lose(changes, value)
        number = None
        if not _is_entry(found, entry):
            inode = changes.add(Inode.of_entry(names.free_number(folder.number, name), entry))
            number = inode.number
        changes.name(folder, name, number)
        # Where it frees what was there, it is to work on a full disk.
        changes.apply(frees=number is None or (lost is not None and not lost.nlink))
        names.unpin(folder, name)
        self._discarding.discard_bytes(lost)
        self._discarding.count = self._discarding.count or 1
        dropped = [Dropped(folder.number, name), Dropped(folder.number, None)]
        return dropped if child is None else dropped + removed(child)

    def _without(
        self, parts: list[bytes], depth: int, is_taken: bool
    ) -> Generator[Step, None, NotFoundError]:
        """Returns why a path cannot come back whose first ``depth`` parts are no folder.

        ``is_taken`` says that they are something else.
        """
        root, walk = self._workspace.base.root, self._names.trees.walk_path
        entry = yield from fetched(lambda: walk(root, b"/".join(parts)))
        if entry is None:
            return self._nothing(parts)
        path, top = _text(parts), _text(parts[:depth])
        # By its whole name: a path would be taken from where the user is.
        named = shlex.quote(f"{self._branch}:{top}" if self._branch else top)
        instead = ", and discards what is there now" if is_taken else ""
        return NotFoundError(
            f"there is no folder {top} that {path} could come back to",
            hint=f"`versionfs restore {named}` brings that back, with all that is in it{instead}",
        )

    def _changed(self, parts: list[bytes]) -> ConflictError:
        return ConflictError(
            f"{_text(parts)} was changed while it was restored, and stays as it is now",
            hint="`versionfs status` lists what is changed; restore it again",
        )

    def _nothing(self, parts: list[bytes]) -> NotFoundError:
        return NotFoundError(
            f"there is nothing at {_text(parts)}, changed or not",
            hint="`versionfs status` lists what is changed",
        )


def _text(parts: list[bytes]) -> str:
    return b"/".join(parts).decode("utf-8", "replace")


def _is_entry(found: InBase | None, entry: Entry) -> bool:
    return found is not None and same_entry(found.entry, entry)


def _is_unchanged(inode: Inode, entry: Entry) -> bool:
    """Whether an inode is what an unchanged entry becomes; times of access and change aside."""

    def looks(one: Inode) -> tuple[object, ...]:
        base = one.base
        content = None if base is None else (base.kind, base.size, base.content, base.stamp)
        return (
            one.mode, one.uid, one.gid, one.nlink, one.mtime_ns, one.layers, one.target,
            one.xattrs, content,
        )  # fmt: skip

    return looks(inode) == looks(Inode.of_entry(inode.number, entry))
