"""The process that serves a mount: ``python -m versionfs.fuse``, request on its stdin.

It says on its stdout how the start went, as one line of JSON, and then only writes its log.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

import pyfuse3
import trio

from versionfs.errors import MountError, VersionFSError
from versionfs.fuse import accelerator, answering, control, registry, spin
from versionfs.fuse.answers import answers
from versionfs.fuse.dropping import Dropper
from versionfs.fuse.memory import begin_to_collect, keep_freed_memory
from versionfs.fuse.mountpoint import FILE_SYSTEM, set_read_ahead
from versionfs.fuse.operations import TASKS, Operations
from versionfs.fuse.refresher import Refresher
from versionfs.fuse.request import ON_UNMOUNT, MountRequest, encode_error
from versionfs.fuse.workspaces import WorkspaceService, commit_at_end
from versionfs.fuse.writable import WritableOperations
from versionfs.objectstore import never_blocking
from versionfs.repo import Store, parse_spec
from versionfs.vfs import FileSystem, Owner

log = logging.getLogger(__name__)

READ_AHEAD_KIB: Final = 1024
"""128 KiB, the default, is 3 to 4 times slower (PERFORMANCE.md). Takes root to set."""

BY_INTERVAL: Final = "Automatic commit"
AT_END: Final = "Automatic commit on unmount"

_LOG_BYTES: Final = 4 * 1024 * 1024
_STOP_SECONDS: Final = 0.05
"""Leaves time for the answer to the one who asked to stop."""


def serve(request: MountRequest, ready: Callable[[], None]) -> None:
    """Mounts and serves until the mount ends; calls ``ready`` when it serves.

    Raises:
        VersionFSError: the mount cannot be made.
    """
    with Store.open(request.settings) as store:
        owner = Owner(os.geteuid(), os.getegid())
        filesystem = FileSystem(store, request.spec, owner, writable=not request.read_only)
        files = registry.files_of(request.settings, request.mountpoint)
        files.record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        listener = answering.listen(files.socket)
        spin.enable()
        operations = (Operations if request.read_only else WritableOperations)(filesystem)
        compiled = accelerator.loaded()
        if compiled is not None:
            branches = operations if isinstance(operations, WritableOperations) else None
            # Nobody tells when a file is closed then: what is read ahead would go on.
            without_open = request.read_only and store.objects.is_local
            # The kernel keeps the listings of all directories then.
            without_opendir = filesystem.is_snapshot and _can_do_without_opendir()
            spins = spin.is_useful()
            compiled.arm(answers(filesystem, branches), without_open, without_opendir, spins)
        try:
            _mount(request, operations)
            if compiled is not None:
                if compiled.start():
                    filesystem.opened.by_number = without_opendir
                else:
                    log.warning("the compiled part does not fit this libfuse: the mount is slower")
            try:
                record = _record(request, store)
                registry.write(request.settings, record)
                begin_to_collect()
                with never_blocking():
                    trio.run(_serve, request, store, filesystem, operations, listener, ready)
            finally:
                # A no-op if somebody else has unmounted it already.
                pyfuse3.close(unmount=True)
                if filesystem.branches is not None:
                    # Here it makes no difference how the mount came to its end.
                    if request.auto_commit is not None:
                        author = request.settings.author
                        commit_at_end(filesystem.branches, AT_END, author)
                    filesystem.branches.close()
        finally:
            listener.close()
            current = registry.read(request.settings, request.mountpoint)
            if current is None or current.pid == os.getpid():
                registry.remove(request.settings, request.mountpoint)


def _can_do_without_opendir() -> bool:
    """Whether the kernel takes ENOSYS for "do not ask": since Linux 5.1; before, it is an error."""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (5, 1)


def _mount(request: MountRequest, operations: Operations) -> None:
    # Shown by `df` and `mount`; a path may have any character, so it is left out.
    shown = "" if request.spec is None else str(request.spec._replace(path=b""))
    options = {
        "ro" if request.read_only else "rw",
        "default_permissions",
        f"fsname=versionfs:{shown}",
        f"subtype={FILE_SYSTEM.partition('.')[2]}",
    }
    if request.allow_other:
        options.add("allow_other")
    try:
        pyfuse3.init(operations, os.fspath(request.mountpoint), options)
    except RuntimeError as error:
        raise MountError(
            f"cannot mount on {request.mountpoint}", hint="`versionfs doctor` says what is missing"
        ) from error


def _begin(mountpoint: Path, ready: Callable[[], None]) -> None:
    """Says that the mount serves, but sets the read-ahead first.

    A file keeps the one that it was opened with: too early, and it is read 128 KiB at a time.
    """
    set_read_ahead(mountpoint, READ_AHEAD_KIB)
    ready()


def _record(request: MountRequest, store: Store) -> registry.MountRecord:
    pid = os.getpid()
    return registry.MountRecord(
        mountpoint=os.fspath(request.mountpoint),
        spec=None if request.spec is None else str(request.spec),
        store=request.settings.store,
        store_id=store.id,
        pid=pid,
        pid_started=registry.process_started(pid) or 0,
        started_ns=time.time_ns(),
        read_only=request.read_only,
        commits_at_end=request.auto_commit is not None,
    )


async def _serve(
    request: MountRequest,
    store: Store,
    filesystem: FileSystem,
    operations: Operations,
    listener: socket.socket,
    ready: Callable[[], None],
) -> None:
    every_seconds = None if store.objects.is_local else request.settings.refresh_seconds
    drop = Dropper()
    refresher = Refresher(filesystem, drop, every_seconds=every_seconds)
    branches = filesystem.branches
    workspaces = (
        None if branches is None else WorkspaceService(store, branches, refresher.refresh, drop)
    )

    async def answer(message: control.Request) -> control.Reply:
        match message.get("op"):
            case "refresh":
                repository = message.get("repository")
                await refresher.refresh(None if repository is None else str(repository))
                return {}
            case "status":
                return {"pid": os.getpid(), "mountpoint": os.fspath(request.mountpoint)}
            case "statistics":
                # The size of the disk cache may have to be counted.
                transfers = await trio.to_thread.run_sync(store.transfers)
                found = filesystem.statistics()
                requests = accelerator.added_to(found.requests)
                return {
                    "statistics": asdict(replace(found, requests=requests)),
                    "transfers": transfers._asdict(),
                    "trees": store.trees.statistics()._asdict(),
                    "contents": store.contents.statistics()._asdict(),
                }
            case "stop":
                nursery.start_soon(_stop_soon, operations)
                return {}
            case str() as op if op.startswith("workspace-"):
                if workspaces is None:
                    return {"owned": False}
                reply = await workspaces.answer(message)
                if op == "workspace-move" and reply["owned"]:
                    _note_move(
                        request, str(message["repository"]), message["branch"], message["to"]
                    )
                return reply
        raise ValueError("unknown op")

    async def stop_on_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                log.info("ending the mount on signal %s", signal.Signals(number).name)
                _stop(operations)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal)
        nursery.start_soon(answering.serve, listener, answer)
        nursery.start_soon(refresher.poll)
        nursery.start_soon(drop.repeat)
        if workspaces is not None:
            nursery.start_soon(workspaces.tidy)
        if workspaces is not None and request.auto_commit not in (None, ON_UNMOUNT):
            assert request.auto_commit is not None
            nursery.start_soon(_commit_every, workspaces, float(request.auto_commit), request)
        nursery.start_soon(_in_thread, partial(_begin, request.mountpoint, ready))
        log.info("serving %s at %s", request.spec or "the store", request.mountpoint)
        await pyfuse3.main(max_tasks=TASKS)
        if workspaces is not None:
            workspaces.end()
        nursery.cancel_scope.cancel()
    log.info("the mount %s has ended", request.mountpoint)


async def _commit_every(
    workspaces: WorkspaceService, seconds: float, request: MountRequest
) -> None:
    while True:
        await trio.sleep(seconds)
        await workspaces.commit_all(BY_INTERVAL, request.settings.author)


def _note_move(request: MountRequest, repository: str, branch: str, to: str) -> None:
    """Writes down that a mount of one branch shows another now: that which has the work."""
    record = registry.read(request.settings, request.mountpoint)
    if record is None or record.spec is None or record.pid != os.getpid():
        return
    spec = parse_spec(record.spec)
    if (spec.repository, spec.branch, spec.revision) == (repository, branch, None):
        changed = record._replace(spec=str(spec._replace(branch=to)))
        registry.write(request.settings, changed)


async def _in_thread(work: Callable[[], object]) -> None:
    await trio.to_thread.run_sync(work, abandon_on_cancel=True)


async def _stop_soon(operations: Operations) -> None:
    await trio.sleep(_STOP_SECONDS)
    _stop(operations)


def _stop(operations: Operations) -> None:
    operations.end()
    pyfuse3.terminate()


def log_to(path: Path) -> None:
    """Sends the log of this process to a file that keeps to a bounded size."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def main() -> int:
    """Runs the daemon; returns its exit code."""
    request = MountRequest.decode(sys.stdin.buffer.read())
    answers = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    keep_freed_memory()
    log_to(registry.files_of(request.settings, request.mountpoint).log)
    os.chdir("/")

    def tell(message: Mapping[str, Any]) -> None:
        with suppress(OSError):
            os.write(answers, json.dumps(message).encode("ascii") + b"\n")
            os.close(answers)

    try:
        serve(request, lambda: tell({"ok": True, "pid": os.getpid()}))
    except Exception as error:
        if isinstance(error, VersionFSError):
            log.error("%s", error)
        else:
            log.exception("the daemon failed")
        tell(encode_error(error))
        return 1
    return 0
