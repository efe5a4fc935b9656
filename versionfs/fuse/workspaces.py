"""What a daemon does with the workspaces of its mount when it is asked to: commit, status, restore.

A daemon answers for the workspaces that it owns; the one who asks tries each mount, then goes to
the workspace directly.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import trio

from versionfs.errors import InvalidInputError, VersionFSError
from versionfs.fuse.refresher import invalidate
from versionfs.repo import Store
from versionfs.tree import Change
from versionfs.vfs import Branch, Branches, Invalidation
from versionfs.workspace import (
    CommitRequest,
    Committing,
    Status,
    Step,
    restore,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
Reply = dict[str, Any]


class WorkspaceService:
    """Serves requests about workspaces. All methods run on the event loop."""

    def __init__(
        self,
        store: Store,
        branches: Branches,
        moved: Callable[[str], Awaitable[None]],
        drop: Callable[[list[Invalidation]], None] = invalidate,
    ) -> None:
        """Makes the service; ``moved`` is awaited when a branch of a repository has moved."""
        self._store = store
        self._moved = moved
        self._branches = branches
        self._drop = drop
        self._locks: defaultdict[tuple[str, str], trio.Lock] = defaultdict(trio.Lock)

    async def answer(self, message: Reply) -> Reply:
        """Answers a request: ``owned`` is false if another process may own the workspace.

        Raises:
            VersionFSError: it failed.
        """
        repository, name = str(message.get("repository")), str(message.get("branch"))
        branch = self._branches.known(repository, name)
        if branch is None or not branch.workspace.records.exists:
            return {"owned": False}
        match message["op"]:
            case "workspace-commit":
                request = CommitRequest(
                    repository,
                    name,
                    str(message["message"]),
                    str(message["author"]),
                    {str(key): str(value) for key, value in message["metadata"].items()},
                )
                return {"owned": True, "result": await self.commit(branch, request)}
            case "workspace-status":
                return {"owned": True, **await self._status(branch, int(message["limit"]))}
            case "workspace-restore":
                paths = [os.fsencode(path) for path in message["paths"]]
                return {"owned": True, "restored": await self._restore(branch, paths)}
        raise InvalidInputError(f"unknown request {message['op']!r}")

    async def commit(self, branch: Branch, request: CommitRequest) -> Reply:
        """Commits a workspace; returns a summary."""
        async with self._lock(branch):
            committing = Committing(branch.workspace, request)
            committing.cut()
            branch.is_committing = True
            try:
                await _in_thread(committing.publish)
                with trio.CancelScope(shield=True):
                    await self._steps(branch, committing.settle())
            finally:
                branch.is_committing = False
                committing.end()
            result = committing.result
        commit = result.commit
        if commit is not None:
            try:
                await self._moved(branch.repository)
            except VersionFSError as error:
                log.warning("the mount shows the commit later: %s", error)
        return {
            "commit": None if commit is None else commit.id.hex(),
            "head": result.head.id.hex(),
            "merged": result.merged,
            "files": result.files,
            "new_bytes": result.new_bytes,
            "stored_bytes": result.stored_bytes,
            "read_bytes": result.read_bytes,
            "seconds": result.seconds,
            "skipped": [[os.fsdecode(path), what] for path, what in result.skipped],
        }

    async def commit_all(self, message: str, author: str) -> None:
        """Commits every workspace that has changes; failures are logged."""
        for branch in self._branches:
            if branch.workspace.is_clean:
                continue
            request = CommitRequest(branch.repository, branch.name, message, author)
            try:
                done = await self.commit(branch, request)
            except Exception as error:  # noqa: BLE001  (the others are committed all the same)
                log.error("cannot commit %s/%s: %s", branch.repository, branch.name, error)
            else:
                if done["commit"]:
                    log.info("committed %s/%s: %s", branch.repository, branch.name, done["commit"])

    async def _status(self, branch: Branch, limit: int) -> Reply:
        workspace = branch.workspace
        frozen = workspace.records.frozen()
        assert frozen is not None
        status = Status(self._store.trees, frozen, workspace.records.staging, workspace.base.root)

        def work() -> list[Reply]:
            with frozen:
                return [encode_change(change) for change in _first(status.changes(), limit)]

        return {"base": workspace.base.id.hex(), "changes": await _in_thread(work)}

    async def _restore(self, branch: Branch, paths: list[bytes]) -> int:
        async with self._lock(branch):
            count = 0

            def steps() -> Iterable[Step]:
                nonlocal count
                count = yield from restore(branch.workspace, paths)

            await self._steps(branch, steps())
            return count

    async def _steps(self, branch: Branch, steps: Iterable[Step]) -> None:
        for step in self._branches.invalidations(branch, steps):
            if callable(step):
                await _in_thread(step)
            elif step:
                await _in_thread(lambda step=step: self._drop(step))  # type: ignore[misc]
            else:
                await trio.lowlevel.checkpoint()

    def _lock(self, branch: Branch) -> trio.Lock:
        return self._locks[branch.repository, branch.name]


def encode_change(change: Change) -> Reply:
    """Returns a change as JSON: path, and of each side kind, mode and size, or null."""
    return {
        "path": os.fsdecode(change.path),
        "old": None if change.old is None else _side(change.old),
        "new": None if change.new is None else _side(change.new),
    }


def _side(entry: Any) -> list[int]:
    return [int(entry.kind), entry.mode, entry.size, entry.files]


def _first(changes: Iterable[Change], limit: int) -> Iterable[Change]:
    for number, change in enumerate(changes):
        if number == limit:
            return
        yield change


async def _in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)
