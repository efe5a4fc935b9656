"""Writable branches: what was changed on this machine and is not committed yet.

A workspace lies over the tree of its base commit. Its records are in a :class:`Table`, the bytes
written to files in :class:`Staging`; :class:`LayeredFile` puts a file together from both.
"""

from versionfs.workspace.content import Layer, LayeredFile, Stack
from versionfs.workspace.frozen import FrozenTable
from versionfs.workspace.journal import Mutation
from versionfs.workspace.staging import LayerStatus, Staging
from versionfs.workspace.table import Table

__all__ = [
    "FrozenTable",
    "Layer",
    "LayerStatus",
    "LayeredFile",
    "Mutation",
    "Stack",
    "Staging",
    "Table",
]
