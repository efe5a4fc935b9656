"""Data in and out: import of folders, files and tars; export to a folder; clone of stores."""

from versionfs.transfer.clone import ClonedRef, CloneProgress, CloneResult, Outcome, clone
from versionfs.transfer.export import ExportProgress, ExportResult, export
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
