"""``versionfs mount``, ``umount``, ``mounts``: versions as folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from versionfs.cli.command import command
from versionfs.cli.formats import local_time, screen_time
from versionfs.cli.output import Column
from versionfs.cli.session import Session

if TYPE_CHECKING:
    from versionfs.fuse import MountInfo


_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LEAST_SECONDS: Final = 1


def _parse_auto_commit(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    """Returns ``on-unmount``, or an interval as a number of seconds."""
    from versionfs.fuse.request import ON_UNMOUNT

    if value is None or value == ON_UNMOUNT:
        return value
    found = re.fullmatch(r"([0-9]{1,6})([smhd]?)", value)
    seconds = int(found[1]) * _UNITS[found[2] or "s"] if found else 0
    if seconds < _LEAST_SECONDS:
        raise click.BadParameter(f"{value!r} is not like 90s, 10m, 2h or {ON_UNMOUNT}")
    return str(seconds)


@command(
    "mount",
    example="""
        versionfs mount ~/data
        versionfs mount ~/photos-1.0 photos@v1.0
        versionfs mount ~/work photos/main --auto-commit 10m
    """,
)
@click.argument("mountpoint")
@click.argument("spec", required=False)
@click.option("--foreground", is_flag=True, help="Stay in the foreground until it is unmounted.")
@click.option("--allow-other", is_flag=True, help="Let other users read the mount.")
@click.option("--read-only", is_flag=True, help="Branch folders cannot be written either.")
@click.option(
    "--auto-commit",
    metavar="INTERVAL|on-unmount",
    callback=_parse_auto_commit,
    help="Commit changes every INTERVAL (90s, 10m, 2h) and on unmount, or only on unmount.",
)
@click.option(
    "--refresh",
    type=click.FloatRange(min=0.1, max=86_400),
    metavar="SECONDS",
    help="How often to look for what other machines committed to a remote store; 5 if not given.",
)
@click.pass_obj
def mount_command(
    session: Session,
    mountpoint: str,
    spec: str | None,
    foreground: bool,
    allow_other: bool,
    read_only: bool,
    auto_commit: str | None,
    refresh: float | None,
) -> None:
    """Shows every version of every repository as a folder below MOUNTPOINT.

    With SPEC, one repository, branch or version is the root. MOUNTPOINT is an empty folder. The
    command returns when the mount serves; a process in the background goes on serving it.

    Branch folders can be written; what is changed there stays on this machine until it is committed
    (see commit). All other folders show versions, which never change.
    """
    from versionfs.cli.targets import Target, format_spec, read_target
    from versionfs.fuse import mount

    target = read_target(session, spec) if spec is not None else Target(None)
    settings = session.settings_for(target.store)
    if refresh is not None:
        settings = settings._replace(refresh_seconds=refresh)
    shown = "the store" if target.spec is None else format_spec(target.spec)
    if read_only and auto_commit:
        raise click.UsageError("--auto-commit cannot go with --read-only")
    mount(
        settings,
        Path(mountpoint),
        target.spec,
        foreground=foreground,
        allow_other=allow_other,
        read_only=read_only,
        auto_commit=auto_commit,
    )
    if foreground:
        return
    if session.output.json:
        session.output.document(
            {
                "mountpoint": str(Path(mountpoint).resolve()),
                "spec": format_spec(target.spec) if target.spec else None,
                "store": settings.store,
            }
        )
        return
    session.output.line(f"mounted {shown} on {mountpoint}")


@command("umount", example="versionfs umount ~/data")
@click.argument("mountpoints", metavar="MOUNTPOINT...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Take it out of sight at once, even if it is in use.")
@click.pass_obj
def umount_command(session: Session, mountpoints: tuple[str, ...], force: bool) -> None:
    """Ends mounts and waits until they are gone; cleans up after a daemon that was killed."""
    from versionfs.fuse import unmount

    for mountpoint in mountpoints:
        unmount(session.settings, Path(mountpoint), force=force)
    if session.output.json:
        session.output.document({"unmounted": list(mountpoints)})


@command("mounts", example="versionfs mounts --json")
@click.pass_obj
def mounts_command(session: Session) -> None:
    """Lists the mounts of this machine and user.

    Plain lines have the fields: mount point, SPEC (empty for a whole store), store, process id,
    start time, and alive or dead.
    """
    from versionfs.fuse import mounts

    session.output.records(
        mounts(session.settings),
        as_json=_mount_json,
        as_plain=lambda mount: [
            str(mount.mountpoint),
            str(mount.spec or ""),
            str(mount.store),
            str(mount.pid),
            local_time(mount.started_ns),
            "alive" if mount.alive else "dead",
        ],
        columns=[
            Column("MOUNTPOINT", "blue"),
            Column("SPEC"),
            Column("STORE"),
            Column("PID", right=True),
            Column("SINCE"),
            Column("STATE"),
        ],
        as_cells=lambda mount: [
            str(mount.mountpoint),
            str(mount.spec or "(all)"),
            str(mount.store),
            str(mount.pid),
            screen_time(mount.started_ns),
            "alive" if mount.alive else "dead",
        ],
    )


def _mount_json(mount: MountInfo) -> dict[str, Any]:
    return {
        "mountpoint": str(mount.mountpoint),
        "spec": str(mount.spec) if mount.spec else None,
        "store": str(mount.store),
        "pid": mount.pid,
        "started": local_time(mount.started_ns),
        "started_ns": mount.started_ns,
        "alive": mount.alive,
    }
