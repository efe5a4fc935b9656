"""Walks: the folder that comes next is read before it is asked for, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.support import Change, commit, file, folder, settings_at
from versionfs.config import Settings
from versionfs.repo import Store
from versionfs.tree import Walks
from versionfs.types import Entry, NodeRef

Folder = tuple[NodeRef | None, list[tuple[NodeRef | None, bytes]]]
"""Its root node, and what is above it."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Folders in folders, some of them empty, one with 500 others, and files between them."""
    changes: dict[bytes, Change] = {}
    for number in range(500):
        changes[b"many/d%03d/file%03d" % (number, number)] = file(b"%d" % number)
    for number in range(30):
        changes[b"deep/a%02d/b/c/file%02d" % (number, number)] = file(b"%d" % number)
        changes[b"deep/a%02d/b/other%02d" % (number, number)] = file(b"%d" % number)
        changes[b"deep/z%02d" % number] = folder()
    changes[b"last/one"] = file(b"1")
    found = settings_at(tmp_path / "home")
    with Store.create(found) as made:
        commit(made, changes)
    return found


def root_entry(store: Store) -> Entry:
    repository = store.repository("photos")
    return repository.commit(repository.branch("main").commit).root


def node_of(entry: Entry) -> NodeRef | None:
    return None if entry.location is None else entry.node


def walk(store: Store, entry: Entry, above: list[tuple[NodeRef | None, bytes]]) -> Iterator[Folder]:
    """Lists folders in the order of names, each before those in it."""
    root = node_of(entry)
    entries = [] if root is None else list(store.trees.entries(root))
    yield root, above
    for inner in entries:
        if inner.is_dir:
            yield from walk(store, inner, [(root, inner.name), *above])


def test_a_walk_finds_each_folder_read(settings: Settings) -> None:
    with Store.open(settings) as reader:
        walks = Walks(reader.trees)
        waited = 0
        folders = walk(reader, root_entry(reader), [])
        while True:
            before = reader.trees.statistics().nodes_decoded
            found = next(folders, None)
            waited += reader.trees.statistics().nodes_decoded - before
            if found is None:
                break
            walks.listed(*found)
        after = reader.trees.statistics()
        # The root and the first folder in it, where it is not known yet that this is a walk; then
        # the leaves behind the first of folders with more than one.
        assert waited <= 8
        assert after.folders_ahead >= 500 + 3 * 30
    # Each was read once, as without reading ahead.
    with Store.open(settings) as other:
        assert len(list(walk(other, root_entry(other), []))) == 1 + 3 + 500 + 4 * 30
        assert other.trees.statistics().nodes_decoded == after.nodes_decoded


def test_two_walks_at_once(settings: Settings) -> None:
    with Store.open(settings) as reader:
        walks = Walks(reader.trees)
        folders = list(walk(reader, root_entry(reader), []))
        before = reader.trees.statistics().folders_ahead
        for one, other in zip(folders[:200], folders[300:500], strict=True):
            walks.listed(*one)
            walks.listed(*other)
        assert reader.trees.statistics().folders_ahead - before >= 360


def test_who_lists_here_and_there_has_nothing_read(settings: Settings) -> None:
    with Store.open(settings) as reader:
        walks = Walks(reader.trees)
        folders = list(walk(reader, root_entry(reader), []))
        random.Random(1).shuffle(folders)
        for found in folders[:100]:
            walks.listed(*found)
        assert reader.trees.statistics().folders_ahead <= 10  # by chance


def test_the_last_folder_has_none_behind_it(settings: Settings) -> None:
    with Store.open(settings) as reader:
        walks = Walks(reader.trees)
        folders = list(walk(reader, root_entry(reader), []))
        for found in folders[-2:]:
            walks.listed(*found)
        walks.listed(None, [(None, b"x")])
        walks.listed(None, [])
        assert reader.trees.statistics().folders_ahead <= 1
