"""What a huge store on S3 costs who opens it with nothing in the cache: requests, counted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from tests.support.s3 import Machine
from tests.support.seaweed import S3Server
from versionfs.chunking import chunk_id
from versionfs.chunkstore import ChunkWriter
from versionfs.config import load_settings
from versionfs.repo import Store, write_commit
from versionfs.tree import build_directory, directory_entry
from versionfs.types import NO_STAMP, Entry, Kind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TOPS, FOLDERS, FILES = 10, 100, 1000
SIZE = 100_000
CHUNKS = 50
TIME_NS = 1_600_000_000_000_000_000


@pytest.fixture(scope="module")
def huge(
    s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Machine, Path]]:
    """A store with 1,000,000 files of 100 GB in all, made of a few chunks; and a folder."""
    base = tmp_path_factory.mktemp("huge")
    place = f"s3://{s3_server.bucket()}/store"
    maker = Machine(base / "maker", s3_server, place, s3_server.endpoint)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in maker.env.items():
            patch.setenv(name, value)
        with Store.create(load_settings(os.environ)) as store:
            _fill(store)
    yield maker, base
    maker.close()


def _fill(store: Store) -> None:
    rng = Random(1)
    contents = [rng.randbytes(SIZE) for _ in range(CHUNKS)]
    with ThreadPoolExecutor(1) as executor:
        writer = ChunkWriter(store.objects, store.index, store.codec, executor, executor)
        places = writer.add([(chunk_id(content), content) for content in contents])
        writer.seal()
    files = [
        Entry(
            b"", Kind.FILE, 0o644, SIZE, 1, chunk_id(content), b"", (), TIME_NS, 0, 0, NO_STAMP,
            place.location,
        )
        for content, place in zip(contents, places, strict=True)
    ]  # fmt: skip
    metadata = store.metadata_writer()
    tops = []
    for top in range(TOPS):
        folders = []
        for folder in range(FOLDERS):
            # Names of their own: equal folders would be stored once.
            names = (b"file-%d-%02d-%03d" % (top, folder, number) for number in range(FILES))
            entries = (
                files[number % CHUNKS]._replace(name=name) for number, name in enumerate(names)
            )
            child = build_directory(store.trees, metadata, entries)
            folders.append(directory_entry(b"folder%02d" % folder, child, 0o755, TIME_NS))
        child = build_directory(store.trees, metadata, iter(folders))
        tops.append(directory_entry(b"top%d" % top, child, 0o755, TIME_NS))
    root = directory_entry(b"", build_directory(store.trees, metadata, iter(tops)), 0o755, TIME_NS)
    commit = write_commit(
        metadata, root=root, parents=[], author="ada", message="all", time_ns=TIME_NS, metadata={}
    )
    metadata.finish()
    store.create_repository("set").advance(
        "main", metadata.resolve(commit), None, old=None, reason="test"
    )


@pytest.fixture
def cold(huge: tuple[Machine, Path], s3_server: S3Server, tmp_path: Path) -> Iterator[Machine]:
    """Another machine, which has seen nothing of the store yet."""
    machine = Machine(tmp_path / "cold", s3_server, huge[0].store, s3_server.endpoint)
    try:
        yield machine
    finally:
        machine.close()


def test_the_root_and_the_first_byte_of_a_file_cost_few_requests(cold: Machine) -> None:
    data = cold.mount("--refresh", "3600")
    at_start = cold.requests(data)
    assert at_start <= 3
    assert os.listdir(data) == ["set"]
    assert len(os.listdir(data / "set/main")) == TOPS
    root = cold.requests(data)
    assert root - at_start <= 8
    with (data / "set/main/top7/folder31/file-7-31-141").open("rb") as file:
        assert file.read(1) == Random(1).randbytes(SIZE * CHUNKS)[41 * SIZE :][:1]
    first = cold.requests(data)
    assert first - root <= 12
    # One of a folder that nobody looked into, and then one at its other end.
    (data / "set/main/top2/folder77/file-2-77-999").read_bytes()
    second = cold.requests(data)
    assert second - first <= 8
    (data / "set/main/top2/folder77/file-2-77-000").read_bytes()
    assert cold.requests(data) - second <= 4
    assert cold.transfers(data)["received_bytes"] < 16 << 20


def test_find_over_100_000_files_costs_tens_of_requests(cold: Machine) -> None:
    data = cold.mount("--refresh", "3600")
    before = cold.requests(data)
    top = data / "set/main/top4"
    done = subprocess.run(["find", top, "-type", "f"], capture_output=True, check=True)
    assert len(done.stdout.splitlines()) == FOLDERS * FILES
    assert cold.requests(data) - before <= 40


def test_commands_on_a_huge_store_cost_few_requests(cold: Machine) -> None:
    """A listing and a read through the command line; the index of packs is not needed."""
    listed = cold.ok("ls", "set/main:top3/folder05")
    assert len(listed.lines) == FILES
    assert len(cold.ok("cat", "set:top9/folder99/file-9-99-999").raw) == SIZE
    found = cold.ok("stats", "--json").json
    assert found["files"] == TOPS * FOLDERS * FILES
    assert found["logical_bytes"] == TOPS * FOLDERS * FILES * SIZE
    assert sum(found["transfers"]["requests"].values()) <= 60
