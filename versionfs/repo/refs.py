"""Branches and tags: small JSON objects that move by compare-and-swap.

``repos/<repository>/branches/<name>``, ``repos/<repository>/tags/<name>``: {"commit", "stamp",
"location": [pack, block offset, stored length, offset, length], "nonce", "time_ns", "version": 1}.
``repos/<repository>/reflog/<branch>/<ulid>``: {"old", "new", "reason", "time_ns"}, written before
the move it tells of: a crash may leave one for a move that never was, never a move without one.
"""

from __future__ import annotations

import contextlib
import json
import time
from enum import StrEnum
from typing import Any, Final, NamedTuple

from versionfs.errors import (
    ConflictError,
    CorruptionError,
    NotFoundError,
    StorageError,
    UnsupportedFormatError,
    VersionFSError,
)
from versionfs.objectstore import Version
from versionfs.objectstore.naming import new_ulid
from versionfs.repo.refcache import RefCache
from versionfs.types import ID_BYTES, STAMP_BYTES, Location, NodeRef, PackId, Ref

_VERSION: Final = 1


class RefKind(StrEnum):
    """The folder of a ref."""

    BRANCH = "branches"
    TAG = "tags"


def encode_ref(ref: Ref) -> bytes:
    """Returns a ref's object."""
    where = ref.commit.location
    value = {
        "commit": ref.commit.id.hex(),
        "location": [where.pack.hex(), *where[1:]],
        "nonce": ref.nonce,
        "stamp": ref.commit.stamp.hex(),
        "time_ns": ref.time_ns,
        "version": _VERSION,
    }
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def decode_ref(data: bytes, key: str) -> Ref:
    """Returns the ref in an object; ``key`` is for messages.

    Raises:
        CorruptionError: the object is damaged.
    """
    try:
        value: Any = json.loads(data)
        if value["version"] > _VERSION:
            raise UnsupportedFormatError(
                f"the ref {key} has format version {value['version']}, this versionfs reads "
                f"{_VERSION}",
                hint="upgrade versionfs",
            )
        pack, *numbers = value["location"]
        where = Location(PackId(bytes.fromhex(pack)), *(int(number) for number in numbers))
        commit = NodeRef(bytes.fromhex(value["commit"]), bytes.fromhex(value["stamp"]), where)
        if (len(commit.id), len(commit.stamp), len(where.pack)) != (
            ID_BYTES,
            STAMP_BYTES,
            ID_BYTES,
        ):
            raise ValueError("an id has a wrong length")
        if not all(0 <= number < 1 << 32 for number in where[1:]):
            raise ValueError("a location is out of range")
        return Ref(commit, str(value["nonce"]), int(value["time_ns"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CorruptionError(
            f"the ref {key} is damaged", hint="its reflog in the store tells what it was"
        ) from error


class RefMove(NamedTuple):
    """A branch or tag that moved. ``old`` is None where it is new, ``new`` where it was deleted."""

    repository: str
    kind: RefKind
    name: str
    old: NodeRef | None
    new: NodeRef | None


class Refs:
    """The refs of a store. Safe for any number of threads, processes and machines."""

    def __init__(self, objects: RefCache) -> None:
        self._objects = objects

    @staticmethod
    def key(repository: str, kind: RefKind, name: str) -> str:
        """Returns the key of a ref in the store."""
        return f"repos/{repository}/{kind.value}/{name}"

    def read(
        self, repository: str, kind: RefKind, name: str, *, fresh: bool = False
    ) -> tuple[Ref, Version]:
        """Returns a ref and the version to compare with when it is moved.

        With ``fresh`` it is what the store has now: who decides by it what is written must not
        take what was seen last for it.

        Raises:
            NotFoundError: there is none of that name.
            StorageTransientError: the store cannot be reached.
        """
        key = self.key(repository, kind, name)
        data, version = self._objects.read(key, fresh=fresh)
        return decode_ref(data, key), version

    def names(self, repository: str, kind: RefKind, *, fresh: bool = False) -> list[str]:
        """Returns the names of all refs of a kind, sorted; ``fresh`` is as in :meth:`read`."""
        return self._objects.names(f"repos/{repository}/{kind.value}/", fresh=fresh)

    def read_all(self, repository: str, kind: RefKind, *, fresh: bool = False) -> dict[str, Ref]:
        """Returns all refs of a kind by name, sorted; read in parallel where that pays.

        ``fresh`` is as in :meth:`read`.
        """
        names = self.names(repository, kind, fresh=fresh)
        keys = [self.key(repository, kind, name) for name in names]
        found = zip(names, keys, self._objects.read_many(keys, fresh=fresh), strict=True)
        return {name: decode_ref(value[0], key) for name, key, value in found if value is not None}

    def look(self, repository: str | None = None) -> list[RefMove]:
        """Asks the store for all refs now; returns those this machine last saw elsewhere, by name.

        Raises:
            NotFoundError: there is no such repository.
            StorageTransientError: the store cannot be reached.
        """
        moves = []
        for key, (before, now) in self._objects.look(repository).items():
            _, found, kind, name = key.split("/")
            new = None if now is None else decode_ref(now, key).commit
            try:
                old = None if before is None else decode_ref(before, key).commit
            except VersionFSError:
                old = None
            moves.append(RefMove(found, RefKind(kind), name, old, new))
        return moves

    def move(
        self,
        repository: str,
        kind: RefKind,
        name: str,
        commit: NodeRef,
        expected: Version | None,
        *,
        reason: str,
        old: NodeRef | None = None,
    ) -> Ref:
        """Makes a ref name a commit, if it still has the expected version (None: is not there).

        Raises:
            ConflictError: somebody else moved or made it first.
            NotFoundError: it is new, and the repository was deleted meanwhile.
        """
        key = self.key(repository, kind, name)
        ref = Ref(commit, new_ulid(), time.time_ns())
        data = encode_ref(ref)
        if kind is RefKind.BRANCH:
            self._log(repository, name, old, commit, reason)
        try:
            version = self._objects.replace(key, data, expected)
        except ConflictError as conflict:
            # A replace that was retried after its reply was lost may have won: the nonce tells.
            try:
                current, version = self.read(repository, kind, name, fresh=True)
            except NotFoundError:
                raise conflict from None
            if current.nonce != ref.nonce:
                raise conflict from None
        if expected is None:
            self._check_repository(repository, key, version)
        return ref

    def _check_repository(self, repository: str, key: str, version: Version) -> None:
        """Takes a new ref back if its repository was deleted meanwhile.

        Who deletes looks for refs after the marker is gone, who makes one looks for the marker
        after that: one of both sees the other. Else it would come back with the next repository of
        that name.
        """
        try:
            if self._objects.has_marker(repository):
                return
        except StorageError:
            return  # It is made; to say that it failed would be wrong more often.
        with contextlib.suppress(NotFoundError, ConflictError):
            self._objects.remove(key, version)
        raise NotFoundError(
            f"the repository {repository!r} was deleted meanwhile; nothing was published",
            hint="run the command again to make it anew",
        )

    def delete(
        self, repository: str, kind: RefKind, name: str, expected: Version | None = None
    ) -> None:
        """Removes a ref; without ``expected``, as it is when this begins.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it no longer has the expected version.
        """
        ref, found = self.read(repository, kind, name, fresh=True)
        try:
            if expected not in (None, found):
                raise ConflictError(f"{self.key(repository, kind, name)} was changed meanwhile")
            if kind is RefKind.BRANCH:
                self._log(repository, name, ref.commit, None, "delete")
            self._objects.remove(self.key(repository, kind, name), found)
        except ConflictError as conflict:
            what = "branch" if kind is RefKind.BRANCH else "tag"
            raise ConflictError(
                f"the {what} {name!r} of {repository} moved meanwhile; it was not deleted",
                hint=f"look at `versionfs log {repository}`, then run the command again",
            ) from conflict

    def _log(
        self, repository: str, name: str, old: NodeRef | None, new: NodeRef | None, reason: str
    ) -> None:
        value = {
            "new": None if new is None else _address(new),
            "old": None if old is None else _address(old),
            "reason": reason,
            "time_ns": time.time_ns(),
        }
        key = f"repos/{repository}/reflog/{name}/{new_ulid()}"
        self._objects.put(key, json.dumps(value, sort_keys=True).encode() + b"\n")


def _address(ref: NodeRef) -> dict[str, object]:
    return {
        "commit": ref.id.hex(),
        "location": [ref.location.pack.hex(), *ref.location[1:]],
        "stamp": ref.stamp.hex(),
    }
