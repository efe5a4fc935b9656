"""Runs the command line: ``versionfs``, or ``python -m versionfs``."""

from __future__ import annotations

import gc
import os
import sys

_YOUNG_OBJECTS = 50_000


def main() -> int:
    """Runs the command line, and returns its exit code."""
    # Python looks for cycles after every 700 new objects, and a command begins by importing modules
    # of a hundred times as many: that was a tenth of its start.
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)
    code = None
    if sys.argv[1:2] == ["commit"]:
        from versionfs.cli import quick

        code = quick.commit(sys.argv[2:], os.environ)
    if code is None:
        from versionfs.cli.main import main as run

        code = run()
    # What is left goes with the process: to look for cycles in it took a sixth of a short command.
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
