"""Committing one changed file in a large tree, in its branch folder."""

from __future__ import annotations

import os
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.figures import alternated
from scripts.bench.peers.git import IDENTITY
from scripts.bench.programs import command, timed

SMALL_TREE = 1000


def measure(bench: Bench) -> None:
    """Measures commit.one: ours in two trees, git in the large one; the caches are warm."""
    large = bench.data.tree()
    small = bench.data.tree(SMALL_TREE)
    stores = {
        "versionfs": bench.store_of(bench.ours, "tree", large),
        "versionfs, 1,000 files": bench.store_of(bench.ours, "tree-1000", small),
    }
    changed = large.glob("*/*/*")
    path = next(changed).relative_to(large)
    small_path = next(small.glob("*/*/*")).relative_to(small)
    work_tree = git_tree(bench, large) if "git" in bench.peers else None
    for number in range(2 * bench.rounds):
        contenders = [*stores, *(["git", "git add PATH"] if work_tree else [])]
        for name in alternated(contenders, number):
            if name in stores:
                with bench.ours.ordinary(stores[name], bench.point) as daemon:
                    changed_path = path if name == "versionfs" else small_path
                    edit(daemon.branch / changed_path)
                    seconds = timed(bench.ours.run, stores[name], "commit", "set", "-m", "one")
                bench.note("commit.one", name, seconds)
            elif number < bench.rounds and work_tree is not None:
                edit(work_tree / path)
                what = ("--all",) if name == "git" else ("--", str(path))
                seconds = timed(git_commit, work_tree, what)
                bench.note("commit.one", name, seconds)


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
