"""A workspace wherever it is: in the mount that owns it, or opened here when none does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from versionfs.errors import ConflictError, FileSystemError, NotFoundError, StorageError
from versionfs.fuse.changes import encode_result
from versionfs.fuse.client import MountedWorkspace, NotOwnerError, mount_of
from versionfs.repo import Store
from versionfs.tree import Change
from versionfs.types import Commit, NodeRef
from versionfs.workspace import (
    ROOT,
    CommitRequest,
    Status,
    Workspace,
    commit,
    finished,
    folder_of,
    move,
    owner_of,
    read_base,
    recover_now,
    restore,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE_SECONDS: Final = 10.0
"""How long a process that serves no mount may have a workspace: another command, or a daemon that
just begins or ends."""


class WorkspaceAccess(Protocol):
    """What the commands do with a workspace."""

    def flush(self) -> None:
        """Brings what is only in the kernel to the workspace."""

    def status(self) -> NodeRef:
        """Returns the base: the commit that the changes are on top of."""

    def changes(self, *, full: bool) -> Iterator[Change]:
        """Yields what is changed; ``full`` tells each path, as a diff of two versions does."""

    def read(self, path: bytes, size: int) -> bytes | None:
        """Returns the first bytes of a file; None if it cannot be read from here."""

    def commit(self, message: str, author: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Commits; returns what ``encode_result`` makes of it."""

    def restore(self, paths: Sequence[bytes]) -> int:
        """Discards what is changed at and below paths; returns how many names were."""

    def move(self, name: str) -> None:
        """Moves the changes to a new branch at the base."""


def with_workspace(
    store: Store, repository: str, branch: str, action: Callable[[WorkspaceAccess], T]
) -> T:
    """Calls ``action`` with a branch's workspace and returns its result.

    When the mount that has the workspace ends meanwhile, ``action`` is called again.

    Raises:
        NotFoundError: there is no such branch, and no changes of a former one.
        ConflictError: another process keeps the workspace.
        VersionFSError: what ``action`` raises.
    """
    folder = folder_of(store, repository, branch)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        owner = owner_of(folder)
        record = mount_of(store.settings, owner) if owner else None
        try:
            if record is not None:
                return action(MountedWorkspace(store.settings, record, repository, branch))
            if owner is None:
                opened = _open(store, folder, repository, branch)
                try:
                    return action(_OpenedWorkspace(opened, repository, branch))
                finally:
                    opened.close()
        except NotOwnerError:
            if time.monotonic() > deadline:
                raise
        except _InUseError as error:
            if time.monotonic() > deadline:
                raise ConflictError(error.message, hint=error.hint) from error
        else:
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"the workspace of {repository}/{branch} is in use by process {owner}",
                    hint="wait until it has ended",
                )
        time.sleep(0.05)


class _InUseError(ConflictError):
    """Another process took the workspace just now."""


def _open(store: Store, folder: Path, repository: str, branch: str) -> Workspace:
    try:
        head = _head(store, folder, repository, branch)
        workspace = Workspace(store, folder, head)
    except NotFoundError:
        raise
    except ConflictError as error:
        raise _InUseError(error.message, hint=error.hint) from error
    try:
        recover_now(workspace, repository, branch)
    except StorageError as error:
        log.warning("what came of the last commit is not known yet: %s", error)
    except BaseException:
        workspace.close()
        raise
    return workspace


def _head(store: Store, folder: Path, repository: str, branch: str) -> Commit:
    """Returns the head of a branch; the base of the changes, if the branch was deleted."""
    try:
        return store.commits.read(store.repository(repository).branch(branch).commit)
    except NotFoundError:
        base = read_base(folder)
        if base is None:
            raise
        return store.commits.read(base)


class _OpenedWorkspace:
    """A workspace that this process owns."""

    def __init__(self, workspace: Workspace, repository: str, branch: str) -> None:
        self._workspace = workspace
        self._repository = repository
        self._branch = branch

    def flush(self) -> None:
        """Does nothing: no kernel has it."""

    def status(self) -> NodeRef:
        """Returns the base: the commit that the changes are on top of."""
        return self._workspace.base.ref

    def changes(self, *, full: bool) -> Iterator[Change]:
        """Yields what is changed."""
        workspace = self._workspace
        frozen = workspace.records.frozen()
        if frozen is None:
            return
        with frozen:
            status = Status(
                workspace.store.trees,
                frozen,
                workspace.records.staging,
                workspace.base.root,
                workspace.store.contents,
            )
            yield from status.differences() if full else status.changes()

    def read(self, path: bytes, size: int) -> bytes | None:
        """Returns the first bytes of a file."""
        number = ROOT
        try:
            for name in path.split(b"/"):
                found = self._workspace.lookup(number, name)
                if found is None:
                    return None
                number = found.number
            return self._workspace.files.read(number, 0, size)
        except FileSystemError:
            return None

    def commit(self, message: str, author: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Commits; returns what ``encode_result`` makes of it."""
        request = CommitRequest(self._repository, self._branch, message, author, metadata)
        return encode_result(commit(self._workspace, request))

    def restore(self, paths: Sequence[bytes]) -> int:
        """Discards what is changed at and below paths."""
        recover_now(self._workspace, self._repository, self._branch)
        name = f"{self._repository}/{self._branch}"
        return finished(restore(self._workspace, list(paths), name))

    def move(self, name: str) -> None:
        """Moves the changes to a new branch at the base."""
        recover_now(self._workspace, self._repository, self._branch)
        move(self._workspace, self._repository, name)
