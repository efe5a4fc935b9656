"""A file edited is stored as the whole new file would be: same form, same manifest."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_recut import Edited, Part, edit, parts, render
from tests.support.stores import TINY_CHUNKS, file_entry
from versionfs.chunking import Cutter, chunk_id
from versionfs.repo import Store
from versionfs.tree import FileEditor, Kept, ManifestBuilder, StoredFile, recut
from versionfs.types import NO_ID, NO_STAMP, Entry, Extent, Kind

Item = Extent | Kept


def extent_of(data: bytes | memoryview | None, length: int) -> Extent:
    return Extent(length, NO_ID if data is None else chunk_id(data), None)


def extents_of(data: bytes) -> list[Extent]:
    cutter = Cutter(TINY_CHUNKS)
    return [extent_of(c.data, c.length) for c in (*cutter.feed(data), *cutter.finish())]


def stored(store: Store, extents: list[Extent]) -> StoredFile:
    """What the importer makes of a file's extents (``transfer/pipeline.py``)."""
    if not extents:
        return StoredFile(Kind.FILE, 0, NO_ID, NO_STAMP, None)
    if len(extents) == 1 and extents[0].chunk != NO_ID:
        length, chunk, location = extents[0]
        return StoredFile(Kind.FILE, length, chunk, NO_STAMP, location)
    nodes = store.metadata_writer()
    builder = ManifestBuilder(store.metadata, nodes)
    for extent in extents:
        builder.add(extent)
    root = builder.finish()
    nodes.finish()
    ref = nodes.resolve(root.ref)
    return StoredFile(Kind.LARGE, root.length, ref.id, ref.stamp, ref.location)


def edited(store: Store, old: Entry | None, items: Iterable[Item]) -> tuple[StoredFile, int]:
    """Returns the file made of new extents and kept ranges, and how many nodes were written."""
    nodes = store.metadata_writer()
    editor = FileEditor(store.metadata, nodes, store.contents, old)
    for item in items:
        if isinstance(item, Kept):
            editor.keep(item.start, item.end)
        else:
            editor.add(item)
    result = editor.finish()
    nodes.finish()
    if result.kind == Kind.LARGE:
        ref = nodes.resolve(result.put_into(file_entry(b"f")).node)
        result = result._replace(location=ref.location)
    return result, nodes.objects_written


def as_entry(found: StoredFile) -> Entry:
    return found.put_into(file_entry(b"f"))


@pytest.mark.timeout(600)
@given(parts, st.integers(0), st.integers(0, 5))
def test_an_edited_file_is_stored_as_if_it_were_new(
    shared: Store, found: list[Part], seed: int, steps: int
) -> None:
    before = render(found)
    old = as_entry(stored(shared, extents_of(before)))
    new: Edited = edit(TINY_CHUNKS, before, random.Random(seed), steps)
    pieces = recut(
        TINY_CHUNKS,
        shared.contents.open(old),
        len(new.data),
        sorted(new.dirty),
        new.read,
        visible=new.visible,
    )
    items = [p if isinstance(p, Kept) else extent_of(p.data, p.length) for p in pieces]
    result, _ = edited(shared, old, items)
    assert result == stored(shared, extents_of(bytes(new.data)))
    content = shared.contents.open(as_entry(result))
    assert [e for _, e in content.extents()] == extents_of(bytes(new.data))


# -- manifests of several levels -------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(shared: Store) -> tuple[list[Extent], Entry]:
    """30,000 extents: three levels."""
    rng = random.Random(11)
    extents = [
        Extent(rng.randrange(1, 2000), NO_ID if rng.random() < 0.1 else rng.randbytes(32), None)
        for _ in range(30_000)
    ]
    return extents, as_entry(stored(shared, extents))


@settings(max_examples=60)
@given(
    st.integers(0),
    st.lists(
        st.tuples(st.integers(0, 30_000), st.sampled_from([0, 1, 2, 40, 700, 9000])), max_size=5
    ),
)
def test_a_manifest_edited_is_the_one_built_from_nothing(
    shared: Store,
    large: tuple[list[Extent], Entry],
    seed: int,
    replaced: list[tuple[int, int]],
) -> None:
    extents, old = large
    rng = random.Random(seed)
    offsets = [0, *accumulate(e.length for e in extents)]
    items: list[Item] = []
    expected: list[Extent] = []
    edges = [(0, 0), *sorted(replaced), (len(extents), 0)]
    at = 0
    for start, count in edges:
        if start > at:
            # In one piece or in several, which may end inside a node.
            marks = sorted({at, start, *(rng.randint(at, start) for _ in range(rng.randint(0, 2)))})
            items += [Kept(offsets[a], offsets[b]) for a, b in pairwise(marks)]
            expected += extents[at:start]
        new = [
            Extent(rng.randrange(1, 2000), rng.randbytes(32), None)
            for _ in range(rng.choice([0, count, rng.randrange(count + 3)]))
        ]
        items += new
        expected += new
        at = max(at, min(start + count, len(extents)))
    result, _ = edited(shared, old, items)
    assert result == stored(shared, expected)


def test_one_new_chunk_costs_a_few_nodes(shared: Store, large: tuple[list[Extent], Entry]) -> None:
    extents, old = large
    offsets = [0, *accumulate(e.length for e in extents)]
    for index in (0, 15_000, 29_999):
        before = shared.metadata.objects_read
        new = Extent(extents[index].length, random.Random(index).randbytes(32), None)
        kept = [Kept(0, offsets[index]), Kept(offsets[index + 1], old.size)]
        items: list[Item] = [k for k in kept if k.start < k.end]
        items.insert(1 if index else 0, new)
        _, written = edited(shared, old, items)
        assert written <= 8
        assert shared.metadata.objects_read - before <= 8


def test_a_file_kept_whole_is_left_as_it_is(
    shared: Store, large: tuple[list[Extent], Entry]
) -> None:
    _, old = large
    before = shared.metadata.objects_read
    assert edited(shared, old, [Kept(0, old.size)]) == (StoredFile.of(old), 0)
    assert shared.metadata.objects_read == before


def test_what_follows_a_file_kept_whole_is_appended(
    shared: Store, large: tuple[list[Extent], Entry]
) -> None:
    extents, old = large
    tail = Extent(5, random.Random(1).randbytes(32), None)
    result, _ = edited(shared, old, [Kept(0, old.size), tail])
    assert result == stored(shared, [*extents, tail])
    single = as_entry(stored(shared, [tail]))
    other = Extent(6, random.Random(2).randbytes(32), None)
    assert edited(shared, single, [Kept(0, 5), other])[0] == stored(shared, [tail, other])
    assert edited(shared, single, [other, Kept(0, 5)])[0] == stored(shared, [other, tail])


def test_only_whole_extents_can_be_kept(shared: Store, large: tuple[list[Extent], Entry]) -> None:
    extents, old = large
    assert extents[0].length > 1
    single = as_entry(stored(shared, [Extent(5, b"c" * 32, None)]))
    for entry, start, end in [
        (old, 0, extents[0].length - 1),
        (old, 1, old.size),
        (old, 0, old.size - 1) if extents[-1].length > 1 else (old, 1, 2),
        (old, 0, old.size + 1),
        (old, 5, 5),
        (old, old.size, old.size + 1),
        (single, 1, 5),
        (single, 0, 4),
    ]:
        with pytest.raises(ValueError, match="extent"):
            edited(shared, entry, [Kept(start, end)])
    with pytest.raises(ValueError, match="no old file"):
        edited(shared, None, [Kept(0, 1)])
