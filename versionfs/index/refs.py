"""The last value seen of each ref: what a store that is out of reach is known to have held."""

from __future__ import annotations

import struct
import time
import zlib
from typing import Final, NamedTuple

import lmdb

from versionfs.index.environment import Environment

_HEAD: Final = struct.Struct("<BI")
"""The number of this format, and the CRC-32 of what follows."""
_BODY: Final = struct.Struct("<QH")
"""When it was seen (ns), and the length of the version, which follows; then comes the value."""
_FORMAT: Final = 1
_AGE_NS: Final = 60 * 1_000_000_000
"""A value seen again is written again only when the time written down is older than this."""


class KnownValue(NamedTuple):
    """A value, its version in the object store, and when it was there (to a minute)."""

    value: bytes
    version: str
    seen_ns: int


class KnownRefs:
    """Values by key in the store (``repos/photos/branches/main``). Thread-safe.

    A key may also be a prefix, whose value is what was listed below it.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def get(self, key: str) -> KnownValue | None:
        """Returns the last value seen, or None."""

        def work(transaction: lmdb.Transaction) -> KnownValue | None:
            return _decode(transaction.get(key.encode(), db=self._environment.database(b"refs")))

        return self._environment.read(work)

    def below(self, prefix: str) -> dict[str, KnownValue]:
        """Returns the last values seen of all keys below a prefix."""

        def work(transaction: lmdb.Transaction) -> dict[str, KnownValue]:
            found = {}
            start = prefix.encode()
            with transaction.cursor(db=self._environment.database(b"refs")) as cursor:
                more = cursor.set_range(start)
                while more and bytes(cursor.key()).startswith(start):
                    known = _decode(cursor.value())
                    if known is not None:
                        found[bytes(cursor.key()).decode()] = known
                    more = cursor.next()
            return found

        return self._environment.read(work)

    def put(self, key: str, value: bytes, version: str = "") -> None:
        """Remembers a value; writes only what is new."""
        now = time.time_ns()
        known = self.get(key)
        is_same = known is not None and known[:2] == (value, version)
        if is_same and known is not None and 0 <= now - known.seen_ns < _AGE_NS:
            return
        row = _encode(KnownValue(value, version, now))
        self._environment.write(
            lambda transaction: transaction.put(
                key.encode(), row, db=self._environment.database(b"refs")
            )
        )

    def remove(self, key: str) -> None:
        """Forgets a value; writes only if there is one."""
        if self.get(key) is None:
            return
        self._environment.write(
            lambda transaction: transaction.delete(
                key.encode(), db=self._environment.database(b"refs")
            )
        )


def _encode(known: KnownValue) -> bytes:
    version = known.version.encode()
    body = _BODY.pack(known.seen_ns, len(version)) + version + known.value
    return _HEAD.pack(_FORMAT, zlib.crc32(body)) + body


def _decode(row: bytes | memoryview | None) -> KnownValue | None:
    """Returns what a row tells; None for none, a damaged one, and one of another format."""
    if row is None or len(row) < _HEAD.size + _BODY.size:
        return None
    body = bytes(row[_HEAD.size :])
    if _HEAD.unpack_from(row) != (_FORMAT, zlib.crc32(body)):
        return None
    seen_ns, length = _BODY.unpack_from(body)
    end = _BODY.size + length
    return KnownValue(body[end:], body[_BODY.size : end].decode(), seen_ns)
