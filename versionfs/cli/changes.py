"""What lies between two versions, as the commands count and write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from versionfs.cli.formats import kind_name
from versionfs.readable import count
from versionfs.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from versionfs.repo import Repository, Store
    from versionfs.tree.diffing import Change
    from versionfs.types import Commit, Entry


def changes(store: Store, old: Entry | None, new: Entry | None) -> Iterator[Change]:
    """Yields what changed from one entry to another, in path order.

    Between two directories the paths are relative to them, and ``.`` is the directory itself, where
    its mode or attributes changed. A file is the one path of what it is compared with.
    """
    from versionfs.tree.diffing import Change, diff, same_entry

    if all(entry is None or entry.is_dir for entry in (old, new)):
        own = [(entry.mode, entry.xattrs) for entry in (old, new) if entry is not None]
        if len(own) == 2 and own[0] != own[1]:
            yield Change(b".", old, new)
        yield from diff(store.trees, old, new)
        return
    named = new if new is not None else old
    assert named is not None
    if old is None or new is None or not same_entry(old._replace(name=new.name), new):
        yield Change(named.name, old, new)
        yield from diff(store.trees, old, new, prefix=named.name + b"/")


def parent_of(repository: Repository, commit: Commit) -> Commit | None:
    """Returns the first parent of a commit; None for the first commit."""
    return repository.commit(commit.parents[0]) if commit.parents else None


def letter(change: Change) -> str:
    """Returns A(dded), D(eleted), T(ype changed) or M(odified)."""
    if change.old is None:
        return "A"
    if change.new is None:
        return "D"
    return "M" if kind_name(change.old.kind) == kind_name(change.new.kind) else "T"


def size_of(entry: Entry | None) -> int | None:
    """Returns the bytes of a regular file; None for anything else, which has no data of its own."""
    return entry.size if entry is not None and entry.is_file else None


def delta(change: Change) -> int:
    """Returns by how many bytes the path grew."""
    return (size_of(change.new) or 0) - (size_of(change.old) or 0)


@dataclass(slots=True)
class Totals:
    """How many files (links included, directories not) changed in which way."""

    added: int = 0
    deleted: int = 0
    modified: int = 0
    retyped: int = 0
    delta_bytes: int = 0

    def add(self, change: Change) -> None:
        """Counts one change."""
        self.delta_bytes += delta(change)
        kinds = {entry.kind for entry in (change.old, change.new) if entry is not None}
        if kinds == {Kind.DIRECTORY}:
            return
        match letter(change):
            case "A":
                self.added += 1
            case "D":
                self.deleted += 1
            case "T":
                self.retyped += 1
            case _:
                self.modified += 1

    @property
    def files(self) -> int:
        """All files that changed."""
        return self.added + self.deleted + self.modified + self.retyped

    def text(self) -> str:
        """Returns the totals as one phrase, without the bytes."""
        parts = [
            f"{number:,} {word}"
            for number, word in (
                (self.added, "added"),
                (self.deleted, "deleted"),
                (self.modified, "modified"),
                (self.retyped, "of another type"),
            )
            if number
        ]
        return f"{count(self.files, 'file')} changed" + (f": {', '.join(parts)}" if parts else "")


def total(store: Store, old: Entry | None, new: Entry | None) -> Totals:
    """Returns the totals between two root directories; O(1) where there is no old one."""
    totals = Totals()
    if old is None and new is not None:
        totals.added = new.files
        totals.delta_bytes = new.size
        return totals
    found: Iterable[Change] = changes(store, old, new)
    for change in found:
        totals.add(change)
    return totals
