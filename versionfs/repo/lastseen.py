"""What a store was last seen to hold, for when it cannot be reached."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from versionfs.errors import StorageTransientError, VersionFSError
from versionfs.index import KnownRefs
from versionfs.index.refs import KnownValue
from versionfs.objectstore import Version

log = logging.getLogger(__name__)

_DOWN_SECONDS: Final = 5.0
"""How long a store that could not be reached is not asked for what is known anyway."""

_T = TypeVar("_T")
Found = tuple[bytes, Version]


class LastSeen:
    """Values and listings in the index, and whether the store answers. Thread-safe.

    Nothing here fails for what happens to the index, which is a cache.
    """

    def __init__(self, url: str, known: KnownRefs) -> None:
        self._url = url
        self._known = known
        self._down_since = 0.0
        self._told = False

    # -- what was seen ---------------------------------------------------------------------------

    def keep(self, key: str, found: Found | None) -> None:
        """Takes over what the store said of a key; None: that it has nothing."""
        with contextlib.suppress(VersionFSError):
            if found is None:
                self._known.remove(key)
            else:
                self._known.put(key, *found)

    def keep_names(self, prefix: str, names: list[str]) -> None:
        """Takes over what the store listed below a prefix."""
        self.keep(prefix, (json.dumps(names).encode(), Version("")))

    def value(self, key: str) -> tuple[Found | None, int] | None:
        """Returns what a key had when it was seen last (None: nothing), and when; None: unknown."""
        known = self._get(key)
        if known is not None:
            return (known.value, Version(known.version)), known.seen_ns
        folder, _, name = key.rpartition("/")
        listed = self.names(folder + "/")
        if listed is not None and name not in listed[0]:
            return None, listed[1]
        return None

    def names(self, prefix: str) -> tuple[list[str], int] | None:
        """Returns what was listed below a prefix the last time, and when; None: unknown."""
        known = self._get(prefix)
        return None if known is None else (json.loads(known.value), known.seen_ns)

    def values_below(self, prefix: str) -> dict[str, bytes]:
        """Returns all values seen below a prefix, without listings."""
        with contextlib.suppress(VersionFSError):
            known = self._known.below(prefix)
            return {key: seen.value for key, seen in known.items() if not key.endswith("/")}
        return {}

    def _get(self, key: str) -> KnownValue | None:
        with contextlib.suppress(VersionFSError):
            return self._known.get(key)
        return None

    # -- whether it answers ----------------------------------------------------------------------

    def answer(
        self,
        ask: Callable[[], _T],
        recall: Callable[[], tuple[_T, int] | None],
    ) -> tuple[_T, bool]:
        """Asks the store; when it cannot be reached, answers what was seen last, if anything.

        Also tells whether it is the store that answered.

        Raises:
            StorageTransientError: it cannot be reached, and ``recall`` knows nothing.
        """
        if self._down_since and time.monotonic() - self._down_since < _DOWN_SECONDS:
            seen = recall()
            if seen is not None:
                return seen[0], False
        try:
            result = ask()
        except StorageTransientError as error:
            self._down_since = time.monotonic()
            seen = recall()
            if seen is None:
                raise
            self.lost(error, seen[1])
            return seen[0], False
        self.reached()
        return result, True

    def lost(self, error: StorageTransientError, seen_ns: int | None = None) -> None:
        """Notes that the store cannot be reached; says so once, with when it was (ns)."""
        self._down_since = time.monotonic()
        if self._told:
            return
        self._told = True
        when = ""
        if seen_ns is not None:
            moment = datetime.fromtimestamp(seen_ns // 1_000_000_000).astimezone()
            when = f" at {moment:%Y-%m-%d %H:%M:%S}"
        log.warning(
            "%s cannot be reached; showing what was last seen%s (%s)",
            self._url, when, error.message,
        )  # fmt: skip

    def reached(self) -> None:
        """Notes that the store answers; says so if the opposite was said."""
        self._down_since = 0.0
        if self._told:
            self._told = False
            log.info("%s can be reached again", self._url)
