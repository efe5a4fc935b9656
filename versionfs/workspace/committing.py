"""Commits a workspace: an atomic cut, a tree built from what changed, a ref moved, and settling.

The parts run where they belong: ``cut`` and the steps of ``settle`` in the thread of the workspace,
``publish`` in any other. Writers go on meanwhile; what they change after the cut belongs to the
next commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from versionfs.errors import ConflictError, NotFoundError, OverlapError
from versionfs.objectstore import Version
from versionfs.repo import RefKind, Repository, first_parents, write_commit
from versionfs.transfer.pipeline import Pipeline
from versionfs.tree import Conflict, merge_trees, same_entry
from versionfs.types import Commit, Entry
from versionfs.workspace.base import PENDING_KEY, Pending, decode_pending, encode_pending
from versionfs.workspace.build import Build, unread
from versionfs.workspace.following import Step, fetched, finished
from versionfs.workspace.planning import Cut
from versionfs.workspace.settling import Settling
from versionfs.workspace.table import FrozenTable

if TYPE_CHECKING:
    from versionfs.workspace.workspace import Workspace

_ATTEMPTS: Final = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CommitResult:
    """What a commit did. ``commit`` is None when there was nothing to commit.

    ``files`` are those that had changes; ``new_bytes`` those of the chunks that the store did not
    have, ``stored_bytes`` what they and the trees take in it; ``read_bytes`` were read to find out.
    ``merged`` says whether commits of others came in between; ``skipped`` has (path, what it is).
    """

    commit: Commit | None
    head: Commit
    merged: bool
    files: int
    new_bytes: int
    stored_bytes: int
    read_bytes: int
    seconds: float
    skipped: list[tuple[bytes, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a commit says, and where it goes."""

    repository: str
    branch: str
    message: str
    author: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Committing:
    """One commit of a workspace. One at a time."""

    def __init__(self, workspace: Workspace, request: CommitRequest) -> None:
        self._workspace = workspace
        self._request = request
        self._base = workspace.base
        self._frozen: FrozenTable | None = None
        self._sequence = 0
        self._frozen_below = 0
        self._skipped: list[tuple[bytes, str]] = []
        self._result: CommitResult | None = None

    @property
    def result(self) -> CommitResult:
        """What was done, once ``publish`` has returned."""
        assert self._result is not None
        return self._result

    def cut(self) -> None:
        """Fixes what is committed: the state of now. Takes milliseconds.

        Raises:
            OSError: the disk is full, with all that is kept back for this, or the records have too
                many readers: nothing has happened.
            WouldBlock: likewise, and some of it is about to become free.
        """
        workspace = self._workspace
        workspace.files.save_all(workspace.overlay.changes)
        frozen = workspace.records.frozen()
        try:
            # Another one for the workspace's thread: each is for one at a time.
            cut = workspace.records.frozen()
        except BaseException:
            if frozen is not None:
                frozen.close()
            raise
        self._frozen = frozen
        self._sequence = workspace.clock.sequence
        self._base = workspace.base
        self._frozen_below = workspace.layers.freeze(cut=cut)

    def publish(self) -> None:
        """Stores what changed and moves the branch. Blocks: not for the workspace's thread.

        Raises:
            OverlapError: others changed the same paths meanwhile.
            ConflictError: the branch moves all the time.
            NotFoundError: the branch was deleted.
            SourceError: what was written to some files is lost.
            StorageError: the store cannot be read or written.
        """
        began = time.monotonic()
        store, base = self._workspace.store, self._base
        if self._frozen is None:
            head, _ = self._head()
            self._result = CommitResult(None, head, head.ref != base.ref, 0, 0, 0, 0, 0.0)
            return
        store.sync_index(quick=True)
        with Pipeline(store, unread, little=True) as pipeline:
            build = Build(store, pipeline, self._frozen, self._workspace.records.staging)
            ours = build.run()
            self._skipped = build.built.skipped
            commit, head, merged = self._advance(pipeline, ours)
            pipeline.metadata.finish()
            written = pipeline.chunks.statistics()
            self._result = CommitResult(
                commit,
                commit or head,
                merged,
                build.built.files,
                written.bytes_new,
                written.stored_bytes + pipeline.metadata.stored_bytes,
                build.read_bytes,
                time.monotonic() - began,
                self._skipped,
            )

    def _advance(self, pipeline: Pipeline, ours: Entry) -> tuple[Commit | None, Commit, bool]:
        """Moves the branch to a commit of the tree; returns it, the head before, and if merged."""
        request, store = self._request, self._workspace.store
        repository = Repository(store, request.repository)
        for _ in range(_ATTEMPTS):
            head, version = self._head()
            merged = head.ref.id != self._base.ref.id
            root = self._merged(pipeline, ours, head) if merged else ours
            if same_entry(head.root, root._replace(name=head.root.name)):
                return None, head, merged
            ref = write_commit(
                pipeline.metadata,
                root=root,
                parents=[head],
                author=request.author,
                message=request.message,
                time_ns=max(time.time_ns(), head.time_ns + 1),
                metadata=request.metadata,
            )
            pipeline.metadata.finish()
            pipeline.segments.publish()
            ref = pipeline.metadata.resolve(ref)
            # Should this process end now, the next one must know that the commit is its own.
            pending = Pending(ref, self._sequence, self._frozen_below)
            records = self._workspace.records
            # A commit must be possible on a full disk: what it settles is what makes room there.
            records.apply([(PENDING_KEY, encode_pending(pending))], frees=True)
            records.sync()
            try:
                repository.advance(request.branch, ref, version, old=head.ref, reason="commit")
            except ConflictError:
                # It is known that this one was not made: nothing stays frozen because of it.
                records.apply([(PENDING_KEY, None)], frees=True)
                continue
            return store.commits.read(ref), head, merged
        raise ConflictError(
            f"{request.repository}/{request.branch} moves too fast for this commit",
            hint="commit again: nothing is stored twice",
        )

    def _merged(self, pipeline: Pipeline, ours: Entry, head: Commit) -> Entry:
        store = self._workspace.store
        # To be read it must be in the store; else it goes into one pack with the commit.
        pipeline.metadata.finish()
        ours = _resolved(pipeline, ours)
        result = merge_trees(store.trees, pipeline.metadata, self._base.root, ours, head.root)
        overlaps = [(conflict.path or b".", _told(conflict)) for conflict in result.conflicts]
        # A fifo is in no tree. It would hide what others made, and the next commit delete that.
        walk = store.trees.walk_path
        for path, kind in self._skipped:
            if walk(self._base.root, path) is None and walk(head.root, path) is not None:
                overlaps.append((path, f"both made it, you {kind}"))
        if result.root is None or overlaps:
            name = f"{self._request.repository}/{self._request.branch}"
            raise OverlapError(
                f"{name} has moved, and others changed what you changed; nothing was committed",
                overlaps,
                hint="look at theirs with `versionfs diff`, take them with `versionfs restore PATH`"
                " (of a folder, with all that you changed in it) and do your change again, or keep "
                "all your work on a branch of its own with `versionfs branch NAME "
                "--from-workspace` and commit it there" + (_TOP if b"." in dict(overlaps) else ""),
            )
        pipeline.metadata.finish()
        return _resolved(pipeline, result.root)

    def _head(self) -> tuple[Commit, Version]:
        request, store = self._request, self._workspace.store
        try:
            ref, version = store.refs.read(
                request.repository, RefKind.BRANCH, request.branch, fresh=True
            )
        except NotFoundError as error:
            raise NotFoundError(
                f"{request.repository} has no branch {request.branch!r} any more",
                hint="keep your work with `versionfs branch NAME --from-workspace`",
            ) from error
        return store.commits.read(ref.commit), version

    def settle(self) -> Generator[Step, None, None]:
        """Makes the new head the base of what was changed since the cut, step by step."""
        result, frozen, workspace = self.result, self._frozen, self._workspace
        if frozen is None:
            if result.head.ref != self._base.ref:
                yield from workspace.follow(result.head)
            return
        # Without a commit as well: what was written as it had been is no change any more.
        settling = Settling(workspace, frozen, Cut(self._sequence, self._frozen_below), result.head)
        yield from settling.steps(merged=result.merged)

    def end(self) -> None:
        """Ends it, whatever came of it: what was kept for the commit is let go of."""
        if self._frozen is not None:
            self._frozen.close()
            self._frozen = None
            self._workspace.layers.forget_cut()
            if self._workspace.records.get(PENDING_KEY) is None:
                self._workspace.layers.thaw()


def _resolved(pipeline: Pipeline, entry: Entry) -> Entry:
    if entry.location is None or entry.stamp == bytes(len(entry.stamp)):
        return entry
    return entry._replace(location=pipeline.metadata.resolve(entry.node).location)


_TOP: Final = (
    "; to restore `.` discards all that you changed: give the top the mode and attributes of theirs"
)


def _told(conflict: Conflict) -> str:
    """Returns what both sides did to a path."""
    if conflict.base is None:
        return "both made it"
    if conflict.ours is None:
        return "you deleted it, they changed it"
    if conflict.theirs is None:
        return "you changed it, they deleted it"
    return "both changed it"


def recover(workspace: Workspace, repository: str, branch: str) -> Generator[Step, None, None]:
    """Finishes a commit of which it is not known what came of it, as before any other work.

    The process was killed while it committed, or the store did not answer. Does nothing otherwise.

    Raises:
        StorageError: the store cannot be read; it stays unknown.
    """
    yield from sweep(workspace)
    value = workspace.records.get(PENDING_KEY)
    if value is None:
        return
    pending = decode_pending(value)
    found: list[Commit] = []

    def find() -> None:
        store = workspace.store
        try:
            ref, _ = store.refs.read(repository, RefKind.BRANCH, branch, fresh=True)
        except NotFoundError:
            return
        own = store.commits.read(pending.commit)
        for commit in first_parents(store.commits, store.commits.read(ref.commit)):
            if commit.number <= own.number:
                if commit.id == own.id:
                    found.append(own)
                return

    yield find
    if found:
        frozen = workspace.records.frozen()
        assert frozen is not None
        with frozen:
            settling = Settling(
                workspace, frozen, Cut(pending.sequence, pending.frozen_below), found[0]
            )
            yield from settling.steps(merged=True)
    else:
        yield from fetched(lambda: workspace.records.apply([(PENDING_KEY, None)], frees=True))
    workspace.layers.thaw()


def sweep(workspace: Workspace) -> Generator[Step, None, None]:
    """Removes what a kill has left of layers, if that was not done; only this machine is asked."""
    if workspace.is_swept:
        return
    work = workspace.layers.sweep()

    def tolerant() -> None:
        try:
            work()
        except OSError as error:
            # It takes room, but nothing depends on it.
            log.warning("what was left of changed files stays: %s", error)

    yield tolerant
    workspace.is_swept = True


def recover_now(workspace: Workspace, repository: str, branch: str) -> None:
    """Does what ``recover`` does, in this thread, which may block."""
    finished(recover(workspace, repository, branch))


def commit(workspace: Workspace, request: CommitRequest) -> CommitResult:
    """Commits a workspace that nobody else works in, in this thread.

    Raises:
        what ``Committing.cut`` and ``publish`` raise.
    """
    recover_now(workspace, request.repository, request.branch)
    committing = Committing(workspace, request)
    committing.cut()
    try:
        committing.publish()
        finished(committing.settle())
    finally:
        committing.end()
    return committing.result
