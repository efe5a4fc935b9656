"""kill -9 while packs go to a store behind a network: a rerun sends only what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import describe, fill
from tests.support.machines import CountingFolder, machine
from tests.support.stores import ROOT, bring, head
from versionfs.chunkstore import metadata_writer, writer
from versionfs.repo import Store
from versionfs.transfer import clone, export

CHILD = """
import sys
from tests.faults.test_killed_uploads import *
work, target, what, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
shrink_packs(pytest.MonkeyPatch())
store, objects = machine(work / "home", target, latency=0.003)
die_at(objects, number)
with store:
    run(store, work, what)
"""


def run(store: Store, work: Path, what: str) -> None:
    if what == "import":
        bring(store, work / "files")
    else:
        with machine(work / "origin-home", work / "origin")[0] as origin:
            clone(origin, store)


def die_at(objects: CountingFolder, number: int) -> None:
    """Kills this process as its n-th request to write begins, with others on their way."""
    lock = threading.Lock()
    count = 0

    def fail(operation: str, _key: str) -> None:
        nonlocal count
        if operation != "get":
            with lock:
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

    objects.fail = fail


def shrink_packs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer, "PACK_TARGET_BYTES", 60_000)
    patch.setattr(metadata_writer, "PACK_TARGET_BYTES", 1_000)


@pytest.fixture(scope="module", autouse=True)
def small_packs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink_packs(patch)
        yield


@pytest.fixture(scope="module")
def work(small_packs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, and a store that holds them."""
    base = tmp_path_factory.mktemp("uploads")
    rng = Random(4)
    fill(
        base / "files",
        {f"d{i % 6}/e{i % 13}/f{i}": rng.randbytes(6000) for i in range(150)},
    )
    with machine(base / "origin-home", base / "origin")[0] as store:
        bring(store, base / "files")
    return base


@pytest.mark.parametrize("what", ["import", "clone"])
@pytest.mark.parametrize("number", [2, 9, 16, 19])
def test_what_a_killed_process_sent_is_not_sent_again(
    work: Path, tmp_path: Path, what: str, number: int
) -> None:
    here = tmp_path / "work"
    here.mkdir()
    for name in ("files", "origin", "origin-home"):
        (here / name).symlink_to(work / name)
    target = tmp_path / "target-home"
    machine(here / "home", target)[0].close()
    child = [sys.executable, "-c", CHILD, str(here), str(target), what, str(number)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # By the same machine, and by another that knows of it from the store alone.
    subprocess.run(["cp", "-a", target, tmp_path / "target-other"], check=True)
    there = sum(p.stat().st_size for p in (target / "packs").rglob("*") if p.is_file())

    size = sum(p.stat().st_size for p in (work / "files").rglob("*") if p.is_file())
    for home in ("home", "other"):
        store, objects = machine(here / home, tmp_path / f"target-{home}")
        with store:
            run(store, here, what)
            export(store, head(store).root, tmp_path / home)
        assert describe(tmp_path / home) == describe(work / "files")
        assert objects.sent <= size - there + 60_000 + size / 10
        assert list(objects.temporary().iterdir()) == []
