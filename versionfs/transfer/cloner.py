"""Clone: copies a repository, or a whole store, into another store; again, it copies what is new.

Packs go as they are, so their ids stay what they are and every location holds in the copy too.
First packs, then index segments, then refs: a clone that is cut off leaves packs that the next one
skips, and no ref that lacks anything.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from versionfs.chunkstore import in_order, packs_in_store
from versionfs.errors import ConflictError, CorruptionError, InvalidInputError, NotFoundError
from versionfs.objectstore import Version
from versionfs.repo import RefKind, Store
from versionfs.repo.history import ancestors
from versionfs.transfer.leftovers import remove_leftovers
from versionfs.transfer.packcopy import PackCopier
from versionfs.transfer.reachable import Reachable
from versionfs.types import NodeRef

log = logging.getLogger(__name__)

_SEGMENTS: Final = "index/"
_COPIES_AT_ONCE: Final = 8
"""Each takes a piece of 8 MiB in memory, and its pack in a temporary file."""
_MOVE_ATTEMPTS: Final = 5


class Outcome(StrEnum):
    """What became of a ref in the target."""

    CREATED = "created"
    MOVED = "moved"
    SAME = "same"
    AHEAD = "ahead"
    """The target has it, and commits on top: nothing to do."""
    DIVERGED = "diverged"
    """It names something else in the target: left alone."""
    DAMAGED = "damaged"
    """Something that it needs is damaged or gone in the source: not published."""


@dataclass(frozen=True, slots=True)
class ClonedRef:
    """A branch or tag of the source; ``old`` is the commit that the target had."""

    repository: str
    kind: RefKind
    name: str
    outcome: Outcome
    old: NodeRef | None
    new: NodeRef


@dataclass(frozen=True, slots=True)
class CloneProgress:
    """How far a clone is; ``files`` are packs."""

    files: int
    bytes: int
    files_total: int | None = None
    bytes_total: int | None = None


@dataclass(frozen=True, slots=True)
class CloneResult:
    """What a clone did. ``damaged`` holds the packs that the source has lost or holds damaged."""

    packs_copied: int
    packs_present: int
    bytes_copied: int
    refs: list[ClonedRef]
    damaged: list[str]
    seconds: float

    def with_outcome(self, outcome: Outcome) -> list[ClonedRef]:
        """Returns the refs that fared so."""
        return [ref for ref in self.refs if ref.outcome is outcome]


_Name = tuple[str, RefKind, str]


@dataclass(slots=True)
class _Plan:
    """What is to be copied: as the source was when its refs were read."""

    refs: dict[_Name, NodeRef] = field(default_factory=dict)
    whole: bool = False
    segments: list[str] = field(default_factory=list)
    packs: dict[bytes, int] = field(default_factory=dict)
    damaged: set[bytes] = field(default_factory=set)
    suspect: bool = False
    """Whether some ref may lack something: then each is looked at by itself."""


def clone(
    source: Store,
    target: Store,
    repository: str | None = None,
    *,
    force: bool = False,
    progress: Callable[[CloneProgress], None] | None = None,
) -> CloneResult:
    """Copies what the refs of the source need to the target, then moves the target's refs.

    A branch that the target lacks is made, one that is behind is moved forward. One that has other
    commits, and a tag that names another commit, is left alone unless ``force``. What the target
    has beside is never touched.

    Args:
        source: where from; a whole store is copied pack by pack, whatever they hold.
        target: where to.
        repository: the only repository to copy, with the packs that its commits need.
        force: whether refs of the target move to where the source has them, in any case.
        progress: is told how far it is, from any thread.

    Raises:
        NotFoundError: the source has no such repository.
        InvalidInputError: source and target are one store.
        StorageError: one of the stores fails; what was copied is skipped the next time.
    """
    started = time.monotonic()
    if source.url == target.url:
        raise InvalidInputError(f"source and target are the same store, {source.url}")
    repositories = source.repositories() if repository is None else [repository]
    if repository is not None:
        source.repository(repository)  # NotFoundError, with a hint
    remove_leftovers(target)
    plan = _plan(source, target, repositories, whole=repository is None)
    present = packs_in_store(target.objects, target.settings.s3_connections)
    missing = {pack: size for pack, size in plan.packs.items() if present.get(pack) != size}
    copied, copied_bytes = _copy_packs(source, target, plan, missing, progress)
    if not plan.damaged:
        _copy_segments(source, target, plan.segments)
    for name in repositories:
        target.ensure_repository(name)
    refs = _publish(source, target, plan, repositories, force=force)
    return CloneResult(
        packs_copied=copied,
        packs_present=len(plan.packs) - len(missing),
        bytes_copied=copied_bytes,
        refs=refs,
        damaged=sorted(pack.hex() for pack in plan.damaged),
        seconds=time.monotonic() - started,
    )


def _plan(source: Store, target: Store, repositories: Iterable[str], *, whole: bool) -> _Plan:
    """Reads first the refs, then segments, then packs: each names what comes after it here."""
    plan = _Plan(whole=whole)
    for repository in repositories:
        for kind in RefKind:
            for name, ref in source.refs.read_all(repository, kind).items():
                plan.refs[repository, kind, name] = ref.commit
    if whole:
        plan.segments = [info.key for info in source.objects.list(_SEGMENTS)]
    reachable = Reachable(source)
    for (repository, kind, name), commit in plan.refs.items():
        known = _commits(target, repository)
        try:
            reachable.add_history(commit, known)
        except CorruptionError as error:
            plan.suspect = True
            log.error("%s/%s of %s is damaged: %s", repository, name, kind.value, error)
    present = packs_in_store(source.objects, source.settings.s3_connections)
    for pack in reachable.packs:
        size = present.get(pack)
        if size is None:
            plan.damaged.add(bytes(pack))
            log.error("pack %s is missing from %s", pack.hex(), source.url)
        else:
            plan.packs[pack] = size
    if whole:
        plan.packs = present
    return plan


def _commits(store: Store, repository: str) -> list[NodeRef]:
    """Returns the commits that the refs of a repository name; what they need is all there."""
    return [
        ref.commit for kind in RefKind for ref in store.refs.read_all(repository, kind).values()
    ]


def _copy_packs(
    source: Store,
    target: Store,
    plan: _Plan,
    missing: Mapping[bytes, int],
    progress: Callable[[CloneProgress], None] | None,
) -> tuple[int, int]:
    """Copies packs and notes those that are damaged; returns how many and their bytes."""
    lock = threading.Lock()
    done_packs = done_bytes = 0
    total_bytes = sum(missing.values())

    def count(packs: int, size: int) -> None:
        nonlocal done_packs, done_bytes
        with lock:
            done_packs += packs
            done_bytes += size
            state = CloneProgress(done_packs, done_bytes, len(missing), total_bytes)
        if progress is not None:
            progress(state)

    count(0, 0)
    copier = PackCopier(
        source.objects, target.objects, lambda size: count(0, size), collect=not plan.whole
    )
    copied = copied_bytes = 0

    def copy(item: tuple[bytes, int]) -> tuple[bytes, int, bool]:
        pack, size = item
        try:
            copier.copy(pack, size)
        except CorruptionError as error:
            log.error("%s", error.message)
            return pack, size, False
        count(1, 0)
        return pack, size, True

    try:
        # In the order of their ids: packs spread over the folders, and a rerun goes on behind.
        for pack, size, whole in in_order(copy, sorted(missing.items()), _COPIES_AT_ONCE):
            if whole:
                copied += 1
                copied_bytes += size
            else:
                plan.damaged.add(pack)
    finally:
        # Also of a clone that is cut off: what it copied is skipped by the next.
        copier.publish()
    return copied, copied_bytes


def _copy_segments(source: Store, target: Store, segments: Collection[str]) -> None:
    """Copies index segments of a whole store: all that they vouch for is in the target now."""
    if not segments:
        return
    present = {info.key for info in target.objects.list(_SEGMENTS)}

    def copy(key: str) -> None:
        try:
            data = source.objects.get(key)
        except NotFoundError:
            return
        target.objects.put(key, data)

    for _ in in_order(copy, [key for key in segments if key not in present], _COPIES_AT_ONCE):
        pass


def _publish(
    source: Store, target: Store, plan: _Plan, repositories: Iterable[str], *, force: bool
) -> list[ClonedRef]:
    refs = []
    for repository in repositories:
        for kind in RefKind:
            there = target.refs.read_all(repository, kind)
            for (owner, sort, name), new in plan.refs.items():
                if (owner, sort) != (repository, kind):
                    continue
                old = there[name].commit if name in there else None
                if old is not None and old.id == new.id:
                    outcome = Outcome.SAME
                elif (plan.suspect or plan.damaged) and _lacks(source, target, plan, owner, new):
                    outcome = Outcome.DAMAGED
                else:
                    outcome, old = _move(source, target, (owner, sort, name), new, force=force)
                refs.append(ClonedRef(repository, kind, name, outcome, old, new))
    return refs


def _lacks(source: Store, target: Store, plan: _Plan, repository: str, commit: NodeRef) -> bool:
    """Tells whether a commit needs something that is damaged in the source."""
    reachable = Reachable(source)
    try:
        reachable.add_history(commit, _commits(target, repository))
    except CorruptionError:
        return True
    return not plan.damaged.isdisjoint(reachable.packs)


def _move(
    source: Store, target: Store, key: _Name, new: NodeRef, *, force: bool
) -> tuple[Outcome, NodeRef | None]:
    """Makes a ref of the target name a commit, if that takes nothing away; see ``Outcome``."""
    repository, kind, name = key
    for _ in range(_MOVE_ATTEMPTS):
        old: NodeRef | None = None
        expected: Version | None = None
        try:
            found, expected = target.refs.read(repository, kind, name, fresh=True)
            old = found.commit
        except NotFoundError:
            outcome = Outcome.CREATED
        else:
            outcome = _relation(source, target, kind, old, new)
            if force and outcome in (Outcome.AHEAD, Outcome.DIVERGED):
                outcome = Outcome.MOVED
            if outcome not in (Outcome.CREATED, Outcome.MOVED):
                return outcome, old
        try:
            target.refs.move(repository, kind, name, new, expected, reason="clone", old=old)
        except ConflictError:
            continue
        return outcome, old
    raise ConflictError(
        f"{repository}/{name} of {target.url} moves too fast for this clone",
        hint="run it again: it copies nothing twice",
    )


def _relation(source: Store, target: Store, kind: RefKind, old: NodeRef, new: NodeRef) -> Outcome:
    if old.id == new.id:
        return Outcome.SAME
    if kind is RefKind.TAG:
        return Outcome.DIVERGED
    if _descends(source, new, old):
        return Outcome.MOVED
    return Outcome.AHEAD if _descends(target, old, new) else Outcome.DIVERGED


def _descends(store: Store, commit: NodeRef, from_: NodeRef) -> bool:
    return any(found.id == from_.id for found in ancestors(store.commits, [commit]))
