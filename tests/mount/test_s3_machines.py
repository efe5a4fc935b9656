"""Mounts of one store on S3 by several machines: what one commits, the others show."""

from __future__ import annotations

import os
import subprocess
import tarfile
from functools import partial
from pathlib import Path

from tests.support.proxied import always, proxy
from tests.support.proxy import Answer, Proxy
from tests.support.s3 import MakeMachine, wait_until
from tests.support.seaweed import S3Server

__all__ = ["proxy"]

NEVER = "3600"


def _holds(path: Path, content: bytes) -> bool:
    return path.read_bytes() == content


def test_what_one_machine_commits_appears_on_the_other(machines: MakeMachine) -> None:
    ada, bob = machines("ada"), machines("bob")
    ada.bring("set", a=b"one", gone=b"gone")
    main = bob.mount("--refresh", "0.2") / "set/main"
    assert (main / "a").read_bytes() == b"one"
    assert sorted(os.listdir(main)) == ["a", "gone"]
    with (main / "a").open("rb") as held:
        for content in (b"two", b"three"):
            ada.bring("set", a=content, new=b"new")
            wait_until(partial(_holds, main / "a", content))
            assert sorted(os.listdir(main)) == ["a", "new"]
            assert not (main / "gone").exists()
            assert (main / "new").read_bytes() == b"new"
        # What was open goes on reading what it opened.
        assert os.pread(held.fileno(), 10, 0) == b"one"
    ada.ok("branch", "set/dev", "@~1")
    wait_until(lambda: "dev" in os.listdir(main.parent))
    assert (main.parent / "dev/a").read_bytes() == b"two"


def test_fetch_shows_at_once_what_was_committed(machines: MakeMachine) -> None:
    ada, bob = machines("ada"), machines("bob")
    first = ada.bring("set", a=b"one")
    data = bob.mount("--refresh", NEVER)
    assert (data / "set/main/a").read_bytes() == b"one"
    second = ada.bring("set", a=b"two")
    assert (data / "set/main/a").read_bytes() == b"one"
    moved = bob.ok("fetch", "--json").json
    assert [(move["name"], move["old"], move["new"]) for move in moved] == [("main", first, second)]
    assert (data / "set/main/a").read_bytes() == b"two"
    assert bob.ok("fetch").lines == []
    # A commit of this machine needs no fetch.
    bob.bring("set", a=b"three")
    assert (data / "set/main/a").read_bytes() == b"three"
    third = ada.ok("log", "set", "--json").json[0]["id"]
    assert third not in (first, second)


def test_fetch_tells_of_a_mount_that_does_not_show_it(
    machines: MakeMachine, s3_server: S3Server, proxy: Proxy
) -> None:
    ada, bob = machines("ada"), machines("bob", proxy.endpoint)
    ada.bring("set", a=b"one")
    data = bob.mount("--refresh", NEVER)
    assert (data / "set/main/a").read_bytes() == b"one"
    ada.bring("set", a=b"two")
    proxy.plan = always(Answer(403, "AccessDenied"))
    told = bob.run("fetch", AWS_ENDPOINT_URL_S3=s3_server.endpoint)
    assert (told.code, len(told.lines)) == (0, 1)
    assert f"warning: {data} does not show it yet" in told.err
    proxy.plan = None
    bob.ok("fetch")
    assert (data / "set/main/a").read_bytes() == b"two"


def test_who_loses_the_race_is_told_what_moved(machines: MakeMachine) -> None:
    """An import that began before another one at the same path ended."""
    ada, bob = machines("ada"), machines("bob")
    ada.bring("set", a=b"one")
    source = ada.folder / "more"
    source.write_bytes(os.urandom(1_000_000))
    slow = bob.start("import", "-", "set", stdin=subprocess.PIPE)
    assert slow.stdin is not None
    with slow, tarfile.open(fileobj=slow.stdin, mode="w|") as tar:
        tar.add(source, "one")
        # More than fits into the pipe was taken: by now it knows where the branch is.
        tar.add(source, "two")
        commit = ada.bring("set", a=b"two")
        tar.close()
        out, err = (text.decode() for text in slow.communicate(timeout=60))
    assert (slow.returncode, out) == (5, ""), err
    assert "set/main" in err
    assert "nothing was published" in err
    assert "versionfs log" in err
    assert ada.ok("log", "set", "--json").json[0]["id"] == commit


def test_a_repository_deleted_elsewhere_is_gone_here(machines: MakeMachine) -> None:
    ada, bob = machines("ada"), machines("bob")
    ada.bring("set", a=b"one")
    ada.bring("other", a=b"one")
    data = bob.mount("--refresh", "0.2")
    assert sorted(os.listdir(data)) == ["other", "set"]
    assert (data / "set/main/a").read_bytes() == b"one"
    ada.ok("repo", "delete", "set", "--yes")
    wait_until(lambda: os.listdir(data) == ["other"])
    wait_until(lambda: not (data / "set/main/a").exists())
    assert [row[0] for row in bob.ok("repo", "list").rows] == ["other"]
    bob.fails(3, "log", "set")
    # The name is free, and nothing of the old one comes back.
    bob.bring("set", b=b"anew")
    assert len(ada.ok("log", "set", "--json").json) == 1
    assert os.listdir(data / "set/main") == ["b"]


def test_the_statistics_tell_of_requests_and_caches(machines: MakeMachine) -> None:
    ada, bob = machines("ada"), machines("bob")
    blob = os.urandom(3_000_000)
    ada.bring("set", blob=blob)
    data = bob.mount()
    assert (data / "set/main/blob").read_bytes() == blob
    found = bob.ok("stats", "--json").json
    assert found["transfers"]["requests"]["list"] >= 1
    (mount,) = found["mounts"]
    assert mount["mountpoint"] == str(data)
    transfers = mount["transfers"]
    assert transfers["requests"]["get"] >= 3
    assert transfers["received_bytes"] >= len(blob)
    assert (transfers["retries"], transfers["failures"], transfers["damaged"]) == (0, 0, 0)
    assert transfers["misses"] >= 1
    assert len(blob) <= transfers["cache_bytes"] <= transfers["cache_bound_bytes"]
    lines = dict(row for row in bob.ok("stats").rows)
    assert lines["mount"] == str(data)
    assert int(lines[f"{data}: received_bytes"]) >= len(blob)
    assert "retries" in lines
    # A second mount, or the same one anew, reads from the disk.
    bob.umount(data)
    again = bob.mount(name="again")
    assert (again / "set/main/blob").read_bytes() == blob
    transfers = bob.transfers(again)
    assert transfers["disk_hits"] >= 1
    assert transfers["received_bytes"] < 100_000


def test_a_repository_made_anew_elsewhere_shows_what_is_in_it_now(machines: MakeMachine) -> None:
    ada, bob = machines("ada"), machines("bob")
    ada.bring("set", a=b"one")
    data = bob.mount("--refresh", "0.2")
    assert (data / "set/main/a").read_bytes() == b"one"
    ada.ok("repo", "delete", "set", "--yes")
    wait_until(lambda: not (data / "set/main/a").exists())
    ada.bring("set", b=b"anew")
    wait_until((data / "set/main").exists)
    wait_until(lambda: os.listdir(data / "set/main") == ["b"])
    assert (data / "set/main/b").read_bytes() == b"anew"
