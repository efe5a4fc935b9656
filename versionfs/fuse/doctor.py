"""What a mount needs of this machine, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from versionfs.config import Settings
from versionfs.errors import VersionFSError

_FREE_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and what to do if it is not ``ok``."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


def checks(settings: Settings | None = None) -> list[Check]:
    """Returns all checks. Those of the store and the disk need ``settings``; nothing is changed."""
    found = [_device(), _fusermount(), _pyfuse3(), _compiled(), _allow_other(), _lmdb()]
    if settings is not None:
        found += [_store(settings), _disk(settings)]
    return found


def _device() -> Check:
    path = Path("/dev/fuse")
    if not path.exists():
        return Check(
            "/dev/fuse",
            False,
            "there is none",
            "`modprobe fuse`; in a container: --device /dev/fuse --cap-add SYS_ADMIN",
        )
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Check(
            "/dev/fuse",
            False,
            f"cannot be opened: {os.strerror(error.errno or 0)}",
            "`modprobe fuse`, and read and write permission for this user",
        )
    return Check("/dev/fuse", True, "can be opened")


def _fusermount() -> Check:
    found = shutil.which("fusermount3")
    if found is None:
        return Check("fusermount3", False, "not found", "install it: `apt install fuse3`")
    if os.geteuid() != 0 and not os.stat(found).st_mode & 0o4000:
        return Check(
            "fusermount3",
            False,
            f"{found} is not set-user-id root",
            f"`chmod u+s {found}` as root, or install the package anew",
        )
    return Check("fusermount3", True, found)


def _pyfuse3() -> Check:
    try:
        import pyfuse3
    except ImportError as error:
        return Check(
            "pyfuse3",
            False,
            str(error),
            "`apt install fuse3 libfuse3-dev pkg-config gcc python3-dev`, then install versionfs",
        )
    return Check("pyfuse3", True, f"pyfuse3 {pyfuse3.__version__}")


def _compiled() -> Check:
    """Looks for what was compiled with this package; all works without it."""
    wanted = ("versionfs._syscalls", "versionfs.tree._numbers", "versionfs.fuse._accelerator")
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if not missing:
        return Check("compiled parts", True, "all there")
    return Check(
        "compiled parts",
        True,
        f"missing: {', '.join(missing)} (they are optional)",
        "mounts and imports are faster with them: `apt install gcc libfuse3-dev pkg-config "
        "python3-dev`, then install versionfs anew",
    )


def _allow_other() -> Check:
    """Looks for what --allow-other needs; without it a mount works, for its user only."""
    if os.geteuid() == 0:
        return Check("--allow-other", True, "root may always")
    try:
        lines = Path("/etc/fuse.conf").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    if any(line.strip() == "user_allow_other" for line in lines):
        return Check("--allow-other", True, "user_allow_other is set in /etc/fuse.conf")
    return Check(
        "--allow-other",
        True,
        "only for root (this is optional)",
        "to let other users read your mounts, put the line user_allow_other into /etc/fuse.conf",
    )


def _lmdb() -> Check:
    try:
        import lmdb

        with (
            tempfile.TemporaryDirectory(prefix="versionfs-") as folder,
            lmdb.open(folder, map_size=1 << 20) as environment,
            environment.begin(write=True) as transaction,
        ):
            transaction.put(b"key", b"value")
    except Exception as error:  # noqa: BLE001  (whatever it is, it is what is wrong)
        return Check("LMDB", False, str(error), "install versionfs anew: `pip install lmdb`")
    try:
        release = version("lmdb")
    except PackageNotFoundError:
        release = ""
    return Check("LMDB", True, f"lmdb {release}".strip())


def _store(settings: Settings) -> Check:
    from versionfs.repo import Store

    try:
        with Store.open(settings) as store:
            return Check("store", True, store.url)
    except VersionFSError as error:
        return Check("store", False, error.message, error.hint)


def _disk(settings: Settings) -> Check:
    folder = settings.state_dir
    if "://" not in settings.store:
        folder = Path(settings.store)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free at {folder}"
    if free < _FREE_BYTES:
        return Check("disk space", False, detail, "make room, or move the store (VERSIONFS_HOME)")
    return Check("disk space", True, detail)
