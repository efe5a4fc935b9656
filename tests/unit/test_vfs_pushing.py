"""Which bytes of small files go to the kernel's cache before they are asked for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.mount.support import commit, file, folder, link, settings_at
from tests.property.test_content import store_file
from tests.unit.test_vfs_packing import unpack
from versionfs.chunking import chunk_id
from versionfs.chunkstore import BoundedCache
from versionfs.errors import CorruptionError
from versionfs.fuse.answers import answers
from versionfs.fuse.branch_requests import BranchRequests
from versionfs.objectstore import WouldBlock
from versionfs.repo import Repository, Store, parse_spec
from versionfs.tree.content import PUSHED_BYTES
from versionfs.vfs import FileSystem, Owner
from versionfs.vfs.nodes import ROOT_NUMBER

SIZE = 9_000
"""Seven of these to a block."""
COUNT = 100
LOCAL = (1 << 48) - 1
"""The part of a number in a branch folder that its workspace knows."""


def content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


@pytest.fixture
def store(tmp_path):
    with Store.create(settings_at(tmp_path / "home")) as store:
        yield store


class Mount(NamedTuple):
    """A mount's requests, without the kernel, and what was pushed so far by number."""

    store: Store
    ask: dict[str, Callable]
    pushed: dict[int, list[bytes]]
    names: dict[bytes, int]
    files: Any

    def show(self, path: bytes) -> None:
        """Makes the names in a folder known, as a listing does."""
        number = ROOT_NUMBER
        for name in path.split(b"/"):
            number = self.ask["lookup"](number, name)[0][0]
        handle, _ = self.ask["opendir"](number)
        offset = 0
        while items := self._readdir(handle, offset):
            self.names.update({name: found for name, found, _ in items})
            offset = items[-1][2]
        self.ask["releasedir"](handle)

    def _readdir(self, handle: int, offset: int) -> list[tuple[bytes, int, int]]:
        answer = self.ask["readdir"](handle, offset, 1 << 16)
        if isinstance(answer, bytes):
            return [(p.name, p.number, p.offset) for p in unpack(answer)]
        items, _ = answer
        found = []
        for item in items:
            if isinstance(item[1], tuple):  # of a branch: name, attributes, offset
                found.append((item[0], item[1][0], item[2]))
            else:
                found.append((item[0], item[1], item[-1]))
        return found

    def open(self, name: bytes) -> list[bytes] | None:
        """Opens a file and closes it; returns the names that were pushed, None if nothing."""
        number = self.names[name]
        found = self.ask["open"](number, os.O_RDONLY)
        assert found[0] == number
        self.ask["release"](number)
        return None if found[1] is None else self._take(found[1])

    def ahead(self) -> list[bytes]:
        """Returns the names that are pushed ahead until there is no more."""
        names = []
        while (found := self.ask["push_ahead"]()) is not None:
            assert isinstance(found, list)
            names += self._take(found)
        return names

    def _take(self, pushes: list[tuple[int, memoryview]]) -> list[bytes]:
        by_number = {number: name for name, number in self.names.items()}
        for number, data in pushes:
            self.pushed.setdefault(number, []).append(bytes(data))
        return [by_number[number] for number, _ in pushes]

    def check(self) -> None:
        """Whether each file was pushed once, with its own bytes."""
        for name, number in self.names.items():
            if number in self.pushed:
                assert self.pushed[number] == [content(int(name[1:]))], name


@pytest.fixture(params=["branch", "snapshot"])
def mount(request, store):
    changes = {b"d/f%03d" % i: file(content(i)) for i in range(COUNT)}
    changes |= {b"e/f%03d" % i: file(content(i)) for i in range(200, 200 + COUNT)}
    changes |= {b"many/f%03d" % i: file(content(i)) for i in range(300, 310)}
    changes |= {b"few/f%03d" % i: file(content(i)) for i in range(400, 410)}
    changes |= {
        b"odd/f000": file(content(0)),
        b"odd/f001": file(content(1)),
        b"odd/f002": file(content(2)),
        b"odd/f003": folder(),
        b"odd/f004": file(b""),
        b"odd/f005": file(random.Random(5).randbytes(PUSHED_BYTES + 1)),
        b"odd/f006": link(b"f000"),
        b"odd/f007": file(content(7)),
    }
    commit(store, changes)
    if request.param == "branch":
        fs = FileSystem(store, parse_spec("photos/main"), Owner(0, 0), writable=True)
        assert fs.branches is not None
        requests = BranchRequests(fs)
        yield Mount(
            store, answers(fs, requests), {}, {}, fs.branches.of(ROOT_NUMBER)[0].workspace.files
        )
        fs.branches.close()
    else:
        fs = FileSystem(store, parse_spec("photos/main@~0"), Owner(0, 0))
        yield Mount(store, answers(fs, None), {}, {}, fs._files)


def names(*numbers: int) -> list[bytes]:
    return [b"f%03d" % number for number in numbers]


def test_files_read_in_order_are_pushed_ahead(mount):
    mount.show(b"d")
    for number in range(2):
        assert mount.open(b"f%03d" % number) == names(number)
        assert mount.ahead() == []
    assert mount.open(b"f002") == names(2)
    # 128 KiB ahead, as soon as it is more.
    assert mount.ahead() == names(*range(3, 18))
    assert mount.ahead() == []
    for number in range(3, COUNT):
        assert mount.open(b"f%03d" % number) == []
        assert mount.ahead() == (names(number + 15) if number + 15 < COUNT else [])
    mount.check()
    assert len(mount.pushed) == COUNT
    assert mount.store.contents.statistics().pushed_ahead == COUNT - 3
    # What the kernel has is not pushed again.
    assert mount.open(b"f000") is None
    assert mount.ahead() == []


def test_a_reader_that_leaves_files_out_is_followed(mount):
    mount.show(b"d")
    for number in range(0, 6, 2):
        mount.open(b"f%03d" % number)
    assert mount.ahead() == names(*range(5, 20))
    assert mount.open(b"f010") == []
    assert mount.ahead() == names(*range(20, 26))
    # Two readers of two folders do not disturb each other.
    mount.show(b"e")
    for number in range(200, 203):
        mount.open(b"f%03d" % number)
    assert mount.ahead() == names(*range(203, 218))
    assert mount.open(b"f025") == []
    assert mount.ahead() == names(*range(26, 41))
    mount.check()


def read_in_order(mount: Mount, count: int) -> None:
    mount.show(b"d")
    for number in range(count):
        mount.open(b"f%03d" % number)
        mount.ahead()


def test_who_read_a_folder_in_order_is_followed_into_the_next_at_once(mount):
    read_in_order(mount, COUNT)
    mount.show(b"e")
    assert mount.open(b"f200") == names(200)
    assert mount.ahead() == names(*range(201, 216))
    mount.check()


@pytest.mark.parametrize(("first", "follows"), [(201, True), (203, True), (204, False)])
def test_only_at_its_begin(mount, first, follows):
    read_in_order(mount, COUNT)
    mount.show(b"e")
    assert mount.open(b"f%03d" % first) == names(first)
    assert mount.ahead() == (names(*range(first + 1, first + 16)) if follows else [])
    # Who begins elsewhere has not gone on yet.
    mount.show(b"many")
    mount.open(b"f300")
    assert bool(mount.ahead()) != follows
    mount.check()


@pytest.mark.parametrize("following", [(b"e", 200), (b"many", 300)])
def test_into_the_next_only_and_not_on_from_one_that_is_not_read(mount, following):
    """What is pushed to the end of a folder is not read by that: not even of a small one."""
    read_in_order(mount, COUNT)
    others = [each for each in ((b"e", 200), (b"many", 300), (b"few", 400)) if each != following]
    for path, first in (following, *others):
        mount.show(path)
        mount.open(b"f%03d" % first)
        assert bool(mount.ahead()) == ((path, first) == following), path


def test_from_one_that_was_followed_and_read(mount):
    read_in_order(mount, COUNT)
    for path, first in ((b"many", 300), (b"few", 400)):
        mount.show(path)
        assert mount.open(b"f%03d" % first) == names(first)
        ahead = mount.ahead()
        assert len(ahead) == 9
        assert [mount.open(name) for name in ahead] == [[]] * 9
    mount.show(b"e")
    mount.open(b"f200")
    assert len(mount.ahead()) == 15
    mount.check()


def test_not_while_another_reader_comes_to_the_end_of_his(mount):
    read_in_order(mount, COUNT - 8)  # All that is behind is pushed.
    for path, first in ((b"e", 200), (b"many", 300), (b"few", 400)):
        mount.show(path)
        mount.open(b"f%03d" % first)
        assert mount.ahead() == []
        mount.show(b"d")
        mount.open(b"f%03d" % (COUNT - 8 + first // 100))
        assert mount.ahead() == []


def test_not_where_the_kernel_knows_none_of_the_files(mount, monkeypatch):
    monkeypatch.setattr(mount.files.pusher, "_number", lambda *_: 0)
    read_in_order(mount, COUNT)
    mount.show(b"e")
    monkeypatch.undo()
    mount.open(b"f200")
    assert mount.ahead() == []


def test_not_where_that_ended_before_its_end(mount):
    read_in_order(mount, COUNT // 2)
    mount.show(b"e")
    assert mount.open(b"f200") == names(200)
    assert mount.ahead() == []


def test_blocks_of_files_read_in_order_take_no_place_of_others(mount):
    read_in_order(mount, 3)
    kept = mount.store.packs._kept
    held = kept.held
    read_in_order(mount, COUNT)
    assert kept.held == held > 0
    assert mount.store.packs._once_small.held > 0


def test_as_many_may_read_in_order_at_once_as_are_followed(store):
    """Each block is decoded once, whoever reads a large file in order meanwhile."""
    large = b"".join(b"%09d " % number for number in range(800_000))
    commit(store, {b"d/f%03d" % i: file(content(i)) for i in range(120)})
    root = Repository(store, "photos").resolve("main", None).root
    ((_, leaf),) = store.trees.leaves(store.trees.lookup(root.node, b"d").node, b"")
    other = store.contents.open(store_file(store, large))
    read = 0
    for step in range(7):
        for reader in range(16):
            before = store.contents.blocks_read
            store.contents.to_push(leaf, reader * 7 + step, once=True)
            read += store.contents.blocks_read - before
        other._read(0, len(large), once=True)
    assert store.packs._once_large.held > 1 << 20
    assert read <= 120 * SIZE // 60_000 + 1


def test_files_of_one_block_are_pushed_together_where_there_is_no_order(mount):
    mount.show(b"d")
    order = [50, 10, 90, 30, 70, 20, 40, 60, 80, 0]
    before = mount.store.contents.statistics().blocks_read
    for number in order[:3]:
        assert mount.open(b"f%03d" % number) == names(number)
    first, *others = mount.open(b"f030") or []
    assert first == b"f030"
    # Its block has some seven, all beside it.
    assert 4 <= len(others) <= 8
    together = sorted([first, *others])
    begin = int(together[0][1:])
    assert together == names(*range(begin, begin + len(together)))
    assert mount.ahead() == []
    for number in [*order[4:], *range(COUNT)]:
        mount.open(b"f%03d" % number)
    mount.check()
    assert len(mount.pushed) == COUNT
    read = mount.store.contents.statistics().blocks_read - before
    assert read <= COUNT * SIZE // 60_000 + 2


def test_where_the_kernel_knows_only_what_it_opens_little_is_tried(mount, monkeypatch):
    """Files are looked up by names that were known before, not listed."""
    folder = mount.ask["lookup"](ROOT_NUMBER, b"d")[0][0]
    pusher = mount.files.pusher
    number, asked = pusher._number, []

    def counted(*args):
        asked.append(args)
        return number(*args)

    monkeypatch.setattr(pusher, "_number", counted)
    # Each the first of its block, as if the others had been given up.
    order = list(range(0, COUNT, 8))
    random.Random(3).shuffle(order)
    for at in order:
        name = b"f%03d" % at
        mount.names[name] = mount.ask["lookup"](folder, name)[0][0]
        assert mount.open(name) == [name]
    assert len(asked) <= 2 * 3
    mount.check()


def test_what_cannot_be_pushed_is_passed_over(mount):
    mount.show(b"odd")
    for number in range(3):
        mount.open(b"f%03d" % number)
    assert mount.ahead() == names(7)
    mount.check()


def test_what_is_open_or_unknown_is_not_pushed(mount):
    mount.show(b"d")
    opened = mount.names[b"f004"]
    mount.ask["open"](opened, os.O_RDONLY)
    forgotten = mount.names.pop(b"f006")
    mount.ask["forget"]([(forgotten, 1)])
    mount.pushed.clear()
    for number in range(3):
        mount.open(b"f%03d" % number)
    ahead = mount.ahead()
    assert ahead[:3] == names(3, 5, 7)
    assert forgotten not in mount.pushed
    # Nor are they with others of their block.
    assert opened not in mount.pushed


def test_what_was_changed_in_a_branch_is_not_pushed(store):
    changes = {b"d/f%03d" % i: file(content(i)) for i in range(COUNT)}
    commit(store, changes)
    fs = FileSystem(store, parse_spec("photos/main"), Owner(0, 0), writable=True)
    assert fs.branches is not None
    requests = BranchRequests(fs)
    mount = Mount(store, answers(fs, requests), {}, {}, None)
    try:
        mount.show(b"d")
        for number in (5, 9):
            at = mount.names[b"f%03d" % number]
            mount.ask["open"](at, os.O_WRONLY)
            assert mount.ask["write"](at, 0, memoryview(b"new")) == 3
            mount.ask["release"](at)
        for number in range(3):
            mount.open(b"f%03d" % number)
        assert mount.ahead()[:6] == names(3, 4, 6, 7, 8, 10)
        assert mount.open(b"f005") is None
        mount.check()
    finally:
        fs.branches.close()


def test_what_the_kernel_forgot_is_pushed_again(mount):
    mount.show(b"d")
    for number in range(3):
        mount.open(b"f%03d" % number)
    assert mount.ahead() == names(*range(3, 18))
    mount.ask["forget"]([(number, 1) for name, number in mount.names.items() if name[:1] == b"f"])
    mount.names.clear()
    mount.pushed.clear()
    mount.show(b"d")
    for number in range(COUNT):
        assert mount.open(b"f%03d" % number) is not None
        mount.ahead()
    mount.check()
    assert len(mount.pushed) == COUNT
    for number in range(COUNT):
        assert mount.open(b"f%03d" % number) is None


def test_a_reader_that_leaves_no_time_has_little_pushed_ahead_of_him(mount):
    mount.show(b"d")
    for number in range(20):
        mount.open(b"f%03d" % number)
    assert mount.ahead() == names(*range(20, 35))
    assert mount.open(b"f034") == []
    assert mount.ahead() == names(*range(35, 50))


def test_any_number_of_folders_may_be_read_in_turns(store):
    folders = [b"d%02d" % number for number in range(40)]
    changes = {
        each + b"/f%02d%02d" % (at, number): file(content(100 * at + number))
        for at, each in enumerate(folders)
        for number in range(20)
    }
    commit(store, changes)
    fs = FileSystem(store, parse_spec("photos/main@~0"), Owner(0, 0))
    mount = Mount(store, answers(fs, None), {}, {}, fs._files)
    for each in folders:
        mount.show(each)
    for number in range(20):
        for at in range(len(folders)):
            mount.open(b"f%02d%02d" % (at, number))
            mount.ahead()
    for number, pushed in mount.pushed.items():
        assert len(pushed) == 1, number
    assert len(mount.pushed) == 800
    assert not fs._files._opens
    pusher = fs._files.pusher
    assert len(pusher._runs) <= 16
    assert sum(seen.run is not None for seen in pusher._seen.values()) <= 16
    assert len(pusher._ahead) <= 16 * 16
    assert set(pusher._ahead.values()) <= set(pusher._runs)


def test_a_leaf_that_lost_its_number_to_another_is_not_taken_for_it(mount):
    mount.show(b"d")
    assert mount.open(b"f000") == names(0)
    files, number = mount.files, mount.names[b"f000"]
    (group,) = files.pusher._seen
    is_branch = len(group) == 3
    leaf = files._names.base_file(number & LOCAL)[1] if is_branch else files._regular(number)[0]
    assert files._to_push(group, leaf, 1)
    assert files._to_push(group, leaf, 0) == 0, "the kernel has it"
    other = bytes(bytearray(group[-1]))
    assert files._to_push((*group[:-1], other), leaf, 1) == 0
    if is_branch:
        mount.show(b"e")
        elsewhere = mount.names[b"."] & LOCAL
        assert files._to_push((elsewhere, *group[1:]), leaf, 1) == 0


def test_what_is_not_at_hand_ends_what_is_pushed_ahead_for_now(mount, monkeypatch):
    mount.show(b"d")
    for number in range(3):
        mount.open(b"f%03d" % number)
    reader = mount.store.contents._packs
    chunk = reader.chunk
    asked = []

    def fail(*args, **more):
        asked.append(args)
        raise WouldBlock(lambda: None)

    monkeypatch.setattr(reader, "chunk", fail)
    assert mount.ahead() == []
    assert len(asked) == 1
    assert mount.open(b"f003") is None
    monkeypatch.setattr(reader, "chunk", chunk)
    assert mount.open(b"f004") == names(4)
    assert mount.ahead() == names(*range(5, 20))
    mount.check()


def test_a_damaged_file_ahead_is_tried_once(mount, monkeypatch):
    mount.show(b"d")
    reader = mount.store.contents._packs
    chunk = reader.chunk
    tried = []

    def fail(expected, *args, **more):
        if bytes(expected) == chunk_id(content(10)):
            tried.append(1)
            raise CorruptionError("damaged")
        return chunk(expected, *args, **more)

    monkeypatch.setattr(reader, "chunk", fail)
    for number in range(10):
        mount.open(b"f%03d" % number)
        mount.ahead()
    assert len(tried) == 1
    assert mount.open(b"f010") is None
    assert mount.open(b"f011") == []
    mount.check()


def test_a_damaged_block_ends_no_open(mount):
    mount.show(b"d")
    for number in range(3):
        mount.open(b"f%03d" % number)
    reader = mount.store.contents._packs
    reader._kept, reader._once_small = BoundedCache(1 << 20), BoundedCache(1 << 20)
    chunk = reader.chunk

    def fail(*args, **more):
        raise CorruptionError("damaged")

    reader.chunk = fail
    assert mount.ahead() == []
    assert mount.open(b"f003") is None
    reader.chunk = chunk
    assert mount.open(b"f004") == names(4)
    mount.check()
