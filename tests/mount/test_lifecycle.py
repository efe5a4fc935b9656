"""Mounting, unmounting, and what goes wrong with them."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from versionfs import fuse
from versionfs.errors import MountError, NotFoundError
from versionfs.fuse import control, registry
from versionfs.fuse.daemon import READ_AHEAD_KIB
from versionfs.fuse.mountpoint import mounted_at
from versionfs.repo import parse_spec


def test_mount_and_unmount(photos):
    data = photos.mount()
    assert (data / "photos/main/a.txt").exists()
    (found,) = fuse.mounts(photos.settings)
    assert (found.mountpoint, found.spec, found.alive) == (data, None, True)
    assert found.store == photos.settings.store
    record = photos.record(data)
    fuse.unmount(photos.settings, data)
    assert not record.is_running
    assert os.listdir(data) == []
    assert fuse.mounts(photos.settings) == []
    files = registry.files_of(photos.settings, data)
    assert not files.record.exists()
    assert not files.socket.exists()


def test_several_mounts(photos):
    one = photos.mount(name="one")
    two = photos.mount("photos@v1.0", name="two")
    assert {(m.mountpoint, m.spec) for m in fuse.mounts(photos.settings)} == {
        (one, None), (two, "photos@v1.0")
    }  # fmt: skip
    photos.commit({b"a.txt": b"new\n"})
    assert (one / "photos/main/a.txt").read_text() == "new\n"
    assert (two / "a.txt").read_text() == "one\n"
    fuse.unmount(photos.settings, one)
    assert (two / "a.txt").read_text() == "one\n"


def test_mount_points_that_cannot_be_one(photos, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for name, words in (
        ("missing", "does not exist"),
        ("file", "is not a directory"),
        ("full", "is not empty"),
    ):
        with pytest.raises(MountError, match=words):
            fuse.mount(photos.settings, tmp_path / name, None)
    with pytest.raises(MountError, match="already a mount point, of a file system of type proc"):
        fuse.mount(photos.settings, Path("/proc"), None)
    data = photos.mount()
    with pytest.raises(MountError, match="already a versionfs mount"):
        fuse.mount(photos.settings, data, None)
    assert (data / "photos/main/a.txt").exists()


def test_what_is_not_in_the_store(photos):
    data = photos.folder_for_mount()
    for spec in ("nope", "photos/nope", "photos@nope", "photos:nope"):
        with pytest.raises(NotFoundError):
            fuse.mount(photos.settings, data, parse_spec(spec))
    assert mounted_at(data) is None
    assert fuse.mounts(photos.settings) == []


def test_there_is_no_store(photos, tmp_path):
    from tests.mount.support import settings_at

    data = photos.folder_for_mount()
    with pytest.raises(NotFoundError, match="there is no store at"):
        fuse.mount(settings_at(tmp_path / "elsewhere"), data, None)


def test_missing_requirements(photos, monkeypatch):
    data = photos.folder_for_mount()
    monkeypatch.setattr("versionfs.fuse.mountpoint.shutil.which", lambda name: None)
    with pytest.raises(MountError, match="fusermount3 is not installed"):
        fuse.mount(photos.settings, data, None)
    for error, words in (
        (FileNotFoundError(2, "x"), "there is no /dev/fuse"),
        (PermissionError(13, "x"), "no permission to open /dev/fuse"),
    ):

        def fail(*_, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("versionfs.fuse.mountpoint.os.open", fail)
            with pytest.raises(MountError, match=words):
                fuse.mount(photos.settings, data, None)


def test_unmounting_what_is_not_mounted(photos):
    data = photos.folder_for_mount()
    with pytest.raises(MountError, match="is not mounted"):
        fuse.unmount(photos.settings, data)
    with pytest.raises(MountError, match="not of versionfs"):
        fuse.unmount(photos.settings, Path("/proc"))


def test_a_busy_mount_says_who_uses_it(photos):
    data = photos.mount()
    with subprocess.Popen(["sleep", "60"], cwd=data / "photos/main") as sleeper:
        try:
            with pytest.raises(MountError, match=rf"in use by sleep \({sleeper.pid}\)"):
                fuse.unmount(photos.settings, data)
            assert (data / "photos/main/a.txt").exists()
            record = photos.record(data)
            fuse.unmount(photos.settings, data, force=True)
            assert os.listdir(data) == []
        finally:
            sleeper.kill()
    photos.wait_for_end(record)


@pytest.mark.parametrize("how", ["mount", "umount"])
def test_the_mount_of_a_killed_daemon_is_cleaned_up(photos, how):
    data = photos.mount()
    photos.kill(data)
    with pytest.raises(OSError, match="Errno") as caught:
        os.listdir(data)
    # The second while the kernel still ends what was in flight.
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    (found,) = fuse.mounts(photos.settings)
    assert not found.alive
    if how == "mount":
        photos.mount()
        assert (data / "photos/main/a.txt").exists()
        (found,) = fuse.mounts(photos.settings)
        assert found.alive
    else:
        fuse.unmount(photos.settings, data)
        assert os.listdir(data) == []
        assert fuse.mounts(photos.settings) == []


def test_a_stale_mount_of_another_home_is_cleaned_up_too(photos):
    data = photos.mount()
    photos.kill(data)
    registry.remove(photos.settings, data)
    photos.mount()
    assert (data / "photos/main/a.txt").exists()


def test_committing_beside_a_dead_daemon(photos):
    data = photos.mount()
    photos.kill(data)
    begun = time.monotonic()
    photos.commit({b"a.txt": b"new\n"})
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_mount_cleanly(photos, number):
    data = photos.mount()
    record = photos.record(data)
    os.listdir(data / "photos/main")
    os.kill(record.pid, number)
    photos.wait_for_end(record)
    assert mounted_at(data) is None
    assert fuse.mounts(photos.settings) == []
    assert "Traceback" not in photos.log(data)


def test_unmounted_from_outside(photos):
    data = photos.mount()
    record = photos.record(data)
    os.listdir(data / "photos/main")
    subprocess.run(["fusermount3", "-u", data], check=True)
    photos.wait_for_end(record)
    assert fuse.mounts(photos.settings) == []
    assert "Traceback" not in photos.log(data)


def test_stop_by_the_control_socket(photos):
    data = photos.mount()
    record = photos.record(data)
    assert fuse.ask(photos.settings, data, {"op": "stop"}) == {"ok": True}
    photos.wait_for_end(record)
    assert mounted_at(data) is None


def test_the_control_socket(photos):
    data = photos.mount()
    files = registry.files_of(photos.settings, data)
    assert stat.S_IMODE(files.socket.stat().st_mode) == 0o600
    reply = fuse.ask(photos.settings, data, {"op": "status"})
    assert reply == {"ok": True, "pid": photos.record(data).pid, "mountpoint": str(data)}
    for message in ({"op": "nope"}, {}):
        reply = control.ask(files.socket, message, 5)
        assert reply == {"ok": False, "error": "unknown op"}
    assert "Traceback" not in photos.log(data)
    os.listdir(data / "photos")
    assert photos.statistics(data)["requests"]["readdir"] > 0
    assert photos.statistics(data)["directories"] >= 3


def test_a_home_that_is_too_deep_for_a_socket(world, tmp_path):
    from tests.mount.support import commit, settings_at
    from versionfs.repo import Store

    home = tmp_path / ("x" * 100) / ("y" * 100)
    settings = settings_at(home)
    data = world.folder_for_mount()
    with Store.create(settings) as store:
        commit(store, {b"a": b"1"})
        fuse.mount(settings, data, None)
        try:
            assert (data / "photos/main/a").read_text() == "1"
            commit(store, {b"a": b"2"})
            fuse.notify_moved(settings, store.id, "photos")
            assert (data / "photos/main/a").read_text() == "2"
        finally:
            fuse.unmount(settings, data)


def test_foreground(photos, tmp_path):
    data = photos.folder_for_mount()
    script = (
        "import sys; from pathlib import Path; from versionfs import fuse;"
        "from versionfs.config import load_settings;"
        f"fuse.mount(load_settings({{'VERSIONFS_HOME': {str(tmp_path / 'home')!r}}}),"
        f"Path({str(data)!r}), None, foreground=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        try:
            deadline = time.monotonic() + 30
            while mounted_at(data) is None:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert (data / "photos/main/a.txt").read_text() == "three\n"
            (found,) = fuse.mounts(photos.settings)
            assert (found.pid, found.alive) == (process.pid, True)
            fuse.unmount(photos.settings, data)
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_mounting_costs_the_same_whatever_the_size(world):
    world.commit({b"%05d/%d" % (n, n): b"" for n in range(3_000)})
    data = world.mount("photos/main")
    seen = world.statistics(data)
    assert seen["leaves"] == 0
    assert seen["directories"] == 1
    assert sum(seen["requests"].values()) < 10


def test_allow_other(photos):
    data = photos.mount(allow_other=True)
    entry = subprocess.check_output(["findmnt", "-no", "OPTIONS", data], text=True)
    assert "allow_other" in entry
    if os.geteuid() == 0:
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat",
             f"/proc/self/root{data}/photos/main/a.txt"],
            capture_output=True, check=False,
        )  # fmt: skip
        # pytest's folders are closed to others: what matters is that the mount is not in the way.
        assert done.stdout in (b"three\n", b"")


def test_checks(photos):
    # A process opens the index of a store once.
    photos.store.close()
    found = {check.name: check for check in fuse.checks(photos.settings)}
    assert found["/dev/fuse"].ok
    assert found["fusermount3"].ok
    assert found["pyfuse3"].ok
    assert found["LMDB"].ok
    assert found["store"].ok
    assert found["disk space"].detail
    assert all(check.ok or check.remedy for check in found.values())
    # Without settings there is no store to look at.
    assert {check.name for check in fuse.checks()} == found.keys() - {"store", "disk space"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set it")
def test_the_read_ahead_is_set_before_a_file_can_be_opened(photos):
    for number in range(5):
        entry = mounted_at(photos.mount(name=f"m{number}"))
        assert entry is not None
        told = Path(f"/sys/class/bdi/{entry.device}/read_ahead_kb").read_text()
        assert int(told) == READ_AHEAD_KIB
