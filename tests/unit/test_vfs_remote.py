"""The file system of a mount on a thread that may not wait: every answer, tried again, is right."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.support import commit, settings_at
from tests.support.unreachable import link_of, remote_store
from versionfs.errors import CorruptionError, VersionFSError
from versionfs.objectstore import WouldBlock, may_block, never_blocking
from versionfs.repo import Store
from versionfs.vfs import Attributes, FileSystem, Owner

ROOT = 1
MANY = 3000
"""Names that take several leaves."""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Store]:
    with Store.create(settings_at(tmp_path / "one")) as store:
        yield store


@pytest.fixture
def store(origin: Store, tmp_path: Path) -> Iterator[Store]:
    with remote_store(Path(origin.settings.store), tmp_path / "two") as store:
        yield store


def in_thread(work: Callable[[], object]) -> None:
    failed: list[VersionFSError] = []

    def run() -> None:
        try:
            work()
        except VersionFSError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class Kernel:
    """Asks a file system as the kernel does, on a thread that may not wait for the store.

    ``answered`` counts the lookups that it was answered, by number; ``rounds`` how often something
    had to be fetched first.
    """

    def __init__(self, store: Store) -> None:
        self.fs = FileSystem(store, None, Owner(0, 0))
        self.answered: dict[int, int] = {}
        self.rounds = 0
        self.offset = 0

    def ask(self, call: Callable, *arguments):
        for _ in range(1000):
            try:
                with never_blocking():
                    return call(*arguments)
            except WouldBlock as wait:
                self.rounds += 1
                in_thread(wait.fetch)
        raise AssertionError("it never answers")

    def lookup(self, parent: int, name: bytes) -> int:
        found: Attributes | None = self.ask(self.fs.lookup, parent, name).attributes
        if found is None:
            raise FileNotFoundError(name)
        self._count(found.number)
        return found.number

    def _count(self, number: int) -> None:
        self.answered[number] = self.answered.get(number, 0) + 1

    def number(self, path: str) -> int:
        number = ROOT
        for name in path.split("/"):
            number = self.lookup(number, os.fsencode(name))
        return number

    def listing(self, number: int, per_reply: int = 100) -> list[bytes]:
        handle = self.ask(self.fs.opendir, number)
        found: list[bytes] = []
        offset = 0
        while True:
            items = self.reply(handle, offset, per_reply)
            if not items:
                break
            found += [item[0] for item in items]
            offset = items[-1][7]
        self.fs.releasedir(handle)
        return found[2:]

    def reply(self, handle: int, start: int, count: int) -> list[tuple]:
        """Takes entries as the adapter does: what was given stays given."""

        def once() -> list[tuple]:
            got: list[tuple] = []
            items, _ = self.fs.readdir(handle, start)
            try:
                for item in items:
                    if len(got) == count:
                        break
                    got.append(item)
                    if item[0] not in (b".", b".."):
                        self._count(item[1])
            except (WouldBlock, VersionFSError):
                if not got:
                    raise
            finally:
                items.close()
            return got

        found: list[tuple] = self.ask(once)
        return found

    def list_rest(self, handle: int, start: int) -> type[Exception] | None:
        """Takes what is left of a listing, up to ``offset``; returns the error that ended it."""
        self.offset = start
        try:
            while items := self.reply(handle, self.offset, 1000):
                self.offset = items[-1][7]
        except VersionFSError as error:
            return type(error)
        return None

    def read(self, path: str) -> bytes:
        number = self.number(path)
        handle = self.ask(self.fs.open, number, os.O_RDONLY)
        content = self.ask(self.fs.content, handle)
        data: bytes = self.ask(content.read, 0, 1 << 20)
        self.fs.release(handle)
        return data

    def refresh(self) -> list:
        work = self.fs.refresh()
        in_thread(work.locate)
        found = []
        with never_blocking():
            for step in work.steps():
                if callable(step):
                    self.rounds += 1
                    in_thread(step)
                else:
                    found += step
        return found

    def forget_all(self) -> None:
        self.fs.forget(list(self.answered.items()))
        self.answered.clear()


def names(count: int) -> list[bytes]:
    return [b"f%05d" % number for number in range(count)]


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store, int], None]:
    """Lets a store answer "fetch first" at random, whenever a node is asked for."""

    def make(store: Store, seed: int) -> None:
        rng = random.Random(seed)
        node = store.trees.node

        def sometimes(ref):
            if not may_block() and rng.random() < 0.3:
                raise WouldBlock(lambda: None)
            return node(ref)

        monkeypatch.setattr(store.trees, "node", sometimes)

    return make


def test_everything_is_found_without_ever_waiting(origin: Store, store: Store) -> None:
    commit(origin, {b"sub/" + name: b"c" + name for name in names(50)})
    origin.repository("photos").create_tag("v1", origin.repository("photos").resolve("main", None))
    kernel = Kernel(store)
    assert kernel.listing(ROOT) == [b"photos"]
    assert kernel.listing(kernel.number("photos")) == [b"main", b"@v1"]
    sub = kernel.number("photos/main/sub")
    assert kernel.listing(sub) == names(50)
    assert kernel.read("photos/main/sub/f00007") == b"cf00007"
    assert kernel.read("photos/@v1/sub/f00007") == b"cf00007"
    assert kernel.ask(kernel.fs.xattr, sub, b"user.versionfs.rfiles") == b"50"
    assert kernel.rounds > 3
    asked = sum(link_of(store).requests.values())
    rounds = kernel.rounds
    assert kernel.listing(sub) == names(50)
    assert kernel.read("photos/main/sub/f00008") == b"cf00008"
    assert kernel.rounds == rounds, "what was fetched is answered at once"
    assert sum(link_of(store).requests.values()) == asked


@pytest.mark.parametrize("seed", range(4))
def test_requests_tried_again_count_nothing_twice(
    origin: Store, store: Store, flaky: Callable[[Store, int], None], seed: int
) -> None:
    # Files of equal content and time share their number: the hardest case of counting.
    commit(origin, {b"d/" + name: b"same" for name in names(MANY)})
    flaky(store, seed)
    kernel = Kernel(store)
    directory = kernel.number("photos/main/d")
    for per_reply in (7, 1000):
        assert kernel.listing(directory, per_reply) == names(MANY)
    for name in names(MANY)[::50]:
        kernel.lookup(directory, name)
    assert kernel.rounds > 20
    held = kernel.fs.statistics()
    assert held.inodes > 0
    kernel.forget_all()
    now = kernel.fs.statistics()
    assert (now.inodes, now.leaves, now.directories) == (0, 0, 1)


@pytest.mark.parametrize("seed", range(4))
def test_a_listing_can_be_sought_in_while_leaves_are_fetched(
    origin: Store, store: Store, flaky: Callable[[Store, int], None], seed: int
) -> None:
    commit(origin, {b"d/" + name: b"x" for name in names(MANY)})
    flaky(store, seed)
    kernel = Kernel(store)
    handle = kernel.ask(kernel.fs.opendir, kernel.number("photos/main/d"))
    rng = random.Random(seed)
    for start in [0, *(rng.randrange(2, MANY) for _ in range(40)), 2, MANY + 1]:
        got = [item[0] for item in kernel.reply(handle, start, 5) if item[0] not in (b".", b"..")]
        first = max(0, start - 2)
        assert got or not start  # the dots may come by themselves
        assert got == names(MANY)[first : first + len(got)]
    assert kernel.reply(handle, MANY + 2, 5) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_branch_moves_whatever_must_be_fetched(
    origin: Store, store: Store, flaky: Callable[[Store, int], None], seed: int
) -> None:
    commit(origin, {b"d/" + name: b"old" for name in names(MANY)} | {b"d/sub/x": b"1"})
    kernel = Kernel(store)
    directory = kernel.number("photos/main/d")
    sub = kernel.number("photos/main/d/sub")
    kernel.listing(directory)
    changed = {b"d/" + name: b"new" for name in names(MANY)[::3]}
    removed = {b"d/" + name: None for name in names(MANY)[1::3]}
    commit(origin, changed | removed | {b"d/sub/y": b"2"})
    flaky(store, seed)
    found = kernel.refresh()
    dropped = {one.name for one in found if one.number == directory and one.name is not None}
    assert dropped == {name[2:] for name in {**changed, **removed}}
    assert kernel.rounds > 3
    kept = sorted({*names(MANY)} - {name[2:] for name in removed})
    assert kernel.number("photos/main/d") == directory
    assert kernel.number("photos/main/d/sub") == sub
    assert kernel.listing(directory) == [*kept, b"sub"]
    assert kernel.listing(sub) == [b"x", b"y"]
    assert kernel.read("photos/main/d/f00000") == b"new"
    assert kernel.read("photos/main/d/f00002") == b"old"


def test_a_listing_that_failed_is_not_taken_for_its_end(
    origin: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(origin, {b"d/" + name: b"x" for name in names(MANY)})
    kernel = Kernel(store)
    handle = kernel.ask(kernel.fs.opendir, kernel.number("photos/main/d"))
    got = kernel.reply(handle, 0, 10)
    node = store.trees.node

    def broken(_):
        raise CorruptionError("damaged")

    monkeypatch.setattr(store.trees, "node", broken)
    offset = got[-1][7]
    assert kernel.list_rest(handle, offset) is CorruptionError  # where the leaf that is held ends
    with pytest.raises(CorruptionError):
        kernel.reply(handle, kernel.offset, 1000)
    monkeypatch.setattr(store.trees, "node", node)
    position = kernel.offset & (1 << 40) - 1  # Above that it names the tree.
    assert kernel.reply(handle, kernel.offset, 1)[0][0] == names(MANY)[position - 2]


def test_a_file_is_closed_when_the_last_one_closes_it(
    origin: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(origin, {b"a": b"1"})
    kernel = Kernel(origin)
    number = kernel.number("photos/main/a")
    content = kernel.fs.content(number)
    closed = []
    monkeypatch.setattr(type(content), "close", lambda _: closed.append(1))
    kernel.fs.open(number, os.O_RDONLY)
    kernel.fs.open(number, os.O_RDONLY)
    kernel.fs.release(number)
    assert closed == []
    kernel.fs.release(number)
    assert closed == [1]
    assert kernel.read("photos/main/a") == b"1"
