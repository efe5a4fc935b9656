"""Names of objects that sort by time."""

from __future__ import annotations

import time

from versionfs.objectstore.naming import new_ulid


def test_a_ulid_is_its_time_and_chance() -> None:
    before = time.time_ns() // 1_000_000
    names = [new_ulid() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(names)) == len(names)
    assert all(len(name) == 26 and name.isascii() and name.isupper() for name in names)
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    for name in names:
        value = 0
        for digit in name:
            value = value * 32 + digits.index(digit)
        assert before <= value >> 80 <= after


def test_later_ulids_sort_later() -> None:
    first = new_ulid()
    time.sleep(0.003)
    assert first < new_ulid()
