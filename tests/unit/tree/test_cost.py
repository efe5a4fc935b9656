"""What an edit costs is counted in nodes: a few, however large the directory."""

from __future__ import annotations

from pathlib import Path

from tests.support.stores import make_store
from versionfs.tree import TreeEditor, build_directory, diff_directory
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind

COUNT = 1_000_000


def entry(number: int, mode: int = 0o644) -> Entry:
    name = b"file-%07d" % number
    return Entry(name, Kind.FILE, mode, 0, 1, NO_ID, b"", (), 1, 0, 0, NO_STAMP, None)


def test_one_change_in_a_million_entries_costs_a_few_nodes(tmp_path: Path) -> None:
    with make_store(tmp_path / "home") as store:
        writer = store.metadata_writer()
        root = build_directory(store.trees, writer, map(entry, range(COUNT)))
        writer.finish()
        assert writer.objects_written > 5000
        old = writer.resolve(root.ref)

        writer = store.metadata_writer()
        editor = TreeEditor(store.trees, writer, old)
        before = store.trees.statistics().nodes_read
        editor.set(entry(COUNT // 2, mode=0o600))
        changed = editor.finish()
        writer.finish()
        assert store.trees.statistics().nodes_read - before <= 12
        assert writer.objects_written <= 4
        assert changed.entries == COUNT

        before = store.trees.statistics().nodes_read
        ((was, now),) = diff_directory(store.trees, old, writer.resolve(changed.ref))
        assert store.trees.statistics().nodes_read - before <= 8
        assert was is not None
        assert now is not None
        assert (was.mode, now.mode) == (0o644, 0o600)
