"""What the daemon does about garbage collection."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from versionfs.fuse.memory import collecting_seldom

PROGRAM = """
import gc
gc.disable()
from versionfs.fuse import memory
memory.begin_to_collect()
assert gc.isenabled()
assert gc.get_freeze_count() > 5_000, gc.get_freeze_count()
assert len(gc.get_objects()) < 1_000, len(gc.get_objects())
# Cycles that come later are found all the same.
class Cycle:
    left = 0
    def __init__(self):
        self.own = self
        Cycle.left += 1
    def __del__(self):
        Cycle.left -= 1
for _ in range(30_000):
    Cycle()
assert Cycle.left < 5_000, Cycle.left
"""


def test_imported_modules_are_not_looked_through_again() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


@pytest.fixture
def usual() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield gc.get_threshold()
    gc.set_threshold(*before)


def looks(objects: int) -> int:
    """How often cycles are looked for while so many objects are made that stay."""
    before = gc.get_stats()[0]["collections"]
    made = [[number] for number in range(objects)]
    assert len(made) == objects
    collections: int = gc.get_stats()[0]["collections"] - before
    return collections


def test_cycles_are_looked_for_less_often_meanwhile(usual: tuple[int, int, int]) -> None:
    assert looks(40_000) > 40
    with collecting_seldom():
        assert looks(40_000) <= 1
        with collecting_seldom():
            pass
        assert looks(40_000) <= 1
    assert gc.get_threshold() == usual


def test_it_ends_with_the_last_of_several_and_with_an_error(usual: tuple[int, int, int]) -> None:
    first, second = collecting_seldom(), collecting_seldom()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() != usual
    second.__exit__(None, None, None)
    assert gc.get_threshold() == usual
    with pytest.raises(ValueError, match="wrong"), collecting_seldom():
        raise ValueError("wrong")
    assert gc.get_threshold() == usual
