"""Layered files against a bytearray: written, cut, committed, failed, killed, loaded again."""

from __future__ import annotations

import errno
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from versionfs.objectstore.blocking import WouldBlock
from versionfs.tree import Pieces
from versionfs.types import NO_ID, NO_STAMP, Entry, Kind
from versionfs.workspace import extents as extents_module
from versionfs.workspace.content import (
    LayeredFile,
    Stack,
    decode_layers,
    encode_layers,
    forget_layers,
)
from versionfs.workspace.extents import layer_of_key
from versionfs.workspace.frozen import FrozenTable
from versionfs.workspace.staging import Staging
from versionfs.workspace.table import Table

STACK = b"stack"
SIZE = 200


class Stored:
    """Content of a store."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_pieces(self, offset: int, size: int) -> Pieces:
        return [self.data[offset : offset + size]]

    def close(self) -> None:
        pass


def entry(data: bytes, content: bytes = NO_ID) -> Entry:
    return Entry(b"", Kind.FILE, 0, len(data), 1, content, b"", (), 0, 0, 0, NO_STAMP, None)


class Kill(BaseException):
    """Stands for the end of the process."""


class Desk:
    """A table with one file, staging files and a store of whole contents by number."""

    def __init__(self, base: bytes | None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="content-"))
        self.table = Table(self.folder)
        self.staging = Staging(self.folder / "staging", descriptors=2)
        self.stored: dict[bytes, bytes] = {}
        self.next_layer = 1
        self.refuse: BaseException | None = None
        self.calls = 0
        stack = Stack(None if base is None else self.store(base))
        self.save(stack, ())
        self.file = self.load()

    def store(self, data: bytes) -> Entry:
        content = len(self.stored).to_bytes(32, "big")
        self.stored[content] = data
        return entry(data, content)

    def save(self, stack: Stack, mutations: Sequence[tuple[bytes, bytes | None]]) -> None:
        self.calls += 1
        if self.refuse is not None:
            raise self.refuse
        base = b"\0" * 33 if stack.base is None else b"\1" + stack.base.content
        self.table.apply([(STACK, base + encode_layers(stack.layers)), *mutations])

    def load(self, table=None) -> LayeredFile:
        value = (table or self.table).get(STACK)
        assert value is not None
        base = entry(self.stored[value[1:33]], value[1:33]) if value[0] else None
        stack = Stack(base, decode_layers(value[33:]))
        return LayeredFile(stack, table or self.table, self.staging, self.open)

    def open(self, entry: Entry) -> Stored:
        return Stored(self.stored[entry.content])

    def layer(self) -> int:
        self.next_layer += 1
        return self.next_layer - 1

    def recover(self) -> None:
        """What a process does that finds the workspace of one that was killed."""
        self.table.close()
        self.staging.close()
        self.table = Table(self.folder)
        self.staging = Staging(self.folder / "staging", descriptors=2)
        self.file = self.load()
        named = {layer.id for layer in self.file.stack.layers}
        for layer in list(self.staging.layers()):
            if layer not in named:
                forget_layers(self.table, self.staging, [layer])

    def remove(self) -> None:
        self.table.close()
        self.staging.close()
        shutil.rmtree(self.folder)


def content(file: LayeredFile) -> bytes:
    return file.read(0, file.size + 10)


class Editing(RuleBasedStateMachine):
    """``model`` is the file, ``cut`` what a running commit reads, and through which file."""

    @initialize(base=st.none() | st.binary(max_size=SIZE))
    def begin(self, base: bytes | None) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(extents_module, "SEGMENT_BYTES", 32)
        self.desk = Desk(base)
        self.model = bytearray(base or b"")
        self.stale = True
        self.cut: tuple[FrozenTable, LayeredFile, bytes, int] | None = None

    def fresh(self) -> int | None:
        fresh = self.desk.layer() if self.stale or not self.desk.file.stack.layers else None
        self.stale = False
        return fresh

    def put(self, model: bytearray, offset: int, data: bytes) -> bytearray:
        model = bytearray(model)
        model.extend(bytes(max(0, offset - len(model))))
        model[offset : offset + len(data)] = data
        return model

    @rule(offset=st.integers(0, SIZE), data=st.binary(min_size=1, max_size=40))
    def write(self, offset, data):
        assert self.desk.file.write(offset, data, self.desk.save, fresh=self.fresh()) == len(data)
        self.model = self.put(self.model, offset, data)

    @rule(data=st.binary(min_size=1, max_size=40))
    def append(self, data):
        self.write(len(self.model), data)

    def cut_to(self, model: bytearray, size: int) -> bytearray:
        return bytearray(model[:size]) + bytes(max(0, size - len(model)))

    @rule(size=st.integers(0, SIZE + 40))
    def truncate(self, size):
        before = self.desk.calls
        self.desk.file.truncate(size, self.desk.save, fresh=self.fresh())
        assert self.desk.calls == before + 1
        self.model = self.cut_to(self.model, size)

    # -- commits

    @precondition(lambda self: self.cut is None and self.desk.file.stack.layers)
    @rule()
    def commit_begins(self):
        self.stale = True
        frozen = self.desk.table.frozen()
        top = self.desk.file.stack.layers[0].id
        self.cut = (frozen, self.desk.load(frozen), bytes(self.model), top)

    @precondition(lambda self: self.cut is not None)
    @rule()
    def commit_ends(self):
        assert self.cut is not None
        frozen, file, data, top = self.cut
        self.cut = None
        assert content(file) == data
        frozen.close()
        for layer in self.desk.file.settle(top, self.desk.store(data), self.desk.save):
            forget_layers(self.desk.table, self.desk.staging, [layer])

    @precondition(lambda self: self.cut is not None)
    @rule()
    def commit_fails(self):
        assert self.cut is not None
        frozen, file, data, _ = self.cut
        assert content(file) == data
        self.cut = None
        frozen.close()

    # -- the disk fails

    @rule(offset=st.integers(0, SIZE), data=st.binary(min_size=1, max_size=40))
    def write_is_refused(self, offset, data):
        self.desk.refuse = OSError(errno.ENOSPC, "full")
        calls, stale = self.desk.calls, self.stale
        try:
            self.desk.file.write(offset, data, self.desk.save, fresh=self.fresh())
        except OSError:
            # Places written before may have new bytes; no other has, and the size stays.
            now = content(self.desk.file)
            assert len(now) == len(self.model)
            for at, (new, old) in enumerate(zip(now, self.model, strict=True)):
                assert new == old or (offset <= at and new == data[at - offset])
            self.model = bytearray(now)
            self.stale = stale
        else:
            assert self.desk.calls == calls
            self.model = self.put(self.model, offset, data)
        finally:
            self.desk.refuse = None

    @rule(size=st.integers(0, SIZE + 40))
    def truncate_is_refused(self, size):
        self.desk.refuse = OSError(errno.ENOSPC, "full")
        stale = self.stale
        with pytest.raises(OSError, match="full"):
            self.desk.file.truncate(size, self.desk.save, fresh=self.fresh())
        self.desk.refuse = None
        self.stale = stale
        if self.desk.file.size < len(self.model):
            self.model = self.cut_to(self.model, size)

    # -- kills

    def lose(self) -> None:
        if self.cut is not None:
            self.cut[0].close()
            self.cut = None
        self.desk.refuse = None
        self.desk.recover()

    @rule()
    def killed(self):
        self.lose()

    @rule()
    def loaded_again(self):
        self.desk.file = self.desk.load()

    @rule(offset=st.integers(0, SIZE), data=st.binary(min_size=1, max_size=40))
    def killed_while_writing(self, offset, data):
        self.desk.refuse = Kill()
        before = self.model
        after = self.put(before, offset, data)
        # The process ends within ``record``: nothing may be put right afterwards.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.desk.staging, "truncate", lambda *_: None)
            patch.setattr(self.desk.staging, "remove", lambda *_: None)
            try:
                self.desk.file.write(offset, data, self.desk.save, fresh=self.fresh())
            except Kill:
                pass
            else:
                before = after
        self.lose()
        now = content(self.desk.file)
        old = self.cut_to(before, len(now))
        new = self.cut_to(after, len(now))
        assert len(now) in (len(before), len(after))
        assert all(byte in (old[at], new[at]) for at, byte in enumerate(now))
        self.model = bytearray(now)

    @rule(size=st.integers(0, SIZE + 40))
    def killed_while_truncating(self, size):
        self.desk.refuse = Kill()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.desk.staging, "remove", lambda *_: None)
            with pytest.raises(Kill):
                self.desk.file.truncate(size, self.desk.save, fresh=self.fresh())
        self.lose()
        now = content(self.desk.file)
        assert now in (self.model, self.cut_to(self.model, size))
        self.model = bytearray(now)

    @rule(size=st.integers(0, SIZE), beyond=st.integers(1, 40), data=st.binary(min_size=1))
    def killed_while_truncating_and_grows(self, size, beyond, data):
        self.killed_while_truncating(size)
        self.write(len(self.model) + beyond, data)

    # -- what must hold

    @invariant()
    def reads_what_was_written(self):
        file = self.desk.file
        assert file.size == len(self.model)
        assert content(file) == self.model
        middle = len(self.model) // 2
        assert file.read(middle, 5) == self.model[middle : middle + 5]
        if file.whole_layer is not None:
            staging, layer = self.desk.staging, file.whole_layer
            own = staging.own_path(layer)
            data = staging.read(layer, 0, 1 << 30) if own is None else own.read_bytes()
            assert data == self.model

    @invariant()
    def knows_what_differs(self):
        file = self.desk.file
        base = file.stack.base
        stored = self.desk.stored[base.content] if base else b""
        dirty = [range(*found) for found in file.dirty()]
        assert all(a.stop < b.start for a, b in itertools.pairwise(dirty))
        clean = set(range(file.size)).difference(*dirty)
        assert all(self.model[at] == stored[at] for at in clean)
        assert all(at < file.base_visible for at in clean)
        at = 0
        while (zeros := file.next_zeros(at)) is not None:
            assert at <= zeros[0] < zeros[1] <= file.size
            assert not any(self.model[zeros[0] : zeros[1]])
            at = zeros[1]

    @invariant()
    def leaves_nothing_behind(self):
        if self.cut is not None:
            return
        layers = {layer.id for layer in self.desk.file.stack.layers}
        assert set(self.desk.staging.layers()) == layers
        assert {layer_of_key(key) for key, _ in self.desk.table.scan(b"x")} <= layers

    def teardown(self):
        if hasattr(self, "desk"):
            self.patch.undo()
            if self.cut is not None:
                self.cut[0].close()
            self.desk.remove()


TestEditing = Editing.TestCase
TestEditing.settings = settings(max_examples=settings().max_examples // 4, stateful_step_count=30)


@pytest.fixture
def desk():
    desks = []

    def make(base: bytes | None) -> Desk:
        desks.append(Desk(base))
        return desks[-1]

    yield make
    for made in desks:
        made.remove()


def test_appending_and_writing_again_need_no_record(desk):
    on = desk(b"a" * 100)
    on.file.write(50, b"b" * 10, on.save, fresh=1)
    calls = on.calls
    for _ in range(5):
        on.file.write(on.file.size, b"c" * 10, on.save)
        on.file.write(52, b"d" * 8, on.save)
        on.file.write(100, b"e" * 20, on.save)
    assert on.calls == calls
    on.file.write(60, b"f", on.save)
    assert on.calls == calls + 1


def test_one_byte_changed_of_a_large_file_takes_one_block(desk):
    on = desk(bytes(50_000_000))
    on.file.write(30_000_000, b"x", on.save, fresh=1)
    assert on.staging.status(1).allocated <= 64 * 1024
    assert list(on.file.dirty()) == [(30_000_000, 30_000_001)]
    assert on.file.size == 50_000_000


def test_a_large_hole_is_known_without_reading(desk):
    on = desk(b"abc")
    on.file.truncate(1 << 40, on.save, fresh=1)
    assert on.file.next_zeros(0) == (3, 1 << 40)
    assert on.file.read((1 << 40) - 5, 10) == bytes(5)
    assert on.file.allocated < 64 * 1024


def test_zeros_shorter_than_asked_for_are_passed_over(desk):
    on = desk(None)
    on.file.truncate(64 << 20, on.save, fresh=1)
    on.file.write(4096, b"x" * 4096, on.save)
    assert on.file.next_zeros(0) == (0, 4096)
    assert on.file.next_zeros(0, 1 << 20) == (8192, 64 << 20)


def test_a_base_that_must_be_fetched_changes_nothing(desk, monkeypatch):
    on = desk(b"a" * 100)
    on.file.write(10, b"b", on.save, fresh=1)

    def absent(offset, size):
        raise WouldBlock(lambda: None)

    monkeypatch.setattr(Stored, "read_pieces", lambda self, offset, size: absent(offset, size))
    with pytest.raises(WouldBlock):
        on.file.read(0, 20)
    assert on.file.read(10, 1) == b"b"
    on.file.write(20, b"c", on.save)
    on.file.truncate(50, on.save)
    monkeypatch.undo()
    assert content(on.file) == b"a" * 10 + b"b" + b"a" * 9 + b"c" + b"a" * 29


@pytest.mark.parametrize("fresh", [None, 3])
def test_a_file_whose_staging_file_is_gone_can_only_be_emptied(desk, caplog, fresh):
    on = desk(b"a" * 100)
    on.file.write(10, b"b", on.save, fresh=1)
    on.file.write(20, b"c", on.save, fresh=2)
    on.staging.remove(2 if fresh is None else 1)
    on.file = on.load()
    assert "is gone" in caplog.text
    assert on.file.size == 100
    assert on.file.allocated >= 0
    for change in (
        lambda: on.file.read(0, 10),
        lambda: list(on.file.dirty()),
        lambda: on.file.write(0, b"x", on.save, fresh=fresh),
        lambda: on.file.truncate(50, on.save, fresh=fresh),
    ):
        with pytest.raises(OSError, match="gone") as error:
            change()
        assert error.value.errno == errno.EIO
    on.file.truncate(0, on.save, fresh=fresh)
    on.file.write(0, b"new", on.save)
    assert content(on.file) == b"new"
    if fresh is None:
        assert content(on.load()) == b"new"


def test_a_commit_of_what_was_in_a_lost_staging_file_heals(desk):
    on = desk(b"a" * 100)
    on.file.write(10, b"b", on.save, fresh=1)
    on.file.write(20, b"c", on.save, fresh=2)
    on.staging.remove(1)
    on.file = on.load()
    base = on.file.stack.base
    assert on.file.settle(1, base, on.save) == [1]
    assert content(on.file) == content(on.load()) == b"a" * 20 + b"c" + b"a" * 79


def test_forgetting_a_layer_of_many_extents_goes_in_small_batches(desk):
    on = desk(bytes(10_000))
    on.file.truncate(10_000, on.save, fresh=1)
    for at in range(0, 10_000, 8):
        on.file.write(at, b"x", on.save)
    assert len(list(on.table.scan(b"x"))) == 1250
    before = on.table.sequence
    forget_layers(on.table, on.staging, [1])
    assert not list(on.table.scan(b"x"))
    assert on.table.sequence - before == 3
    forget_layers(on.table, on.staging, [1])


def test_a_truncation_that_could_not_be_recorded_is_before_the_file_grows(desk):
    on = desk(b"a" * 100)
    on.file.write(0, b"b", on.save, fresh=1)
    on.refuse = OSError(errno.ENOSPC, "full")
    with pytest.raises(OSError, match="full"):
        on.file.truncate(50, on.save)
    assert content(on.file) == content(on.load()) == b"b" + b"a" * 49
    with pytest.raises(OSError, match="full"):
        on.file.write(60, b"c", on.save)
    with pytest.raises(OSError, match="full"):
        on.file.truncate(70, on.save)
    assert content(on.file) == content(on.load()) == b"b" + b"a" * 49
    on.refuse = None
    on.file.write(60, b"c", on.save)
    assert content(on.file) == content(on.load()) == b"b" + b"a" * 49 + bytes(10) + b"c"


def test_a_write_that_could_not_be_recorded_leaves_the_size(desk):
    on = desk(b"a" * 100)
    on.file.write(0, b"b", on.save, fresh=1)
    on.refuse = OSError(errno.ENOSPC, "full")
    with pytest.raises(OSError, match="full"):
        on.file.write(90, b"c" * 20, on.save)
    assert content(on.file) == content(on.load()) == b"b" + b"a" * 99


def test_what_was_cut_off_is_not_counted_as_covered(desk):
    on = desk(b"a" * 1_000_000)
    on.file.write(500_000, b"b" * 500_000, on.save, fresh=1)
    on.file.truncate(500_000, on.save)
    assert 500_000 <= on.file.allocated <= 600_000
    assert on.load().allocated == on.file.allocated


def test_a_staging_file_left_before_its_record_is_in_nobodys_way(desk):
    on = desk(b"a" * 10)
    on.staging.create(1)
    on.staging.write(1, 0, b"left over, and longer")
    on.file.write(3, b"b", on.save, fresh=1)
    assert content(on.file) == content(on.load()) == b"aaabaaaaaa"
