"""Extents are a set of bytes, and their records say the same."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versionfs.workspace import extents as module
from versionfs.workspace.extents import Extents, extents_prefix, layer_of_key, load

BOUND = 100
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, BOUND), st.integers(0, 12)),
        st.tuples(st.just("clip"), st.integers(0, BOUND), st.just(0)),
    ),
    max_size=40,
)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 32)


@given(EDITS, st.integers(0, BOUND), st.integers(0, BOUND))
def test_they_are_a_set_of_bytes(edits, start, end):
    extents = Extents()
    model: set[int] = set()
    records: dict[bytes, bytes] = {}
    limit = 1 << 60
    for what, at, length in edits:
        if what == "clip":
            limit = min(limit, at)
            extents.clip(at)
            model = {byte for byte in model if byte < at}
        elif at + length <= limit:
            mutations = extents.records_to_add(7, at, at + length)
            assert bool(mutations) == (not set(range(at, at + length)) <= model)
            for key, value in mutations:
                if value is None:
                    del records[key]
                else:
                    records[key] = value
            extents.add(at, at + length)
            model |= set(range(at, at + length))
        assert extents.covered == len(model)
    assert [byte for low, high in extents for byte in range(low, high)] == sorted(model)
    ranges = list(extents)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))
    pieces = list(extents.pieces(start, end))
    assert [byte for low, high, _ in pieces for byte in range(low, high)] == list(range(start, end))
    assert all((byte in model) == own for low, high, own in pieces for byte in range(low, high))
    assert set(load(sorted(records.items()), limit)) == set(extents)
    assert all(key.startswith(extents_prefix(7)) and layer_of_key(key) == 7 for key in records)


def test_writing_along_is_one_record():
    extents = Extents()
    for start in range(0, 30, 3):
        assert len(extents.records_to_add(1, start, start + 3)) == 1
        extents.add(start, start + 3)
    assert list(extents) == [(0, 30)]
