"""Data in and out: import of folders, files and tars; export to a folder; clone of stores.

A name is imported when it is asked for: the command line starts with what its command needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_MODULES = {
    "ClonedRef": "cloner",
    "CloneProgress": "cloner",
    "CloneResult": "cloner",
    "Outcome": "cloner",
    "clone": "cloner",
    "ExportProgress": "exporter",
    "ExportResult": "exporter",
    "export": "exporter",
    "ImportResult": "importer",
    "import_source": "importer",
    "ImportProgress": "pipeline",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    loaded = importlib.import_module(f"{__name__}.{module}")
    found = getattr(loaded, name)
    globals()[name] = found
    return found
