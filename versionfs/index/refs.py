"""The last value seen of each ref: what a store that is out of reach is known to have held."""

from __future__ import annotations

import lmdb

from versionfs.index.environment import Environment


class KnownRefs:
    """Ref values by key in the store (``repos/photos/branches/main``). Thread-safe."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def get(self, key: str) -> bytes | None:
        """Returns the last value seen, or None."""

        def work(transaction: lmdb.Transaction) -> bytes | None:
            value = transaction.get(key.encode(), db=self._environment.database(b"refs"))
            return None if value is None else bytes(value)

        return self._environment.read(work)

    def put(self, key: str, value: bytes) -> None:
        """Remembers a value."""
        self._environment.write(
            lambda transaction: transaction.put(
                key.encode(), value, db=self._environment.database(b"refs")
            )
        )

    def remove(self, key: str) -> None:
        """Forgets a ref."""
        self._environment.write(
            lambda transaction: transaction.delete(
                key.encode(), db=self._environment.database(b"refs")
            )
        )
