"""What commits and entries look like in JSON, and which names point at a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from versionfs.cli.formats import full_mode, kind_name, local_time, text_of
from versionfs.types import NO_ID, Kind

if TYPE_CHECKING:
    from versionfs.repo import Repository
    from versionfs.types import Commit, Entry

Decorations = dict[bytes, list[str]]
"""Commit id to the names that point at it: branches, then tags as ``tag: NAME``."""


def decorations(repository: Repository) -> Decorations:
    """Returns the names of a repository by the commit that they point at."""
    names: Decorations = {}
    for name, ref in repository.branches().items():
        names.setdefault(ref.commit.id, []).append(name)
    for name, ref in repository.tags().items():
        names.setdefault(ref.commit.id, []).append(f"tag: {name}")
    return names


def commit_json(commit: Commit, names: Decorations | None = None) -> dict[str, Any]:
    """Returns a commit for --json; with ``names``, also the branches and tags at it."""
    value: dict[str, Any] = {
        "id": commit.id.hex(),
        "number": commit.number,
        "time": local_time(commit.time_ns),
        "time_ns": commit.time_ns,
        "author": commit.author,
        "message": commit.message,
        "parents": [parent.id.hex() for parent in commit.parents],
        "tree": commit.root.content.hex(),
        "files": commit.root.files,
        "bytes": commit.root.size,
        "metadata": dict(commit.metadata),
    }
    if names is not None:
        here = names.get(commit.id, [])
        value["branches"] = [name for name in here if not name.startswith("tag: ")]
        value["tags"] = [name[5:] for name in here if name.startswith("tag: ")]
    return value


def entry_json(entry: Entry, path: bytes | None = None) -> dict[str, Any]:
    """Returns an entry for --json; ``path`` is added where the name alone does not place it."""
    # What was written in a workspace has no id before it is committed.
    is_unknown = entry.kind == Kind.FILE and entry.size > 0 and entry.content == NO_ID
    value: dict[str, Any] = {
        "name": text_of(entry.name),
        "kind": kind_name(entry.kind),
        "mode": f"{full_mode(entry) & 0o7777:04o}",
        "size": entry.size,
        "mtime": local_time(entry.mtime_ns),
        "mtime_ns": entry.mtime_ns,
        "uid": entry.uid,
        "gid": entry.gid,
        "id": None if entry.kind == Kind.SYMLINK or is_unknown else entry.content.hex(),
    }
    if path is not None:
        value["path"] = text_of(path)
    if entry.is_dir:
        value["files"] = entry.files
    if entry.kind == Kind.SYMLINK:
        value["target"] = text_of(entry.target)
    if entry.xattrs:
        value["xattrs"] = {text_of(name): text_of(data) for name, data in entry.xattrs}
    return value
