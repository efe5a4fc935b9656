"""Mounting and unmounting, as the command line does it; the daemon is in ``daemon``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import versionfs
from versionfs.config import Settings
from versionfs.errors import MountError
from versionfs.fuse import control, registry
from versionfs.fuse.mountpoint import (
    FILE_SYSTEM,
    Health,
    absolute,
    check_requirements,
    detach,
    health,
    mount_table,
    mounted_at,
    prepare,
)
from versionfs.fuse.registry import MountInfo, MountRecord
from versionfs.fuse.request import MountRequest, decode_error
from versionfs.repo.spec import Spec

_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 15.0
_ANSWER_SECONDS: Final = 5.0


def mount(
    settings: Settings,
    mountpoint: Path,
    spec: Spec | None,
    *,
    foreground: bool = False,
    allow_other: bool = False,
    read_only: bool = False,
    auto_commit: str | None = None,
) -> None:
    """Mounts a store, or what ``spec`` names of it; returns when the mount serves.

    A daemon in the background goes on serving it. With ``foreground`` this process serves it, and
    the call returns when the mount has ended. ``auto_commit`` is as in :class:`MountRequest`.

    Raises:
        MountError: the machine or the mount point is not fit for it; a mount is there already.
        NotFoundError: there is no such store, or nothing that the spec names.
    """
    check_requirements()
    mountpoint = absolute(mountpoint)
    prepare(mountpoint)
    registry.remove(settings, mountpoint)
    request = MountRequest(settings, mountpoint, spec, allow_other, read_only, auto_commit)
    if foreground:
        # Only here and in the daemon: it takes pyfuse3 and trio.
        from versionfs.fuse.daemon import log_to, serve

        log_to(registry.files_of(settings, mountpoint).log)
        serve(request, lambda: None)
        return
    _start_daemon(request)


def _start_daemon(request: MountRequest) -> None:
    log = registry.files_of(request.settings, request.mountpoint).log
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment = dict(os.environ)
    package = os.fspath(Path(versionfs.__file__).resolve().parent.parent)
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = package + (os.pathsep + inherited if inherited else "")
    with log.open("ab") as errors:
        before = errors.tell()
        daemon = subprocess.Popen(
            [sys.executable, "-m", "versionfs.fuse"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=environment,
        )
    assert daemon.stdin is not None
    assert daemon.stdout is not None
    # A store that does not answer is given up after its time-out, which may come a few times.
    seconds = _START_SECONDS + 3 * request.settings.timeout_seconds
    timer = threading.Timer(seconds, daemon.kill)
    timer.daemon = True
    timer.start()
    with daemon.stdin, daemon.stdout:
        with suppress(BrokenPipeError):
            daemon.stdin.write(request.encode())
            daemon.stdin.close()
        line = daemon.stdout.readline()
    timer.cancel()
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        daemon.wait()
        raise MountError(
            f"the daemon of {request.mountpoint} ended before it served",
            hint=f"its log is {log}",
        ) from None
    if not answer.get("ok"):
        daemon.wait()
        error = decode_error(answer)
        said = _said(log, before) if isinstance(error, MountError) else ""
        if said:
            error = MountError(f"{error.message}: {said}", hint=error.hint)
        raise error
    entry = mounted_at(request.mountpoint)
    if entry is None or entry.kind != FILE_SYSTEM or health(entry) is not Health.SERVING:
        daemon.terminate()
        raise MountError(
            f"the mount on {request.mountpoint} does not answer", hint=f"its log is {log}"
        )
    # It lives on: no warning about a process that nobody waits for.
    daemon.returncode = 0


def _said(log: Path, start: int) -> str:
    """Returns what libfuse and fusermount3 wrote to standard error."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = file.read(8192).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    fitting = [line for line in lines if line.startswith(("fuse", "mount"))]
    return "; ".join(fitting)


def unmount(settings: Settings, mountpoint: Path, *, force: bool = False) -> None:
    """Ends a mount and waits until its daemon has ended; cleans up after one that was killed.

    ``force`` takes it out of sight even if it is in use, or does not answer: it ends when the last
    process lets go of it.

    Raises:
        MountError: nothing of ours is mounted there, or it is in use.
    """
    mountpoint = absolute(mountpoint)
    record = registry.read(settings, mountpoint)
    entry = mounted_at(mountpoint)
    if entry is None:
        if record is not None:
            registry.remove(settings, mountpoint)
            if not record.is_running:
                return
        raise MountError(f"{mountpoint} is not mounted", hint="`versionfs mounts` lists what is")
    if entry.kind != FILE_SYSTEM:
        raise MountError(
            f"{mountpoint} is a mount of type {entry.kind}, not of versionfs",
            hint=f"use `umount {mountpoint}`",
        )
    dead = health(entry) is Health.DEAD
    detach(mountpoint, lazy=dead or force)
    if dead or record is None:
        registry.remove(settings, mountpoint)
    elif not force:
        _wait_for_end(record, mountpoint)


def _wait_for_end(record: MountRecord, mountpoint: Path) -> None:
    deadline = time.monotonic() + _END_SECONDS
    while record.is_running:
        if time.monotonic() > deadline and not record.commits_at_end:
            raise MountError(
                f"{mountpoint} is unmounted, but its daemon {record.pid} has not ended",
                hint=f"look into its log, or end it with `kill {record.pid}`",
            )
        with suppress(ChildProcessError):
            os.waitpid(record.pid, os.WNOHANG)
        time.sleep(0.005)


def mounts(settings: Settings) -> list[MountInfo]:
    """Returns the mounts of this user and home, those with a dead daemon as well."""
    table = {entry.mountpoint for entry in mount_table() if entry.kind == FILE_SYSTEM}
    found = []
    for record in registry.records(settings):
        path = Path(record.mountpoint)
        running = record.is_running
        if not running and path not in table:
            registry.remove(settings, path)
            continue
        alive = running and path in table
        found.append(
            MountInfo(path, record.spec, record.store, record.pid, record.started_ns, alive)
        )
    return found


def statistics(settings: Settings, store_id: str) -> list[tuple[MountInfo, control.Reply]]:
    """Returns what each live mount of a store did: its answer to the request ``statistics``."""
    found = []
    for record in registry.records(settings):
        if record.store_id != store_id or not record.is_running:
            continue
        mountpoint = Path(record.mountpoint)
        reply = ask(settings, mountpoint, {"op": "statistics"})
        if reply is not None and reply.get("ok"):
            info = MountInfo(
                mountpoint, record.spec, record.store, record.pid, record.started_ns, alive=True
            )
            found.append((info, reply))
    return found


def ask(settings: Settings, mountpoint: Path, message: control.Request) -> control.Reply | None:
    """Sends a request to the daemon of a mount; None if it does not answer."""
    files = registry.files_of(settings, absolute(mountpoint))
    return control.ask(files.socket, message, _ANSWER_SECONDS)
