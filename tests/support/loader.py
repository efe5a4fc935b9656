"""Works in a branch folder and keeps, outside of it, a manifest of what has returned.

    python -m tests.support.loader FOLDER STATE MANIFEST SEED SOCKET REPOSITORY BRANCH

``STATE`` is a pickle of what is there at the beginning. Each line of the manifest is JSON:
``["begin", step]`` before a step, ``["done"]`` after its last system call returned, ``["commit",
id]`` when a commit did. A reader replays the steps (``replay``) and knows what must be there. Ends
when a call fails because the daemon was killed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from versionfs.fuse import control

Step = list[Any]
Files = dict[str, bytes | None]
"""Content by path; None is a folder."""


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def apply(files: Files, step: Step) -> None:
    """Does in the model what a step does."""
    match step:
        case ["create", path, seed, size]:
            files[path] = content(seed, size)
        case ["write", path, offset, seed, size]:
            old = files[path] or b""
            data = content(seed, size)
            old = old.ljust(offset, b"\0")
            files[path] = old[:offset] + data + old[offset + size :]
        case ["truncate", path, size]:
            old = files[path] or b""
            files[path] = old[:size].ljust(size, b"\0")
        case ["unlink", path]:
            del files[path]
        case ["mkdir", path]:
            files[path] = None
        case ["rename", old_path, new_path]:
            moved = {
                p: c for p, c in files.items() if p == old_path or p.startswith(old_path + "/")
            }
            files.pop(new_path, None)
            for path, kept in moved.items():
                del files[path]
                files[new_path + path[len(old_path) :]] = kept


def _write(descriptor: int, data: bytes, offset: int) -> None:
    """Writes all of it; the kernel may send it in two, and say how much was written in between.

    Raises:
        OSError: ENOTCONN: the daemon died before the rest.
    """
    if os.pwrite(descriptor, data, offset) < len(data):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


def act(top: Path, step: Step) -> None:
    """Does a step for real."""
    match step:
        case ["create", path, seed, size]:
            descriptor = os.open(top / path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                if size:
                    _write(descriptor, content(seed, size), 0)
            finally:
                os.close(descriptor)
        case ["write", path, offset, seed, size]:
            descriptor = os.open(top / path, os.O_WRONLY)
            try:
                _write(descriptor, content(seed, size), offset)
            finally:
                os.close(descriptor)
        case ["truncate", path, size]:
            os.truncate(top / path, size)
        case ["unlink", path]:
            os.unlink(top / path)
        case ["mkdir", path]:
            os.mkdir(top / path)
        case ["rename", old, new]:
            os.rename(top / old, top / new)


def choose(rng: random.Random, files: Files) -> Step:
    """Returns a step that can be done."""
    names = [path for path, data in files.items() if data is not None]
    folders = ["", *(path for path, data in files.items() if data is None)]
    fresh = (rng.choice(folders) + f"/n{rng.randrange(40)}").strip("/")
    kind = rng.choices(
        ["create", "write", "append", "truncate", "unlink", "mkdir", "rename"],
        [30, 25, 10, 8, 8, 4, 15],
    )[0]
    if kind == "mkdir" and fresh not in files and len(folders) < 12:
        return ["mkdir", fresh]
    if names and kind in ("write", "append"):
        path = rng.choice(names)
        size = len(files[path] or b"")
        offset = size if kind == "append" else rng.randrange(size + 1000)
        return ["write", path, offset, rng.randrange(1 << 30), rng.randrange(1, 40_000)]
    if names and kind == "truncate":
        path = rng.choice(names)
        return ["truncate", path, rng.randrange(len(files[path] or b"") + 5000)]
    if names and kind == "unlink":
        return ["unlink", rng.choice(names)]
    if names and kind == "rename":
        old = rng.choice([*names, *folders[1:]])
        folder = files[old] is None
        if not folder and files.get(fresh, b"") is not None and old != fresh:
            return ["rename", old, fresh]
        if folder and fresh not in files and not (fresh + "/").startswith(old + "/"):
            return ["rename", old, fresh]
    while files.get(fresh, b"") is None:
        fresh = f"m{rng.randrange(1000)}"
    return ["create", fresh, rng.randrange(1 << 30), rng.choice([0, 10, 3000, 70_000, 300_000])]


def replay(state: Files, manifest: Path) -> tuple[Files, Step | None, list[tuple[str, Files]]]:
    """Returns the files after what has returned, the step that had not, and commits with theirs."""
    files = dict(state)
    open_step: Step | None = None
    commits: list[tuple[str, Files]] = []
    for line in _lines(manifest):
        match line:
            case ["begin", step]:
                open_step = step
            case ["done"]:
                assert open_step is not None
                if open_step != ["commit"]:
                    apply(files, open_step)
                open_step = None
            case ["commit", commit]:
                commits.append((commit, dict(files)))
                open_step = None
    return files, open_step, commits


def _lines(manifest: Path) -> Iterator[Any]:
    with contextlib.suppress(FileNotFoundError):
        for line in manifest.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def main() -> None:
    top, state, manifest, seed, socket, repository, branch = sys.argv[1:]
    rng = random.Random(int(seed))
    files: Files = pickle.loads(Path(state).read_bytes())
    out = os.open(manifest, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(*line: object) -> None:
        os.write(out, json.dumps(line).encode() + b"\n")

    while True:
        if rng.random() < 0.03:
            note("begin", ["commit"])
            reply = control.ask(
                Path(socket),
                {
                    "op": "workspace-commit",
                    "repository": repository,
                    "branch": branch,
                    "message": "load",
                    "author": "loader",
                    "metadata": {},
                },
                60.0,
            )
            if reply is None:
                return
            if not reply["ok"]:  # pragma: no cover
                sys.exit(f"commit failed: {reply}")
            if reply.get("owned") and reply["result"]["commit"]:
                note("commit", reply["result"]["commit"])
            else:
                note("done")
            continue
        step = choose(rng, files)
        note("begin", step)
        try:
            act(Path(top), step)
        except OSError as error:
            if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                return
            sys.exit(f"{step}: {error}")
        note("done")
        apply(files, step)


if __name__ == "__main__":
    main()
