"""Runs the command line: ``python -m versionfs``."""

from __future__ import annotations

import sys

from versionfs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
