"""Versions: commits, refs that move by compare-and-swap, revisions, history, the open store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from versionfs.lazy import names_of

if TYPE_CHECKING:
    from versionfs.repo.commits import CommitReader, write_commit
    from versionfs.repo.format import StoreFormat
    from versionfs.repo.history import first_parents
    from versionfs.repo.refs import RefKind, RefMove, Refs
    from versionfs.repo.repository import Repository
    from versionfs.repo.spec import Spec, format_spec, parse_spec, split_component, validate_name
    from versionfs.repo.statistics import StoreStatistics, TransferStatistics
    from versionfs.repo.store import Store

__all__ = [
    "CommitReader",
    "RefKind",
    "RefMove",
    "Refs",
    "Repository",
    "Spec",
    "Store",
    "StoreFormat",
    "StoreStatistics",
    "TransferStatistics",
    "first_parents",
    "format_spec",
    "parse_spec",
    "split_component",
    "validate_name",
    "write_commit",
]

__getattr__ = names_of(
    __name__,
    {
        "commits": ("CommitReader", "write_commit"),
        "format": ("StoreFormat",),
        "history": ("first_parents",),
        "refs": ("RefKind", "RefMove", "Refs"),
        "repository": ("Repository",),
        "spec": ("Spec", "format_spec", "parse_spec", "split_component", "validate_name"),
        "statistics": ("StoreStatistics", "TransferStatistics"),
        "store": ("Store",),
    },
)
