"""What the daemon does about garbage collection."""

from __future__ import annotations

import subprocess
import sys

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
