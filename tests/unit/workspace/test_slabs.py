"""Small layers share files: what they have, after a kill at any step, and on a full disk too."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from versionfs.objectstore import WouldBlock, never_blocking
from versionfs.workspace import slab as slab_module
from versionfs.workspace.slab import BLOCK, SLOTS, WINDOW, Freed
from versionfs.workspace.staging import Staging


@pytest.fixture
def staging(tmp_path):
    staging = Staging(tmp_path / "staging")
    yield staging
    staging.close()


def whole(staging: Staging, layer: int) -> bytes:
    return staging.read(layer, 0, 1 << 30)


def written(model: bytes, offset: int, data: bytes) -> bytes:
    model = model.ljust(offset, b"\0")
    return model[:offset] + data + model[offset + len(data) :]


def told(patch: pytest.MonkeyPatch, module: object, *names: str) -> list[str]:
    """Lists the calls of some functions from now on."""
    calls: list[str] = []

    def watch(name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: object, **named: object) -> object:
            calls.append(name)
            return real(*arguments, **named)

        patch.setattr(module, name, call)

    for name in names:
        watch(name)
    return calls


_CALLS = ("open", "pwrite", "ftruncate", "posix_fallocate", "rename", "unlink", "utime", "mkdir",
          "fdatasync", "fsync")  # fmt: skip


# -- what it costs ---------------------------------------------------------------------------------


def test_a_small_layer_takes_no_file_and_three_system_calls(staging, monkeypatch):
    staging.create(1)
    calls = told(monkeypatch, os, *_CALLS, "fstat", "stat")
    staging.create(2)
    staging.write(2, 0, b"x" * 4096)
    assert staging.status(2).size == 4096
    assert calls == ["pwrite"] * 3


def test_slabs_share_few_descriptors(tmp_path):
    staging = Staging(tmp_path / "staging", descriptors=16)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        staging.create(number * SLOTS)
        staging.write(number * SLOTS, 0, b"%d" % number)
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert [whole(staging, n * SLOTS) for n in range(10)] == [b"%d" % n for n in range(10)]
    staging.close()


def test_a_slab_goes_with_its_last_layer(staging, tmp_path):
    layers = [1, 2, SLOTS, SLOTS + 1]
    for layer in layers:
        staging.create(layer)
        staging.write(layer, 0, b"x" * WINDOW)
    files = tmp_path / "staging" / "slabs"
    assert len(list(files.iterdir())) == 2
    space = sum(file.stat().st_blocks for file in files.iterdir())
    staging.remove(1)
    # What one layer had is given back at once, where the disk can do that.
    assert sum(file.stat().st_blocks for file in files.iterdir()) <= space - WINDOW // 512
    staging.remove(2)
    assert len(list(files.iterdir())) == 1
    staging.remove(SLOTS)
    staging.remove(SLOTS + 1)
    staging.create(SLOTS + 2)
    assert list(staging.layers()) == [SLOTS + 2]
    assert staging.highest() == SLOTS + 2


def test_a_slab_that_was_emptied_while_it_got_more_goes_when_the_next_one_does(staging, tmp_path):
    files = tmp_path / "staging" / "slabs"
    for layer in (1, 2):
        staging.create(layer)
    staging.remove_all([1, 2])
    assert len(list(files.iterdir())) == 1
    staging.create(SLOTS)
    assert [file.name for file in files.iterdir()] == [f"{1:014x}"]
    staging.create(2)
    staging.write(2, 0, b"x")
    assert whole(staging, 2) == b"x"


def test_layers_that_share_a_slab_go_at_once(staging, monkeypatch):
    layers = range(1, 300)
    for layer in (*layers, 2000, 2001):
        staging.create(layer, WINDOW + 1 if layer in (7, 2001) else 0)
        staging.write(layer, 0, b"x")
    calls = told(monkeypatch, os, "pwrite", "unlink")
    staging.remove_all([*layers[:-1], 5, 2001, 9999])
    assert calls.count("pwrite") == 1
    assert sorted(staging.layers()) == [299, 2000]
    assert whole(staging, 299) == b"x"
    assert staging.read(2000, 0, 10) == b"x"
    staging.remove_all([299])
    assert list(staging.layers()) == [2000]


def test_layers_side_by_side_give_their_space_back_in_one_call(staging, tmp_path, monkeypatch):
    for layer in range(300):
        staging.create(layer)
        staging.write(layer, 0, b"%d" % layer)
    (slab,) = (tmp_path / "staging" / "slabs").iterdir()
    before = slab.stat().st_blocks
    holes = told(monkeypatch, slab_module, "_give_back")
    staging.remove_all([*range(100), *range(101, 299)])
    assert len(holes) == 2
    assert slab.stat().st_blocks <= before - 298 * BLOCK // 512
    assert [whole(staging, layer) for layer in (100, 299)] == [b"100", b"299"]


def test_space_is_given_back_without_the_lock(staging, tmp_path, monkeypatch):
    real, calls = slab_module._give_back, []

    def watch(*arguments):
        calls.append(staging._lock.locked())
        real(*arguments)

    monkeypatch.setattr(slab_module, "_give_back", watch)
    for layer in range(1, 6):
        staging.create(layer)
        staging.write(layer, 0, b"x" * WINDOW)
    (slab,) = (tmp_path / "staging" / "slabs").iterdir()
    before = slab.stat().st_blocks
    staging.truncate(1, BLOCK)
    staging.remove(2)
    staging.write(3, WINDOW, b"outgrown")
    staging.sync(4)
    staging.write(4, WINDOW, b"outgrown, and synced")
    assert calls == [False] * 4
    # A window is left for what the disk needs to keep account of the holes.
    assert slab.stat().st_blocks <= before - 3 * WINDOW // 512
    assert whole(staging, 1) == b"x" * BLOCK


def closes(staging: Staging, patch: pytest.MonkeyPatch) -> dict[int, bool]:
    """Tells of each descriptor that is closed from now on whether the lock was held."""
    real, closed = os.close, {}

    def watch(descriptor: int) -> None:
        closed[descriptor] = staging._lock.locked()
        real(descriptor)

    patch.setattr(os, "close", watch)
    return closed


def test_whole_slabs_are_given_back_without_the_lock(staging, monkeypatch):
    slabs_of = [0, SLOTS, 2 * SLOTS, 3 * SLOTS]
    for layer in slabs_of:
        staging.create(layer)
        staging.write(layer, 0, b"x" * WINDOW)
    numbers = [staging._slabs.file(layer).number for layer in slabs_of]
    closed = closes(staging, monkeypatch)
    staging.remove_all(slabs_of[:2])
    staging.write(slabs_of[2], WINDOW, b"outgrown")
    assert [closed.get(number) for number in numbers] == [False, False, False, None]


def test_a_large_layer_is_given_back_without_the_lock(staging, monkeypatch):
    staging.create(1, WINDOW + 1)
    number = staging._own.get(1).number
    closed = closes(staging, monkeypatch)
    staging.remove(1)
    assert closed == {number: False}


def test_an_emptied_slab_is_given_back_without_the_lock_when_the_next_one_is_made(
    staging, monkeypatch
):
    staging.create(1)
    staging.remove(1)
    number = staging._slabs._newest.descriptor.number
    closed = closes(staging, monkeypatch)
    staging.create(SLOTS)
    assert closed == {number: False}


def test_an_emptied_slab_that_is_found_is_given_back_without_the_lock(
    staging, tmp_path, monkeypatch
):
    staging.create(1)
    staging.remove(1)
    again = Staging(tmp_path / "staging")
    assert again.highest() == 0
    number = again._slabs.file(0).number
    closed = closes(again, monkeypatch)
    assert list(again.layers()) == []
    assert closed == {number: False}
    assert list((tmp_path / "staging" / "slabs").iterdir()) == []
    again.close()


def test_every_second_layer_goes_and_those_in_between_stay_whole(staging, tmp_path):
    data = {layer: bytes([layer % 255 + 1]) * WINDOW for layer in range(SLOTS)}
    for layer, content in data.items():
        staging.create(layer)
        assert staging.write(layer, 0, content) == WINDOW
    (slab,) = (tmp_path / "staging" / "slabs").iterdir()
    before = slab.stat().st_blocks
    staging.remove_all(range(0, SLOTS, 2))
    assert sorted(staging.layers()) == list(range(1, SLOTS, 2))
    # A window is left for what the disk needs to keep account of the holes.
    assert slab.stat().st_blocks <= before - (SLOTS // 2 - 1) * WINDOW // 512
    for layer in range(1, SLOTS, 2):
        assert whole(staging, layer) == data[layer]


# -- what it has -----------------------------------------------------------------------------------

_OFFSETS = st.one_of(
    st.integers(0, WINDOW + 5000),
    st.sampled_from([0, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, WINDOW - 1, WINDOW, WINDOW + 1]),
)
_LENGTHS = st.one_of(st.integers(1, 300), st.sampled_from([BLOCK, 2 * BLOCK - 1, WINDOW]))


class Layers(RuleBasedStateMachine):
    """Layers against plain bytes."""

    top: Path

    @initialize(punches=st.booleans())
    def begin(self, punches):
        shutil.rmtree(self.top / "staging", ignore_errors=True)
        self.staging = Staging(self.top / "staging", descriptors=2)
        self.model: dict[int, bytes] = {}
        self.next = 1
        self.filling = 0
        # Where a file system cannot take bytes back, nobody may see them again either.
        self.patch = pytest.MonkeyPatch()
        if not punches:
            self.patch.setattr(slab_module, "_give_back", lambda *_: None)

    def teardown(self):
        if hasattr(self, "staging"):
            self.staging.close()
            self.patch.undo()

    def layer(self, pick: int) -> int:
        return sorted(self.model)[pick % len(self.model)]

    @rule(size=st.one_of(st.just(0), _OFFSETS), step=st.sampled_from([1, 1, 1, SLOTS]))
    def create(self, size, step):
        self.next += step
        self.staging.create(self.next, size)
        self.model[self.next] = bytes(size)

    @precondition(lambda self: self.model)
    @rule(pick=st.integers(0, 99), offset=_OFFSETS, length=_LENGTHS)
    def write(self, pick, offset, length):
        layer = self.layer(pick)
        self.filling = self.filling % 255 + 1
        data = bytes([self.filling]) * length
        assert self.staging.write(layer, offset, data) == length
        self.model[layer] = written(self.model[layer], offset, data)

    @precondition(lambda self: self.model)
    @rule(pick=st.integers(0, 99), size=_OFFSETS)
    def truncate(self, pick, size):
        layer = self.layer(pick)
        self.staging.truncate(layer, size)
        self.model[layer] = self.model[layer][:size].ljust(size, b"\0")

    @precondition(lambda self: self.model)
    @rule(pick=st.integers(0, 99))
    def sync(self, pick):
        self.staging.sync(self.layer(pick))

    @precondition(lambda self: self.model)
    @rule(pick=st.integers(0, 99), again=st.booleans())
    def remove(self, pick, again):
        layer = self.layer(pick)
        self.staging.remove(layer)
        del self.model[layer]
        if again:  # A kill before its record leaves a number to be used again.
            self.staging.create(layer)
            self.model[layer] = b""

    @rule()
    def reopen(self):
        self.staging.close()
        self.staging = Staging(self.top / "staging", descriptors=2)

    @invariant()
    def has_what_it_should(self):
        if not hasattr(self, "model"):
            return
        assert sorted(self.staging.layers()) == sorted(self.model)
        assert self.staging.highest() == max(self.model, default=0)
        for layer, model in self.model.items():
            assert self.staging.status(layer).size == len(model)
            assert whole(self.staging, layer) == model
            third = len(model) // 3
            assert self.staging.read(layer, third, third) == model[third : 2 * third]
            assert self.staging.read(layer, len(model) + 1, 10) == b""
            end = 0
            for low, high in self.staging.data_ranges(layer, 0, len(model)):
                assert low >= end
                assert not model[end:low].strip(b"\0")
                end = high
            assert not model[end:].strip(b"\0")


def test_layers_have_what_was_written(tmp_path):
    Layers.top = tmp_path
    run_state_machine_as_test(Layers, settings=settings(max_examples=60, stateful_step_count=40))


# -- kills -----------------------------------------------------------------------------------------


class Kill(BaseException):
    """Ends the process: nothing is put right afterwards."""


def killed(patch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Lets the process die before its system call number ``at``, and none come after it."""
    left = [at]

    def call(real, *arguments, **named):
        left[0] -= 1
        if left[0] < 0:
            raise Kill
        return real(*arguments, **named)

    for name in _CALLS:
        real = getattr(os, name)
        patch.setattr(os, name, lambda *a, real=real, **n: call(real, *a, **n))
    patch.setattr(slab_module, "_give_back", lambda *_: call(lambda: None))
    return left


_Step = tuple[Any, ...]
_STATES: dict[str, list[_Step]] = {
    "new": [],
    "short": [("write", 0, b"a" * 100)],
    "holes": [("write", 9000, b"a" * 100), ("write", 40_000, b"b" * 8192)],
    "cut": [("write", 0, b"a" * 9000), ("truncate", 5000)],
    "synced": [("write", 0, b"a" * 9000), ("sync",)],
}
_CHANGES: dict[str, _Step] = {
    "append": ("write", 9000, b"x" * 4096),
    "gap": ("write", 20_000, b"x" * 10),
    "into": ("write", 50, b"x" * 7000),
    "outgrow": ("write", WINDOW - 100, b"x" * 200),
    "shrink": ("truncate", 4500),
    "grow": ("truncate", 30_000),
    "outgrow by zeros": ("truncate", 1 << 20),
}


def change(staging: Staging, layer: int, model: bytes, step: _Step) -> bytes:
    getattr(staging, step[0])(layer, *step[1:])
    return changed(model, step)


def changed(model: bytes, step: _Step) -> bytes:
    if step[0] == "write":
        return written(model, step[1], step[2])
    return model if step[0] == "sync" else model[: step[1]].ljust(step[1], b"\0")


@pytest.mark.parametrize("state", _STATES)
@pytest.mark.parametrize("what", _CHANGES)
def test_a_kill_at_any_step_loses_nothing(tmp_path, state, what):
    for at in range(100):
        folder = tmp_path / f"{at}"
        staging = Staging(folder)
        before = b""
        staging.create(0x105)
        staging.create(0x106)
        staging.write(0x106, 0, b"neighbour")
        for step in _STATES[state]:
            before = change(staging, 0x105, before, step)
        died = False
        with pytest.MonkeyPatch.context() as patch:
            left = killed(patch, at)
            try:
                after = change(staging, 0x105, before, _CHANGES[what])
            except Kill:
                died = True
        if died:
            after = changed(before, _CHANGES[what])
        again = Staging(folder)
        now = whole(again, 0x105)
        if not died:
            assert now == after
        elif now not in (before, after):
            # Bytes that were there may be the old ones or the new ones; nothing else differs.
            assert _CHANGES[what][0] == "write"
            assert len(now) == len(before)
            assert all(a in (b, c) for a, b, c in zip(now, before, after, strict=False))
        assert whole(again, 0x106) == b"neighbour"
        assert sorted(again.layers()) == [0x105, 0x106]
        # Life goes on, and sees nothing of what was left behind.
        now = written(now, len(now) + 5000, b"end")
        again.write(0x105, len(now) - 3, b"end")
        assert whole(again, 0x105) == now
        now = written(now, WINDOW, b"out")
        again.write(0x105, WINDOW, b"out")
        assert whole(again, 0x105) == now
        again.remove(0x105)
        assert list(again.layers()) == [0x106]
        again.close()
        assert not list(folder.rglob("*.part"))
        if not died:
            assert left[0] >= 0
            return
    raise AssertionError("it never ends")


def test_a_kill_while_a_slab_is_made_or_removed(tmp_path):
    for at in range(30):
        folder = tmp_path / f"{at}"
        staging = Staging(folder)
        staging.create(1)
        staging.write(1, 0, b"first")
        died = False
        with pytest.MonkeyPatch.context() as patch:
            killed(patch, at)
            try:
                staging.create(SLOTS + 1)
                staging.write(SLOTS + 1, 0, b"second")
                staging.remove(1)
            except Kill:
                died = True
        again = Staging(folder)
        left = set(again.layers())
        assert left in ({1}, {1, SLOTS + 1}, {SLOTS + 1})
        if 1 in left:
            assert whole(again, 1) == b"first"
        if SLOTS + 1 in left:
            assert whole(again, SLOTS + 1) in (b"", b"second")
        else:
            again.create(SLOTS + 1)
        again.write(SLOTS + 1, 0, b"third!")
        assert whole(again, SLOTS + 1) == b"third!"
        again.close()
        if not died:
            assert left == {SLOTS + 1}
            return
    raise AssertionError("it never ends")


# -- the disk --------------------------------------------------------------------------------------


def test_what_was_synced_leaves_its_slab_only_for_the_disk(staging, monkeypatch):
    staging.create(1)
    staging.write(1, 0, b"precious")
    staging.sync(1)
    with never_blocking(), pytest.raises(WouldBlock) as caught:
        staging.write(1, WINDOW, b"more")
    assert whole(staging, 1) == b"precious"
    done = told(monkeypatch, os, "fdatasync", "fsync", "rename")
    real = staging._slabs.remove

    def remove(layers: list[int]) -> Freed:
        done.append("leaves")
        freed: Freed = real(layers)
        return freed

    monkeypatch.setattr(staging._slabs, "remove", remove)
    worker = threading.Thread(target=caught.value.fetch)
    worker.start()
    worker.join()
    # The bytes, then the name, and only then it is no longer where it was.
    assert done[0] == "fdatasync"
    assert done[1] == "rename"
    assert "fsync" in done[2:]
    assert done[-1] == "leaves"
    with never_blocking():
        assert staging.write(1, WINDOW, b"more") == 4
    assert whole(staging, 1) == b"precious".ljust(WINDOW, b"\0") + b"more"
    assert staging.own_path(1) is not None


def test_what_was_never_synced_leaves_at_once(staging, monkeypatch):
    staging.create(1)
    staging.write(1, 0, b"a")
    monkeypatch.setattr(os, "fdatasync", lambda _: pytest.fail("synced"))
    with never_blocking():
        staging.write(1, WINDOW, b"more")
    assert staging.own_path(1) is not None


def test_nobody_changes_what_is_on_its_way(staging, monkeypatch):
    staging.create(1)
    staging.write(1, 0, b"precious")
    staging.sync(1)
    entered, go = threading.Event(), threading.Event()
    real = os.fdatasync

    def slow(descriptor):
        entered.set()
        assert go.wait(10)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    worker = threading.Thread(target=staging.truncate, args=(1, 1 << 20))
    worker.start()
    assert entered.wait(10)
    with never_blocking():
        for work in (lambda: staging.write(1, 0, b"x"), lambda: staging.truncate(1, 1)):
            with pytest.raises(WouldBlock):
                work()
    assert staging.read(1, 0, 100) == b"precious"
    go.set()
    worker.join()
    staging.write(1, 0, b"x")
    assert staging.status(1).size == 1 << 20
    assert staging.read(1, 0, 8) == b"xrecious"


@pytest.mark.parametrize("step", ["fdatasync", "fsync"])
def test_a_slab_that_is_opened_again_leaves_what_is_on_its_way_alone(tmp_path, monkeypatch, step):
    """Before its file has its name (fdatasync) and after that (fsync of the folder)."""
    staging = Staging(tmp_path / "staging", descriptors=8)  # One slab, beside the newest.
    layers = [1, 2, SLOTS, 2 * SLOTS]
    for layer in layers:
        staging.create(layer)
        staging.write(layer, 0, b"%d" % layer)
    for layer in (1, 2):
        staging.sync(layer)
    entered, go = threading.Event(), threading.Event()
    real = getattr(os, step)

    def slow(descriptor):
        entered.set()
        assert go.wait(10)
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, step, slow)
        failed: list[BaseException] = []

        def leave() -> None:
            try:
                staging.write(1, WINDOW, b"more")
            except OSError as error:
                failed.append(error)

        worker = threading.Thread(target=leave)
        worker.start()
        assert entered.wait(10)
        for _ in range(2):
            for layer in reversed(layers):
                assert whole(staging, layer) == b"%d" % layer
        assert sorted(staging.layers())[-3:] == [2, SLOTS, 2 * SLOTS]
        go.set()
        worker.join()
    assert not failed
    assert whole(staging, 1) == b"1".ljust(WINDOW, b"\0") + b"more"
    # The slab does not go with what only left it.
    assert sorted(staging.layers()) == layers
    staging.close()
    again = Staging(tmp_path / "staging")
    assert sorted(again.layers()) == layers
    assert whole(again, 2) == b"2"
    again.close()


@pytest.mark.parametrize("step", ["fdatasync", "rename", "fsync", "pwrite"])
def test_what_could_not_leave_is_not_behind_later(tmp_path, monkeypatch, step):
    """The file of its own that was made goes, so that it is not taken for the layer."""
    staging = Staging(tmp_path / "staging")
    staging.create(1)
    staging.write(1, 0, b"before")
    staging.sync(1)
    real, left = getattr(os, step), [3 if step == "pwrite" else 1]

    def fail(*arguments, **named):
        left[0] -= 1
        if not left[0]:  # Of pwrites the last one, which takes the slot away.
            raise OSError(errno.EIO, "broken")
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="broken"):
            staging.write(1, WINDOW, b"more")
    staging.write(1, 0, b"AFTER!")
    assert list(staging.layers()) == [1]
    staging.close()
    again = Staging(tmp_path / "staging")
    assert whole(again, 1) == b"AFTER!"
    assert list(again.layers()) == [1]
    assert not list(tmp_path.rglob("*.part"))
    again.close()


def test_a_full_disk_leaves_a_layer_in_its_slab(staging, monkeypatch):
    staging.create(1)
    staging.write(1, 0, b"a" * 5000)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    for name in ("ftruncate", "rename"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OSError, match="full"):
                staging.write(1, WINDOW, b"more")
        assert whole(staging, 1) == b"a" * 5000
    staging.write(1, WINDOW, b"more")
    assert staging.status(1).size == WINDOW + 4


def test_no_space_for_a_slab_is_no_layer(tmp_path, monkeypatch):
    staging = Staging(tmp_path / "staging")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="full"):
            staging.create(1)
    assert list(staging.layers()) == []
    staging.create(1)
    assert list(staging.layers()) == [1]
    staging.close()


def test_a_part_of_a_block_that_did_not_fit_is_left_out(staging, monkeypatch):
    staging.create(1)
    staging.write(1, 3 * BLOCK, b"z")  # The size is beyond the blocks to come.
    real, room = os.pwrite, [BLOCK + 100]

    def full(descriptor, data, offset):
        if len(data) == 16:
            return real(descriptor, data, offset)
        if not room[0]:
            raise OSError(errno.ENOSPC, "full")
        done = real(descriptor, bytes(data)[: room[0]], offset)
        room[0] -= done
        return done

    monkeypatch.setattr(os, "pwrite", full)
    assert staging.write(1, 0, b"y" * (2 * BLOCK)) == BLOCK
    room[0] = 100
    with pytest.raises(OSError, match="space"):
        staging.write(1, BLOCK, b"y" * BLOCK)
    assert whole(staging, 1) == b"y" * BLOCK + bytes(2 * BLOCK) + b"z"


def test_a_quota_counts_small_layers(tmp_path):
    staging = Staging(tmp_path / "staging", quota_bytes=10 * BLOCK)
    for layer in range(10):
        staging.create(layer)
        staging.write(layer, 0, b"x" * BLOCK)
    staging.create(10)
    with pytest.raises(OSError, match="quota"):
        staging.write(10, 0, b"x")
    staging.write(3, 0, b"y" * BLOCK)
    staging.truncate(4, 0)
    staging.write(10, 0, b"x" * BLOCK)
    staging.remove(5)
    staging.close()
    again = Staging(tmp_path / "staging", quota_bytes=10 * BLOCK)
    again.write(4, 0, b"x" * BLOCK)
    with pytest.raises(OSError, match="quota"):
        again.write(10, WINDOW, b"x" * BLOCK)
    again.remove(6)
    again.write(10, WINDOW, b"x" * BLOCK)  # With what it had, in a file of its own.
    assert again.status(10).size == WINDOW + BLOCK
    with pytest.raises(OSError, match="quota"):
        again.write(9, BLOCK, b"x" * BLOCK)
    again.close()


def test_layers_of_the_version_before_are_files_of_their_own(tmp_path):
    old = tmp_path / "staging" / "07"
    old.mkdir(parents=True)
    (old / f"{0x107:016x}").write_bytes(b"as it was")
    staging = Staging(tmp_path / "staging")
    assert list(staging.layers()) == [0x107]
    assert staging.highest() == 0x107
    staging.write(0x107, 3, b"IT")
    assert whole(staging, 0x107) == b"as IT was"
    staging.create(0x108)
    assert staging.highest() == 0x108
    staging.remove(0x107)
    assert list(staging.layers()) == [0x108]
    staging.close()


def test_what_is_no_slab_is_told(tmp_path):
    staging = Staging(tmp_path / "staging")
    staging.create(1)
    staging.close()
    (slab,) = (tmp_path / "staging" / "slabs").iterdir()
    slab.write_bytes(b"something else" * 10_000)
    again = Staging(tmp_path / "staging")
    with pytest.raises(OSError, match="no slab"):
        again.read(1, 0, 1)
    again.close()


def test_slabs_go_where_the_folder_goes(staging, tmp_path):
    staging.create(1)
    staging.write(1, 0, b"one")
    with staging.moving(tmp_path / "elsewhere"):
        (tmp_path / "staging").rename(tmp_path / "elsewhere")
    staging.create(SLOTS)
    staging.write(SLOTS, 0, b"two")
    staging.write(1, WINDOW, b"far")
    staging.sync(1)
    staging.close()
    again = Staging(tmp_path / "elsewhere")
    assert whole(again, SLOTS) == b"two"
    assert again.read(1, 0, 3) == b"one"
    again.close()
