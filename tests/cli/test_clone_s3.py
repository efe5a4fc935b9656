"""Stores on a real S3 server: import, clone there and back, several machines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.cli.conftest import CommandLine


def test_a_store_goes_to_s3_and_back(photos, s3_server, tmp_path):
    away = f"s3://{s3_server.bucket()}/data/versions"
    s3 = s3_server.environment
    before = photos.ok("log", "photos", "--json").json
    first = photos.ok("clone", "--json", photos.home / "store", away, **s3).json
    assert first["packs_copied"] > 0
    assert photos.ok("--store", away, "log", "photos", "--json", **s3).json == before
    assert photos.ok("--store", away, "cat", "photos:a.txt", **s3).raw == b"alpha and more\n"
    again = photos.ok("clone", "--json", photos.home / "store", away, **s3).json
    assert (again["packs_copied"], again["bytes_copied"]) == (0, 0)

    back = tmp_path / "back"
    photos.ok("clone", f"{away}/photos", back, **s3)
    shutil.rmtree(photos.home / "store")
    assert photos.ok("--store", back, "log", "photos", "--json").json == before
    photos.ok("--store", back, "export", "photos", tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "new.txt").read_bytes() == b"new\n"

    photos.ok("--store", away, "repo", "delete", "photos", "--yes", **s3)
    assert photos.ok("--store", away, "repo", "list", **s3).lines == []


def test_two_machines_store_nothing_twice(s3_server, tmp_path):
    store = f"s3://{s3_server.bucket()}"
    machines = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        machine = CommandLine(tmp_path / name / "home", tmp_path / name)
        machine.env |= s3_server.environment | {"VERSIONFS_STORE": store}
        machines.append(machine)
    one, two = machines
    source = tmp_path / "source"
    source.mkdir()
    for number in range(50):
        (source / f"f{number}").write_bytes(os.urandom(20_000))
    one.ok("init")
    assert one.ok("import", "--json", source, "set").json["new_bytes"] == 1_000_000
    (source / "more").write_bytes(b"more")
    second = two.ok("import", "--json", source, "set").json
    assert (second["new_bytes"], second["files_read"]) == (4, 51)
    assert two.ok("log", "set", "--json").json[0]["id"] == second["commit"]["id"]
    assert one.ok("cat", "set:more").raw == b"more"


def test_a_missing_bucket_is_named(photos, s3_server, tmp_path):
    s3 = s3_server.environment
    result = photos.fails(3, "clone", photos.home / "store", "s3://not-there/x", **s3)
    assert "not-there" in result.err
    assert not list(Path(photos.home / "cache").glob("tmp/*"))
