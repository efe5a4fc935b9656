"""A branch folder and a folder of the machine's own disk: the same operations, the same outcome."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.mount.conftest import World
from tests.support.posix import (
    SECOND,
    WEIGHTS,
    Chooser,
    DifferenceError,
    Pair,
    Side,
    as_committed,
    tree_of,
    without_times,
)
from versionfs import fuse
from versionfs.transfer import import_source

NIGHTLY = os.environ.get("VERSIONFS_PROFILE") == "nightly"
KINDS = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
CONTROLS = ["commit"] * 4 + ["remount"]


def fill(folder: Path) -> None:
    """Makes what the base commit holds: small and large files, holes, links, attributes."""
    rng = random.Random(5)
    folder.mkdir()
    (folder / "d1/deep/er").mkdir(parents=True)
    (folder / "d2").mkdir()
    (folder / "empty-dir").mkdir()
    (folder / "a").write_bytes(b"short\n")
    (folder / "empty").write_bytes(b"")
    (folder / "large").write_bytes(rng.randbytes(3_300_000))
    (folder / "d1/mixed").write_bytes(
        rng.randbytes(500_000) + bytes(2_500_000) + b"text " * 200_000 + bytes(150_001)
    )
    with open(folder / "d1/sparse", "wb") as file:
        file.truncate(5_000_000)
        file.seek(4_000_000)
        file.write(rng.randbytes(10_000))
    for number, size in enumerate((70_000, 150_000, 196_607, 196_608, 250_000)):
        (folder / f"d1/mid{number}").write_bytes(rng.randbytes(size))
    for number in range(8):
        (folder / f"d2/f{number}").write_bytes(rng.randbytes(rng.randrange(30_000)))
    (folder / "d1/deep/er/b").write_bytes(b"b" * 5000)
    (folder / "link").symlink_to("d1/deep")
    (folder / "d1/nowhere").symlink_to("nowhere")
    os.setxattr(folder / "large", "user.a", b"1")
    os.setxattr(folder / "d2", "user.b", b"\0\xff")
    os.chmod(folder / "d2/f1", 0o755)
    os.chmod(folder / "d2/f2", 0o400)
    when = 1_500_000_000 * SECOND
    for path in sorted(folder.rglob("*"), reverse=True):
        when += SECOND + 1
        os.utime(path, ns=(when, when), follow_symlinks=False)
    os.utime(folder, ns=(when, when))


class Arena:
    """A mounted store, and for each trial a branch of its own and a copy of its base."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.source = world.folder / "source"
        fill(self.source)
        import_source(world.store, "r", "main", b"", self.source, message="base", author="t")
        self.repository = world.store.repository("r")
        self.base = self.repository.resolve("main", None)
        self.data = world.mount()
        self.count = 0

    @contextmanager
    def trial(self) -> Iterator[Trial]:
        self.count += 1
        name = f"t{self.count}"
        self.repository.create_branch(name, self.base)
        fuse.notify_moved(self.world.settings, self.world.store.id, "r")
        plain = self.world.folder / "plain" / name
        plain.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", self.source, plain], check=True)
        trial = Trial(self, name, plain)
        try:
            yield trial
        finally:
            trial.pair.close_all()
            shutil.rmtree(plain)

    def remount(self) -> None:
        fuse.unmount(self.world.settings, self.data)
        self.world.mount()


class Trial:
    """One branch and one plain folder."""

    def __init__(self, arena: Arena, name: str, plain: Path) -> None:
        self.arena = arena
        self.name = name
        self.folder = arena.data / "r" / name
        self.pair = Pair(Side(self.folder), Side(plain))
        self.pair.controls = {"commit": self.commit, "remount": self.remount}
        self.chooser = Chooser(self.pair.plain)

    def do(self, kind: str, number: int) -> None:
        step = (kind,) if kind in self.pair.controls else self.chooser.choose(kind, number)
        if step is not None:
            self.pair.step(step)

    def ask(self, op: str, **more: object) -> dict:
        message = {"op": op, "repository": "r", "branch": self.name, **more}
        reply = fuse.ask(self.arena.world.settings, self.arena.data, message)
        assert reply is not None
        assert reply.get("ok"), reply
        assert "failure" not in reply, reply
        return reply

    def commit(self) -> None:
        """Commits; the folder, its inodes and what is open stay as they are."""
        before = numbers(self.folder)
        reply = self.ask("workspace-commit", message="m", author="t", metadata={})
        self.pair.compare()
        after = numbers(self.folder)
        moved = [
            (path, before[path], after[path]) for path in before if before[path] != after[path]
        ]
        if moved:
            raise DifferenceError(f"inode numbers: {moved}", self.pair.log)
        # Times and owners alone make no commit; they go into the next.
        self.compare_head(times=bool(reply["owned"] and reply["result"]["commit"]))
        status = self.ask("workspace-status", limit=10)
        if status["owned"] and status["changes"]:
            raise DifferenceError(f"after a commit: {status['changes']}", self.pair.log)

    def compare_head(self, *, times: bool = False) -> None:
        found = tree_of(os.fsencode(self.arena.data / "r" / f"{self.name}@head"))
        expected = as_committed(tree_of(self.pair.plain.root))
        if not times:
            found, expected = without_times(found), without_times(expected)
        self.pair.compare_trees(found, expected, "head and folder")

    def remount(self) -> None:
        self.pair.close_all()
        self.arena.remount()
        self.pair.compare()


def numbers(folder: Path) -> dict[bytes, int]:
    """Returns the inode number of everything below a folder."""
    found = {b"": os.stat(folder).st_ino}
    for top, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            path = os.path.join(top, name)
            found[path] = os.lstat(path).st_ino
    return found


@pytest.fixture
def arena(world: World) -> Arena:
    """A mounted store with a base commit."""
    return Arena(world)


operations = st.tuples(st.sampled_from(KINDS + CONTROLS), st.integers(0, 2**32 - 1))


@pytest.mark.timeout(3 * 3600 if NIGHTLY else 200)
@settings(
    max_examples=settings().max_examples // (1 if NIGHTLY else 5),
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(operations, min_size=1, max_size=60))
def test_a_branch_folder_and_the_disk_agree(arena, steps):
    with arena.trial() as trial:
        for kind, number in steps:
            trial.do(kind, number)
        trial.pair.compare()
        trial.commit()


@pytest.mark.timeout(3 * 3600 if NIGHTLY else 200)
@pytest.mark.parametrize("number", range(200 if NIGHTLY else 2))
def test_a_long_day_in_a_branch_folder(arena, number):
    seed = random.SystemRandom().getrandbits(32) if NIGHTLY else number
    print("seed", seed)
    rng = random.Random(seed)
    with arena.trial() as trial:
        for count in range(2000 if NIGHTLY else 400):
            kind = rng.choice(KINDS)
            if rng.random() < 0.01:
                kind = rng.choice(CONTROLS)
            trial.do(kind, rng.getrandbits(32))
            if count % 50 == 49:
                trial.pair.compare()
        trial.pair.compare()
        trial.commit()
        trial.remount()
        trial.compare_head()


# -- commit, restore, remount --------------------------------------------------------------------

PLAIN_KINDS = [
    kind
    for kind in KINDS
    if kind in ("put", "append", "truncate", "mkdir", "rmdir", "unlink", "rename", "symlink",
                "chmod", "utimes", "setxattr", "removexattr", "listdir")
]  # fmt: skip


class Versions(RuleBasedStateMachine):
    """A branch folder, and as its model a folder with a copy of what was committed last."""

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self._held = arena.trial()
        self.trial = self._held.__enter__()
        self.arena = arena
        self.plain = Path(os.fsdecode(self.trial.pair.plain.root))
        self.committed = self.plain.with_name(self.plain.name + "-committed")
        self._keep()

    def _keep(self) -> None:
        shutil.rmtree(self.committed, ignore_errors=True)
        subprocess.run(["cp", "-a", self.plain, self.committed], check=True)

    @rule(steps=st.lists(st.tuples(st.sampled_from(PLAIN_KINDS), st.integers(0, 2**32 - 1))))
    def change(self, steps):
        for kind, number in steps:
            self.trial.do(kind, number)

    @rule()
    def commit(self):
        self.trial.commit()
        self._keep()

    @rule()
    def remount(self):
        self.trial.remount()

    @rule()
    def kill(self):
        world = self.arena.world
        world.kill(self.arena.data)
        fuse.unmount(world.settings, self.arena.data)
        world.mount()
        self.trial.pair.compare()

    @rule()
    def restore_all(self):
        self.trial.ask("workspace-restore", paths=[""])
        shutil.rmtree(self.plain)
        subprocess.run(["cp", "-a", self.committed, self.plain], check=True)
        self._compare()
        assert self.trial.ask("workspace-status", limit=10).get("changes", []) == []

    @rule(number=st.integers(0, 2**32 - 1))
    def restore_one(self, number):
        names = sorted({*os.listdir(self.plain), *os.listdir(self.committed)})
        if not names:
            return
        name = names[number % len(names)]
        self.trial.ask("workspace-restore", paths=[name])
        subprocess.run(["rm", "-rf", self.plain / name], check=True)
        if os.path.lexists(self.committed / name):
            subprocess.run(["cp", "-a", self.committed / name, self.plain / name], check=True)
        self._compare()

    def _compare(self) -> None:
        self.trial.pair.log.append(("restored",))
        # Times of folders are those of what was done to get there.
        for top, _, _ in os.walk(self.trial.folder):
            there = self.plain / os.path.relpath(top, self.trial.folder)
            if there.is_dir():
                os.utime(there, ns=(0, os.stat(top).st_mtime_ns))
        self.trial.pair.compare()

    def teardown(self):
        try:
            self._compare()
        finally:
            self._held.__exit__(None, None, None)
            shutil.rmtree(self.committed, ignore_errors=True)


@pytest.mark.timeout(3 * 3600 if NIGHTLY else 200)
def test_commit_restore_and_remount(arena):
    run_state_machine_as_test(
        lambda: Versions(arena),  # type: ignore[arg-type]
        settings=settings(
            max_examples=settings().max_examples if NIGHTLY else 5,
            stateful_step_count=30 if NIGHTLY else 6,
            suppress_health_check=list(HealthCheck),
        ),
    )
