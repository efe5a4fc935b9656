"""A running mount when refs move."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

from tests.mount.support import commit
from versionfs import fuse


def test_a_new_commit_is_there_at_once(photos):
    data = photos.mount()
    main = data / "photos/main"
    assert (main / "a.txt").read_text() == "three\n"
    assert not (main / "sub/later").exists()
    assert sorted(os.listdir(main / "sub")) == ["b.bin", "new"]
    number = (main / "sub").stat().st_ino
    for n in range(20):
        photos.commit({b"a.txt": b"%d\n" % n, b"sub/later": b"%d" % n, b"sub/%d" % n: b""})
        assert (main / "a.txt").read_text() == f"{n}\n"
        assert (main / "sub/later").read_text() == str(n)
        assert (data / "photos/main@head/a.txt").read_text() == f"{n}\n"
        assert (data / "photos/main@~1/a.txt").read_text() == (f"{n - 1}\n" if n else "three\n")
        assert str(n) in os.listdir(main / "sub")
    assert (main / "sub").stat().st_ino == number
    photos.commit({b"sub": None})
    assert not (main / "sub").exists()
    assert sorted(os.listdir(main)) == ["a.txt", "same"]
    assert (data / "photos/@v1.0/a.txt").read_text() == "one\n"


def test_a_process_inside_sees_it_too(photos):
    data = photos.mount()
    script = (
        "import os, sys\n"
        "for line in sys.stdin:\n"
        "    print(open('later').read() if os.path.exists('later') else '-',"
        " sorted(os.listdir()), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=data / "photos/main/sub",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as inside:

        def ask():
            assert inside.stdin is not None
            assert inside.stdout is not None
            inside.stdin.write("\n")
            inside.stdin.flush()
            return inside.stdout.readline().strip()

        assert ask() == "- ['b.bin', 'new']"
        photos.commit({b"sub/later": b"x"})
        assert ask() == "x ['b.bin', 'later', 'new']"
        photos.commit({b"sub": None})
        assert ask() == "- []"
        photos.commit({b"sub/later": b"y"})
        assert (data / "photos/main/sub/later").read_text() == "y"
        inside.communicate()


def test_open_files_go_on_reading_what_they_opened(photos):
    data = photos.mount()
    with open(data / "photos/main/a.txt", "rb", buffering=0) as opened:
        photos.commit({b"a.txt": b"other\n"})
        assert opened.read() == b"three\n"
    assert (data / "photos/main/a.txt").read_bytes() == b"other\n"


def test_branches_and_tags_come_and_go(photos):
    data = photos.mount() / "photos"
    assert not (data / "dev").exists()
    head = photos.photos.resolve("main", None)

    def changed():
        fuse.notify_moved(photos.settings, photos.store.id, "photos")

    photos.photos.create_branch("dev", head)
    photos.photos.create_tag("v2", head)
    changed()
    assert sorted(os.listdir(data)) == ["@v1.0", "@v2", "dev", "main"]
    assert (data / "dev/a.txt").read_text() == "three\n"
    assert (data / "@v2/a.txt").read_text() == "three\n"
    photos.photos.delete_branch("dev")
    photos.photos.delete_tag("v2")
    changed()
    assert sorted(os.listdir(data)) == ["@v1.0", "main"]
    assert not (data / "dev").exists()
    assert not (data / "dev/a.txt").exists()
    photos.photos.create_tag("v2", photos.photos.resolve("main", "~1"))
    changed()
    assert (data / "@v2/a.txt").read_text() == "two\n"


def test_a_writer_that_does_not_tell_is_noticed(photos):
    data = photos.mount()
    main = data / "photos/main"
    assert (main / "a.txt").read_text() == "three\n"
    commit(photos.store, {b"a.txt": b"quiet\n"})
    deadline = time.monotonic() + 10
    while (main / "a.txt").read_text() != "quiet\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_mounted_branch_moves(photos):
    data = photos.mount("photos/main:sub")
    assert sorted(os.listdir(data)) == ["b.bin", "new"]
    photos.commit({b"sub/later": b"x"})
    assert sorted(os.listdir(data)) == ["b.bin", "later", "new"]


def test_readers_see_one_version_or_the_other_while_a_branch_moves(photos):
    data = photos.mount()
    main = data / "photos/main"
    names = [b"w/%d/%d" % (d, f) for d in range(4) for f in range(10)]
    photos.commit(dict.fromkeys(names, b"0"))
    stop = threading.Event()
    problems: list[object] = []

    def read():
        while not stop.is_set():
            for name in names:
                try:
                    content = (main / os.fsdecode(name)).read_bytes()
                except OSError as error:
                    problems.append(error)
                else:
                    if not content.isdigit():
                        problems.append(content)
            for folder, folders, files in os.walk(main / "w"):
                if len(folders) + len(files) not in (4, 10):
                    problems.append((folder, folders, files))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for n in range(1, 30):
            photos.commit(dict.fromkeys(names, b"%d" % n))
            assert (main / "w/0/0").read_bytes() == b"%d" % n
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert problems == []
