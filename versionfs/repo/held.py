"""What a mount holds in memory of a store's small objects, and believes until it is told better."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, defaultdict
from itertools import islice
from typing import Final, NamedTuple

from versionfs.repo.keys import ROOT, TAGS, repository_of
from versionfs.repo.lastseen import Found

_BRIEF_SECONDS: Final = 1.0
"""How long a listing, or that a name is not there, is believed: nothing would tell of a change."""
_KEPT: Final = 20_000
"""Values kept in memory: under 10 MB."""
_LOOKED_AT: Final = 100
"""Of so many values one is dropped to make room, which is under the lock."""


class Value(NamedTuple):
    """What a key had, None if nothing; when it was asked, and until when that is believed."""

    found: Found | None
    asked: float
    until: float = math.inf

    @property
    def data(self) -> bytes | None:
        """What it had, without the version."""
        return None if self.found is None else self.found[0]


class Held:
    """Values by key, listings by folder, and what of both was seen to change. Thread-safe."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._listings: dict[str, tuple[list[str], float]] = {}
        self._moved: set[str] = set()
        self._changes: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()

    # -- values ----------------------------------------------------------------------------------

    def believed(self, key: str) -> Value | None:
        """Returns what a key has, if that is believed still; it counts as used."""
        with self._lock:
            value = self._values.get(key)
            if value is None or value.until < time.monotonic():
                return None
            self._values.move_to_end(key)
            return value

    def last(self, key: str) -> Value | None:
        """Returns what a key had when it was asked the last time, believed or not."""
        with self._lock:
            return self._values.get(key)

    def keep(self, key: str, found: Found | None, asked: float, *, recalled: bool = False) -> None:
        """Takes over what the store said of a key; notes whether that is new.

        What is only ``recalled`` is believed for a moment: the store was not asked.
        """
        name = repository_of(key)
        with self._lock:
            old = self._values.get(key)
            if old is not None and old.asked > asked:
                return  # Somebody asked later, and was answered first.
            is_brief = found is None or recalled
            until = time.monotonic() + _BRIEF_SECONDS if is_brief else math.inf
            new = self._values[key] = Value(found, asked, until)
            self._values.move_to_end(key)
            if len(self._values) > _KEPT:
                self._make_room()
            if old is None or old.data == new.data:
                return
            self._changes[name] += 1
            # Also when it was not there: what has come back is not what it was.
            self._moved.add(name)

    def _make_room(self) -> None:
        """Drops one of the values used least recently: one that is not there, else a tag.

        A branch that is dropped is not looked at any more, and may move unseen; tags do not move.
        Where only branches are, the oldest goes, and the others are out of the way the next time.
        """
        old = list(islice(self._values.items(), min(_LOOKED_AT, _KEPT // 2)))
        absent = [key for key, value in old if value.found is None]
        tags = [key for key, _ in old if key.split("/", 3)[2] == TAGS]
        if absent or tags:
            del self._values[(absent or tags)[0]]
            return
        self._values.popitem(last=False)
        for key, _ in old[1:]:
            self._values.move_to_end(key)

    def doubt(self, repository: str | None) -> None:
        """Believes no longer that names are not there, in one repository or in all, nor listings.

        For who was told that something is new.
        """
        with self._lock:
            for key, value in self._values.items():
                if value.found is None and repository in (None, repository_of(key)):
                    self._values[key] = value._replace(until=0.0)
            self._listings = {folder: (names, 0.0) for folder, (names, _) in self._listings.items()}

    def in_use(self, repository: str | None) -> dict[str, list[str]]:
        """Returns the keys that have something, of one repository or of all, by folder."""
        groups: defaultdict[str, list[str]] = defaultdict(list)
        with self._lock:
            for key, value in self._values.items():
                if value.found is not None and repository in (None, repository_of(key)):
                    groups[key.rpartition("/")[0] + "/"].append(key)
        return groups

    # -- listings --------------------------------------------------------------------------------

    def listing(self, folder: str) -> list[str] | None:
        """Returns the names in a folder, if they are believed still."""
        held = self._listings.get(folder)
        return held[0] if held is not None and time.monotonic() <= held[1] else None

    def keep_listing(self, folder: str, names: list[str], asked: float) -> None:
        """Takes over what the store listed; names that are gone have nothing any more."""
        with self._lock:
            before, _ = self._listings.get(folder, (names, 0.0))
            self._listings[folder] = names, time.monotonic() + _BRIEF_SECONDS
            if folder != ROOT and before != names:
                self._changes[repository_of(folder)] += 1
        if folder != ROOT:
            for name in {*before} - {*names}:
                self.keep(folder + name, None, asked)

    # -- what changed ----------------------------------------------------------------------------

    def changes(self, repository: str) -> int:
        """Returns how many changes were seen in a repository."""
        return self._changes.get(repository, 0)

    def take_moved(self, repository: str | None) -> set[str]:
        """Returns where values changed since it was last asked: of one repository, or all."""
        with self._lock:
            moved = {name for name in self._moved if repository in (None, name)}
            self._moved -= moved
        return moved
