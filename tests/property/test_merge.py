"""Merges against a model that looks at every entry."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.stores import file_entry, write_directory
from versionfs.repo import Store
from versionfs.tree import directory_entry, merge_trees
from versionfs.types import Entry, Kind

Value = tuple[object, ...]
Times = tuple[int, int, int]


class File(NamedTuple):
    """A file or a symlink: all that an id covers, and times and owners."""

    value: Value
    times: Times


class Folder(NamedTuple):
    value: Value
    times: Times
    entries: dict[bytes, File | Folder]


Node = File | Folder
NAMES = [b"a", b"b", b"c", b"d"]


# -- random versions -------------------------------------------------------------------------------


def random_file(rng: random.Random) -> File:
    kind = rng.choice([Kind.FILE, Kind.FILE, Kind.SYMLINK])
    return File(
        (kind, rng.choice([0o644, 0o600]), b"%d" % rng.randrange(3), xattrs(rng)), times(rng)
    )


def xattrs(rng: random.Random) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"user.x", b"1"),) if rng.random() < 0.1 else ()


def times(rng: random.Random) -> Times:
    return rng.randrange(3), rng.randrange(2), rng.randrange(2)


def random_folder(rng: random.Random, depth: int) -> Folder:
    entries: dict[bytes, Node] = {}
    for name in NAMES:
        choice = rng.random()
        if choice < 0.4:
            entries[name] = random_file(rng)
        elif choice < 0.7 and depth:
            entries[name] = random_folder(rng, depth - 1)
    return Folder((rng.choice([0o755, 0o700]), xattrs(rng)), times(rng), entries)


def changed(rng: random.Random, folder: Folder, depth: int, rate: float) -> Folder:
    """Returns a version of a folder with some changes."""
    value, when = folder.value, folder.times
    entries = dict(folder.entries)
    if rng.random() < rate / 3:
        value = (rng.choice([0o755, 0o700, 0o711]), xattrs(rng))
    if rng.random() < rate:
        when = times(rng)
    for name in NAMES:
        old = entries.get(name)
        if isinstance(old, Folder) and rng.random() < 0.8:
            entries[name] = changed(rng, old, depth - 1, rate)
        elif rng.random() < rate:
            match rng.choice(["remove", "file", "folder", "times"]):
                case "remove":
                    entries.pop(name, None)
                case "file":
                    entries[name] = random_file(rng)
                case "folder" if depth:
                    entries[name] = random_folder(rng, depth - 1)
                case "times" if old is not None:
                    entries[name] = old._replace(times=times(rng))
    return Folder(value, when, entries)


# -- the model -------------------------------------------------------------------------------------


def same(one: Node | None, other: Node | None) -> bool:
    """Equal but for times."""
    if isinstance(one, Folder) and isinstance(other, Folder):
        return (
            one.value == other.value
            and one.entries.keys() == other.entries.keys()
            and all(same(one.entries[name], other.entries[name]) for name in one.entries)
        )
    if isinstance(one, File) and isinstance(other, File):
        return one.value == other.value
    return one is None and other is None


def merged_times(base: Node | None, ours: Node, theirs: Node) -> Times:
    if base is None:
        return ours.times
    triples = zip(base.times, ours.times, theirs.times, strict=True)
    found = tuple(t if o == b else o for b, o, t in triples)
    return found[0], found[1], found[2]


def form(node: Node) -> object:
    return Kind.DIRECTORY if isinstance(node, Folder) else node.value[0]


def model_merge(
    path: bytes, base: Node | None, ours: Node | None, theirs: Node | None, found: list[bytes]
) -> Node | None:
    if isinstance(ours, Folder) and isinstance(theirs, Folder):
        before = base if isinstance(base, Folder) else None
        values = before and before.value, ours.value, theirs.value
        value = values[2] if values[1] == values[0] else values[1]
        if values[1] not in (values[0], values[2]) and values[0] != values[2]:
            found.append(path)
        entries: dict[bytes, Node] = {}
        for name in sorted(ours.entries.keys() | theirs.entries.keys()):
            result = model_merge(
                path + b"/" + name if path else name,
                before and before.entries.get(name),
                ours.entries.get(name),
                theirs.entries.get(name),
                found,
            )
            if result is not None:
                entries[name] = result
        assert value is not None
        return Folder(value, merged_times(before, ours, theirs), entries)
    if same(base, ours):
        chosen = theirs
    elif same(base, theirs) or same(ours, theirs):
        chosen = ours
    else:
        found.append(path)
        return ours
    if base is None or ours is None or theirs is None or chosen is None:
        return chosen
    if not form(base) == form(ours) == form(theirs):
        return chosen
    assert isinstance(chosen, File)
    return chosen._replace(times=merged_times(base, ours, theirs))


# -- against the store -----------------------------------------------------------------------------


def stored(store: Store, name: bytes, node: Node) -> Entry:
    mtime_ns, uid, gid = node.times
    if isinstance(node, Folder):
        entries = {key: stored(store, key, below) for key, below in node.entries.items()}
        root = store.trees.summary(write_directory(store, entries))
        mode, found = node.value
        entry = directory_entry(name, root, mode, mtime_ns, uid, gid)  # type: ignore[arg-type]
        return entry._replace(xattrs=found)  # type: ignore[arg-type]
    kind, mode, data, found = node.value
    assert isinstance(data, bytes)
    if kind == Kind.SYMLINK:
        entry = file_entry(name, kind=kind, target=data, size=len(data))
    else:
        entry = file_entry(name, data)
    return entry._replace(mode=mode, xattrs=found, mtime_ns=mtime_ns, uid=uid, gid=gid)  # type: ignore[arg-type]


def merge(
    store: Store, base: Entry | None, ours: Entry, theirs: Entry
) -> tuple[Entry | None, list[bytes]]:
    writer = store.metadata_writer()
    root, conflicts = None, []
    result = merge_trees(store.trees, writer, base, ours, theirs)
    writer.finish()
    conflicts = [conflict.path for conflict in result.conflicts]
    assert (result.root is None) == bool(conflicts)
    if result.root is not None:
        root = result.root._replace(location=writer.resolve(result.root.node).location)
    return root, conflicts


def same_version(one: Entry | None, other: Entry | None) -> bool:
    """Equal but for where it is stored."""
    return one is not None and other is not None and one[:12] == other[:12]


@pytest.mark.timeout(600)
@given(st.integers(0), st.sampled_from([0.05, 0.2, 0.6]), st.booleans())
@example(0, 0.2, True)
def test_a_merge_is_what_the_model_says(
    shared: Store, seed: int, rate: float, has_base: bool
) -> None:
    rng = random.Random(seed)
    base = random_folder(rng, 3)
    sides = [changed(rng, base, 3, rate) for _ in range(2)]
    conflicts: list[bytes] = []
    expected = model_merge(b"", base if has_base else None, sides[0], sides[1], conflicts)
    roots = [stored(shared, b"", side) for side in sides]
    before = stored(shared, b"", base) if has_base else None
    result, found = merge(shared, before, roots[0], roots[1])
    assert found == conflicts
    if not conflicts:
        assert expected is not None
        assert same_version(result, stored(shared, b"", expected))
    # The other way round the same paths are in conflict, and nothing else is.
    turned, found = merge(shared, before, roots[1], roots[0])
    assert found == conflicts
    if result is not None and turned is not None:
        assert result[:8] == turned[:8]


@settings(max_examples=50)
@given(st.integers(0))
def test_what_one_side_changed_is_taken_as_it_is(shared: Store, seed: int) -> None:
    rng = random.Random(seed)
    base = random_folder(rng, 3)
    before = stored(shared, b"", base)
    after = stored(shared, b"", changed(rng, base, 3, 0.5))
    for root, conflicts in (
        merge(shared, before, after, before),
        merge(shared, before, before, after),
        merge(shared, before, after, after),
        merge(shared, None, after, after),
    ):
        assert conflicts == []
        assert same_version(root, after)
