"""Committing one changed file in a large tree, in its branch folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.figures import alternated
from scripts.bench.peers.git import IDENTITY
from scripts.bench.programs import command, drop_caches, timed

SMALL_TREE = 1000

Commit = Callable[[], object]


def measure(bench: Bench) -> None:
    """Measures commit.one with warm caches, and commit.cold without."""
    large, small = bench.data.tree(), bench.data.tree(SMALL_TREE)
    contenders: dict[str, Callable[[], AbstractContextManager[Commit]]] = {
        name: partial(_ours, bench, bench.store_of(bench.ours, of, tree), tree, direct=direct)
        for name, of, tree, direct in (
            ("versionfs", "tree", large, False),
            ("versionfs, 1,000 files", f"tree-{SMALL_TREE}", small, False),
            ("versionfs, by the daemon alone", "tree", large, True),
        )
    }
    if "git" in bench.peers:
        tree = git_tree(bench, large)
        contenders["git"] = partial(_git, tree, first_of(large), every=True)
        contenders["git add PATH"] = partial(_git, tree, first_of(large), every=False)
    for key in ("commit.one", "commit.cold"):
        for number in range(bench.rounds):
            for name in alternated(list(contenders), number):
                with contenders[name]() as commit:
                    # Whoever waits for the disk would wait for what the one before has written.
                    os.sync()
                    if key == "commit.cold":
                        drop_caches()
                    bench.note(key, name, timed(commit))


def first_of(tree: Path) -> Path:
    """Returns the path of a file in a tree."""
    return next(tree.glob("*/*/*")).relative_to(tree)


@contextmanager
def _ours(bench: Bench, store: Path, tree: Path, *, direct: bool) -> Iterator[Commit]:
    """Changes a file in a mount; yields what commits it.

    ``direct`` asks the daemon, as the command does, but without a Python that has to start.
    """
    with bench.ours.ordinary(store, bench.point) as daemon:
        edit(daemon.branch / first_of(tree))
        if direct:
            yield partial(daemon.commit, "one")
        else:
            yield partial(bench.ours.run_in, daemon.branch, store, "commit", "-m", "one")


@contextmanager
def _git(tree: Path, path: Path, *, every: bool) -> Iterator[Commit]:
    edit(tree / path)
    yield partial(git_commit, tree, ("--all",) if every else ("--", str(path)))


def edit(path: Path) -> None:
    """Gives a file new content."""
    path.write_bytes(os.urandom(16).hex().encode() + b"\n")


def git_commit(work_tree: Path, what: tuple[str, ...]) -> None:
    """Adds and commits."""
    command("git", "add", *what, environment=IDENTITY, folder=work_tree)
    command("git", "commit", "-q", "-m", "one", environment=IDENTITY, folder=work_tree)


def git_tree(bench: Bench, source: Path) -> Path:
    """Returns a work tree of git with the large tree committed; kept between runs.

    The repository is made by fast-import, so that it is packed as after ``git gc``.
    """
    folder = bench.folder / "stores" / bench.scale.name / "git" / "tree"
    stamp = folder.parent / "tree.complete"
    if stamp.exists():
        return folder
    bench.say("  preparing tree for git")
    command("rm", "-rf", folder)
    folder.mkdir(parents=True)
    command("git", "init", "-q", "-b", "main", folder, environment=IDENTITY)
    command("git", "config", "gc.auto", "0", environment=IDENTITY, folder=folder)
    parts = [b"commit refs/heads/main\ncommitter bench <bench@localhost> 0 +0000\ndata 3\none\n"]
    for top, folders, files in os.walk(source):
        folders.sort()
        for name in sorted(files):
            below = os.path.relpath(f"{top}/{name}", source)
            with open(f"{top}/{name}", "rb") as file:
                data = file.read()
            parts.append(b"M 644 inline %s\ndata %d\n%s\n" % (os.fsencode(below), len(data), data))
    stream = folder / ".git" / "stream"
    stream.write_bytes(b"".join(parts))
    command(
        "sh", "-c", "git fast-import --quiet < .git/stream", folder=folder, environment=IDENTITY
    )
    stream.unlink()
    command("git", "reset", "-q", "--hard", "main", folder=folder, environment=IDENTITY)
    # The first `git status` after a checkout looks at all files again; that is not measured.
    command("git", "status", "--short", folder=folder, environment=IDENTITY)
    stamp.write_text("1")
    return folder
