"""What changes cost, counted: a few nodes, whatever the size of the directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.folders import fill, write
from tests.support.stores import LONG_AGO_NS, bring, file_entry, head, make_store
from versionfs.repo import Store
from versionfs.tree import TreeEditor, build_directory, diff, diff_directory
from versionfs.types import NodeRef

MILLION = 1_000_000


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, NodeRef]]:
    """A directory of a million entries."""
    with make_store(tmp_path_factory.mktemp("huge") / "home") as store:
        writer = store.metadata_writer()
        plain = file_entry(b"")
        entries = (plain._replace(name=b"file%07d" % number) for number in range(MILLION))
        root = build_directory(store.trees, writer, entries)
        writer.finish()
        yield store, writer.resolve(root.ref)


def test_one_changed_entry_of_a_million_costs_a_few_nodes(huge: tuple[Store, NodeRef]) -> None:
    store, root = huge
    assert store.trees.summary(root).entries == MILLION
    before = store.trees.statistics()
    writer = store.metadata_writer()
    editor = TreeEditor(store.trees, writer, root)
    editor.set(file_entry(b"file0500000", b"changed"))
    child = editor.finish()
    writer.finish()
    edited = writer.resolve(child.ref)
    after = store.trees.statistics()
    assert writer.objects_written <= 4
    assert after.nodes_read - before.nodes_read <= 8
    assert writer.stored_bytes < 100_000
    assert child.entries == MILLION

    differing = list(diff_directory(store.trees, root, edited))
    assert [(a and a.name, b and b.size) for a, b in differing] == [(b"file0500000", 7)]
    assert store.trees.statistics().nodes_read - after.nodes_read <= 8


def test_added_and_removed_entries_cost_a_few_nodes_each(huge: tuple[Store, NodeRef]) -> None:
    store, root = huge
    writer = store.metadata_writer()
    editor = TreeEditor(store.trees, writer, root)
    before = store.trees.statistics().nodes_read
    editor.set(file_entry(b"before all"))
    editor.remove(b"file0123456")
    editor.set(file_entry(b"file0654321x"))
    editor.remove(b"file0999999")
    child = editor.finish()
    writer.finish()
    assert writer.objects_written <= 24
    assert store.trees.statistics().nodes_read - before <= 60
    edited = writer.resolve(child.ref)
    before = store.trees.statistics().nodes_read
    changed = [(a or b) for a, b in diff_directory(store.trees, root, edited)]
    assert [entry.name for entry in changed if entry] == [
        b"before all",
        b"file0123456",
        b"file0654321x",
        b"file0999999",
    ]
    assert store.trees.statistics().nodes_read - before <= 80


def test_a_lookup_in_a_million_entries_reads_one_node_of_each_level(
    huge: tuple[Store, NodeRef],
) -> None:
    store, root = huge
    before = store.trees.statistics().nodes_read
    assert store.trees.lookup(root, b"file0777777") is not None
    assert store.trees.lookup(root, b"nothing") is None
    assert store.trees.statistics().nodes_read - before <= 2 * 3
    before = store.trees.statistics().nodes_read
    found = next(store.trees.entries(root, b"file0777777"))
    assert found.name == b"file0777778"
    assert store.trees.statistics().nodes_read - before <= 4


def test_a_node_cache_stays_within_its_bound(huge: tuple[Store, NodeRef]) -> None:
    store, root = huge
    for number in range(0, MILLION, 199):
        assert store.trees.lookup(root, b"file%07d" % number) is not None
    found = store.trees.statistics()
    assert found.cached_bytes <= store.settings.node_cache_bytes
    assert found.nodes_decoded > 1000


@pytest.fixture
def many(source: Path) -> Path:
    """20,000 files in 100 folders."""
    fill(source, {f"d{n % 100:02}/f{n}": b"%d" % n for n in range(20_000)})
    return source


def test_one_changed_file_of_a_source_is_read_and_a_few_nodes_written(
    store: Store, many: Path
) -> None:
    first = bring(store, many)
    assert (first.files, first.files_read) == (20_000, 20_000)
    write(many / "d42" / "f142", b"changed", mtime_ns=LONG_AGO_NS + 1)
    packs = {info.key for info in store.objects.list("packs/")}
    before = store.trees.statistics()
    second = bring(store, many)
    nodes_read = store.trees.statistics().nodes_read - before.nodes_read
    assert (second.files, second.files_read) == (20_000, 1)
    assert second.new_bytes == len(b"changed")
    new = [info for info in store.objects.list("packs/") if info.key not in packs]
    assert len(new) == 2
    assert sum(info.size for info in new) == second.stored_bytes < 30_000
    # Each folder is compared with its node once; nothing is written but the way to the file.
    assert nodes_read <= 2 * 100 + 20
    assert first.commit is not None
    assert second.commit is not None
    before = store.trees.statistics()
    changed = list(diff(store.trees, first.commit.root, second.commit.root))
    assert [change.path for change in changed] == [b"d42/f142"]
    assert store.trees.statistics().nodes_read - before.nodes_read <= 8


def test_an_unchanged_source_writes_nothing(store: Store, many: Path) -> None:
    bring(store, many)
    packs = [info.key for info in store.objects.list("packs/")]
    again = bring(store, many)
    assert (again.files, again.files_read, again.stored_bytes) == (20_000, 0, 0)
    assert [info.key for info in store.objects.list("packs/")] == packs
    assert head(store) == again.head
