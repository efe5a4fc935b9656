"""Stores for tests, each in a home of its own."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from versionfs.chunking import ChunkingParameters, chunk_id
from versionfs.config import Settings, load_settings
from versionfs.repo import Store
from versionfs.transfer import ImportResult, import_source
from versionfs.tree import TreeEditor, build_directory, directory_entry
from versionfs.types import NO_ID, NO_STAMP, Commit, Entry, Kind, NodeRef

ROOT = Path(__file__).parents[2]
TINY_CHUNKS = ChunkingParameters(64, 256, 1024)
WHOLE_CHUNKS = ChunkingParameters(64, 256, 1024, 1000)
"""As tiny; and a file shorter than 1,000 bytes is one chunk."""
LONG_AGO_NS = 1_500_000_000_123_456_789
"""An mtime that no import takes for one that may change without notice."""


def settings_in(home: Path, *, store: Path | None = None) -> Settings:
    settings = load_settings({"VERSIONFS_HOME": str(home), "USER": "ada"})
    return settings if store is None else settings._replace(store=str(store))


def make_store(home: Path, chunking: ChunkingParameters | None = None) -> Store:
    """Returns a new store with the repository ``photos``."""
    store = Store.create(settings_in(home), chunking)
    store.create_repository("photos")
    return store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with make_store(home) as opened:
        yield opened


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Store]:
    """A store whose chunks are so small that any file is many."""
    with make_store(tmp_path / "tiny", TINY_CHUNKS) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def bring(
    store: Store,
    source: str | os.PathLike[str],
    *,
    path: bytes = b"",
    branch: str = "main",
    message: str = "m",
    **options: Any,
) -> ImportResult:
    """Imports into ``photos``, which fails on a warning unless ``warn`` is given."""
    options.setdefault("warn", no_warning)
    return import_source(
        store, "photos", branch, path, source, message=message, author="ada", **options
    )


def no_warning(message: str) -> None:
    raise AssertionError(message)


def head(store: Store, branch: str = "main") -> Commit:
    return store.repository("photos").resolve(branch, None)


def at(store: Store, path: bytes, branch: str = "main") -> Entry | None:
    return store.trees.walk_path(head(store, branch).root, path)


def content(store: Store, path: bytes, branch: str = "main") -> bytes:
    entry = at(store, path, branch)
    assert entry is not None, path
    return store.contents.open(entry).read(0, entry.size)


def names(store: Store, root: Entry) -> list[bytes]:
    """Returns all paths below a directory, folders included."""
    found = []
    for entry in store.trees.entries(root.node):
        found.append(entry.name)
        if entry.is_dir:
            found += [entry.name + b"/" + below for below in names(store, entry)]
    return found


def file_entry(name: bytes, data: bytes = b"", **changes: Any) -> Entry:
    """Returns the entry of a file whose bytes are stored nowhere."""
    entry = Entry(
        name=name,
        kind=Kind.FILE,
        mode=0o644,
        size=len(data),
        files=1,
        content=chunk_id(data) if data else NO_ID,
        target=b"",
        xattrs=(),
        mtime_ns=1,
        uid=0,
        gid=0,
        stamp=NO_STAMP,
        location=None,
    )
    return entry._replace(**changes)


def write_directory(store: Store, model: dict[bytes, Entry]) -> NodeRef:
    """Returns the root of a stored directory that has the entries of the model."""
    writer = store.metadata_writer()
    child = build_directory(store.trees, writer, (model[name] for name in sorted(model)))
    writer.finish()
    return writer.resolve(child.ref)


def edit_directory(store: Store, root: NodeRef, edits: dict[bytes, Entry | None]) -> NodeRef:
    """Returns the root of a stored directory after edits; None removes a name."""
    writer = store.metadata_writer()
    editor = TreeEditor(store.trees, writer, root)
    for name in sorted(edits):
        entry = edits[name]
        if entry is None:
            editor.remove(name)
        else:
            editor.set(entry)
    child = editor.finish()
    writer.finish()
    return writer.resolve(child.ref)


def as_directory(store: Store, root: NodeRef, name: bytes = b"") -> Entry:
    return directory_entry(name, store.trees.summary(root), 0o755, 1)


def tar_of(*members: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w", **options: Any) -> bytes:
    """Returns a tar of files (name and bytes) and of members without bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()
