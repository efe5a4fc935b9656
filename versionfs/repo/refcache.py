"""Small objects of a store behind a network: refs, and the markers of repositories.

A local store is asked each time. Of another one, what it last said is kept:

* always in the index, so that a store that cannot be reached still shows what was seen last;
* in a mount (after :meth:`RefCache.hold`) also in memory (``held.py``), and believed until
  :meth:`RefCache.poll` finds that it changed. So a mount asks once, and then again only to see what
  moved.

A thread that may not wait for the store (see ``objectstore.blocking``) gets ``WouldBlock`` for what
is not in memory. Writes go to the store, always.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from versionfs.errors import ConflictError, NotFoundError, StorageTransientError, VersionFSError
from versionfs.index import KnownRefs
from versionfs.objectstore import ObjectInfo, ObjectStore, Version, WouldBlock, may_block
from versionfs.repo.held import Held, Value
from versionfs.repo.keys import KINDS, ROOT, marker_of
from versionfs.repo.lastseen import Found, LastSeen

_AT_ONCE: Final = 8
"""Requests that go out at the same time."""
_LISTED: Final = 16
"""More refs in use than this are looked at by listing them, which costs one request in all."""

_T = TypeVar("_T")


class RefCache:
    """Reads and writes small objects. Thread-safe."""

    def __init__(self, objects: ObjectStore, known: KnownRefs) -> None:
        self._objects = objects
        self._seen = LastSeen(objects.url, known)
        self._holds = False
        self._held = Held()
        self._infos: dict[str, dict[str, ObjectInfo]] = {}
        """What a poll listed the last time, by folder."""

    def hold(self) -> None:
        """Lets values be believed until :meth:`poll` finds that they changed; for mounts.

        Does nothing for a local store, where to ask costs less.
        """
        self._holds = not self._objects.is_local

    @property
    def holds(self) -> bool:
        """Whether values are believed until a poll."""
        return self._holds

    def changes(self, repository: str) -> int:
        """Returns how many changes were seen in a repository since :meth:`hold`."""
        return self._held.changes(repository)

    # -- reading ---------------------------------------------------------------------------------

    def read(self, key: str, *, fresh: bool = False) -> Found:
        """Returns a value and its version.

        With ``fresh`` it is what the store has now, or an error: for those who decide by it what
        is written.

        Raises:
            NotFoundError: there is none.
            StorageTransientError: the store cannot be reached, and the value was never seen, or
                must be fresh.
        """
        if self._objects.is_local:
            return self._objects.read(key)
        if fresh:
            return self._read_now(key)
        found = self.read_many([key])[0]
        if found is None:
            raise NotFoundError(f"there is no {key} in {self._objects.url}")
        return found

    def _read_now(self, key: str) -> Found:
        asked = time.monotonic()
        try:
            found = self._objects.read(key)
        except NotFoundError:
            self._take(key, None, asked)
            raise
        self._take(key, found, asked)
        return found

    def _take(self, key: str, found: Found | None, asked: float) -> None:
        """Takes over what the store just said of a key."""
        self._seen.reached()
        self._seen.keep(key, found)
        self._keep(key, found, asked)

    def _keep(self, key: str, found: Found | None, asked: float, *, recalled: bool = False) -> None:
        """Lets a mount believe it; see ``Held.keep``."""
        if self._holds:
            self._held.keep(key, found, asked, recalled=recalled)

    def exists(self, key: str) -> bool:
        """Tells whether there is a value."""
        if self._objects.is_local:
            try:
                self._objects.size(key)
            except NotFoundError:
                return False
            return True
        return self.read_many([key])[0] is not None

    def read_many(self, keys: Sequence[str], *, fresh: bool = False) -> list[Found | None]:
        """Returns values with their versions, None for those that are not there; in parallel.

        ``fresh`` is as in :meth:`read`.
        """
        if self._objects.is_local:
            return [_or_none(partial(self._objects.read, key)) for key in keys]
        if fresh:
            return _parallel(lambda key: _or_none(partial(self._read_now, key)), keys)
        if not self._holds:
            return _parallel(self._ask, keys)
        found = {key: value for key in keys if (value := self._held.believed(key)) is not None}
        missing = [key for key in keys if key not in found]
        if missing:
            if not may_block():
                raise WouldBlock(partial(_parallel, self._ask, missing))
            found |= {
                key: Value(value, 0.0)
                for key, value in zip(missing, _parallel(self._ask, missing), strict=True)
            }
        return [found[key].found for key in keys]

    def _ask(self, key: str) -> Found | None:
        """Returns what the store has now, or, when it cannot be reached, what it had."""
        asked = time.monotonic()
        found, is_new = self._seen.answer(
            partial(_or_none, partial(self._objects.read, key)), partial(self._recall, key)
        )
        if is_new:
            self._seen.keep(key, found)
        self._keep(key, found, asked, recalled=not is_new)
        return found

    def _recall(self, key: str) -> tuple[Found | None, int] | None:
        seen = self._seen.value(key)
        if seen is not None:
            return seen
        value = self._held.last(key)
        return None if value is None else (value.found, time.time_ns())

    def names(self, prefix: str, *, fresh: bool = False) -> list[str]:
        """Returns the names of the values directly below a prefix, sorted.

        ``fresh`` is as in :meth:`read`.
        """
        if fresh:
            return _names(prefix, self._objects.list(prefix))
        return self._listed(prefix, lambda: _names(prefix, self._objects.list(prefix)))

    def repositories(self) -> list[str]:
        """Returns the names of the repositories, sorted."""
        return self._listed(ROOT, self._repositories)

    def _repositories(self) -> list[str]:
        """Returns the names that have a marker; the reflogs below them are not listed."""
        names = self._objects.folders(ROOT)
        if self._objects.is_local:
            return [name for name in names if self.has_marker(name)]
        has = _parallel(self.has_marker, names)
        return [name for name, found in zip(names, has, strict=True) if found]

    def has_marker(self, name: str) -> bool:
        """Asks the store whether it has a repository now."""
        try:
            return self._objects.size(marker_of(name)) > 0
        except NotFoundError:
            return False

    def _listed(self, key: str, ask: Callable[[], list[str]]) -> list[str]:
        if self._objects.is_local:
            return ask()
        if self._holds:
            held = self._held.listing(key)
            if held is not None:
                return held
            if not may_block():
                raise WouldBlock(partial(self._list, key, ask))
        return self._list(key, ask)

    def _list(self, key: str, ask: Callable[[], list[str]]) -> list[str]:
        asked = time.monotonic()
        found, is_new = self._seen.answer(ask, partial(self._seen.names, key))
        if is_new:
            self._seen.keep_names(key, found)
        if self._holds:
            self._held.keep_listing(key, found, asked)
        return found

    # -- writing ---------------------------------------------------------------------------------

    def put(self, key: str, data: bytes) -> None:
        """Writes a value that never changes."""
        self._objects.put(key, data)

    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        """See ``ObjectStore.replace``."""
        # Before it is sent: who asks while it is on its way may see what comes after it.
        asked = time.monotonic()
        try:
            version = self._objects.replace(key, data, expected)
        except ConflictError:
            if not self._objects.is_local:
                self._seen.reached()
                with contextlib.suppress(VersionFSError):
                    self._read_now(key)
            raise
        if not self._objects.is_local:
            self._take(key, (data, version), asked)
        return version

    def remove(self, key: str, expected: Version | None = None) -> None:
        """See ``ObjectStore.remove``."""
        asked = time.monotonic()
        self._objects.remove(key, expected)
        if not self._objects.is_local:
            self._take(key, None, asked)

    # -- what moves ------------------------------------------------------------------------------

    def poll(self, repository: str | None = None) -> set[str]:
        """Looks at the values in use, of one repository or of all; returns where any changed.

        One conditional read for each, or one listing for many.

        Raises:
            StorageTransientError: the store cannot be reached; what was held is held on.
        """
        if not self._holds:
            return set()
        groups = self._held.in_use(repository)
        many = {prefix: keys for prefix, keys in groups.items() if len(keys) > _LISTED}
        work: list[Callable[[], object]] = [
            partial(self._look, key)
            for prefix, keys in groups.items()
            if prefix not in many
            for key in keys
        ]
        work += [partial(self._look_at_all, prefix, keys) for prefix, keys in many.items()]
        try:
            _parallel(lambda look: look(), work)
        except StorageTransientError as error:
            self._seen.lost(error)
            raise
        if work:
            self._seen.reached()
        return self._held.take_moved(repository)

    def look_again(self, repository: str | None = None) -> set[str]:
        """Does what :meth:`poll` does, and lets what was not there be asked for the next time.

        Raises:
            StorageTransientError: the store cannot be reached; what was held is held on.
        """
        self._held.doubt(repository)
        return self.poll(repository)

    def _look(self, key: str) -> None:
        """Reads a value again, if it changed."""
        value = self._held.last(key)
        if value is None or value.found is None:
            return
        asked = time.monotonic()
        try:
            changed = self._objects.read_if_changed(key, value.found[1])
        except NotFoundError:
            changed = None
        else:
            if changed is None:
                return
        self._seen.keep(key, changed)
        self._keep(key, changed, asked)

    def _look_at_all(self, prefix: str, keys: list[str]) -> None:
        """Lists a folder, and reads again what is not as it is held.

        Where a listing has no versions: what is not as it was listed the last time.
        """
        asked = time.monotonic()
        now = {info.key: info for info in self._objects.list(prefix)}
        before = self._infos.get(prefix, {})
        changed = []
        for key in keys:
            if key not in now:
                self._seen.keep(key, None)
                self._keep(key, None, asked)
            elif now[key].token:
                held = self._held.last(key)
                if held is None or held.found is None or held.found[1] != now[key].token:
                    changed.append(key)
            elif before.get(key) != now[key]:
                changed.append(key)
        _parallel(self._look, changed)
        self._infos[prefix] = now

    def look(self, repository: str | None = None) -> dict[str, tuple[bytes | None, bytes | None]]:
        """Asks the store for the refs of a repository or of all, whatever is held.

        Returns those that are not as this machine saw them last: key to value then and now.

        Raises:
            NotFoundError: there is no such repository.
            StorageTransientError: the store cannot be reached.
        """
        if repository is None:
            repositories = self._repositories()
            self._seen.keep_names(ROOT, repositories)
        else:
            self._objects.size(marker_of(repository))
            repositories = [repository]
        prefixes = [f"{ROOT}{name}/{kind}/" for name in repositories for kind in KINDS]
        listed = _parallel(lambda prefix: _names(prefix, self._objects.list(prefix)), prefixes)
        keys = [marker_of(name) for name in repositories]
        for prefix, names in zip(prefixes, listed, strict=True):
            self._seen.keep_names(prefix, names)
            keys += [prefix + name for name in names]
        values = _parallel(lambda key: _or_none(partial(self._objects.read, key)), keys)
        self._seen.reached()
        now = dict(zip(keys, values, strict=True))
        before = self._seen.values_below(ROOT if repository is None else f"{ROOT}{repository}/")
        changed: dict[str, tuple[bytes | None, bytes | None]] = {}
        for key in sorted({*before, *now}):
            found = now.get(key)
            if key.count("/") == 3 and _data(found) != before.get(key):
                changed[key] = before.get(key), _data(found)
            self._seen.keep(key, found)
        return changed


def _data(found: Found | None) -> bytes | None:
    return None if found is None else found[0]


def _names(prefix: str, infos: Iterable[ObjectInfo]) -> list[str]:
    return [info.key[len(prefix) :] for info in infos]


def _or_none(read: Callable[[], Found]) -> Found | None:
    try:
        return read()
    except NotFoundError:
        return None


_Item = TypeVar("_Item")


def _parallel(work: Callable[[_Item], _T], items: Sequence[_Item]) -> list[_T]:
    """Returns the results in order; of several errors, one."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(_AT_ONCE, len(items)), "versionfs-refs") as threads:
        return list(threads.map(work, items))
