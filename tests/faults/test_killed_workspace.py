"""The daemon of a mount is killed while a program works in a branch folder: nothing is lost.

``VERSIONFS_KILLS`` says how often (20; at night 200).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.loader import Files, apply, replay
from tests.support.stores import ROOT
from versionfs import fuse
from versionfs.config import load_settings
from versionfs.fuse import registry
from versionfs.fuse.mountpoint import detach, mounted_at
from versionfs.repo import Store
from versionfs.transfer import import_source

KILLS = int(
    os.environ.get(
        "VERSIONFS_KILLS", "200" if os.environ.get("VERSIONFS_PROFILE") == "nightly" else "20"
    )
)


def contents(top: Path) -> Files:
    """Returns what is in a folder."""
    found: Files = {}
    for folder, folders, files in os.walk(top):
        for name in folders:
            found[os.path.relpath(f"{folder}/{name}", top)] = None
        for name in files:
            found[os.path.relpath(f"{folder}/{name}", top)] = Path(folder, name).read_bytes()
    return found


def expect(found: Files, files: Files, step: list | None) -> None:
    """Checks that what has returned is there; of the step that had not, all, nothing or a part."""
    if found == files:
        return
    assert step is not None, _difference(found, files)
    after = dict(files)
    if step != ["commit"]:
        apply(after, step)
    if found == after:
        return
    # A create is several calls; a write may have been cut off in the middle.
    assert step[0] in ("create", "write"), (step, _difference(found, after))
    path = step[1]
    for one in (found, after):
        one.pop(path, None)
    files.pop(path, None)
    assert found in (after, files), (step, _difference(found, after))


def _difference(found: Files, wanted: Files) -> str:
    lines = [f"- {path}" for path in wanted.keys() - found.keys()]
    lines += [f"+ {path}" for path in found.keys() - wanted.keys()]
    for path in wanted.keys() & found.keys():
        a, b = wanted[path], found[path]
        if a != b:
            sizes = (None if a is None else len(a), None if b is None else len(b))
            lines.append(f"! {path}: {sizes[0]} bytes wanted, {sizes[1]} found")
    return "\n".join(sorted(lines)[:20])


@pytest.mark.slow
@pytest.mark.mount
@pytest.mark.timeout(60 + 10 * KILLS)
def test_nothing_that_returned_is_lost(tmp_path: Path) -> None:
    seed = int(os.environ.get("VERSIONFS_SEED", random.randrange(1 << 30)))
    print(f"VERSIONFS_SEED={seed}")
    rng = random.Random(seed)
    source = tmp_path / "source"
    source.mkdir()
    (source / "other").write_bytes(b"is not touched")
    settings = load_settings({"VERSIONFS_HOME": str(tmp_path / "home")})
    with Store.open_or_create(settings) as store:
        import_source(store, "load", "main", b"", source, message="one", author="test")
    point = tmp_path / "data"
    point.mkdir()
    top = point / "load/main/work"
    state, manifest = tmp_path / "state", tmp_path / "manifest"
    before: Files = {}
    commits: list[tuple[str, Files]] = []
    for kill in range(KILLS):
        fuse.mount(settings, point, None)
        record = registry.read(settings, point)
        assert record is not None
        try:
            if not kill:
                top.mkdir()
            files, step, made = replay(before, manifest)
            commits += made
            found = contents(top)
            expect(dict(found), files, step)
            for commit, at_commit in commits[-3:]:
                snapshot = point / f"load/main@{commit[:12]}"
                assert contents(snapshot / "work") == at_commit, f"commit {commit} after {kill}"
                assert (snapshot / "other").read_bytes() == b"is not touched"
            # What is there is what the load goes on with.
            before = found
            state.write_bytes(pickle.dumps(found))
            manifest.unlink(missing_ok=True)
            socket = registry.files_of(settings, point).socket
            arguments = [top, state, manifest, rng.randrange(1 << 30), socket, "load", "main"]
            loader = subprocess.Popen(
                [sys.executable, "-m", "tests.support.loader", *map(str, arguments)],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                time.sleep(rng.uniform(0.3, 1.2))
                os.kill(record.pid, signal.SIGKILL)
                _, errors = loader.communicate(timeout=30)
            finally:
                loader.kill()
                loader.wait()
            assert loader.returncode == 0, f"{errors} (kill {kill}, seed {seed})"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)
            while record.is_running:
                time.sleep(0.01)
            while mounted_at(point) is not None:
                detach(point, lazy=True)
    assert commits, "no commit returned in all that time"
    shutil.rmtree(tmp_path / "home")
