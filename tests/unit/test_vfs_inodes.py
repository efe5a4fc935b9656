"""The table of file inodes against a dict."""

import random

from versionfs.types import Location, NodeRef, PackId
from versionfs.vfs.inodes import FILE_BIT, InodeTable, LeafTable, next_number, place, split_place


def test_place_round_trip():
    for leaf, index in ((0, 0), (1, 511), (123_456, 7)):
        assert split_place(place(leaf, index)) == (leaf, index)


def test_table_behaves_as_a_dict_of_counts():
    rng = random.Random(5)
    table = InodeTable()
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


def test_table_grows_and_shrinks():
    table = InodeTable()
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


def test_a_saturated_count_is_never_forgotten():
    table = InodeTable()
    number = FILE_BIT | 5
    table.intern(number, 1)
    shard = table._shards[number & 255]
    shard.counts[next(i for i, key in enumerate(shard.keys) if key)] = 0xFFFF_FFFF
    assert table.intern(number, 1) == 1
    assert table.forget(number, 10) == -1
    assert table.find(number) == 1


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
