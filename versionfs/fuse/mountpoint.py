"""Mount points: what is mounted where, whether one can be used, cleaning up, unmounting.

Nothing here touches a path below a mount point that may be dead or hanging, except with a time
limit: the kernel's table (/proc/self/mountinfo) tells what is mounted.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import subprocess
import threading
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final, NamedTuple

from versionfs.errors import MountError

FILE_SYSTEM: Final = "fuse.versionfs"
"""The type of our mounts in the kernel's table."""

_PROBE_SECONDS: Final = 3.0
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


class MountEntry(NamedTuple):
    """A line of the kernel's mount table. ``device`` is ``major:minor``."""

    mountpoint: Path
    device: str
    kind: str


class Health(Enum):
    """What a mount of ours does when it is asked for something."""

    SERVING = auto()
    DEAD = auto()
    """Its daemon is gone: every access fails."""
    HANGING = auto()


def mount_table() -> list[MountEntry]:
    """Returns what is mounted, later mounts last."""
    entries = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        path = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
        kind = fields[fields.index(b"-", 6) + 1]
        entries.append(MountEntry(Path(os.fsdecode(path)), fields[2].decode(), os.fsdecode(kind)))
    return entries


def mounted_at(path: Path) -> MountEntry | None:
    """Returns what is mounted on top at a path, None if it is no mount point."""
    found = [entry for entry in mount_table() if entry.mountpoint == path]
    return found[-1] if found else None


def absolute(path: Path) -> Path:
    """Returns a path without symlinks, and does not look at what is mounted there itself."""
    text = os.path.abspath(path)
    if mounted_at(Path(text)) is not None:
        return Path(text)
    return Path(os.path.realpath(text))


def health(entry: MountEntry) -> Health:
    """Asks a mount of ours for something the kernel has not cached, with a time limit."""
    outcome: list[Health] = []

    def probe() -> None:
        try:
            os.getxattr(entry.mountpoint, "user.versionfs.ref")
        except OSError as error:
            dead = error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
            outcome.append(Health.DEAD if dead else Health.SERVING)
        else:
            outcome.append(Health.SERVING)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return outcome[0] if outcome else Health.HANGING


def check_requirements() -> None:
    """Checks what every mount needs of the machine.

    Raises:
        MountError: /dev/fuse, fusermount3 or pyfuse3 is missing, or may not be used.
    """
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise MountError(
            "there is no /dev/fuse",
            hint="load it with `modprobe fuse`; in a container, start it with --device /dev/fuse "
            "--cap-add SYS_ADMIN",
        ) from error
    except PermissionError as error:
        raise MountError(
            "no permission to open /dev/fuse",
            hint="ask for read and write permission on it, or run as a user that has it",
        ) from error
    except OSError as error:
        raise MountError(
            f"/dev/fuse cannot be opened: {os.strerror(error.errno or 0)}",
            hint="load it with `modprobe fuse`",
        ) from error
    if shutil.which("fusermount3") is None:
        raise MountError(
            "fusermount3 is not installed", hint="install it, for example `apt install fuse3`"
        )
    # Only looked for: the daemon imports it, and nobody else has to.
    if importlib.util.find_spec("pyfuse3") is None:
        raise MountError(
            "a mount needs pyfuse3, which is not installed",
            hint="install libfuse3 and its headers, pkg-config and gcc, then `pip install pyfuse3`",
        )


def prepare(mountpoint: Path) -> None:
    """Checks that a directory can be mounted on; cleans up after a daemon that was killed.

    Raises:
        MountError: it is missing, no directory, not empty, a mount point, or not ours to use.
    """
    entry = mounted_at(mountpoint)
    if entry is not None:
        _clear(entry)
    try:
        names = os.listdir(mountpoint)
    except FileNotFoundError as error:
        raise MountError(
            f"{mountpoint} does not exist", hint=f"make it with `mkdir -p {mountpoint}`"
        ) from error
    except NotADirectoryError as error:
        raise MountError(
            f"{mountpoint} is not a directory", hint="mount on an empty directory"
        ) from error
    except PermissionError as error:
        raise MountError(
            f"no permission to read {mountpoint}", hint="mount on a directory of your own"
        ) from error
    if names:
        raise MountError(
            f"{mountpoint} is not empty: the mount would hide what is in it",
            hint="mount on an empty directory",
        )
    if not os.access(mountpoint, os.W_OK):
        raise MountError(
            f"no permission to write to {mountpoint}, which a mount on it needs",
            hint="mount on a directory of your own",
        )


def _clear(entry: MountEntry) -> None:
    """Takes away a mount whose daemon is dead.

    Raises:
        MountError: it is not ours, or lives.
    """
    if entry.kind != FILE_SYSTEM:
        raise MountError(
            f"{entry.mountpoint} is already a mount point, of a file system of type {entry.kind}",
            hint="mount on another directory",
        )
    state = health(entry)
    if state is Health.DEAD:
        detach(entry.mountpoint, lazy=True)
    elif state is Health.HANGING:
        raise MountError(
            f"{entry.mountpoint} is a versionfs mount that does not answer",
            hint=f"end it with `versionfs umount --force {entry.mountpoint}`",
        )
    else:
        raise MountError(
            f"{entry.mountpoint} is already a versionfs mount",
            hint=f"end it with `versionfs umount {entry.mountpoint}`",
        )


def detach(mountpoint: Path, *, lazy: bool) -> None:
    """Unmounts; ``lazy`` takes the mount out of sight and ends it when nobody uses it any more.

    Raises:
        MountError: it is in use (the message names who uses it), or may not be unmounted.
    """
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", os.fspath(mountpoint)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except FileNotFoundError as error:
        raise MountError(
            "fusermount3 is not installed", hint="install it, for example `apt install fuse3`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MountError(
            f"unmounting {mountpoint} takes too long",
            hint=f"try `versionfs umount --force {mountpoint}`",
        ) from error
    if done.returncode == 0:
        return
    said = done.stderr.decode("utf-8", "replace").strip().removeprefix("fusermount3: ")
    if "busy" in said:
        users = users_of(mountpoint)
        named = f" by {', '.join(users)}" if users else ""
        raise MountError(
            f"{mountpoint} is in use{named}",
            hint="leave it and close its files, or use `umount --force`",
        )
    raise MountError(f"cannot unmount {mountpoint}: {said}", hint="only its owner or root can")


def users_of(mountpoint: Path, limit: int = 5) -> list[str]:
    """Returns the processes that use a mount, as ``name (pid)``, as far as we may know."""
    prefix = os.fspath(mountpoint)
    found: list[str] = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or len(found) > limit:
            continue
        if any(path == prefix or path.startswith(prefix + "/") for path in _paths_used(process)):
            try:
                name = (process / "comm").read_text("utf-8", "replace").strip()
            except OSError:
                continue
            found.append(f"{name} ({process.name})")
    return [*found[:limit], "others"] if len(found) > limit else found


def _paths_used(process: Path) -> list[str]:
    paths = []
    links = [process / "cwd", process / "root", process / "exe"]
    with suppress(OSError):
        links += (process / "fd").iterdir()
    for link in links:
        try:
            paths.append(os.readlink(link))
        except OSError:
            continue
    try:
        for line in (process / "maps").read_text("utf-8", "surrogateescape").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6:
                paths.append(fields[5])
    except OSError:
        pass
    return paths


def set_read_ahead(mountpoint: Path, kib: int) -> bool:
    """Sets how far the kernel reads ahead in a mount; only root may. Returns whether it is set."""
    entry = mounted_at(mountpoint)
    if entry is None:
        return False
    try:
        Path(f"/sys/class/bdi/{entry.device}/read_ahead_kb").write_text(f"{kib}\n", "ascii")
    except OSError:
        return False
    return True
