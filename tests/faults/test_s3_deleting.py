"""Branches, tags and repositories on S3 that are deleted while another machine writes to them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.proxy import Proxy, Request
from tests.support.s3 import Machine, MakeMachine
from tests.support.seaweed import S3Server


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with Proxy(s3_server.endpoint) as proxy:
        yield proxy


def before(request: Callable[[Request], bool], work: Callable[[], object]) -> Callable[..., None]:
    """Returns a plan that does some work, once, before a request is answered."""
    lock, done = threading.Lock(), False

    def plan(found: Request) -> None:
        nonlocal done
        with lock:
            if not done and request(found):
                done = True
                work()

    return plan


def head(machine: Machine, spec: str) -> str:
    return str(machine.ok("log", spec, "--json").json[0]["id"])


def test_a_branch_is_deleted_only_as_it_was_checked(machines: MakeMachine, proxy: Proxy) -> None:
    """Another machine commits to it after its head was found to be held, and is told so."""
    ada, bob = machines("ada", proxy.endpoint), machines("bob")
    bob.bring("set", a=b"one")
    bob.ok("branch", "set/dev")
    made = []
    checked = False

    def is_next(request: Request) -> bool:
        nonlocal checked
        checked = checked or (request.method == "GET" and "set%2Ftags%2F" in request.path)
        return checked and request.method == "GET" and "branches/dev" in request.path

    proxy.plan = before(is_next, lambda: made.append(bob.bring("set/dev", a=b"two")))
    result = ada.fails(5, "branch", "-d", "set/dev")
    assert "moved meanwhile; it was not deleted" in result.err
    proxy.plan = None
    assert [head(bob, "set/dev")] == made
    # Looked at again, it is the only one that holds its head.
    assert "no other branch or tag" in ada.fails(2, "branch", "-d", "set/dev").err
    ada.ok("branch", "-d", "set/dev", "--force")
