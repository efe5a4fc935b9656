"""Sorting more than fits in memory is sorting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from versionfs.index import SourceRecord, SourceSegment
from versionfs.transfer.sorting import external_sort

row = st.tuples(
    st.lists(st.binary(max_size=3), max_size=3), st.integers(), st.none() | st.binary(max_size=4)
)


@given(st.lists(st.binary(max_size=5), max_size=80), st.integers(1, 100))
def test_names_are_sorted_in_runs_of_any_size(items: list[bytes], run: int) -> None:
    assert list(external_sort(iter(items), run)) == sorted(items)


@given(st.lists(row, max_size=40, unique_by=lambda r: (tuple(r[0]), r[1])), st.integers(1, 50))
def test_rows_are_sorted_by_path_then_order(items: list[tuple[object, ...]], run: int) -> None:
    assert list(external_sort(items, run)) == sorted(items)


def test_a_million_names_are_sorted_with_a_fraction_in_memory() -> None:
    names = [b"%07d" % ((i * 7919) % 300_000) for i in range(300_000)]
    assert list(external_sort(iter(names), 20_000)) == sorted(names)


names = st.binary(min_size=1, max_size=20).map(lambda b: b.replace(b"\0", b"0"))


@given(st.dictionaries(names, st.binary(min_size=32, max_size=32), min_size=1, max_size=30))
def test_remembered_names_come_back_and_damage_to_them_is_noticed(
    found: dict[bytes, bytes],
) -> None:
    records = [SourceRecord(name, found[name]) for name in sorted(found)]
    segment = SourceSegment.encode(records)
    assert segment.decode() == (sorted(found), [found[name] for name in sorted(found)])
    damaged = bytearray(segment.value)
    damaged[len(damaged) // 2] ^= 1
    assert segment._replace(value=bytes(damaged)).decode() == ([], [])
