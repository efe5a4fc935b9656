"""What is special about the store in a local folder: files, locks, and what disks do."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from versionfs.errors import (
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StorageAuthError,
    StoragePermanentError,
    StorageTransientError,
    VersionFSError,
)
from versionfs.objectstore import LocalStore, create_temporary
from versionfs.objectstore.oserrors import translate

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "versionfs-test", str(folder)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# -- layout ----------------------------------------------------------------------------------------


def test_an_object_is_a_file_at_its_key(store: LocalStore) -> None:
    store.put("packs/ab/x", b"data")
    assert store.local_path("packs/ab/x").read_bytes() == b"data"
    assert store.local_path("packs/ab/x") == store.root / "packs" / "ab" / "x"


def test_reading_makes_nothing(store: LocalStore) -> None:
    assert list(store.list("")) == []
    with pytest.raises(NotFoundError):
        store.read("ref")
    with pytest.raises(NotFoundError):
        store.remove("ref")
    assert store.clean_temporary() == 0
    assert not store.root.exists()


def test_a_failed_write_leaves_no_file(store: LocalStore) -> None:
    store.replace("ref", b"1", None)
    with pytest.raises(VersionFSError):
        store.replace("ref", b"2", None)
    assert files(store.root) == ["lock", "ref"]


@pytest.mark.parametrize("key", ["tmp", "tmp/x", "lock", "lock/x"])
def test_names_that_the_store_uses_are_no_keys(store: LocalStore, key: str) -> None:
    with pytest.raises(InvalidInputError):
        store.put(key, b"")
    with pytest.raises(InvalidInputError):
        store.get(key)
    with pytest.raises(InvalidInputError):
        store.list(key + "/")


def test_files_that_are_no_objects_are_not_listed(store: LocalStore) -> None:
    store.put("packs/ab/x", b"")
    (store.root / ".DS_Store").touch()
    (store.root / "packs" / "a b").touch()
    os.mkfifo(store.root / "packs" / "fifo")
    (store.root / "packs" / "dangling").symlink_to("nowhere")
    (store.root / os.fsdecode(b"packs/\xff")).touch()
    assert [info.key for info in store.list("")] == ["packs/ab/x"]


def test_removing_the_last_object_of_a_folder_removes_the_folder(store: LocalStore) -> None:
    store.put("repos/r/branches/main", b"")
    store.put("repos/r/tags/v1", b"")
    store.remove("repos/r/branches/main")
    assert sorted(p.name for p in (store.root / "repos" / "r").iterdir()) == ["tags"]
    store.remove("repos/r/tags/v1")
    assert not (store.root / "repos").exists()
    store.put("repos/r/branches/main", b"back")
    assert store.get("repos/r/branches/main") == b"back"


def test_put_file_moves_without_copying(store: LocalStore) -> None:
    path, file = create_temporary(store.temporary())
    with file:
        file.write(b"data")
        inode = path.stat().st_ino
        store.put_file("packs/ab/x", path)
    assert store.local_path("packs/ab/x").stat().st_ino == inode


def test_put_file_copies_from_another_file_system(store: LocalStore, small_disk: Path) -> None:
    path = small_disk / "file"
    path.write_bytes(b"from elsewhere")
    store.put_file("packs/ab/x", path)
    assert store.get("packs/ab/x") == b"from elsewhere"
    assert not path.exists()
    assert files(store.root) == ["packs/ab/x"]


# -- temporary files -------------------------------------------------------------------------------


def test_only_the_temporary_files_of_dead_writers_are_removed(store: LocalStore) -> None:
    code = (
        "import sys; from versionfs.objectstore import *\n"
        "path, file = create_temporary(LocalStore(sys.argv[1]).temporary())\n"
        "file.write(b'half'); print(path, flush=True); sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    with writer:
        assert writer.stdout is not None
        orphan = Path(writer.stdout.readline().strip())
        living, file = create_temporary(store.temporary())
        with file:
            assert store.clean_temporary() == 0
            assert orphan.exists()
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            assert store.clean_temporary() == 1
            assert not orphan.exists()
            assert living.exists()
        assert store.clean_temporary() == 1


def test_cleaning_never_takes_the_file_of_a_living_writer(store: LocalStore) -> None:
    done = threading.Event()
    failures: list[BaseException] = []

    def clean() -> None:
        try:
            while not done.is_set():
                store.clean_temporary()
        except BaseException as error:  # noqa: BLE001 - shown by the main thread
            failures.append(error)

    cleaners = [threading.Thread(target=clean) for _ in range(2)]
    for cleaner in cleaners:
        cleaner.start()
    for i in range(200):
        path, file = create_temporary(store.temporary())
        with file:
            file.write(b"%d" % i)
            store.put_file(f"packs/{i % 7}/{i}", path)
    done.set()
    for cleaner in cleaners:
        cleaner.join()
    assert not failures
    assert len(list(store.list(""))) == 200


@pytest.mark.parametrize(
    "call", ["store.put('packs/ab/x', data)", "store.replace('x', data, None)"]
)
def test_a_killed_writer_leaves_the_whole_object_or_none(store: LocalStore, call: str) -> None:
    code = (
        "import sys; from versionfs.objectstore import *\n"
        "store = LocalStore(sys.argv[1]); data = b'x' * (8 << 20)\n"
        f"print('go', flush=True); {call}; print('done', flush=True)\n"
    )
    for delay_seconds in (0.0, 0.001, 0.004, 0.016):
        writer = subprocess.Popen(
            [sys.executable, "-c", code, str(store.root)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "go\n"
            threading.Event().wait(delay_seconds)
            writer.kill()
            promised = writer.stdout.read() == "done\n"
        found = list(store.list(""))
        assert all(info.size == 8 << 20 for info in found)
        assert found or not promised
        for info in found:
            store.remove(info.key)
        store.clean_temporary()
        assert [name for name in files(store.root) if name != "lock"] == []


# -- what goes wrong -------------------------------------------------------------------------------


def test_a_full_disk_is_transient_and_leaves_the_store_as_it_was(small_disk: Path) -> None:
    store = LocalStore(small_disk / "store")
    version = store.replace("ref", b"one", None)
    for _ in range(2):
        with pytest.raises(StorageTransientError, match=r"the disk of the store .* is full"):
            store.put("packs/ab/x", bytes(1 << 20))
        with pytest.raises(StorageTransientError, match="is full"):
            store.replace("ref", bytes(1 << 20), version)
    assert files(store.root) == ["lock", "ref"]
    assert store.read("ref") == (b"one", version)


def test_a_read_only_disk_can_be_read_but_not_written(small_disk: Path) -> None:
    store = LocalStore(small_disk / "store")
    version = store.replace("ref", b"one", None)
    store.put("packs/ab/x", b"data")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert store.read("ref") == (b"one", version)
    assert store.get("packs/ab/x") == b"data"
    for write in (
        lambda: store.put("packs/ab/y", b""),
        lambda: store.replace("ref", b"two", version),
        lambda: store.remove("ref"),
        lambda: store.remove("ref", version),
    ):
        with pytest.raises(ReadOnlyError, match="cannot be written"):
            write()


def test_a_store_of_somebody_else() -> None:
    if os.geteuid():
        pytest.skip("only root may become somebody else")
    code = (
        "import os, sys; from versionfs.objectstore import *; from versionfs.errors import *\n"
        "store = LocalStore(sys.argv[1])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for call in (lambda: store.get('open'), lambda: store.get('secret'),\n"
        "             lambda: store.put('x', b''), lambda: store.remove('open')):\n"
        "    try: print(call())\n"
        "    except VersionFSError as error: print(type(error).__name__)\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest's own may be entered by nobody else
        Path(folder).chmod(0o755)
        store = LocalStore(Path(folder) / "store")
        store.put("open", b"o")
        store.put("secret", b"s")
        store.local_path("secret").chmod(0o600)
        shown = subprocess.run(
            [sys.executable, "-c", code, str(store.root)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
    assert shown.stdout.split() == ["b'o'", "StorageAuthError", "ReadOnlyError", "ReadOnlyError"]


def test_a_folder_where_an_object_should_be_written_is_damage(store: LocalStore) -> None:
    (store.root / "packs" / "ab" / "x").mkdir(parents=True)
    with pytest.raises(StoragePermanentError, match="packs/ab/x"):
        store.put("packs/ab/x", b"data")


def test_a_file_where_a_folder_should_be_is_damage(store: LocalStore) -> None:
    store.root.mkdir()
    (store.root / "packs").touch()
    with pytest.raises(StoragePermanentError, match="packs"):
        store.put("packs/ab/x", b"data")
    assert files(store.root) == ["packs"]


def test_a_fifo_in_place_of_an_object_does_not_block_the_reader(store: LocalStore) -> None:
    store.root.mkdir()
    os.mkfifo(store.root / "x")
    with pytest.raises((NotFoundError, StoragePermanentError)):
        store.get("x", 0, 5)
    with pytest.raises(NotFoundError):
        store.size("x")


@pytest.mark.parametrize(
    ("code", "reading", "writing"),
    [
        (errno.ENOSPC, StorageTransientError, StorageTransientError),
        (errno.EDQUOT, StorageTransientError, StorageTransientError),
        (errno.EACCES, StorageAuthError, ReadOnlyError),
        (errno.EPERM, StorageAuthError, ReadOnlyError),
        (errno.EROFS, ReadOnlyError, ReadOnlyError),
        (errno.ENOENT, NotFoundError, StoragePermanentError),
        (errno.EMFILE, StorageTransientError, StorageTransientError),
        (errno.ESTALE, StorageTransientError, StorageTransientError),
        (errno.EIO, StoragePermanentError, StoragePermanentError),
        (errno.ENAMETOOLONG, InvalidInputError, InvalidInputError),
    ],
)
def test_every_errno_has_its_place_in_the_error_tree(
    code: int, reading: type[VersionFSError], writing: type[VersionFSError]
) -> None:
    error = OSError(code, os.strerror(code))
    for expected, flag in ((reading, False), (writing, True)):
        translated = translate(error, "file:///store", "packs/ab/x", writing=flag)
        assert type(translated) is expected
        assert "/store" in translated.message
        assert "\n" not in str(translated)
