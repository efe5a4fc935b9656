"""What a daemon does with the workspaces of its mount when it is asked to.

A daemon answers for the workspaces that it owns; the one who asks (:mod:`versionfs.fuse.client`)
finds the owner by the workspace's lock.

``workspace-commit``   message, author, metadata; answers when the commit is made: ``result``
``workspace-status``   limit: so many ``changes`` are told. With ``file`` all are written there, a
                       line of JSON each; ``full`` tells every path, as ``versionfs diff`` does
``workspace-restore``  paths: what was changed at and below them is discarded
``workspace-move``     to: a branch that is made, and gets the workspace
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from versionfs.errors import InvalidInputError, NotFoundError, StorageError, VersionFSError
from versionfs.fuse.changes import encode_change, encode_result
from versionfs.fuse.memory import collecting_seldom
from versionfs.readable import human_size
from versionfs.repo import Store
from versionfs.vfs import Branch, Branches, Invalidation
from versionfs.workspace import (
    CommitRequest,
    Committing,
    Status,
    Step,
    commit,
    encode_base,
    fetched,
    nothing_to_move,
    prepare_move,
    recover,
    restore,
    sweep,
)

log = logging.getLogger(__name__)

_TIDY_SECONDS: Final = 0.002
"""Whoever opens a branch folder wants something else first, but may commit soon."""

T = TypeVar("T")
Reply = dict[str, Any]


class WorkspaceService:
    """Serves requests about workspaces. All methods run on the event loop."""

    def __init__(
        self,
        store: Store,
        branches: Branches,
        moved: Callable[[str], Awaitable[None]],
        drop: Callable[[list[Invalidation]], None],
    ) -> None:
        """Makes the service; ``moved`` is awaited when a branch of a repository has moved."""
        self._store = store
        self._moved = moved
        self._branches = branches
        self._drop = drop
        self._locks: defaultdict[Branch, trio.Lock] = defaultdict(trio.Lock)
        self._told: dict[Branch, str] = {}
        self._ended = False

    async def tidy(self) -> None:
        """Removes what a kill has left in each workspace soon after it is opened, for ever.

        Else the first who commits would wait for that, and for what is only loaded or looked at
        for the first time.
        """
        send, opened = trio.open_memory_channel[Branch](math.inf)
        self._branches.on_open = send.send_nowait
        for branch in self._branches:
            send.send_nowait(branch)
        async for branch in opened:
            await trio.sleep(_TIDY_SECONDS)
            try:
                async with self._locks[branch]:
                    with trio.CancelScope(shield=True):
                        await self._steps(branch, sweep(branch.workspace))
                await _in_thread(lambda: human_size(0))
                if not branch.workspace.is_clean:
                    await _in_thread(lambda: self._store.sync_index(quick=True, ahead=True))
            except Exception as error:  # noqa: BLE001  (the first command does it again)
                log.info("not prepared: %s/%s: %s", branch.repository, branch.name, error)

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
                return {"owned": True, **await self._status(branch, message)}
            case "workspace-restore":
                paths = [os.fsencode(path) for path in message["paths"]]
                return {"owned": True, "restored": await self._restore(branch, name, paths)}
            case "workspace-move":
                base = await self._move(branch, name, str(message["to"]))
                return {"owned": True, "base": base}
        raise InvalidInputError(f"unknown request {message['op']!r}")

    def end(self) -> None:
        """Says that nobody serves the kernel any more: it is told nothing from now on."""
        self._ended = True

    async def commit(self, branch: Branch, request: CommitRequest) -> Reply:
        """Commits a workspace; returns a summary."""
        async with self._locked(branch, request.branch):
            committing = Committing(branch.workspace, request)
            result: Reply = {}

            def publish() -> None:
                committing.publish()
                result.update(encode_result(committing.result))

            await self._steps(branch, fetched(committing.cut))
            branch.is_committing = True
            try:
                await _in_thread(publish)
                with trio.CancelScope(shield=True):
                    await self._steps(branch, committing.settle())
            finally:
                branch.is_committing = False
                committing.end()
        if result["commit"] is not None or result["merged"]:
            # Without a commit too: the snapshots of the branch show what its folder shows now.
            await self._refreshed(branch.repository)
        return result

    async def commit_all(self, message: str, author: str) -> None:
        """Commits every workspace that has changes; failures are logged."""
        for branch in self._branches:
            request = CommitRequest(branch.repository, branch.name, message, author)
            try:
                if branch.workspace.is_clean:
                    continue
                done = await self.commit(branch, request)
            except Exception as error:  # noqa: BLE001  (the others are committed all the same)
                if self._told.get(branch) != str(error):
                    self._told[branch] = str(error)
                    log.error("cannot commit %s/%s: %s", branch.repository, branch.name, error)
            else:
                self._told.pop(branch, None)
                if done["commit"]:
                    log.info("committed %s/%s: %s", branch.repository, branch.name, done["commit"])

    async def _status(self, branch: Branch, message: Reply) -> Reply:
        try:
            async with self._locked(branch, branch.name):
                pass
        except StorageError as error:
            log.warning("what came of the last commit is not known yet: %s", error)
        workspace = branch.workspace
        frozen = workspace.records.frozen()
        assert frozen is not None
        status = Status(
            self._store.trees,
            frozen,
            workspace.records.staging,
            workspace.base.root,
            self._store.contents,
        )
        base = workspace.base
        reply = {"base": base.id.hex(), "base_ref": encode_base(base.ref).hex()}
        found = status.differences() if message.get("full") else status.changes()
        file = message.get("file")

        def work() -> list[Reply]:
            with frozen:
                told = map(encode_change, found)
                if file is None:
                    return list(islice(told, int(message["limit"])))
                with Path(file).open("w", encoding="ascii") as lines:
                    lines.writelines(json.dumps(change) + "\n" for change in told)
                return []

        return {**reply, "changes": await _in_thread(work)}

    async def _restore(self, branch: Branch, name: str, paths: list[bytes]) -> int:
        count = 0
        async with self._locked(branch, name):

            def steps() -> Iterable[Step]:
                nonlocal count
                count = yield from restore(
                    branch.workspace, paths, f"{branch.repository}/{branch.name}"
                )

            with trio.CancelScope(shield=True):
                await self._steps(branch, steps())
        if branch.workspace.is_clean:
            # What stood still because of the changes goes to the head of its branch now.
            await self._refreshed(branch.repository)
        return count

    async def _move(self, branch: Branch, name: str, to: str) -> str:
        async with self._locked(branch, name):
            workspace = branch.workspace
            if workspace.is_clean:
                raise nothing_to_move(branch.repository, to)
            with trio.CancelScope(shield=True):
                folder = await _in_thread(
                    lambda: prepare_move(self._store, branch.repository, to, workspace.base)
                )
                await _in_thread(workspace.moved(folder))
                dropped = self._branches.rename(branch, to)
                if dropped and not self._ended:
                    await _in_thread(lambda: self._drop(dropped))
        await self._refreshed(branch.repository)
        return workspace.base.id.hex()

    async def _refreshed(self, repository: str) -> None:
        if self._ended:
            return
        try:
            await self._moved(repository)
        except VersionFSError as error:
            log.warning("the mount shows what has changed later: %s", error)

    async def _steps(self, branch: Branch, steps: Iterable[Step]) -> None:
        for step in self._branches.invalidations(branch, steps):
            if callable(step):
                await _in_thread(step)
            elif step and not self._ended:
                await _in_thread(lambda step=step: self._drop(step))  # type: ignore[misc]
            else:
                await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def _locked(self, branch: Branch, name: str) -> AsyncIterator[None]:
        """Keeps others from committing, restoring and moving a workspace; cycles wait meanwhile.

        Raises:
            StorageError: it is not known what came of the last commit.
        """
        async with self._locks[branch]:
            if branch.name != name:
                raise NotFoundError(
                    f"the changes of {branch.repository}/{name} have just moved to {branch.name}",
                    hint="look at `versionfs status`",
                )
            with collecting_seldom():
                with trio.CancelScope(shield=True):
                    await self._steps(branch, recover(branch.workspace, branch.repository, name))
                yield


def commit_at_end(branches: Branches, message: str, author: str) -> None:
    """Commits what is left when a mount has ended, in this thread; failures are logged."""
    for branch in branches:
        name = f"{branch.repository}/{branch.name}"
        request = CommitRequest(branch.repository, branch.name, message, author)
        try:
            if branch.workspace.is_clean:
                continue
            with collecting_seldom():
                result = commit(branch.workspace, request)
        except Exception as error:
            if isinstance(error, VersionFSError):
                log.error("cannot commit %s: %s; its changes are kept", name, error)
            else:
                log.exception("cannot commit %s; its changes are kept", name)
        else:
            if result.commit is not None:
                log.info("committed %s: %s", name, result.commit.id.hex())


async def _in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)
