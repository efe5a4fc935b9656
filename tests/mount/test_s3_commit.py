"""Branch folders of one store on S3, committed by several machines, by a bad line, and offline."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxied import proxy
from tests.support.proxy import Fault, LoseReply, Proxy, Request, Reset
from tests.support.s3 import Machine, MakeMachine
from tests.support.seaweed import S3Server

__all__ = ["proxy"]

NEVER = "3600"
BRANCH = "/branches/main"
PACK = "/packs/"


@pytest.fixture(autouse=True)
def server_lives_again(s3_server: S3Server) -> Iterator[None]:
    """What one test kills, the next one finds alive."""
    yield
    s3_server.start()


def subjects(machine: Machine) -> list[str]:
    """Returns what the commits of the branch say, the newest first."""
    return [commit["message"] for commit in machine.ok("log", "set", "--json").json]


def changes(machine: Machine, main: Path) -> list[str]:
    """Returns what is changed in a branch folder and not committed."""
    return [line.replace("\t", " ") for line in machine.ok("status", cwd=main).lines[5:]]


def content(machine: Machine) -> dict[str, bytes]:
    """Returns the files of the branch as a machine without a mount reads them."""
    names = [row[-1] for row in machine.ok("ls", "set/main").rows]
    return {name: machine.ok("cat", f"set:{name}").raw for name in names}


# -- two machines ----------------------------------------------------------------------------------


def test_commits_of_different_paths_are_joined(machines: MakeMachine) -> None:
    ada, bob = machines("ada"), machines("bob")
    ada.bring("set", "-m", "first", a=b"a", b=b"b")
    ours, theirs = (each.mount("--refresh", NEVER) / "set/main" for each in (ada, bob))
    (ours / "a").write_bytes(b"ada's")
    (theirs / "b").write_bytes(b"bob's")
    (theirs / "new").write_bytes(b"new")
    assert not ada.ok("commit", "-m", "ada", "--json", cwd=ours).json["merged"]
    assert bob.ok("commit", "-m", "bob", "--json", cwd=theirs).json["merged"]
    assert changes(bob, theirs) == []
    assert (theirs / "a").read_bytes() == b"ada's"
    ada.ok("fetch")
    joined = {"a": b"ada's", "b": b"bob's", "new": b"new"}
    for main in (ours, theirs):
        assert {name: (main / name).read_bytes() for name in os.listdir(main)} == joined
    assert content(machines("carol")) == joined
    assert subjects(ada) == ["bob", "ada", "first"]


def test_who_changed_the_same_path_is_told_what_and_how(machines: MakeMachine) -> None:
    ada, bob = machines("ada"), machines("bob")
    ada.bring("set", "-m", "first", a=b"a", b=b"b", c=b"c")
    ours, theirs = (each.mount("--refresh", NEVER) / "set/main" for each in (ada, bob))
    (ours / "a").write_bytes(b"ada's")
    (ours / "b").unlink()
    (theirs / "a").write_bytes(b"bob's")
    (theirs / "b").write_bytes(b"bob's")
    (theirs / "c").write_bytes(b"bob's")
    ada.ok("commit", "-m", "ada", cwd=ours)
    told = bob.fails(5, "commit", "-m", "bob", cwd=theirs).err
    assert "set/main has moved" in told
    assert "a: both changed it" in told
    assert "b: you changed it, they deleted it" in told
    assert "\n  c: " not in told
    assert changes(bob, theirs) == ["M a", "M b", "M c"]
    assert subjects(ada) == ["ada", "first"]
    # Ours to a branch of its own, theirs untouched.
    bob.ok("branch", "bobs", "--from-workspace", cwd=theirs)
    bob.ok("commit", "set/bobs", "-m", "bob")
    assert ada.ok("cat", "set/bobs:b").raw == b"bob's"
    assert content(ada) == {"a": b"ada's", "c": b"c"}


# -- a reply that is lost --------------------------------------------------------------------------


def test_a_commit_whose_reply_is_lost_is_made_once(machines: MakeMachine, proxy: Proxy) -> None:
    ada, bob = machines("ada"), machines("bob", proxy.endpoint)
    ada.bring("set", "-m", "first", a=b"a")
    main = bob.mount("--refresh", NEVER) / "set/main"
    for number in range(3):
        (main / "a").write_bytes(b"%d" % number)
        faults = _Faults(LoseReply(), LoseReply())
        proxy.plan = faults.plan
        made = bob.ok("commit", "-m", str(number), "--json", cwd=main).json
        assert not faults.left, "the answer to the second try is lost too"
        assert made["changed"]
        assert changes(bob, main) == []
    assert subjects(ada) == ["2", "1", "0", "first"]
    assert content(ada) == {"a": b"2"}


def test_others_go_on_top_of_a_commit_whose_reply_is_lost(
    machines: MakeMachine, proxy: Proxy
) -> None:
    ada, bob = machines("ada"), machines("bob", proxy.endpoint)
    ada.bring("set", "-m", "first", a=b"a", b=b"b")
    ours, theirs = (each.mount("--refresh", NEVER) / "set/main" for each in (ada, bob))
    (ours / "a").write_bytes(b"ada's")
    (theirs / "b").write_bytes(b"bob's")
    lost = threading.Event()

    def plan(request: Request) -> Fault | None:
        if BRANCH not in request.path:
            return None
        if request.method == "PUT" and not lost.is_set():
            lost.set()
            return LoseReply()
        if lost.is_set() and subjects(ada) == ["bob", "first"]:
            # Before bob's machine finds out what came of it.
            ada.ok("commit", "-m", "ada", cwd=ours)
        return None

    proxy.plan = plan
    bob.ok("commit", "-m", "bob", cwd=theirs)
    assert subjects(ada) == ["ada", "bob", "first"]
    assert changes(bob, theirs) == []
    bob.ok("fetch")
    for main in (ours, theirs):
        assert {name: (main / name).read_bytes() for name in "ab"} == {"a": b"ada's", "b": b"bob's"}


# -- a server that dies ----------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the packs", "before the ref", "after the ref"])
def test_nothing_is_lost_when_the_server_dies_in_a_commit(
    machines: MakeMachine, s3_server: S3Server, proxy: Proxy, when: str
) -> None:
    ada, bob = machines("ada"), machines("bob", proxy.endpoint)
    ada.bring("set", "-m", "first", a=b"a")
    main = bob.mount("--refresh", NEVER, "--timeout", "6") / "set/main"
    (main / "a").write_bytes(b"bob's")
    (main / "new").write_bytes(b"new")
    killing = _Killing(s3_server, when)
    proxy.plan = killing.plan
    told = bob.fails(7, "commit", "-m", "bob", cwd=main).err
    assert "cannot be reached" in told
    assert ("it is not known whether" in told) == (when != "before the packs")
    assert killing.killed.is_set()
    # Work goes on meanwhile.
    assert (main / "a").read_bytes() == b"bob's"
    (main / "later").write_bytes(b"later")
    assert bob.run("commit", "-m", "again", cwd=main).code == 7

    s3_server.start()
    expected = {"a": b"bob's", "new": b"new", "later": b"later"}
    assert {name: (main / name).read_bytes() for name in os.listdir(main)} == expected
    bob.ok("commit", "-m", "again", cwd=main)
    assert changes(bob, main) == []
    assert content(ada) == expected
    made = subjects(ada)
    assert made == (["again", "bob", "first"] if when == "after the ref" else ["again", "first"])


@pytest.mark.parametrize("when", ["before the packs", "after the ref"])
def test_a_commit_goes_on_when_the_server_is_back(
    machines: MakeMachine, s3_server: S3Server, proxy: Proxy, when: str
) -> None:
    ada, bob = machines("ada"), machines("bob", proxy.endpoint)
    ada.bring("set", "-m", "first", a=b"a")
    main = bob.mount("--refresh", NEVER, "--timeout", "60") / "set/main"
    (main / "a").write_bytes(b"bob's")
    killing = _Killing(s3_server, when)
    proxy.plan = killing.plan
    with bob.start("commit", "set", "-m", "bob") as child:
        assert killing.killed.wait(60)
        s3_server.start()
        _, err = child.communicate(timeout=100)
    assert (child.returncode, err) == (0, b"")
    assert changes(bob, main) == []
    assert subjects(ada) == ["bob", "first"]
    assert content(ada) == {"a": b"bob's"}


class _Faults:
    """Breaks the first PUTs of the branch, one by one."""

    def __init__(self, *faults: Fault) -> None:
        self.left = list(faults)

    def plan(self, request: Request) -> Fault | None:
        if self.left and request.method == "PUT" and BRANCH in request.path:
            return self.left.pop(0)
        return None


class _Killing:
    """Kills the server once, at some point of a commit. Plans are asked in any thread."""

    def __init__(self, server: S3Server, when: str) -> None:
        self._server = server
        self._when = when
        self._lock = threading.Lock()
        self._is_applied = False
        self.killed = threading.Event()

    def plan(self, request: Request) -> Fault | None:
        with self._lock:
            if self.killed.is_set():
                return None
            path = PACK if self._when == "before the packs" else BRANCH
            if path not in request.path or not (self._is_applied or request.method == "PUT"):
                return None
            if self._when == "after the ref" and not self._is_applied:
                self._is_applied = True
                return LoseReply()
            self._server.kill()
            self.killed.set()
            return Reset()
