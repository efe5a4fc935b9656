"""A store made by hand, commit by commit, for tests of the file system and of mounts."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from versionfs.chunking import chunk_id
from versionfs.chunkstore import ChunkWriter
from versionfs.config import Settings, load_settings
from versionfs.errors import NotFoundError
from versionfs.repo import Repository, Store, write_commit
from versionfs.tree import edit_paths, empty_directory
from versionfs.types import NO_ID, NO_STAMP, Commit, Entry, Kind

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND

Change = bytes | None | Entry
"""A file's content, an entry, or None to remove the path."""


def settings_at(home: Path) -> Settings:
    return load_settings({"VERSIONFS_HOME": str(home)})


def file(content: bytes, *, mode: int = 0o644, mtime_ns: int = T0, uid: int = 0, **more) -> Entry:
    """Returns the entry of a small file without a location: ``commit`` fills it in."""
    entry = Entry(
        b"", Kind.FILE, mode, len(content), 1, NO_ID, b"", (), mtime_ns, uid, 0, NO_STAMP, None
    )
    CONTENTS[chunk_id(content)] = content
    return entry._replace(content=chunk_id(content) if content else NO_ID, **more)


CONTENTS: dict[bytes, bytes] = {}


def link(target: bytes, *, mtime_ns: int = T0) -> Entry:
    return Entry(
        b"", Kind.SYMLINK, 0o777, len(target), 1, NO_ID, target, (), mtime_ns, 0, 0, NO_STAMP, None
    )


def folder(*, mode: int = 0o755, mtime_ns: int = T0, **more) -> Entry:
    return empty_directory(b"", mtime_ns, mode)._replace(**more)


def repository_of(store: Store, name: str) -> Repository:
    try:
        return store.repository(name)
    except NotFoundError:
        return store.create_repository(name)


def commit(
    store: Store,
    changes: Mapping[bytes, Change],
    *,
    repository: str = "photos",
    branch: str = "main",
    message: str = "a commit",
    time_ns: int | None = None,
) -> Commit:
    """Adds a commit to a branch: its head with some paths changed."""
    repo = repository_of(store, repository)
    refs = store.refs
    from versionfs.repo import RefKind

    try:
        ref, version = refs.read(repository, RefKind.BRANCH, branch)
        parent = repo.commit(ref.commit)
        root, parents, old = parent.root, [parent], ref.commit
    except NotFoundError:
        root, parents, old, version = folder(), [], None, None
    entries = {path: file(c) if isinstance(c, bytes) else c for path, c in changes.items()}
    chunks = [e.content for e in entries.values() if e is not None and e.content != NO_ID]
    with ThreadPoolExecutor(1) as executor:
        writer = ChunkWriter(store.objects, store.index, store.codec, executor, executor)
        places = writer.add([(chunk, CONTENTS[chunk]) for chunk in chunks])
        writer.seal()
    where = {chunk: place.location for chunk, place in zip(chunks, places, strict=True)}
    edits = {
        path: e._replace(location=where[e.content]) if e is not None and e.content in where else e
        for path, e in entries.items()
    }
    metadata = store.metadata_writer()
    when = T0 + SECOND * (parents[0].number if parents else 0) if time_ns is None else time_ns
    new_root = edit_paths(store.trees, metadata, root, edits, made_ns=T0)
    node = write_commit(
        metadata,
        root=new_root._replace(mtime_ns=when),
        parents=parents,
        author="test@host",
        message=message,
        time_ns=when,
        metadata={},
    )
    metadata.finish()
    node = metadata.resolve(node)
    repo.advance(branch, node, version, old=old, reason="test")
    return repo.commit(node)
