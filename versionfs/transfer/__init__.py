"""Data in and out: import of folders, files and tars; export to a folder; clone of stores.

A name is imported when it is asked for: the command line starts with what its command needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from versionfs.lazy import names_of

if TYPE_CHECKING:
    from versionfs.transfer.cloner import ClonedRef, CloneProgress, CloneResult, Outcome, clone
    from versionfs.transfer.exporter import ExportProgress, ExportResult, export
    from versionfs.transfer.importer import ImportResult, import_source
    from versionfs.transfer.pipeline import ImportProgress

__all__ = [
    "CloneProgress",
    "CloneResult",
    "ClonedRef",
    "ExportProgress",
    "ExportResult",
    "ImportProgress",
    "ImportResult",
    "Outcome",
    "clone",
    "export",
    "import_source",
]

__getattr__ = names_of(
    __name__,
    {
        "cloner": ("ClonedRef", "CloneProgress", "CloneResult", "Outcome", "clone"),
        "exporter": ("ExportProgress", "ExportResult", "export"),
        "importer": ("ImportResult", "import_source"),
        "pipeline": ("ImportProgress",),
    },
)
