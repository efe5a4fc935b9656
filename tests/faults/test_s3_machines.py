"""Several machines, each with a home of its own, that write to one branch of a store on S3."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.seaweed import S3Server
from tests.support.stores import ROOT
from versionfs.config import Settings, load_settings
from versionfs.repo import Store

IMPORTS = """
import json, os, sys
from pathlib import Path
from versionfs.config import load_settings
from versionfs.errors import ConflictError
from versionfs.repo import Store
from versionfs.transfer import import_source

who, count, source = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
with Store.open(load_settings(os.environ)) as store:
    for number in range(count):
        source.write_text(f"{who} {number}")
        path = f"{who}/{number % 10}/{number}".encode()
        while True:
            try:
                result = import_source(store, "set", "main", path, source, message="m", author=who)
                break
            except ConflictError:
                pass
        print(result.commit.id.hex(), flush=True)
"""

COMMITS = """
import os, sys
from versionfs.config import load_settings
from versionfs.errors import ConflictError
from versionfs.repo import Store
from tests.mount.support import commit

who, count = sys.argv[1], int(sys.argv[2])
with Store.open(load_settings(os.environ)) as store:
    for number in range(count):
        path = f"{who}/{number % 10}/{number}".encode()
        while True:
            try:
                made = commit(store, {path: f"{who} {number}".encode()}, repository="set")
                break
            except ConflictError as error:
                assert "main moved from" in error.message or "main was made" in error.message
                assert "nothing was published" in error.message
        print(made.id.hex(), flush=True)
"""


def settings_at(home: Path, server: S3Server, store: str) -> Settings:
    environ = {**os.environ, **server.environment, "VERSIONFS_HOME": str(home)}
    return load_settings(environ, store=store)._replace(s3_endpoint=server.endpoint)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("script", "count"), [(COMMITS, 200), (IMPORTS, 30)], ids=["commits", "imports"]
)
def test_no_commit_of_two_machines_is_lost(
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    count: int,
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    place = f"s3://{s3_server.bucket()}/store"
    with Store.create(settings_at(tmp_path / "maker", s3_server, place)) as store:
        store.create_repository("set")
    told: list[str] = []
    children = []
    for who in ("ada", "bob"):
        environment = {
            **os.environ,
            "VERSIONFS_HOME": str(tmp_path / who),
            "VERSIONFS_STORE": place,
            "PYTHONPATH": str(ROOT),
        }
        words = [sys.executable, "-c", script, who, str(count), str(tmp_path / f"{who}.txt")]
        with (tmp_path / f"{who}.log").open("wb") as log:
            children.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
    try:
        for child, who in zip(children, ("ada", "bob"), strict=True):
            child.wait(300)
            lines = (tmp_path / f"{who}.log").read_text().splitlines()
            assert (child.returncode, len(lines)) == (0, count), lines[-20:]
            told += lines
    finally:
        for child in children:
            child.kill()
            child.wait()

    # Seen by a third machine, that has nothing but the store.
    with Store.open(settings_at(tmp_path / "third", s3_server, place)) as store:
        set_ = store.repository("set")
        history = list(set_.history(set_.branch("main").commit))
        assert len(history) == 2 * count
        assert [commit.number for commit in history] == list(range(2 * count, 0, -1))
        assert all(len(commit.parents) == (commit.number > 1) for commit in history)
        assert {commit.id.hex() for commit in history} == set(told)
        assert len(set(told)) == 2 * count
        for who in ("ada", "bob"):
            for number in range(count):
                path = f"{who}/{number % 10}/{number}".encode()
                entry = store.trees.walk_path(history[0].root, path)
                assert entry is not None, path
                assert store.contents.open(entry).read(0, 100) == f"{who} {number}".encode()
