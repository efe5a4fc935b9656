"""From the settings that name a store to the object store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from versionfs.config import Settings
from versionfs.errors import InvalidInputError
from versionfs.objectstore.local import LocalStore
from versionfs.objectstore.protocol import KEY, ObjectStore

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


def open_object_store(settings: Settings) -> ObjectStore:
    """Returns the object store that ``settings.store`` names. No I/O; it need not exist.

    That is a path, a ``file://`` URL, or ``s3://bucket`` or ``s3://bucket/prefix``.

    Raises:
        InvalidInputError: it is none of these, or holds a password, which is not repeated.
    """
    store = settings.store
    if "://" not in store:
        return LocalStore(Path(store))
    try:
        url = urlsplit(store)
    except ValueError as error:
        raise InvalidInputError("the URL of the store is malformed") from error
    # A secret key may hold a '/': what is behind that is no netloc any more.
    behind = store.partition("://")[2]
    has_port = url.scheme == "s3" and ":" in url.netloc
    if "@" in behind or has_port or url.query or url.fragment:
        raise InvalidInputError(
            f"the URL of the store, of the kind {url.scheme}://, holds more than a place",
            hint="credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
    if url.scheme == "s3":
        return _s3(url, settings)
    if url.scheme != "file":
        raise InvalidInputError(
            f"stores of the kind {url.scheme}:// are not supported",
            hint="use a folder (a path or a file:// URL) or s3://bucket/prefix",
        )
    if url.netloc not in ("", "localhost") or not url.path:
        raise InvalidInputError(
            "the file:// URL of the store names no local folder", hint="write file:///absolute/path"
        )
    return LocalStore(Path(unquote(url.path)))


def _s3(url: SplitResult, settings: Settings) -> ObjectStore:
    prefix = url.path.strip("/")
    if _BUCKET.fullmatch(url.netloc) is None:
        raise InvalidInputError(
            f"{url.netloc!r} is not the name of a bucket", hint="write s3://bucket/prefix"
        )
    if prefix and KEY.fullmatch(prefix) is None:
        raise InvalidInputError(
            f"{prefix!r} is not a prefix for a store",
            hint="use letters, digits, '_', '.', '-' and '/'",
        )
    # boto3 takes long to import: only for those who use it.
    from versionfs.objectstore.s3 import S3Store

    return S3Store(url.netloc, prefix, settings)
