"""Data in and out: import of folders, files and tars; export to a folder."""

from versionfs.transfer.export import ExportProgress, ExportResult, export
from versionfs.transfer.importer import ImportResult, import_source
from versionfs.transfer.pipeline import ImportProgress

__all__ = [
    "ExportProgress",
    "ExportResult",
    "ImportProgress",
    "ImportResult",
    "export",
    "import_source",
]
