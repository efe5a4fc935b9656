"""Bytes by key: the Protocol, the local folder, S3. Knows nothing of versions."""

from __future__ import annotations

from versionfs.objectstore.blocking import WouldBlock, may_block, never_blocking
from versionfs.objectstore.local import LocalStore
from versionfs.objectstore.location import open_object_store
from versionfs.objectstore.oserrors import translate
from versionfs.objectstore.probe import is_scratch, probe_conditional_writes
from versionfs.objectstore.protocol import (
    ObjectInfo,
    ObjectStore,
    ReadsInto,
    RequestStatistics,
    Version,
    validate_key,
    validate_prefix,
)
from versionfs.objectstore.temporary import clean_temporary, create_temporary

__all__ = [
    "LocalStore",
    "ObjectInfo",
    "ObjectStore",
    "ReadsInto",
    "RequestStatistics",
    "Version",
    "WouldBlock",
    "clean_temporary",
    "create_temporary",
    "is_scratch",
    "may_block",
    "never_blocking",
    "open_object_store",
    "probe_conditional_writes",
    "translate",
    "validate_key",
    "validate_prefix",
]
