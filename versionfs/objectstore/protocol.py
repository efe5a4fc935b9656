"""What every object store promises; ``tests/contract`` holds each implementation to it.

Two sorts of object live in a store. *Immutable* ones (packs, index segments) are written once by
``put`` or ``put_file`` and have the same bytes for ever; *mutable* ones (refs) are read with their
version by ``read`` and moved by ``replace``, a compare-and-swap. A key is of one sort only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, NewType, Protocol, runtime_checkable

from versionfs.errors import InvalidInputError

Version = NewType("Version", str)
"""An opaque token of one value of a mutable object; equal bytes may have equal versions.

A compare-and-swap can therefore not tell A from A-B-A: values whose history matters carry a nonce,
as refs do. (The ETag of S3 behaves like this, so the local store does as well.)
"""


class ObjectInfo(NamedTuple):
    """One object of a listing. ``mtime_ns`` is when its present value was written.

    ``token`` is whatever the store tells about the value beside that (an ETag), or empty: when
    neither size, mtime nor token changed, the value did not.
    """

    key: str
    size: int
    mtime_ns: int
    token: str = ""


class RequestStatistics(NamedTuple):
    """What an object store asked of its server so far. Counts, and bytes of bodies.

    ``requests`` are attempts by operation (``get``, ``put``, ``head``, ``list``, ``delete``);
    ``retries`` are those of them that repeat a failed one, ``failures`` the operations given up.
    """

    requests: Mapping[str, int] = MappingProxyType({})
    received_bytes: int = 0
    sent_bytes: int = 0
    retries: int = 0
    failures: int = 0


_COMPONENT: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}"
KEY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
"""A whole key."""
COMPONENT: Final = re.compile(_COMPONENT)
"""One component of a key: never empty, hidden, ``.`` or ``..``."""


def validate_key(key: str) -> str:
    """Returns the key if it is one.

    A key is one or more components joined by ``/``, each 1 to 255 of ``A-Z a-z 0-9 _ . -`` and not
    beginning with ``.`` or ``-``; so no key leaves the store or needs quoting anywhere.

    Raises:
        InvalidInputError: it is not a key.
    """
    if KEY.fullmatch(key) is None:
        raise InvalidInputError(f"{key!r} is not an object key")
    return key


def validate_prefix(prefix: str) -> str:
    """Returns the prefix if it is empty or a key followed by ``/``.

    Raises:
        InvalidInputError: it is neither.
    """
    if prefix and (not prefix.endswith("/") or KEY.fullmatch(prefix[:-1]) is None):
        raise InvalidInputError(f"{prefix!r} is not an object prefix")
    return prefix


class ObjectStore(Protocol):
    """Bytes by key. Any method may be called from any thread and any process at once.

    Every method raises, besides what it names: InvalidInputError (not a key), ReadOnlyError (a
    write without the permission), StorageAuthError (a read without the permission),
    StorageTransientError (try again later: disk full, time-out), StoragePermanentError (anything
    else that the store does wrong).
    """

    @property
    def is_local(self) -> bool:
        """Whether a read costs a system call rather than a request: then copies save nothing."""

    @property
    def url(self) -> str:
        """Where the store is, for messages; holds no secret."""
        ...

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Reads the bytes ``[start, start + length)``, or from ``start`` on when length is None.

        What lies behind the end of the object is left out, so the result may be short or empty.

        Raises:
            NotFoundError: there is no such object.
        """
        ...

    def size(self, key: str) -> int:
        """Returns the object's length in bytes.

        Raises:
            NotFoundError: there is no such object.
        """
        ...

    def put(self, key: str, data: bytes | memoryview) -> None:
        """Writes an immutable object: durable on return, all of it visible or nothing.

        ``data`` is not empty. Idempotent: an object of that key and length is taken to be the same
        one, and left alone or written again; one of another length is damage, and is replaced.
        """
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Does what ``put`` does with the bytes of a finished file, which it takes over.

        The file is moved without copying when it is on the store's file system, as files made in
        ``temporary()`` are; on return it is no longer at ``path``. On an error it may still be
        there. Its writer keeps the file open, and so locked, until this returns.

        Raises:
            FileNotFoundError: there is no file at ``path``.
        """
        ...

    def temporary(self) -> Path:
        """Returns an existing folder in which to make files for ``put_file``.

        Files there are made by ``versionfs.objectstore.create_temporary``, which locks them: what
        is not locked there belongs to a writer that died, and may vanish.
        """
        ...

    def read(self, key: str) -> tuple[bytes, Version]:
        """Returns the value of a mutable object with its version.

        Raises:
            NotFoundError: there is no such object.
        """
        ...

    def read_if_changed(self, key: str, known: Version) -> tuple[bytes, Version] | None:
        """Returns what ``read`` does, or None while the object's version is still ``known``.

        Raises:
            NotFoundError: there is no such object any more.
        """
        ...

    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        """Moves a mutable object from the version ``expected`` to ``data``; durable on return.

        ``expected`` None means that the object must not exist yet; ``data`` is not empty. Of
        several callers that expect the same version exactly one succeeds. Returns the new version.

        Raises:
            ConflictError: the object has another version, or exists, or does not any more.
        """
        ...

    def remove(self, key: str, expected: Version | None = None) -> None:
        """Removes an object; with ``expected``, only while it has that version.

        Raises:
            NotFoundError: there is no such object.
            ConflictError: the object has another version.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yields every object below the prefix.

        Those of one folder come sorted by name; a folder comes among its siblings by its name with
        ``/`` behind it, or on some servers without. Whoever needs one order over folders sorts.
        ``prefix`` is empty or ends with ``/``; nothing below it is no error. Objects that come or
        go meanwhile may be listed or not; all others are listed exactly once.
        """
        ...

    def folders(self, prefix: str) -> Sequence[str]:
        """Returns the next components below a prefix that have keys below them, sorted.

        For keys ``a/x/1``, ``a/y/2`` and ``a/z``, the folders of ``a/`` are ``x`` and ``y``. One of
        which all keys were removed may be told too. Costs a request for about 1,000 of them,
        however many keys there are below each.
        """
        ...

    def statistics(self) -> RequestStatistics:
        """Returns what was asked of the server so far; zeros for a store without one."""
        ...


@runtime_checkable
class ReadsInto(Protocol):
    """What an object store may do besides: read into memory that the caller has."""

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Reads the bytes from ``start`` on into a buffer, as many as fit; returns how many.

        Fewer than fit are all up to the end of the object. Until it returns, and when it raises,
        the buffer's content is undefined.

        Raises:
            NotFoundError: there is no such object.
        """
        ...
