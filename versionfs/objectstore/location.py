"""From the text that names a store to the object store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from versionfs.errors import InvalidInputError
from versionfs.objectstore.local import LocalStore


def open_object_store(store: str) -> LocalStore:
    """Returns the object store at a path or ``file://`` URL. No I/O; it need not exist.

    Raises:
        InvalidInputError: the URL is of a kind that this version cannot open.
    """
    if "://" not in store:
        return LocalStore(Path(store))
    url = urlsplit(store)
    if url.scheme != "file":
        raise InvalidInputError(
            f"stores of the kind {url.scheme}:// are not supported",
            hint="use a folder, as a path or a file:// URL",
        )
    if url.netloc not in ("", "localhost") or not url.path:
        raise InvalidInputError(
            f"{store!r} names no local folder", hint="write file:///absolute/path"
        )
    return LocalStore(Path(unquote(url.path)))
