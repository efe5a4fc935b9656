"""Merges: what is a conflict, and what a merge costs, counted in nodes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.support.stores import (
    as_directory,
    edit_directory,
    file_entry,
    make_store,
    write_directory,
)
from versionfs.repo import Store
from versionfs.tree import Conflict, build_directory, merge_trees, with_root
from versionfs.types import Entry, Kind

MILLION = 1_000_000


def folder(store: Store, name: bytes, *entries: Entry) -> Entry:
    return as_directory(store, write_directory(store, {e.name: e for e in entries}), name)


def conflicts(store: Store, base: Entry | None, ours: Entry, theirs: Entry) -> list[Conflict]:
    result = merge_trees(store.trees, store.metadata_writer(), base, ours, theirs)
    assert (result.root is None) == bool(result.conflicts)
    return result.conflicts


def merged(store: Store, base: Entry, ours: Entry, theirs: Entry) -> dict[bytes, Entry]:
    """Returns the entries of the merged root, with its own under the empty name."""
    writer = store.metadata_writer()
    root = merge_trees(store.trees, writer, base, ours, theirs).root
    assert root is not None
    writer.finish()
    ref = writer.resolve(root.node)
    return {b"": root} | {e.name: e for e in store.trees.entries(ref)}


OLD, MINE, OTHER = (file_entry(b"f", data) for data in (b"old", b"mine", b"other"))
LINK = file_entry(b"f", kind=Kind.SYMLINK, target=b"x", size=1)


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        pytest.param(OLD, MINE, OTHER, id="both modified"),
        pytest.param(OLD, MINE, None, id="modified and deleted"),
        pytest.param(OLD, None, OTHER, id="deleted and modified"),
        pytest.param(None, MINE, OTHER, id="both added"),
        pytest.param(OLD, LINK, OTHER, id="a link and a file"),
        pytest.param(OLD, OLD._replace(mode=0o600), OTHER, id="mode and content"),
        pytest.param(
            OLD,
            OLD._replace(xattrs=((b"user.a", b"1"),)),
            OLD._replace(xattrs=((b"user.a", b"2"),)),
            id="attributes",
        ),
    ],
)
def test_two_different_changes_of_an_entry_are_a_conflict(
    store: Store, base: Entry | None, ours: Entry | None, theirs: Entry | None
) -> None:
    def root(entry: Entry | None) -> Entry:
        below = folder(store, b"d", *([] if entry is None else [entry]), file_entry(b"rest"))
        return folder(store, b"", below)

    for mine, other in ((ours, theirs), (theirs, ours)):
        found = conflicts(store, root(base), root(mine), root(other))
        assert [c.path for c in found] == [b"d/f"]
        sides = [found[0].base, found[0].ours, found[0].theirs]
        assert [e and (e[:8]) for e in sides] == [e and e[:8] for e in (base, mine, other)]


def test_a_folder_changed_here_and_removed_or_replaced_there_is_one_conflict(store: Store) -> None:
    base = folder(store, b"", folder(store, b"f", OLD, file_entry(b"g")))
    ours = folder(store, b"", folder(store, b"f", MINE, file_entry(b"h")))
    for theirs in (folder(store, b""), folder(store, b"", OTHER), folder(store, b"", LINK)):
        assert [c.path for c in conflicts(store, base, ours, theirs)] == [b"f"]
        assert [c.path for c in conflicts(store, base, theirs, ours)] == [b"f"]


def test_a_folder_removed_here_and_only_touched_there_goes(store: Store) -> None:
    base = folder(store, b"", folder(store, b"f", OLD))
    touched = folder(store, b"", folder(store, b"f", OLD._replace(mtime_ns=77))._replace(uid=5))
    gone = folder(store, b"")
    assert set(merged(store, base, touched, gone)) == {b""}
    assert set(merged(store, base, gone, touched)) == {b""}


def test_folders_added_on_both_sides_are_put_together(store: Store) -> None:
    base = folder(store, b"")
    ours = folder(store, b"", folder(store, b"d", file_entry(b"mine"), file_entry(b"same")))
    theirs = folder(store, b"", folder(store, b"d", file_entry(b"other"), file_entry(b"same")))
    found = merged(store, base, ours, theirs)[b"d"]
    assert [e.name for e in store.trees.entries(found.node)] == [b"mine", b"other", b"same"]
    assert found.files == 3
    other = folder(store, b"", folder(store, b"d")._replace(mode=0o700))
    assert [c.path for c in conflicts(store, base, ours, other)] == [b"d"]


def test_the_mode_of_a_folder_merges_apart_from_its_entries(store: Store) -> None:
    base = folder(store, b"", folder(store, b"d", OLD))
    ours = folder(store, b"", folder(store, b"d", OLD)._replace(mode=0o700))
    theirs = folder(store, b"", folder(store, b"d", OTHER)._replace(xattrs=()))
    found = merged(store, base, ours, theirs)[b"d"]
    assert found.mode == 0o700
    assert [e.content for e in store.trees.entries(found.node)] == [OTHER.content]
    theirs = folder(store, b"", folder(store, b"d", OTHER)._replace(mode=0o711))
    assert [c.path for c in conflicts(store, base, ours, theirs)] == [b"d"]


def test_times_and_owners_are_never_a_conflict(store: Store) -> None:
    base = folder(store, b"", OLD._replace(mtime_ns=1, uid=1, gid=1))
    ours = folder(store, b"", OLD._replace(mtime_ns=2, uid=1, gid=1))
    theirs = folder(store, b"", OTHER._replace(mtime_ns=3, uid=3, gid=1))
    found = merged(store, base, ours, theirs)[b"f"]
    assert (found.content, found.mtime_ns, found.uid, found.gid) == (OTHER.content, 2, 3, 1)


def test_all_conflicts_are_told_in_path_order(store: Store) -> None:
    def root(data: bytes) -> Entry:
        return folder(
            store,
            b"",
            folder(store, b"b", file_entry(b"x", data), file_entry(b"y", data)),
            file_entry(b"a", data),
            file_entry(b"c", data),
            file_entry(b"d"),
        )

    found = conflicts(store, root(b"0"), root(b"1"), root(b"2"))
    assert [c.path for c in found] == [b"a", b"b/x", b"b/y", b"c"]


# -- costs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Entry]]:
    """A root with a directory of a million entries, and one beside it."""
    with make_store(tmp_path_factory.mktemp("huge") / "home") as store:
        writer = store.metadata_writer()
        plain = file_entry(b"")
        entries = (plain._replace(name=b"file%07d" % number) for number in range(MILLION))
        child = build_directory(store.trees, writer, entries)
        writer.finish()
        big = as_directory(store, writer.resolve(child.ref), b"big")
        yield store, folder(store, b"", big, folder(store, b"other", OLD))


def with_edits(store: Store, root: Entry, edits: dict[bytes, Entry | None]) -> Entry:
    """Returns the root with edits of the big directory."""
    big = store.trees.lookup(root.node, b"big")
    assert big is not None
    child = store.trees.summary(edit_directory(store, big.node, edits))
    changed = edit_directory(store, root.node, {b"big": with_root(big, child)})
    return as_directory(store, changed)


def test_merging_a_few_changes_in_a_million_entries_costs_a_few_nodes(
    huge: tuple[Store, Entry],
) -> None:
    store, base = huge
    mine: dict[bytes, Entry | None] = {
        b"file0100000": file_entry(b"file0100000", b"mine"),
        b"file0700000": None,
    }
    other: dict[bytes, Entry | None] = {
        b"file0300000": file_entry(b"file0300000", b"other"),
        b"file0300001x": file_entry(b"file0300001x", b"added"),
        b"file0700000": None,
    }
    ours, theirs = with_edits(store, base, mine), with_edits(store, base, other)
    expected = with_edits(store, base, mine | other)
    writer = store.metadata_writer()
    before = store.trees.statistics().nodes_read
    root = merge_trees(store.trees, writer, base, ours, theirs).root
    writer.finish()
    assert root is not None
    assert (root.content, root.stamp) == (expected.content, expected.stamp)
    assert store.trees.statistics().nodes_read - before <= 120
    assert writer.objects_written <= 24


def test_a_side_that_changed_nothing_costs_nothing(huge: tuple[Store, Entry]) -> None:
    store, base = huge
    ours = with_edits(store, base, {b"file0100000": None})
    writer = store.metadata_writer()
    before = store.trees.statistics().nodes_read
    for mine, other in ((ours, base), (base, ours), (ours, ours)):
        root = merge_trees(store.trees, writer, base, mine, other).root
        assert root is not None
        assert root.node == ours.node
    assert store.trees.statistics().nodes_read == before
    assert writer.objects_written == 0


def test_a_merge_of_many_changes_has_the_id_of_making_them_all(huge: tuple[Store, Entry]) -> None:
    store, base = huge
    rng = random.Random(8)
    sides: list[dict[bytes, Entry | None]] = [{}, {}]
    for number in rng.sample(range(MILLION), 400):
        name = b"file%07d" % number
        side = sides[number % 2]
        match rng.randrange(3):
            case 0:
                side[name] = None
            case 1:
                side[name] = file_entry(name, b"%d" % number)
            case _:
                side[name + b"x"] = file_entry(name + b"x")
    writer = store.metadata_writer()
    ours, theirs = (with_edits(store, base, side) for side in sides)
    root = merge_trees(store.trees, writer, base, ours, theirs).root
    writer.finish()
    assert root is not None
    assert root.content == with_edits(store, base, sides[0] | sides[1]).content
