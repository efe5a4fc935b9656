"""kill -9 of an import around each step that changes the store: nothing is lost, a rerun completes.

A child process runs the import on an object store that kills it before or after its n-th change.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.folders import describe, fill
from tests.support.stores import ROOT, bring, head, make_store, settings_in
from versionfs.objectstore import LocalStore
from versionfs.repo import Store
from versionfs.transfer import export

STEPS = ("put", "put_file", "replace", "remove")

CHILD = """
import sys
from tests.faults.test_killed_import import *
home, source, number, when = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
count = die_at(number, when)
shrink_packs()
with Store.open(settings_in(home)) as store:
    bring(store, source, message="second")
print(count())
"""


def die_at(number: int, when: str) -> Callable[[], int]:
    """Makes this process kill itself around its n-th change of a store; returns their counter.

    Packs are put by threads: each change has a number of its own.
    """
    numbers = itertools.count(1)

    def dying(method: Any) -> Any:
        def step(*arguments: Any) -> Any:
            mine = next(numbers)
            if mine == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = method(*arguments)
            if mine == number and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return step

    for name in STEPS:
        setattr(LocalStore, name, dying(getattr(LocalStore, name)))
    return lambda: next(numbers) - 1


def shrink_packs() -> None:
    """So that an import of a few files makes several packs of each kind."""
    from versionfs.chunkstore import metadata_writer, writer

    writer.PACK_TARGET_BYTES = 400_000  # type: ignore[misc]
    metadata_writer.PACK_TARGET_BYTES = 4_000  # type: ignore[misc]


def run(home: Path, source: Path, number: int, when: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(home), str(source), str(number), when],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def temporary_files(home: Path) -> list[Path]:
    return list((home / "store" / "tmp").iterdir())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A home with one version, the first source and the second."""
    base = tmp_path_factory.mktemp("killed")
    rng = Random(8)
    first, second = base / "first", base / "second"
    files: dict[str, bytes | None] = {f"d{i % 3}/f{i}": rng.randbytes(3000) for i in range(120)}
    fill(first, files)
    changed = files | {f"new/{i}": rng.randbytes(3000) for i in range(300)}
    fill(second, changed | {"large": rng.randbytes(900_000)})
    with make_store(base / "home") as store:
        bring(store, first, message="first")
    return base / "home", first, second


@pytest.fixture(scope="module")
def steps(prepared: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many changes the second import makes to the store."""
    home = tmp_path_factory.mktemp("steps") / "home"
    shutil.copytree(prepared[0], home)
    done = run(home, prepared[2], 0, "never")
    assert not done.returncode, done.stderr
    return int(done.stdout)


def test_an_import_takes_several_steps(steps: int) -> None:
    """Data packs, metadata packs, a segment, a reflog entry and the ref: else this tests little."""
    assert 8 <= steps <= 11


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 12))
def test_a_killed_import_leaves_the_branch_and_is_completed_by_another(
    prepared: tuple[Path, Path, Path], steps: int, tmp_path: Path, number: int, when: str
) -> None:
    if number > steps:
        pytest.skip(f"there are {steps} steps")
    home = tmp_path / "home"
    shutil.copytree(prepared[0], home)
    killed = run(home, prepared[2], number, when)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    published = number == steps and when == "after"

    with Store.open(settings_in(home)) as store:
        assert head(store).message == ("second" if published else "first")
        export(store, head(store).root, tmp_path / "before")
        expected = prepared[2] if published else prepared[1]
        assert describe(tmp_path / "before") == describe(expected)

        result = bring(store, prepared[2], message="second")
        assert (result.commit is None) == published
        export(store, head(store).root, tmp_path / "after")
        history = [c.message for c in store.repository("photos").history(head(store))]
    assert history == ["second", "first"]
    assert describe(tmp_path / "after") == describe(prepared[2])
    assert temporary_files(home) == []


def test_what_a_killed_import_stored_is_not_stored_again(
    prepared: tuple[Path, Path, Path], steps: int, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(prepared[0], home)
    assert run(home, prepared[2], steps, "before").returncode == -signal.SIGKILL
    with Store.open(settings_in(home)) as store:
        result = bring(store, prepared[2])
        assert result.commit is not None
        assert result.new_bytes == 0


@pytest.mark.parametrize("number", [1, 2])
def test_a_killed_first_import_leaves_no_branch(
    prepared: tuple[Path, Path, Path], tmp_path: Path, number: int
) -> None:
    home = tmp_path / "home"
    with make_store(home) as store:
        assert store.repository("photos").branches() == {}
    assert run(home, prepared[1], number, "after").returncode == -signal.SIGKILL
    with Store.open(settings_in(home)) as store:
        assert store.repository("photos").branches() == {}
        bring(store, prepared[1])
        export(store, head(store).root, tmp_path / "out")
    assert describe(tmp_path / "out") == describe(prepared[1])
    assert temporary_files(home) == []
