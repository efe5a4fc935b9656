"""What every object store must do. An implementation joins by one entry in KINDS."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.seaweed import S3Server
from versionfs.config import load_settings
from versionfs.errors import ConflictError, InvalidInputError, NotFoundError
from versionfs.objectstore import (
    LocalStore,
    ObjectStore,
    Version,
    create_temporary,
    open_object_store,
)

KINDS = ["local", "s3"]


@pytest.fixture(params=KINDS)
def new_store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], ObjectStore]]:
    """Makes empty stores of the kind."""
    numbers = itertools.count()
    if request.param == "local":
        yield lambda: LocalStore(tmp_path / f"store{next(numbers)}")
        return
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = server.bucket()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield lambda: opened(f"s3://{bucket}/a/store{next(numbers)}")


@pytest.fixture
def store(new_store: Callable[[], ObjectStore]) -> ObjectStore:
    return new_store()


def opened(url: str) -> ObjectStore:
    return open_object_store(load_settings(os.environ)._replace(store=url))


@pytest.fixture
def finished(store: ObjectStore) -> Iterator[Callable[[bytes], Path]]:
    """Makes finished files for put_file, as a pack writer does."""
    opened = []

    def make(data: bytes) -> Path:
        path, file = create_temporary(store.temporary())
        opened.append(file)
        file.write(data)
        return path

    yield make
    for file in opened:
        file.close()


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def in_processes(store: ObjectStore, count: int, code: str) -> list[str]:
    """Runs the code in processes that start together; returns what each printed.

    The code finds `store`, `number` (0 to count - 1) and the names of this module.
    """
    script = (
        "import sys; from tests.contract.test_objectstore import *\n"
        "store = opened(sys.argv[1]); number = int(sys.argv[2])\n"
        "print('ready', flush=True); sys.stdin.readline()\n" + code
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, store.url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for number in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return outputs


# -- get, size -------------------------------------------------------------------------------------


def test_get_returns_what_was_put(store: ObjectStore) -> None:
    store.put("packs/ab/abcd", b"hello")
    assert store.get("packs/ab/abcd") == b"hello"
    assert store.size("packs/ab/abcd") == 5


def test_put_takes_a_memoryview(store: ObjectStore) -> None:
    store.put("k", memoryview(bytearray(b"0123456789"))[2:5])
    assert store.get("k") == b"234"


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (4, None, b"456789"),
        (0, 4, b"0123"),
        (4, 3, b"456"),
        (8, 10, b"89"),
        (10, 1, b""),
        (10, None, b""),
        (99, 5, b""),
        (99, None, b""),
        (3, 0, b""),
    ],
)
def test_get_of_a_range_leaves_out_what_lies_behind_the_end(
    store: ObjectStore, start: int, length: int | None, expected: bytes
) -> None:
    store.put("digits", b"0123456789")
    assert store.get("digits", start, length) == expected


def test_a_negative_range_is_refused(store: ObjectStore) -> None:
    store.put("digits", b"0123456789")
    with pytest.raises(ValueError, match="negative range"):
        store.get("digits", -1)
    with pytest.raises(ValueError, match="negative range"):
        store.get("digits", 0, -1)


@pytest.mark.parametrize("key", ["absent", "packs/ab/absent", "packs", "packs/ab", "packs/ab/x/y"])
def test_an_absent_object_is_not_found(store: ObjectStore, key: str) -> None:
    store.put("packs/ab/x", b"x")
    with pytest.raises(NotFoundError, match=key):
        store.get(key)
    with pytest.raises(NotFoundError, match=key):
        store.size(key)
    with pytest.raises(NotFoundError, match=key):
        store.read(key)
    with pytest.raises(NotFoundError, match=key):
        store.remove(key)
    assert keys(store) == ["packs/ab/x"]


def test_nothing_is_found_in_a_store_that_was_never_written(store: ObjectStore) -> None:
    with pytest.raises(NotFoundError):
        store.get("versionfs.json")
    with pytest.raises(NotFoundError):
        store.remove("versionfs.json")
    assert keys(store) == []


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/etc/passwd", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.hidden", "-a"),
        *("a b", "a\n", "a\0b", "ä", "a" * 256, "a/\udcff"),
    ],
)
def test_what_is_not_a_key_is_refused(store: ObjectStore, key: str) -> None:
    for call in (
        lambda: store.get(key),
        lambda: store.size(key),
        lambda: store.read(key),
        lambda: store.put(key, b"x"),
        lambda: store.replace(key, b"x", None),
        lambda: store.remove(key),
    ):
        with pytest.raises(InvalidInputError):
            call()
    assert keys(store) == []


# -- put, put_file ---------------------------------------------------------------------------------


def test_putting_the_same_object_again_changes_nothing(store: ObjectStore) -> None:
    store.put("packs/ab/x", b"same")
    before = [(info.key, info.size, info.token) for info in store.list("")]
    store.put("packs/ab/x", b"same")
    assert [(info.key, info.size, info.token) for info in store.list("")] == before
    assert store.get("packs/ab/x") == b"same"


def test_put_replaces_an_object_of_another_length_which_is_damage(store: ObjectStore) -> None:
    store.put("packs/ab/x", b"trunc")
    store.put("packs/ab/x", b"truncated no more")
    assert store.get("packs/ab/x") == b"truncated no more"


def test_put_file_takes_the_file_over(
    store: ObjectStore, finished: Callable[[bytes], Path]
) -> None:
    path = finished(b"a pack")
    store.put_file("packs/ab/x", path)
    assert store.get("packs/ab/x") == b"a pack"
    assert not path.exists()


def test_put_file_of_the_same_object_again_removes_the_file(
    store: ObjectStore, finished: Callable[[bytes], Path]
) -> None:
    store.put("packs/ab/x", b"a pack")
    path = finished(b"a pack")
    store.put_file("packs/ab/x", path)
    assert store.get("packs/ab/x") == b"a pack"
    assert not path.exists()


def test_put_file_takes_a_file_from_anywhere(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere"
    path.write_bytes(b"x" * 3_000_000)
    store.put_file("packs/ab/x", path)
    assert store.size("packs/ab/x") == 3_000_000
    assert not path.exists()


def test_put_file_of_no_file_says_so(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put_file("packs/ab/x", tmp_path / "absent")
    assert keys(store) == []


def test_temporary_files_are_no_objects(
    store: ObjectStore, finished: Callable[[bytes], Path]
) -> None:
    finished(b"not finished")
    assert keys(store) == []


def test_an_object_is_visible_whole_or_not_at_all(store: ObjectStore) -> None:
    data = os.urandom(4 << 20)
    done = threading.Event()
    seen: set[bytes] = set()

    def look() -> None:
        while not done.is_set():
            try:
                seen.add(hashlib.sha256(store.get("packs/ab/big")).digest())
            except NotFoundError:
                continue

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(5):
        store.put("packs/ab/big", data)
        store.remove("packs/ab/big")
    store.put("packs/ab/big", data)
    done.set()
    reader.join()
    assert seen <= {hashlib.sha256(data).digest()}


def test_processes_put_the_same_objects_at_once(store: ObjectStore) -> None:
    in_processes(
        store,
        4,
        "for i in range(20): store.put(f'packs/{i:02}/x', b'%d' % i * 10_000)\n",
    )
    assert keys(store) == [f"packs/{i:02}/x" for i in range(20)]
    assert all(store.get(f"packs/{i:02}/x") == b"%d" % i * 10_000 for i in range(20))


# -- read, replace, remove -------------------------------------------------------------------------


def test_replace_moves_a_value_from_version_to_version(store: ObjectStore) -> None:
    first = store.replace("repos/r/branches/main", b"one", None)
    assert store.read("repos/r/branches/main") == (b"one", first)
    second = store.replace("repos/r/branches/main", b"two", first)
    assert store.read("repos/r/branches/main") == (b"two", second)
    assert first != second


def test_replace_of_a_stale_version_conflicts_and_changes_nothing(store: ObjectStore) -> None:
    first = store.replace("ref", b"one", None)
    store.replace("ref", b"two", first)
    with pytest.raises(ConflictError, match="ref"):
        store.replace("ref", b"three", first)
    assert store.get("ref") == b"two"


def test_replace_that_expects_nothing_conflicts_with_something(store: ObjectStore) -> None:
    store.replace("ref", b"one", None)
    with pytest.raises(ConflictError, match="ref"):
        store.replace("ref", b"one", None)


def test_replace_that_expects_something_conflicts_with_nothing(store: ObjectStore) -> None:
    first = store.replace("ref", b"one", None)
    store.remove("ref")
    with pytest.raises(ConflictError, match="ref"):
        store.replace("ref", b"two", first)
    assert keys(store) == []


def test_a_removed_name_is_free_again(store: ObjectStore) -> None:
    store.replace("repos/r/branches/main", b"one", None)
    store.remove("repos/r/branches/main")
    with pytest.raises(NotFoundError):
        store.read("repos/r/branches/main")
    store.replace("repos/r/branches/main", b"two", None)
    assert keys(store) == ["repos/r/branches/main"]


def test_remove_of_a_version_conflicts_when_it_moved(store: ObjectStore) -> None:
    first = store.replace("ref", b"one", None)
    second = store.replace("ref", b"two", first)
    with pytest.raises(ConflictError, match="ref"):
        store.remove("ref", first)
    assert store.get("ref") == b"two"
    store.remove("ref", second)
    with pytest.raises(NotFoundError):
        store.remove("ref", second)


def test_read_if_changed_tells_only_of_changes(store: ObjectStore) -> None:
    first = store.replace("ref", b"one", None)
    assert store.read_if_changed("ref", first) is None
    second = store.replace("ref", b"two", first)
    assert store.read_if_changed("ref", first) == (b"two", second)
    assert store.read_if_changed("ref", second) is None
    store.remove("ref", second)
    with pytest.raises(NotFoundError, match="ref"):
        store.read_if_changed("ref", second)


def test_what_was_removed_by_version_is_nothing_to_anybody(store: ObjectStore) -> None:
    version = store.replace("repos/r/branches/main", b"one", None)
    store.remove("repos/r/branches/main", version)
    key = "repos/r/branches/main"
    for call in (
        lambda: store.get(key),
        lambda: store.get(key, 0, 5),
        lambda: store.get(key, 3),
        lambda: store.get(key, 0, 0),
        lambda: store.size(key),
        lambda: store.read(key),
        lambda: store.remove(key),
        lambda: store.remove(key, version),
    ):
        with pytest.raises(NotFoundError, match=key):
            call()
    assert keys(store) == []
    with pytest.raises(ConflictError):
        store.replace(key, b"two", version)
    again = store.replace(key, b"two", None)
    assert store.read(key) == (b"two", again)
    with pytest.raises(ConflictError):
        store.replace(key, b"three", None)
    assert keys(store, "repos/r/") == [key]


def test_of_sixteen_writers_one_wins_each_round(store: ObjectStore) -> None:
    """Also over nothing, and over what was removed. (SeaweedFS takes a second for a quarrel.)"""
    version: Version | None = None
    start = threading.Barrier(16)
    won: list[tuple[bytes, Version]] = []

    def write(number: int, round_: int, expected: Version | None) -> None:
        data = b"%d in %d" % (number, round_)
        start.wait()
        with suppress(ConflictError):
            won.append((data, store.replace("ref", data, expected)))

    for round_ in range(6):
        won.clear()
        writers = [
            threading.Thread(target=write, args=(number, round_, version)) for number in range(16)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(won) == 1
        assert store.read("ref") == won[0]
        version = won[0][1]
        if round_ % 3 == 2:
            store.remove("ref", version)
            version = None


def test_a_version_survives_reopening_the_store(store: ObjectStore) -> None:
    version = store.replace("ref", b"one", None)
    again = opened(store.url)
    assert again.read("ref")[1] == version
    again.replace("ref", b"two", version)
    assert store.get("ref") == b"two"


def test_of_many_processes_that_create_one_wins(store: ObjectStore) -> None:
    outputs = in_processes(
        store,
        6,
        "for i in range(20):\n"
        "    try:\n"
        "        store.replace(f'ref{i}', b'%d' % number, None); print(i)\n"
        "    except ConflictError:\n"
        "        pass\n",
    )
    wins = sorted(int(line) for output in outputs for line in output.split())
    assert wins == list(range(20))


def test_no_increment_of_many_processes_and_threads_is_lost(store: ObjectStore) -> None:
    store.replace("counter", b"0", None)
    in_processes(
        store,
        4,
        "def count():\n"
        "    done = 0\n"
        "    while done < 15:\n"
        "        value, version = store.read('counter')\n"
        "        try:\n"
        "            store.replace('counter', b'%d' % (int(value) + 1), version); done += 1\n"
        "        except ConflictError:\n"
        "            pass\n"
        "threads = [threading.Thread(target=count) for _ in range(2)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n",
    )
    assert store.get("counter") == b"120"


def test_objects_are_made_and_removed_beside_each_other(store: ObjectStore) -> None:
    in_processes(
        store,
        4,
        "for i in range(40):\n"
        "    store.put(f'packs/ab/{number}', b'x')\n"
        "    store.remove(f'packs/ab/{number}')\n",
    )
    assert keys(store) == []


# -- list ------------------------------------------------------------------------------------------


def test_list_yields_what_is_below_the_prefix(store: ObjectStore) -> None:
    for key in ("repos/a/tags/v1", "repos/a/branches/main", "repos/ab/branches/main", "repos.json"):
        store.put(key, key.encode())
    assert keys(store, "repos/a/") == ["repos/a/branches/main", "repos/a/tags/v1"]
    assert keys(store, "repos/a/branches/main/") == []
    assert keys(store, "absent/") == []
    assert [info.size for info in store.list("repos/a/")] == [21, 15]


def test_folders_are_the_next_components(store: ObjectStore) -> None:
    for key in (
        "repos/a/tags/v1",
        "repos/a/branches/main",
        "repos/b.c/x",
        "repos/file",
        "repos2/x",
    ):
        store.put(key, b"x")
    assert list(store.folders("repos/")) == ["a", "b.c"]
    assert list(store.folders("repos/a/")) == ["branches", "tags"]
    assert list(store.folders("repos/a/tags/")) == []
    assert list(store.folders("absent/")) == []
    assert list(store.folders("")) == ["repos", "repos2"]
    with pytest.raises(InvalidInputError):
        store.folders("repos")


def test_list_tells_when_an_object_was_written(store: ObjectStore) -> None:
    store.put("a", b"a")
    store.put("b", b"b")
    times = [info.mtime_ns for info in store.list("")]
    assert times == sorted(times)
    assert times[0] > 1_600_000_000 * 10**9


@pytest.mark.parametrize("prefix", ["a", "/", "../", "a//", "a/../", "a/.b/"])
def test_what_is_not_a_prefix_is_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(InvalidInputError):
        list(store.list(prefix))


NAMES = st.text("ab-._", min_size=1, max_size=4).filter(lambda name: name[0] not in ".-")
KEYS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(wanted=st.sets(KEYS, max_size=12))
def test_list_yields_everything_once_and_each_folder_sorted(
    new_store: Callable[[], ObjectStore], wanted: set[str]
) -> None:
    store = new_store()
    # An object and a prefix of the same name: S3 has both, a folder cannot; no key of ours does it.
    wanted = {key for key in wanted if not any(other.startswith(key + "/") for other in wanted)}
    for key in wanted:
        store.put(key, b"x")
    listed = keys(store)
    assert sorted(listed) == sorted(wanted)
    for folder in {key.rpartition("/")[0] for key in wanted}:
        inside = [key for key in listed if key.rpartition("/")[0] == folder]
        assert inside == sorted(inside)


def test_a_listing_goes_on_while_objects_vanish(store: ObjectStore) -> None:
    for i in range(20):
        store.put(f"packs/{i:02}/x", b"x")
    listing = store.list("")
    first = next(listing)
    for i in range(10, 20):
        store.remove(f"packs/{i:02}/x")
    rest = [info.key for info in listing]
    assert [first.key, *rest][:10] == [f"packs/{i:02}/x" for i in range(10)]


def test_versions_are_text(store: ObjectStore) -> None:
    version: Version = store.replace("ref", b"x", None)
    assert isinstance(version, str)
