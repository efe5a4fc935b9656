"""Two machines work on one branch, each in its own mount; a model says what each must show.

``VERSIONFS_RUNS`` says how many runs there are (4; at night 100), ``VERSIONFS_SEED`` repeats one.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine, Result
from tests.support.posix import DifferenceError
from tests.support.s3 import wait_until
from tests.support.trees import (
    Node,
    Tree,
    below,
    changed,
    check_joined,
    difference,
    is_below,
    is_folder,
    join,
    may_overlap,
    merge,
    names_in,
    tree_at,
)
from versionfs import fuse
from versionfs.config import load_settings
from versionfs.errors import MountError
from versionfs.fuse import registry
from versionfs.fuse.mountpoint import mounted_at

NIGHTLY = os.environ.get("VERSIONFS_PROFILE") == "nightly"
RUNS = int(os.environ.get("VERSIONFS_RUNS", "100" if NIGHTLY else "4"))
STEPS = 120 if NIGHTLY else 40


class Held:
    """An open file: what it reads as, and the path at which it still is, if any."""

    def __init__(self, folder: Path, path: str, content: bytes) -> None:
        self._folder = folder
        self.path: str | None = path
        self.content = content
        self.descriptor = os.open(folder / path, os.O_RDWR)
        self._mtime_ns = 0
        self.remember()

    def check(self) -> None:
        size = os.fstat(self.descriptor).st_size
        assert size == len(self.content), "the size of an open file"
        assert os.pread(self.descriptor, size + 1, 0) == self.content, "an open file"

    def write(self, offset: int, data: bytes) -> None:
        assert os.pwrite(self.descriptor, data, offset) == len(data)
        self.content = patched(self.content, offset, data)

    def is_there(self) -> bool:
        """Whether its path still is the file that was opened."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.lstat(self._folder / (self.path or ""))
            return found.st_ino == os.fstat(self.descriptor).st_ino
        return False

    def remember(self) -> None:
        if self.path is not None:
            self._mtime_ns = os.lstat(self._folder / self.path).st_mtime_ns

    def followed(self, *, is_theirs: bool) -> None:
        """Takes over that the folder shows another base; ``is_theirs``: others changed the path.

        What others gave but another time, with a change elsewhere, may be another inode too.
        """
        self.check()
        if self.path is None or self.is_there():
            return
        if not is_theirs:
            now = os.lstat(self._folder / self.path).st_mtime_ns
            assert now != self._mtime_ns, "a file that nobody else touched is another inode"
        self.path = None

    def close(self) -> None:
        os.close(self.descriptor)


def patched(content: bytes, offset: int, data: bytes) -> bytes:
    content = content.ljust(offset, b"\0")
    return content[:offset] + data + content[offset + len(data) :]


# -- a machine -------------------------------------------------------------------------------------


class Machine(CommandLine):
    """A home and a mount; what its branch folder is based on, and must show.

    ``is_touched`` says that something was done since it showed its base: if it shows the same
    again, it may count as changed or not. ``number`` is that of the base among the heads;
    ``moved`` has the paths that folders were renamed to since.
    """

    def __init__(self, name: str, folder: Path, store: Path, head: Tree) -> None:
        (folder / "work").mkdir(parents=True)
        super().__init__(folder / "home", folder / "work")
        self.env["VERSIONFS_STORE"] = str(store)
        self.settings = load_settings(self.env)
        self.name = name
        self.data = folder / "data"
        self.data.mkdir()
        self.main = self.data / "r" / "main"
        self.number = 0
        self.base: Tree = head
        self.view: Tree = dict(head)
        self.is_touched = False
        self.moved: set[str] = set()
        self.held: Held | None = None

    @property
    def may_follow(self) -> bool:
        """Whether the folder may go to the head of its branch by itself."""
        return self.view == self.base

    def based_on(self, number: int, head: Tree) -> None:
        """Takes over that the folder shows a head, and nothing is changed in it."""
        self.number, self.base, self.view = number, head, dict(head)
        self.is_touched = False
        self.moved.clear()

    def mount(self) -> None:
        fuse.mount(self.settings, self.data, None)

    def remount(self) -> None:
        self.drop()
        fuse.unmount(self.settings, self.data)
        self.mount()

    def commit_shown(self) -> str:
        """Returns the id of the commit that the folder is based on."""
        return os.getxattr(self.main, "user.versionfs.commit").decode()

    def log(self) -> str:
        return registry.files_of(self.settings, self.data).log.read_text()

    def close(self) -> None:
        self.drop()
        record = registry.read(self.settings, self.data)
        while mounted_at(self.data) is not None:
            with contextlib.suppress(MountError):
                fuse.unmount(self.settings, self.data, force=True)
            subprocess.run(["fusermount3", "-uz", self.data], check=False, capture_output=True)
        if record is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(record.pid, 0)

    def drop(self) -> None:
        """Closes the open file."""
        if self.held is not None:
            self.held.check()
            self.held.close()
            self.held = None

    def hold(self, path: str) -> None:
        self.drop()
        self.held = Held(self.main, path, self.view[path].content)

    # -- calls -----------------------------------------------------------------------------------

    def at(self, path: str) -> str:
        return f"{self.main}/{path}" if path else str(self.main)

    def changes(self, path: str, content: bytes) -> None:
        """Takes over what a file holds now."""
        self.view[path] = self.view[path]._replace(content=content)
        if self.held is not None and self.held.path == path:
            self.held.content = content

    def put(self, path: str, content: bytes, mode: int) -> None:
        """Writes a whole file, made with a mode if it is new."""
        descriptor = os.open(self.at(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            assert os.write(descriptor, content) == len(content)
        finally:
            os.close(descriptor)
        self.view.setdefault(path, Node("file", b"", mode))
        self.changes(path, content)

    def patch(self, path: str, offset: int, data: bytes) -> None:
        descriptor = os.open(self.at(path), os.O_WRONLY)
        try:
            assert os.pwrite(descriptor, data, offset) == len(data)
        finally:
            os.close(descriptor)
        self.changes(path, patched(self.view[path].content, offset, data))

    def append(self, path: str, data: bytes) -> None:
        descriptor = os.open(self.at(path), os.O_WRONLY | os.O_APPEND)
        try:
            assert os.write(descriptor, data) == len(data)
        finally:
            os.close(descriptor)
        self.changes(path, self.view[path].content + data)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self.at(path), size)
        self.changes(path, self.view[path].content[:size].ljust(size, b"\0"))

    def utime(self, path: str) -> None:
        os.utime(self.at(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)
        self.view[path] = self.view[path]._replace(mode=mode)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)
        self.view[path] = Node("folder", b"", mode)

    def symlink(self, path: str, target: str) -> None:
        os.symlink(target, self.at(path))
        self.view[path] = Node("symlink", target.encode(), 0o777)

    def remove(self, path: str) -> None:
        """Removes a file, or a folder with all that is in it."""
        for one in sorted(below(self.view, path), reverse=True):
            if is_folder(self.view.pop(one)):
                os.rmdir(self.at(one))
            else:
                os.unlink(self.at(one))
            self._unnamed(one)

    def rename(self, old: str, new: str) -> None:
        os.rename(self.at(old), self.at(new))
        self._unnamed(new)
        if is_folder(self.view[old]):
            self.moved.add(new)
        moved = below(self.view, old)
        for path in moved:
            del self.view[path]
        self.view.pop(new, None)
        self.view |= {new + path[len(old) :]: node for path, node in moved.items()}
        held = self.held
        if held is not None and held.path is not None and is_below(held.path, old):
            held.path = new + held.path[len(old) :]

    def _unnamed(self, path: str) -> None:
        if self.held is not None and self.held.path == path:
            self.held.path = None

    def write_held(self, offset: int, data: bytes) -> None:
        assert self.held is not None
        self.held.write(offset, data)
        if self.held.path is not None:
            self.changes(self.held.path, self.held.content)

    def make_like(self, path: str, tree: Tree) -> None:
        """Makes a path, and all below it, what it is in a tree; by ordinary calls."""
        if is_folder(self.view.get(path)) and is_folder(tree.get(path)):
            if self.view[path].mode != tree[path].mode:
                self.chmod(path, tree[path].mode)
            for name in sorted(names_in(self.view, path) | names_in(tree, path)):
                if below(self.view, join(path, name)) != below(tree, join(path, name)):
                    self.make_like(join(path, name), tree)
            return
        if path in self.view:
            self.remove(path)
        for one, node in sorted(below(tree, path).items()):
            if node.kind == "folder":
                self.mkdir(one, node.mode)
            elif node.kind == "symlink":
                self.symlink(one, node.content.decode())
            else:
                self.put(one, node.content, node.mode)


# -- choosing --------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d", "e f")
SIZES = (0, 1, 100, 5_000, 70_000, 300_000)
FILE_MODES = (0o644, 0o600, 0o755)
FOLDER_MODES = (0o755, 0o700, 0o750)
WEIGHTS = {
    "put": 10, "patch": 8, "append": 5, "truncate": 4, "utime": 1, "chmod": 3, "mkdir": 5,
    "symlink": 2, "remove": 6, "rename": 9, "anew": 3, "again": 2, "like_head": 2, "write_held": 4,
}  # fmt: skip
KINDS = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]


def random_content(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice(SIZES)) if rng.random() < 0.7 else bytes(rng.choice(SIZES))


def first_tree() -> Tree:
    """Returns what both machines begin with."""
    rng = random.Random(3)
    tree = {"": Node("folder", b"", 0o755)}
    for folder in ("a", "b", "a/c", "b/d", "c"):
        tree[folder] = Node("folder", b"", 0o755)
    for path, size in (
        ("d", 10), ("e f", 0), ("a/a", 600_000), ("a/b", 5_000), ("a/c/a", 20), ("a/c/b", 90_000),
        ("b/a", 300_000), ("b/b", 40), ("b/d/a", 7_000), ("b/d/e f", 30),
    ):  # fmt: skip
        tree[path] = Node("file", rng.randbytes(size), 0o644)
    tree["b/c"] = Node("symlink", b"../a", 0o777)
    return tree


class Run:
    """One run: two machines, the heads of their branch so far, and what was done."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.log: list[tuple[Any, ...]] = []
        self.heads = [first_tree()]
        self.commits: list[str] = []
        self.count = 0
        store = folder / "store"
        self.machines = [Machine(name, folder / name, store, self.head) for name in ("ada", "bob")]
        source = folder / "source"
        self._fill(source)
        ada = self.machines[0]
        ada.ok("init")
        made = ada.ok("import", source, "r", "--json").json
        self.commits.append(made["commit"]["id"])

    def _fill(self, source: Path) -> None:
        for path, node in sorted(self.head.items()):
            if node.kind == "folder":
                (source / path).mkdir(node.mode)
            elif node.kind == "file":
                (source / path).write_bytes(node.content)
                (source / path).chmod(node.mode)
            else:
                (source / path).symlink_to(node.content.decode())

    @property
    def head(self) -> Tree:
        return self.heads[-1]

    def close(self) -> None:
        for machine in self.machines:
            machine.close()

    # -- checks ----------------------------------------------------------------------------------

    def expect(self, found: Tree, expected: Tree, what: str) -> None:
        assert found == expected, f"{what}:\n{difference(found, expected)}"

    def observe(self, machine: Machine, *, is_told: bool = False) -> None:
        """The folder shows what it must. One without changes may have gone to a newer head.

        When it went there by itself, the kernel may be told of it just now; ``is_told`` says that
        a command has waited for that.
        """
        commit, found = self._shown(machine)
        number = self.commits.index(commit)
        if number != machine.number:
            assert machine.may_follow, f"{machine.name} left its base with changes"
            assert number > machine.number, f"{machine.name} went back"
            self._followed(machine, number)
            if not is_told and found != machine.view:
                wait_until(lambda: tree_at(machine.main) == machine.view, 5)
                found = machine.view
        self.expect(found, machine.view, f"the folder of {machine.name}")
        if machine.held is not None:
            machine.held.check()
            machine.held.remember()

    def _shown(self, machine: Machine) -> tuple[str, Tree]:
        """Returns the base of a folder and what it shows, both of one moment."""
        for _ in range(10):
            commit = machine.commit_shown()
            try:
                found = tree_at(machine.main)
            except (FileNotFoundError, NotADirectoryError):
                if commit == machine.commit_shown():
                    raise
                continue
            if commit == machine.commit_shown():
                return commit, found
        raise AssertionError(f"{machine.name} does not come to rest")

    def _followed(self, machine: Machine, number: int) -> None:
        """Takes over that a folder without changes shows another head."""
        before, head, held = machine.base, self.heads[number], machine.held
        machine.based_on(number, head)
        if held is not None:
            path = held.path
            held.followed(is_theirs=path is not None and before.get(path) != head.get(path))

    def shows_head(self, machine: Machine) -> None:
        """The folder shows the head, and is based on it; so does the snapshot of the head."""
        self.observe(machine, is_told=True)
        assert machine.number == len(self.heads) - 1, f"{machine.name} does not show the head"
        self.same_head(machine)

    def same_head(self, machine: Machine) -> None:
        self.expect(
            tree_at(machine.data / "r/main@head"), self.head, f"the head, at {machine.name}"
        )

    # -- steps -----------------------------------------------------------------------------------

    def step(self) -> None:
        rng = self.rng
        machine = rng.choice(self.machines)
        if rng.random() < 0.15:
            files = [path for path, node in machine.view.items() if node.kind == "file"]
            if files and not self._is_behind(machine):
                path = rng.choice(sorted(files))
                self.log.append((machine.name, "hold", path))
                machine.hold(path)
        chance = rng.random()
        if chance < 0.62:
            self.change(machine)
        elif chance < 0.87:
            self.commit(machine)
        elif chance < 0.98:
            self.fetch(machine)
        else:
            self.log.append((machine.name, "remount"))
            machine.remount()
        for one in self.machines:
            self.observe(one)

    def _is_behind(self, machine: Machine) -> bool:
        """Whether the folder may go to the head at any time."""
        return machine.may_follow and machine.number < len(self.heads) - 1

    def call(self, machine: Machine, name: str, *arguments: Any) -> None:
        shown = [f"{len(one)} bytes" if isinstance(one, bytes) else one for one in arguments]
        self.log.append((machine.name, name, *shown))
        getattr(machine, name)(*arguments)
        machine.is_touched = True

    def change(self, machine: Machine) -> None:
        if self._is_behind(machine):
            # It may follow in the middle of a call; a name that no head has ends that.
            self.count += 1
            path = f"new{self.count}"
            self.log.append((machine.name, "put", path))
            Path(machine.at(path)).write_bytes(b"new")
            os.chmod(machine.at(path), 0o644)
            number = self.commits.index(machine.commit_shown())
            if number != machine.number:
                self._followed(machine, number)
            machine.view[path] = Node("file", b"new", 0o644)
            machine.is_touched = True
            self.observe(machine)
        kind = self.rng.choice(KINDS)
        getattr(self, "_" + kind)(machine)

    def _some(self, machine: Machine, *kinds: str) -> str | None:
        """Returns a path, mostly one that the other machine does not use much."""
        own = "a" if machine.name == "ada" else "b"
        paths = [path for path, node in machine.view.items() if path and node.kind in kinds]
        if self.rng.random() < 0.6:
            paths = [path for path in paths if is_below(path, own)] or paths
        return self.rng.choice(sorted(paths)) if paths else None

    def _new(self, machine: Machine) -> str:
        """Returns a path in a folder; there may be something."""
        folder = self._some(machine, "folder") or ""
        if folder.count("/") > 2 or self.rng.random() < 0.2:
            folder = ""
        return join(folder, self.rng.choice(NAMES))

    def _put(self, machine: Machine) -> None:
        path = self._new(machine)
        if path not in machine.view or machine.view[path].kind == "file":
            self.call(machine, "put", path, random_content(self.rng), self.rng.choice(FILE_MODES))

    def _patch(self, machine: Machine) -> None:
        path = self._some(machine, "file")
        if path:
            size = len(machine.view[path].content)
            offset = self.rng.randrange(size + 5_000)
            data = self.rng.randbytes(self.rng.choice((1, 10, 5_000, 70_000)))
            self.call(machine, "patch", path, offset, data)

    def _append(self, machine: Machine) -> None:
        path = self._some(machine, "file")
        if path:
            self.call(machine, "append", path, random_content(self.rng))

    def _truncate(self, machine: Machine) -> None:
        path = self._some(machine, "file")
        if path:
            size = self.rng.randrange(len(machine.view[path].content) + 100)
            self.call(machine, "truncate", path, size if self.rng.random() < 0.7 else 0)

    def _utime(self, machine: Machine) -> None:
        path = self._some(machine, "file", "folder")
        if path:
            self.call(machine, "utime", path)

    def _chmod(self, machine: Machine) -> None:
        path = self._some(machine, "file", "folder") or ""
        if self.rng.random() < 0.1:
            path = ""
        modes = FOLDER_MODES if is_folder(machine.view[path]) else FILE_MODES
        self.call(machine, "chmod", path, self.rng.choice(modes))

    def _mkdir(self, machine: Machine) -> None:
        path = self._new(machine)
        if path not in machine.view:
            self.call(machine, "mkdir", path, self.rng.choice(FOLDER_MODES))

    def _symlink(self, machine: Machine) -> None:
        path = self._new(machine)
        if path not in machine.view:
            self.call(machine, "symlink", path, self.rng.choice(("a", "b/a", "nowhere")))

    def _remove(self, machine: Machine) -> None:
        path = self._some(machine, "file", "symlink", *(["folder"] * (self.rng.random() < 0.4)))
        if path:
            self.call(machine, "remove", path)

    def _rename(self, machine: Machine) -> None:
        old = self._some(machine, "file", "symlink", "folder")
        if old is None:
            return
        new, view = self._new(machine), machine.view
        if is_below(new, old):
            return
        if new in view and (is_folder(view[old]) != is_folder(view[new]) or names_in(view, new)):
            return
        self.call(machine, "rename", old, new)

    def _anew(self, machine: Machine) -> None:
        """A folder is removed with all that is in it, and made again with less."""
        path = self._some(machine, "folder")
        if path:
            inside = sorted(one for one in names_in(machine.view, path))
            self.call(machine, "remove", path)
            self.call(machine, "mkdir", path, self.rng.choice(FOLDER_MODES))
            if inside and self.rng.random() < 0.5:
                self.call(machine, "put", join(path, inside[0]), b"anew", 0o644)

    def _again(self, machine: Machine) -> None:
        """A path becomes what it is in the base."""
        self._like(machine, machine.base)

    def _like_head(self, machine: Machine) -> None:
        """A path becomes what others made of it."""
        self._like(machine, self.head)

    def _like(self, machine: Machine, tree: Tree) -> None:
        paths = [
            path
            for path in sorted(changed(machine.view, tree))
            if path and is_folder(machine.view.get(os.path.dirname(path)))
        ]
        if paths:
            path = self.rng.choice(paths)
            if path in tree or path in machine.view:
                self.log.append((machine.name, "make_like", path))
                machine.make_like(path, tree)
                machine.is_touched = True

    def _write_held(self, machine: Machine) -> None:
        if machine.held is not None:
            offset = self.rng.randrange(len(machine.held.content) + 100)
            self.call(machine, "write_held", offset, self.rng.randbytes(100))

    # -- commands --------------------------------------------------------------------------------

    def fetch(self, machine: Machine) -> None:
        self.log.append((machine.name, "fetch"))
        machine.ok("fetch")
        if machine.may_follow and not machine.is_touched:
            self.shows_head(machine)
        else:
            self.observe(machine)
            self.same_head(machine)

    def commit(self, machine: Machine) -> None:
        base, ours, theirs = machine.base, machine.view, self.head
        merged, overlaps = merge(base, ours, theirs)
        self.log.append((machine.name, "commit", overlaps))
        assert not overlaps or may_overlap(base, ours, theirs), "the model"
        message = f"commit {len(self.log)}"
        result = machine.run("commit", "-m", message, "--json", cwd=machine.main)
        if overlaps:
            self._refused(machine, result, overlaps)
            self._resolve(machine, overlaps)
            return
        assert result.code == 0, result
        check_joined(base, ours, theirs, merged)
        made = result.json
        assert made["changed"] == (merged != theirs), made
        if machine.may_follow and not machine.is_touched:
            # There is nothing to commit: it follows as it would without.
            assert not made["changed"], made
            self.observe(machine)
            return
        if made["changed"]:
            assert made["merged"] == (machine.number < len(self.heads) - 1), made
            self.heads.append(merged)
            self.commits.append(made["commit"]["id"])
        # Of a file that others did not change, the inode stays; what they changed is another.
        held = machine.held
        path = None if held is None else held.path
        is_theirs = path is not None and base.get(path) != theirs.get(path)
        machine.based_on(len(self.heads) - 1, self.head)
        if held is not None:
            held.followed(is_theirs=is_theirs)
        self.shows_head(machine)

    def _refused(self, machine: Machine, result: Result, overlaps: list[str]) -> None:
        assert result.code == 5, result
        assert result.out == ""
        first, *told, hint = result.err.splitlines()
        assert "nothing was committed" in first
        assert "versionfs restore PATH" in hint
        assert [line.strip().rpartition(": ")[0] for line in told] == [
            path or "." for path in overlaps
        ]
        self.observe(machine)
        # The snapshot of the head goes with what the mount looks for by itself, once a second.
        wait_until(lambda: tree_at(machine.data / "r/main@head") == self.head)

    def _resolve(self, machine: Machine, overlaps: list[str]) -> None:
        way = self.rng.choice(("later", "restore", "restore", "mine", "theirs", "branch"))
        self.log.append((machine.name, "resolve", way))
        mine = dict(machine.view)
        if way in ("restore", "mine"):
            # What came with a renamed folder is not changed: where the base has nothing, it stays.
            came = [path for path in overlaps if self._came(machine, path)]
            for path in came:
                self.call(machine, "remove", path)
            rest = [path for path in overlaps if path not in came]
            if rest:
                self.restore(machine, rest)
        elif way == "theirs":
            for path in overlaps:
                if is_folder(machine.view.get(path)) and is_folder(self.head.get(path)):
                    machine.chmod(path, self.head[path].mode)
                else:
                    machine.make_like(path, self.head)
        elif way == "branch":
            self._branch(machine)
            return
        else:
            return
        self.observe(machine)
        assert not merge(machine.base, machine.view, self.head)[1], "it overlaps still"
        self.commit(machine)
        if way == "mine":
            for path in overlaps:
                if path:
                    self.log.append((machine.name, "mine", path))
                    machine.make_like(path, mine)
            machine.is_touched = True

    def _came(self, machine: Machine, path: str) -> bool:
        return path not in machine.base and any(
            path != top and is_below(path, top) for top in machine.moved
        )

    def restore(self, machine: Machine, paths: list[str]) -> None:
        """Paths become what the base has there, with all below them."""
        self.log.append((machine.name, "restore", paths))
        machine.ok("restore", *(path or "." for path in paths), cwd=machine.main)
        for path in paths:
            for one in below(machine.view, path):
                del machine.view[one]
            machine.view |= below(machine.base, path)
        held = machine.held
        if held is not None:
            held.check()
            if held.path is not None and not held.is_there():
                held.path = None

    def _branch(self, machine: Machine) -> None:
        """All the work goes to a branch of its own, with what is open; here is the head."""
        self.count += 1
        name, work = f"work{self.count}", machine.view
        machine.ok("branch", name, "--from-workspace", cwd=machine.main)
        machine.drop()
        machine.based_on(len(self.heads) - 1, self.head)
        self.shows_head(machine)
        moved = machine.data / "r" / name
        self.expect(tree_at(moved), work, f"{name} after the work went there")
        machine.ok("commit", f"r/{name}", "-m", "work")
        self.expect(tree_at(moved), work, f"{name} after its commit")
        self.expect(tree_at(machine.data / f"r/{name}@head"), work, f"the head of {name}")

    def finish(self) -> None:
        """Nothing was lost, and a remount shows the same."""
        for machine in self.machines:
            self.log.append((machine.name, "end"))
            assert mounted_at(machine.data) is not None
            self.observe(machine)
            machine.remount()
            self.observe(machine)
            assert "Traceback" not in machine.log(), machine.log()
        for number, (commit, tree) in enumerate(zip(self.commits, self.heads, strict=True)):
            found = tree_at(self.machines[number % 2].data / f"r/main@{commit[:12]}")
            self.expect(found, tree, f"commit {number}")


@pytest.fixture
def plain_modes() -> Iterator[None]:
    """Files get the modes that they are made with."""
    old = os.umask(0)
    try:
        yield
    finally:
        os.umask(old)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(1 if "VERSIONFS_SEED" in os.environ else RUNS))
def test_two_machines_on_one_branch(tmp_path: Path, plain_modes: None, number: int) -> None:
    seed = random.SystemRandom().getrandbits(32) if NIGHTLY else number
    seed = int(os.environ.get("VERSIONFS_SEED", seed))
    print(f"VERSIONFS_SEED={seed}")
    run = Run(tmp_path, seed)
    try:
        for machine in run.machines:
            machine.mount()
            run.observe(machine)
        for _ in range(STEPS):
            run.step()
        run.finish()
    except Exception as error:
        logs = "".join(f"\nlog of {one.name}:\n{one.log()}" for one in run.machines)
        raise DifferenceError(f"seed {seed}: {error!r}{logs}", run.log) from error
    finally:
        run.close()
