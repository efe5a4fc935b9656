"""versionfs: git for data, as a file system."""

__version__ = "0.1.0"
