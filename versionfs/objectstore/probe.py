"""Whether a server keeps the one promise that not all do: conditional writes.

Without them two writers of a branch would overwrite each other in silence. So a store is only made
where a scratch object proves that they work.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from versionfs.errors import (
    ConflictError,
    NotFoundError,
    StorageError,
    StoragePermanentError,
    StorageTransientError,
)
from versionfs.objectstore.protocol import ObjectStore, Version

_SCRATCH: Final = "conditional-writes-"
_HINT: Final = (
    "two writers would overwrite each other there: use Amazon S3, another server that honours "
    "If-Match and If-None-Match on PUT, or a local folder"
)


def is_scratch(key: str) -> bool:
    """Tells whether the object is one that a probe made, and may have left behind by dying."""
    return key.startswith(_SCRATCH)


def probe_conditional_writes(objects: ObjectStore) -> None:
    """Proves that the server honours If-None-Match and If-Match on PUT; leaves nothing behind.

    Raises:
        StoragePermanentError: it does not; the message says what it did.
        StorageError: it cannot be reached, or written at all.
    """
    key = f"{_SCRATCH}{os.urandom(8).hex()}"

    def value() -> bytes:
        return os.urandom(16)

    try:
        first = _allowed(objects, key, value(), None, "a first write with If-None-Match")
        _refused(objects, key, value(), None, "If-None-Match")
        second = _allowed(objects, key, value(), first, "a write with the right If-Match")
        if second == first:
            raise _unfit(objects, "gave two values of an object the same ETag")
        _refused(objects, key, value(), first, "If-Match")
    finally:
        with suppress(StorageError, NotFoundError):
            objects.remove(key)


def _allowed(
    objects: ObjectStore, key: str, data: bytes, expected: Version | None, what: str
) -> Version:
    try:
        return objects.replace(key, data, expected)
    except ConflictError as error:
        raise _unfit(objects, f"refused {what}") from error
    except StorageTransientError:
        raise
    except StoragePermanentError as error:
        if type(error) is not StoragePermanentError:  # credentials and the like
            raise
        raise _unfit(objects, f"refused {what}: {error.message}") from error


def _refused(
    objects: ObjectStore, key: str, data: bytes, expected: Version | None, header: str
) -> None:
    with suppress(ConflictError):
        objects.replace(key, data, expected)
        raise _unfit(objects, f"ignored {header} and overwrote an object")


def _unfit(objects: ObjectStore, what: str) -> StoragePermanentError:
    return StoragePermanentError(
        f"the server of {objects.url} cannot hold a store: it {what}", hint=_HINT
    )
