"""Writable branches: what was changed on this machine and is not committed yet.

A workspace lies over the tree of its base commit. Its records are in a :class:`Table`, the bytes
written to files in :class:`Staging`; :class:`LayeredFile` puts a file together from both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from versionfs.lazy import names_of

if TYPE_CHECKING:
    from versionfs.workspace.base import decode_base, encode_base
    from versionfs.workspace.committing import (
        CommitRequest,
        CommitResult,
        Committing,
        commit,
        recover,
        recover_now,
        sweep,
    )
    from versionfs.workspace.content import LayeredFile
    from versionfs.workspace.following import Dropped, Step, fetched, finished
    from versionfs.workspace.inode import ROOT
    from versionfs.workspace.journal import Mutation
    from versionfs.workspace.listing import WorkspaceListing
    from versionfs.workspace.moving import move, nothing_to_move, prepare_move
    from versionfs.workspace.places import existing, folder_of, owner_of
    from versionfs.workspace.records import read_base, remove
    from versionfs.workspace.restoring import restore
    from versionfs.workspace.staging import LayerStatus, Staging
    from versionfs.workspace.status import Status
    from versionfs.workspace.table import FrozenTable, Table
    from versionfs.workspace.workspace import Stat, Workspace

__all__ = [
    "ROOT",
    "CommitRequest",
    "CommitResult",
    "Committing",
    "Dropped",
    "FrozenTable",
    "LayerStatus",
    "LayeredFile",
    "Mutation",
    "Staging",
    "Stat",
    "Status",
    "Step",
    "Table",
    "Workspace",
    "WorkspaceListing",
    "commit",
    "decode_base",
    "encode_base",
    "existing",
    "fetched",
    "finished",
    "folder_of",
    "move",
    "nothing_to_move",
    "owner_of",
    "prepare_move",
    "read_base",
    "recover",
    "recover_now",
    "remove",
    "restore",
    "sweep",
]

__getattr__ = names_of(
    __name__,
    {
        "base": ("decode_base", "encode_base"),
        "committing": (
            "CommitRequest",
            "CommitResult",
            "Committing",
            "commit",
            "recover",
            "recover_now",
            "sweep",
        ),
        "content": ("LayeredFile",),
        "following": ("Dropped", "Step", "fetched", "finished"),
        "inode": ("ROOT",),
        "journal": ("Mutation",),
        "listing": ("WorkspaceListing",),
        "moving": ("move", "nothing_to_move", "prepare_move"),
        "places": ("existing", "folder_of", "owner_of"),
        "records": ("read_base", "remove"),
        "restoring": ("restore",),
        "staging": ("LayerStatus", "Staging"),
        "status": ("Status",),
        "table": ("FrozenTable", "Table"),
        "workspace": ("Stat", "Workspace"),
    },
)
