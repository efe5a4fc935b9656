"""What the command line asks of daemons: what concerns a workspace in a mount, and a look at refs.

Nothing here opens a store, or imports what that takes: such a command is done before a store would
be open.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from versionfs.config import Settings
from versionfs.errors import MountError, VersionFSError
from versionfs.fuse import control, registry
from versionfs.fuse.registry import MountRecord
from versionfs.fuse.request import decode_error
from versionfs.repo.spec import DEFAULT_BRANCH, parse_spec
from versionfs.syscalls import syncfs
from versionfs.types import NodeRef
from versionfs.workspace.base import decode_base
from versionfs.workspace.places import folder_in, owner_of
from versionfs.writeback import write_back

if TYPE_CHECKING:
    from versionfs.tree import Change

log = logging.getLogger(__name__)

_ASK_SECONDS: Final = 2.0
"""How often it is looked whether a daemon that does not answer is still alive."""

_NOTIFY_SECONDS: Final = 5.0


def workspace_in_mount(settings: Settings, repository: str, branch: str) -> MountedWorkspace | None:
    """Returns a branch's workspace if a live mount of the store has it; None if none does."""
    for record in registry.records(settings):
        if record.store == settings.store and not record.read_only and record.is_running:
            folder = folder_in(settings, record.store_id, repository, branch)
            if owner_of(folder) == record.pid:
                return MountedWorkspace(settings, record, repository, branch)
    return None


def notify_moved(settings: Settings, store_id: str, repository: str | None) -> None:
    """Lets every live mount of a store show a ref that moved, before this returns.

    ``repository`` is where, None for any. Waits five seconds at most; a mount that took longer
    finds out by itself. One that failed is logged: it shows what it showed until it can look again.
    """
    deadline = time.monotonic() + _NOTIFY_SECONDS
    for record in registry.records(settings):
        if record.store_id != store_id or not record.is_running:
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            return
        files = registry.files_of(settings, Path(record.mountpoint))
        reply = control.ask(files.socket, {"op": "refresh", "repository": repository}, left)
        if reply is not None and not reply.get("ok"):
            log.warning("%s does not show it yet: %s", record.mountpoint, reply.get("error"))


def mount_of(settings: Settings, pid: int) -> MountRecord | None:
    """Returns the mount that a process serves; None if it serves none."""
    for record in registry.records(settings):
        if record.pid == pid and record.is_running:
            return record
    return None


def shown_at(record: MountRecord, repository: str, branch: str, path: bytes = b"") -> Path | None:
    """Returns where a mount shows a path of a branch; None if it does not."""
    top = Path(record.mountpoint)
    spec = None if record.spec is None else parse_spec(record.spec)
    if spec is None:
        return top / repository / branch / os.fsdecode(path)
    if spec.repository != repository:
        return None
    if spec.branch is None and spec.revision is None and not spec.path:
        return top / branch / os.fsdecode(path)
    if (spec.branch or DEFAULT_BRANCH, spec.revision) != (branch, None):
        return None
    if not spec.path or path == spec.path:
        return top / os.fsdecode(path[len(spec.path) :])
    if path.startswith(spec.path + b"/"):
        return top / os.fsdecode(path[len(spec.path) + 1 :])
    return None


def folder_of_branch(
    settings: Settings, store_id: str, repository: str, branch: str
) -> Path | None:
    """Returns a folder in a live mount where a branch can be written; None if there is none."""
    for record in registry.records(settings):
        if record.store_id == store_id and not record.read_only and record.is_running:
            spec = None if record.spec is None else parse_spec(record.spec)
            found = shown_at(record, repository, branch, b"" if spec is None else spec.path)
            if found is not None:
                return found
    return None


def _read(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


class MountedWorkspace:
    """A branch's workspace, by way of the daemon that owns it. Blocks as long as that works."""

    def __init__(
        self, settings: Settings, record: MountRecord, repository: str, branch: str
    ) -> None:
        self._settings = settings
        self._record = record
        self.store_id = record.store_id
        self._repository = repository
        self._branch = branch

    def read(self, path: bytes, size: int) -> bytes | None:
        """Returns the first bytes of a file; None if the mount does not show it."""
        shown = shown_at(self._record, self._repository, self._branch, path)
        try:
            return None if shown is None else _read(shown, size)
        except OSError:
            return None

    def flush(self) -> None:
        """Has the kernel give the daemon what programs wrote through shared mappings.

        Only a process that is not the daemon can wait for that.
        """
        write_back(self._record.mountpoint, syncfs)

    def status(self) -> NodeRef:
        """Returns the base: the commit that the changes are on top of."""
        return decode_base(bytes.fromhex(self._ask("status", limit=0)["base_ref"]))

    def changes(self, *, full: bool) -> Iterator[Change]:
        """Yields what is changed; ``full`` tells each path, as a diff of two versions does."""
        import tempfile

        from versionfs.fuse.changes import decode_change

        folder = self._settings.state_dir / "mounts"
        with tempfile.NamedTemporaryFile("r", encoding="ascii", dir=folder, suffix=".part") as file:
            self._ask("status", limit=0, full=full, file=file.name)
            for line in file:
                yield decode_change(json.loads(line))

    def commit(self, message: str, author: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Commits; returns the summary."""
        reply = self._ask("commit", message=message, author=author, metadata=dict(metadata))
        result: dict[str, Any] = reply["result"]
        return result

    def restore(self, paths: Sequence[bytes]) -> int:
        """Discards what is changed at and below paths; returns how many names were."""
        return int(self._ask("restore", paths=[os.fsdecode(path) for path in paths])["restored"])

    def move(self, name: str) -> None:
        """Moves the changes to a new branch; the mount shows them there when it returns."""
        self._ask("move", to=name)
        self._branch = name
        record = mount_of(self._settings, self._record.pid) or self._record
        shown = shown_at(record, self._repository, name)
        if shown is not None:
            with suppress(OSError):
                # So that the kernel finds the folder that programs are in under its new name.
                shown.stat()

    def _ask(self, what: str, **more: object) -> control.Reply:
        """Asks the daemon, and waits as long as it lives.

        Raises:
            NotOwnerError: it does not own the workspace (any more).
            MountError: it ended before it answered.
            VersionFSError: what it answered.
        """
        files = registry.files_of(self._settings, Path(self._record.mountpoint))
        request: control.Request = {"op": f"workspace-{what}", **more}
        request |= {"repository": self._repository, "branch": self._branch}
        record = self._record
        reply = control.ask(files.socket, request, _ASK_SECONDS, lambda: record.is_running)
        if reply is None:
            if not record.is_running:
                raise NotOwnerError(
                    f"the daemon of {record.mountpoint} ended before it answered",
                    hint=f"its log is {files.log}; what was written is kept: run it again",
                )
            raise MountError(
                f"the daemon of {record.mountpoint} does not answer", hint=f"its log is {files.log}"
            )
        if not reply.get("ok"):
            raise failure_in(reply, files.log)
        if not reply.get("owned"):
            raise NotOwnerError(f"the mount on {record.mountpoint} gave the workspace up")
        return reply


def failure_in(reply: control.Reply, log_file: Path) -> VersionFSError:
    """Returns the error that a daemon answered; ``log_file`` is its log."""
    failure = reply.get("failure")
    if failure is not None:
        return decode_error(failure)
    return MountError(f"the mount failed: {reply.get('error')}", hint=f"see {log_file}")


class NotOwnerError(MountError):
    """The daemon has ended, or does not own the workspace; look for its owner again."""
