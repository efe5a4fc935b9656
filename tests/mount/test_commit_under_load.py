"""A commit while eight processes write: each file in it is as it was at one instant."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from versionfs.fuse import control, registry

WRITERS = 8
RECORD = 4096

WRITER = """
import os, sys
# Numbered records: appended, and each also written in place into a ring of 64.
folder, me = sys.argv[1], int(sys.argv[2])
log = os.open(f"{folder}/log{me}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
ring = os.open(f"{folder}/ring{me}", os.O_RDWR | os.O_CREAT)
number = 0
while not os.path.exists(f"{folder}/../stop"):
    record = (b"%015d\\n" % number) * 256
    os.write(log, record)
    os.pwrite(ring, record, number % 64 * 4096)
    number += 1
    print(number, flush=True)
"""


def records(data: bytes) -> list[int]:
    """Returns the numbers of whole records; a record is never torn."""
    assert len(data) % RECORD == 0
    found = []
    for at in range(0, len(data), RECORD):
        record = data[at : at + RECORD]
        assert record == record[:16] * 256, "a record that was half written"
        found.append(int(record[:15]))
    return found


def commit(world, message: str) -> str:
    """Commits through the daemon; returns the id."""
    reply = control.ask(
        registry.files_of(world.settings, world.mountpoints[0]).socket,
        {
            "op": "workspace-commit",
            "repository": "photos",
            "branch": "main",
            "message": message,
            "author": "test",
            "metadata": {},
        },
        60.0,
    )
    assert reply is not None
    assert reply["ok"], reply
    assert reply["result"]["commit"]
    return str(reply["result"]["commit"])


@pytest.mark.slow
def test_each_file_is_as_it_was_at_one_instant(world) -> None:
    world.commit({b"stopped": b"no"})
    top = world.mount() / "photos/main"
    folder = top / "work"
    folder.mkdir()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, folder, str(number)], stdout=subprocess.PIPE
        )
        for number in range(WRITERS)
    ]
    commits = []
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for number in range(6):
            commits.append(commit(world, f"number {number}"))  # noqa: PERF401
    finally:
        (top / "stop").touch()
        counts = [int(writer.communicate(timeout=60)[0].split()[-1]) for writer in writers]
    before = [0] * WRITERS
    for made in commits:
        snapshot = world.mountpoints[0] / f"photos/main@{made[:12]}/work"
        for number in range(WRITERS):
            log = records((snapshot / f"log{number}").read_bytes())
            assert log == list(range(len(log)))
            # In the order of the writer: the ring is written after the log, one record behind.
            ring = records((snapshot / f"ring{number}").read_bytes())
            newest = max(ring) + 1
            assert newest in (len(log), len(log) - 1)
            assert ring == [at + (newest - 1 - at) // 64 * 64 for at in range(len(ring))]
            assert len(log) >= before[number], "a later commit has less"
            before[number] = len(log)
    # What was written after the last cut is in the folder, and in the next commit.
    for number in range(WRITERS):
        assert records((folder / f"log{number}").read_bytes()) == list(range(counts[number]))
    commit(world, "last")
    snapshot = world.mountpoints[0] / "photos/main@head/work"
    for number in range(WRITERS):
        assert len((snapshot / f"log{number}").read_bytes()) == counts[number] * RECORD
    assert os.listdir(snapshot) == os.listdir(folder)
