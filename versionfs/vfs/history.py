"""The commits of a branch as ``.log`` shows them: one name for each, cached per branch.

A name is ``<number>-<date>-<short id>-<subject>``; the date is local, as in revisions. A branch
shows its newest ``MAX_COMMITS`` commits.
"""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from versionfs.errors import NotFoundError
from versionfs.repo import Repository
from versionfs.types import ID_BYTES, Commit, short

MAX_COMMITS: Final = 100_000
"""More would take more than about 20 MB a branch."""

_NUMBER_DIGITS: Final = 6
_SLUG_BYTES: Final = 48
_BRANCHES: Final = 8
_UNFIT: Final = re.compile(r"[^\w.]+")


class Link(NamedTuple):
    """A commit in ``.log/<branch>``."""

    name: bytes
    commit: bytes
    time_ns: int


def link_name(commit: Commit) -> bytes:
    """Returns the name of a commit in ``.log``; plain ``ls`` sorts by its number."""
    moment = datetime.fromtimestamp(commit.time_ns // 1_000_000_000, UTC).astimezone()
    date = moment.strftime("%Y-%m-%d")
    head = f"{commit.number:0{_NUMBER_DIGITS}}-{date}-{short(commit.id)}".encode()
    slug = _UNFIT.sub("-", commit.subject).strip("-.").encode("utf-8", "ignore")[:_SLUG_BYTES]
    slug = slug.decode("utf-8", "ignore").rstrip("-").encode()
    return head + b"-" + slug if slug else head


class History:
    """The first-parent history of a branch at one head, oldest first. Immutable once published."""

    def __init__(self) -> None:
        self.head = b""
        self._first = 0
        self._names: list[bytes] = []
        self._ids = bytearray()
        self._times = array("q")

    def __len__(self) -> int:
        return len(self._names)

    def link(self, index: int) -> Link:
        """Returns a commit by position, oldest first."""
        commit = bytes(self._ids[ID_BYTES * index : ID_BYTES * (index + 1)])
        return Link(self._names[index], commit, self._times[index])

    def links(self) -> Iterator[Link]:
        """Yields all commits, newest first."""
        return (self.link(index) for index in range(len(self._names) - 1, -1, -1))

    def find(self, name: bytes) -> Link | None:
        """Returns the commit that has a name."""
        digits = name.split(b"-", 1)[0]
        if not digits.isdigit() or len(digits) > 18:
            return None
        index = int(digits) - self._first
        if not 0 <= index < len(self._names) or self._names[index] != name:
            return None
        return self.link(index)

    def advanced(self, repository: Repository, head: Commit) -> History:
        """Returns the history at a new head; reads only commits that this one does not have."""
        new: list[tuple[bytes, bytes, int]] = []
        keep = 0
        first = head.number
        for commit in repository.history(head):
            index = commit.number - self._first
            if (
                0 <= index < len(self._names)
                and bytes(self._ids[ID_BYTES * index : ID_BYTES * (index + 1)]) == commit.id
            ):
                keep = index + 1
                break
            new.append((link_name(commit), commit.id, commit.time_ns))
            first = commit.number
            if len(new) >= MAX_COMMITS:
                break
        new.reverse()
        drop = max(0, keep + len(new) - MAX_COMMITS) if keep else 0
        result = History()
        result.head = head.id
        result._first = self._first + drop if keep else first
        result._names = self._names[drop:keep] + [name for name, _, _ in new]
        result._ids = self._ids[ID_BYTES * drop : ID_BYTES * keep]
        result._ids += b"".join(commit for _, commit, _ in new)
        result._times = self._times[drop:keep]
        result._times.extend(time for _, _, time in new)
        return result


class Histories:
    """Histories of the branches used last. Thread-safe; may block on the store."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[str, str], History] = OrderedDict()
        self._lock = threading.Lock()

    def is_ready(self, repository: Repository, branch: str) -> bool:
        """Whether :meth:`get` would answer at once, at the price of reading one ref."""
        with self._lock:
            history = self._cache.get((repository.name, branch))
        try:
            return history is not None and history.head == repository.branch(branch).commit.id
        except NotFoundError:
            return True

    def get(self, repository: Repository, branch: str) -> History:
        """Returns the history of a branch at its current head.

        Raises:
            NotFoundError: there is no such branch.
        """
        key = (repository.name, branch)
        head = repository.branch(branch).commit
        with self._lock:
            history = self._cache.get(key)
        if history is None or history.head != head.id:
            history = (history or History()).advanced(repository, repository.commit(head))
        with self._lock:
            self._cache[key] = history
            self._cache.move_to_end(key)
            while len(self._cache) > _BRANCHES:
                self._cache.popitem(last=False)
        return history
