"""The table of file inodes against a dict."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versionfs.tree import compiled
from versionfs.tree.numbers import PlainInodeTable
from versionfs.types import Location, NodeRef, PackId
from versionfs.vfs.inodes import FILE_BIT, LeafTable, next_number, place, split_place
from versionfs.workspace.folders import hashed_number

TABLES = [PlainInodeTable] if compiled is None else [PlainInodeTable, compiled.InodeTable]


@pytest.fixture(params=TABLES, ids=lambda table: table.__module__)
def table(request):
    return request.param()


def test_place_round_trip():
    for leaf, index in ((0, 0), (1, 511), (123_456, 7)):
        assert split_place(place(leaf, index)) == (leaf, index)


def test_table_behaves_as_a_dict_of_counts(table):
    rng = random.Random(5)
    model: dict[int, list[int]] = {}
    # Few numbers and few home slots, so that probe sequences are long and interleave.
    numbers = [FILE_BIT | rng.randrange(1, 1 << 20) << 8 | rng.randrange(4) for _ in range(400)]
    for _ in range(40_000):
        number = rng.choice(numbers)
        if rng.random() < 0.52:
            at = rng.randrange(1 << 40)
            held = table.intern(number, at)
            if number in model:
                assert held == model[number][0]
                model[number][1] += 1
            else:
                assert held == -1
                model[number] = [at, 1]
        else:
            lookups = rng.randrange(1, 4)
            gone = table.forget(number, lookups)
            if number not in model:
                assert gone == -1
            else:
                model[number][1] -= lookups
                if model[number][1] <= 0:
                    assert gone == model.pop(number)[0]
                else:
                    assert gone == -1
        assert len(table) == len(model)
    for number in numbers:
        assert table.find(number) == model.get(number, [-1])[0]


def test_table_grows_and_shrinks(table):
    empty = table.size_bytes
    numbers = [next_number(i) for i in range(100_000)]
    for at, number in enumerate(numbers):
        assert table.intern(number, at) == -1
    assert table.size_bytes < 45 * len(numbers)
    assert all(table.find(number) == at for at, number in enumerate(numbers))
    for number in numbers:
        table.forget(number, 1)
    assert len(table) == 0
    assert table.size_bytes < 4 * empty


def test_a_saturated_count_is_never_forgotten(table):
    number = FILE_BIT | 5
    table.add(number, 1, 0, 0xFFFF_FFFF)
    assert table.intern(number, 1) == 1
    assert table.forget(number, 10) == -1
    assert table.find(number) == 1


@pytest.mark.parametrize("kind", TABLES, ids=lambda table: table.__module__)
def test_parents_and_marks_stay_with_their_number(kind):
    rng = random.Random(6)
    table = kind(parents=True)
    numbers = {FILE_BIT | rng.randrange(1, 1 << 20) << 8 | rng.randrange(2) for _ in range(3000)}
    for number in sorted(numbers):
        table.intern(number, 1, number % 1000)
        if number % 3 == 0:
            table.mark(number)
    for number in rng.sample(sorted(numbers), 2000):
        assert table.forget(number, 1) == 1
        assert not table.is_marked(number)
        assert table.parent(number) == 0
        numbers.remove(number)
    assert set(table) == numbers
    for number in numbers:
        assert table.is_marked(number) == (number % 3 == 0)
        assert table.parent(number) == number % 1000
        table.move(number, 5)
        assert (table.find(number), table.lookups(number)) == (5, 1)
    # What is known again has no mark.
    number = next(number for number in numbers if number % 3 == 0)
    table.forget(number, 1)
    table.intern(number, 1)
    assert not table.is_marked(number)


@pytest.mark.skipif(compiled is None, reason="nothing is compiled here")
@given(
    st.tuples(
        st.integers(0, 2**64 - 1),
        st.integers(1, 4),
        st.integers(0, 0o7777),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    )
)
def test_compiled_numbers_are_those_of_python(values):
    assert compiled.number(*values) == hash(values) & FILE_BIT - 1 | FILE_BIT


@pytest.mark.skipif(compiled is None, reason="nothing is compiled here")
@given(st.integers(1, 2**48 - 1), st.binary(min_size=1, max_size=255))
def test_compiled_numbers_of_names_are_those_of_python(parent, name):
    assert compiled.named_number(parent, name) == hashed_number(parent, name)


def ref(number: int) -> NodeRef:
    pack = PackId(bytes([number % 3]) * 32)
    where = Location(pack, 1 << 33, number, 2 * number, 3 * number)
    return NodeRef(number.to_bytes(32, "big"), bytes(16), where)


def test_leaf_table_gives_back_what_it_was_given_and_frees_it():
    table = LeafTable()
    numbers = [table.number(ref(i)) for i in range(10)]
    for i, number in enumerate(numbers):
        table.use(number)
        assert table.ref(number) == ref(i)
        assert table.number(ref(i)) == number
    table.use(numbers[3])
    for number in numbers:
        table.drop(number)
    assert len(table) == 1
    assert table.ref(numbers[3]) == ref(3)
    again = table.number(ref(99))
    assert again in numbers
    assert again != numbers[3]
    assert table.ref(again) == ref(99)
