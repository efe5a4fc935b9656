"""Starts the daemon of a mount; only ``mounting`` does that."""

import gc
import sys

from versionfs.fuse import accelerator

if __name__ == "__main__":
    gc.disable()  # until all is imported: see memory.py
    accelerator.load()  # before pyfuse3, which the daemon imports

    from versionfs.fuse.daemon import main

    sys.exit(main())
