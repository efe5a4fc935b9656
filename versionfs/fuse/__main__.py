"""Starts the daemon of a mount; only ``mounting`` does that."""

import sys

from versionfs.fuse.daemon import main

if __name__ == "__main__":
    sys.exit(main())
