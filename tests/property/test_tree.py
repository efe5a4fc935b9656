"""The prolly tree against a dict: build, edit, lookup, cursor, diff."""

from __future__ import annotations

import random
from bisect import bisect_right

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.stores import as_directory, edit_directory, file_entry, write_directory
from versionfs.repo import Store
from versionfs.tree import (
    Child,
    Inner,
    decode_xattrs,
    diff,
    diff_directory,
    edit_paths,
    encode_xattrs,
)
from versionfs.types import Entry, Kind, NodeRef

Model = dict[bytes, Entry]

name = (
    st.binary(min_size=1, max_size=6)
    .map(lambda b: b.replace(b"/", b"s").replace(b"\0", b"n"))
    .filter(lambda b: b not in (b".", b".."))
)
xattrs = st.dictionaries(
    st.binary(min_size=1, max_size=9).map(b"user.".__add__), st.binary(max_size=20), max_size=3
).map(lambda found: tuple(sorted(found.items())))
file = st.builds(
    file_entry,
    st.just(b""),
    st.binary(max_size=3),
    mode=st.integers(0, 0o7777),
    xattrs=xattrs,
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
)
link = st.builds(
    lambda target: file_entry(b"", kind=Kind.SYMLINK, mode=0o777, target=target, size=len(target)),
    st.binary(min_size=1, max_size=9),
)
models = st.dictionaries(name, file | link, max_size=60).map(
    lambda found: {key: entry._replace(name=key) for key, entry in found.items()}
)


def canonical(entry: Entry) -> tuple[object, ...]:
    """What a tree id covers."""
    return tuple(entry[:8])


def plain(entry: Entry) -> Entry:
    """Kinds come back as numbers."""
    return entry._replace(kind=int(entry.kind))


def height(store: Store, root: NodeRef) -> int:
    node = store.trees.node(root)
    return 1 + height(store, node.children[0].ref) if isinstance(node, Inner) else 1


def nodes_of(store: Store, root: NodeRef) -> set[bytes]:
    node = store.trees.node(root)
    found = {root.key}
    if isinstance(node, Inner):
        for child in node.children:
            found |= nodes_of(store, child.ref)
    return found


def check_totals(store: Store, root: NodeRef, model: Model) -> None:
    found = store.trees.summary(root)
    size = sum(e.size for e in model.values() if e.kind != Kind.SYMLINK)
    assert (found.entries, found.files, found.size) == (len(model), len(model), size)
    assert found.key == max(model, default=b"")


@given(models)
@example({})
def test_what_was_built_is_read(shared: Store, model: Model) -> None:
    root = write_directory(shared, model)
    assert [plain(e) for e in shared.trees.entries(root)] == [
        plain(model[key]) for key in sorted(model)
    ]
    for key, entry in model.items():
        assert shared.trees.lookup(root, key) == entry
        assert shared.trees.lookup(root, key + b"x") == model.get(key + b"x")
    check_totals(shared, root, model)


@given(models, models, st.sets(name))
def test_an_edited_directory_is_the_one_built_from_nothing(
    shared: Store, model: Model, changes: Model, removed: set[bytes]
) -> None:
    edits: dict[bytes, Entry | None] = dict.fromkeys(removed) | changes
    after = {k: e for k, e in (model | changes).items() if k not in removed or k in changes}
    edited = edit_directory(shared, write_directory(shared, model), edits)
    built = write_directory(shared, after)
    assert (edited.id, edited.stamp) == (built.id, built.stamp)


@given(models, models, st.booleans())
def test_a_diff_is_what_differs(shared: Store, old: Model, new: Model, attributes: bool) -> None:
    roots = write_directory(shared, old), write_directory(shared, new)
    expected = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if a is not None and b is not None:
            same = plain(a)[:12] == plain(b)[:12] if attributes else canonical(a) == canonical(b)
            if same:
                continue
        expected.append((a, b))
    found = list(diff_directory(shared.trees, *roots, attributes=attributes))
    assert found == expected
    assert list(diff_directory(shared.trees, None, roots[1])) == [
        (None, new[key]) for key in sorted(new)
    ]


@given(models, name)
def test_the_id_covers_content_but_not_times_and_owners(
    shared: Store, model: Model, added: bytes
) -> None:
    root = write_directory(shared, model)
    touched = {k: e._replace(mtime_ns=7, uid=8, gid=9) for k, e in model.items()}
    other = write_directory(shared, touched)
    assert other.id == root.id
    assert (other.stamp == root.stamp) == (touched == model)
    for key in list(model)[:3]:
        for change in ({"mode": model[key].mode ^ 1}, {"xattrs": ((b"user.other", b""),)}):
            changed = model | {key: model[key]._replace(**change)}
            assert write_directory(shared, changed).id != root.id
    if added not in model:
        assert write_directory(shared, model | {added: file_entry(added)}).id != root.id


@given(xattrs)
def test_extended_attributes_come_back(found: tuple[tuple[bytes, bytes], ...]) -> None:
    assert decode_xattrs(encode_xattrs(found)) == found


# -- trees of several levels -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(shared: Store) -> tuple[Model, NodeRef]:
    """20,000 entries: three levels."""
    rng = random.Random(7)
    model = {key: file_entry(key) for key in {b"%x" % rng.getrandbits(40) for _ in range(20_000)}}
    root = write_directory(shared, model)
    assert height(shared, root) == 3
    return model, root


@settings(max_examples=40)
@given(
    st.integers(0),
    st.sampled_from([1, 2, 30, 600]),
    st.sampled_from(["mixed", "run", "ends"]),
    st.sampled_from([["remove", "change", "add"], ["change"], ["change"] * 30 + ["add"]]),
)
@example(1, 100, "ends", ["remove", "change", "add"])
@example(2, 600, "ends", ["change"])
def test_editing_a_large_directory_gives_the_id_of_building_it(
    shared: Store,
    large: tuple[Model, NodeRef],
    seed: int,
    count: int,
    where: str,
    kinds: list[str],
) -> None:
    model, root = large
    rng = random.Random(seed)
    ordered = sorted(model)
    if where == "run":
        start = rng.randrange(len(ordered) - count)
        chosen = ordered[start : start + count]
    elif where == "ends":
        chosen = [*ordered[:count], *ordered[-count:]]
    else:
        chosen = rng.sample(ordered, count)
    edits: dict[bytes, Entry | None] = {}
    for key in chosen:
        kind = rng.choice(kinds)
        if kind == "add":
            edits[key + b"%x" % rng.getrandbits(16)] = None
        edits[key] = None if kind == "remove" else file_entry(key, b"%d" % rng.getrandbits(20))
    edits = {k: file_entry(k) if e is None and k not in model else e for k, e in edits.items()}
    after = {k: e for k, e in (model | edits).items() if e is not None}
    edited = edit_directory(shared, root, edits)
    built = write_directory(shared, after)
    assert (edited.id, edited.stamp) == (built.id, built.stamp)
    check_totals(shared, edited, after)
    changed = {(a or b).name for a, b in diff_directory(shared.trees, root, edited) if a or b}  # type: ignore[union-attr]
    assert changed == {k for k, e in edits.items() if model.get(k) != e}


@settings(max_examples=60)
@given(data=st.data())
def test_a_cursor_begins_behind_any_name(
    shared: Store, large: tuple[Model, NodeRef], data: st.DataObject
) -> None:
    model, root = large
    ordered = sorted(model)
    after = data.draw(st.sampled_from(ordered) | st.binary(min_size=1, max_size=9))
    entries = shared.trees.entries(root, after)
    start = bisect_right(ordered, after)
    assert [e.name for e, _ in zip(entries, range(300), strict=False)] == ordered[
        start : start + 300
    ]


def test_a_cursor_visits_every_name_of_a_large_directory_once(
    shared: Store, large: tuple[Model, NodeRef]
) -> None:
    model, root = large
    ordered = sorted(model)
    assert [e.name for e in shared.trees.entries(root)] == ordered
    assert list(shared.trees.entries(root, ordered[-1])) == []
    for key in ordered[:: len(ordered) // 50]:
        assert shared.trees.lookup(root, key) == model[key]
        ref, leaf = shared.trees.leaf_for(root, key)
        assert key in leaf.names
        assert shared.trees.leaf(ref) is leaf
    for number in (0, 1, 63, 1_000, len(ordered) // 2, len(ordered) - 1):
        name = ordered[number]
        assert shared.trees.name_at(root, number) == name
        assert shared.trees.rank(root, name) == number + 1
        assert shared.trees.rank(root, name + b"\x01") == number + 1
        assert shared.trees.rank(root, name[:-1] + bytes((max(name[-1] - 1, 0),))) <= number + 1
    assert shared.trees.name_at(root, len(ordered) + 5) == ordered[-1]
    assert shared.trees.name_at(root, -1) is None
    assert shared.trees.rank(root, b"") == 0
    assert shared.trees.rank(root, b"\xff" * 200) == len(ordered)


def test_removing_all_but_one_entry_leaves_one_leaf(
    shared: Store, large: tuple[Model, NodeRef]
) -> None:
    model, root = large
    kept = sorted(model)[10_000]
    edits: dict[bytes, Entry | None] = dict.fromkeys(model.keys() - {kept})
    edited = edit_directory(shared, root, edits)
    assert edited.id == write_directory(shared, {kept: model[kept]}).id
    emptied = edit_directory(shared, edited, {kept: None})
    assert emptied.id == write_directory(shared, {}).id


@pytest.mark.parametrize("left", [1, 20, 100, 700, 5000, 12_000])
def test_the_right_edge_alone_is_the_tree_that_building_it_gives(
    shared: Store, large: tuple[Model, NodeRef], left: int
) -> None:
    model, root = large
    ordered = sorted(model)
    for kept in (ordered[-left:], [ordered[0], *ordered[-left:]]):
        edits: dict[bytes, Entry | None] = dict.fromkeys(model.keys() - set(kept))
        edited = edit_directory(shared, root, edits)
        built = write_directory(shared, {name: model[name] for name in kept})
        assert (edited.id, edited.stamp) == (built.id, built.stamp)


def test_a_last_node_of_one_leaf_is_that_leaf_when_it_is_alone(
    shared: Store, large: tuple[Model, NodeRef]
) -> None:
    model, root = large
    node = shared.trees.node(root)
    assert isinstance(node, Inner)
    ordered = sorted(model)
    behind = bisect_right(ordered, node.children[0].key)
    some = {name: model[name] for name in ordered[: behind + 5]}
    shorter = write_directory(shared, some)
    assert height(shared, shorter) == 3
    last = {name: model[name] for name in ordered[behind : behind + 5]}
    edited = edit_directory(shared, shorter, dict.fromkeys(some.keys() - last.keys()))
    assert edited.id == write_directory(shared, last).id


def test_one_changed_entry_changes_one_node_of_each_level(
    shared: Store, large: tuple[Model, NodeRef]
) -> None:
    model, root = large
    key = sorted(model)[5_000]
    edited = edit_directory(shared, root, {key: file_entry(key, b"other")})
    assert len(nodes_of(shared, edited) - nodes_of(shared, root)) == height(shared, root)


def test_equal_names_end_nodes_alike_whatever_the_content(
    shared: Store, large: tuple[Model, NodeRef]
) -> None:
    model, root = large
    other = write_directory(shared, {k: file_entry(k, b"content of " + k) for k in model})

    def boundaries(ref: NodeRef) -> list[bytes]:
        return [leaf.names[-1] for _, leaf in shared.trees.leaves(ref)]

    assert boundaries(root) == boundaries(other)


# -- paths -----------------------------------------------------------------------------------------

Paths = dict[bytes, bytes]
paths = st.dictionaries(
    st.lists(st.sampled_from([b"a", b"b", b"c.d", b"c"]), min_size=1, max_size=3).map(b"/".join),
    st.binary(max_size=2),
    max_size=8,
)


def without_shadowed(found: Paths) -> Paths:
    """Leaves out paths that lie below another."""
    return {p: d for p, d in found.items() if not any(p.startswith(q + b"/") for q in found)}


def directory_at(shared: Store, found: Paths) -> Entry:
    root = as_directory(shared, write_directory(shared, {}))
    writer = shared.metadata_writer()
    edits: dict[bytes, Entry | None] = {p: file_entry(b"", d) for p, d in found.items()}
    root = edit_paths(shared.trees, writer, root, edits, made_ns=5)
    writer.finish()
    return root._replace(location=writer.resolve(root.node).location)


def flat(shared: Store, root: Entry, prefix: bytes = b"") -> dict[bytes, Entry]:
    found = {}
    for entry in shared.trees.entries(root.node):
        found[prefix + entry.name] = entry
        if entry.is_dir:
            found |= flat(shared, entry, prefix + entry.name + b"/")
    return found


@given(paths)
def test_paths_that_were_set_are_found(shared: Store, found: Paths) -> None:
    found = without_shadowed(found)
    root = directory_at(shared, found)
    seen = flat(shared, root)
    assert {p: e.content for p, e in seen.items() if e.is_file} == {
        p: file_entry(b"", d).content for p, d in found.items()
    }
    for path in seen:
        assert shared.trees.walk_path(root, path) == seen[path]
        assert shared.trees.walk_path(root, path + b"/nothing") is None
    assert root.files == len(found)


@given(paths, paths)
def test_a_recursive_diff_names_every_changed_path_in_order(
    shared: Store, before: Paths, after: Paths
) -> None:
    roots = [directory_at(shared, without_shadowed(found)) for found in (before, after)]
    old, new = (flat(shared, root) for root in roots)
    expected = []
    for path in sorted(old.keys() | new.keys(), key=lambda p: p.split(b"/")):
        a, b = old.get(path), new.get(path)
        both_folders = a is not None and b is not None and a.is_dir and b.is_dir
        if not both_folders and (a is None or b is None or canonical(a) != canonical(b)):
            expected.append((path, a, b))
    assert [tuple(change) for change in diff(shared.trees, *roots)] == expected


def test_a_diff_reports_a_folder_for_its_own_attributes_only(shared: Store) -> None:
    before = directory_at(shared, {b"d/x": b"1", b"e/x": b"1"})
    after = directory_at(shared, {b"d/x": b"2", b"e/x": b"1"})
    assert [c.path for c in diff(shared.trees, before, after)] == [b"d/x"]
    folder = shared.trees.lookup(after.node, b"e")
    assert folder is not None
    writer = shared.metadata_writer()
    edits: dict[bytes, Entry | None] = {b"e": folder._replace(mode=0o700, mtime_ns=9)}
    changed = edit_paths(shared.trees, writer, after, edits, made_ns=5)
    touched = edit_paths(
        shared.trees, writer, after, {b"e": folder._replace(mtime_ns=9)}, made_ns=5
    )
    writer.finish()
    changed, touched = (
        e._replace(location=writer.resolve(e.node).location) for e in (changed, touched)
    )
    assert [c.path for c in diff(shared.trees, after, changed)] == [b"e"]
    assert list(diff(shared.trees, after, touched)) == []
    assert [c.path for c in diff(shared.trees, after, touched, attributes=True)] == [b"e"]


def test_a_child_summary_of_nothing_is_empty(shared: Store) -> None:
    root = write_directory(shared, {})
    assert shared.trees.summary(root) == Child(root, b"", 0, 0, 0)
    assert list(shared.trees.entries(root)) == []
    assert shared.trees.lookup(root, b"x") is None
