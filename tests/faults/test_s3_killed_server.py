"""kill -9 of the S3 server in the midst of an import that people started."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.folders import describe, fill
from tests.support.proxy import Fault, LoseReply, Proxy, Request
from tests.support.s3 import MakeMachine, wait_until
from tests.support.seaweed import S3Server


@pytest.fixture(autouse=True)
def server_lives_again(s3_server: S3Server) -> Iterator[None]:
    yield
    s3_server.start()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two packs of data, and some of small files."""
    folder = tmp_path / "source"
    files = {f"large{n}": os.urandom(30_000_000) for n in range(4)}
    fill(folder, files | {f"d{n % 7}/small{n}": os.urandom(2000) for n in range(300)})
    return folder


class Watch:
    """Tells when a PUT of a kind of object has reached the proxy; may lose its reply."""

    def __init__(self, part: str, *, lose: bool = False) -> None:
        self._part = part
        self._lose = lose
        self.came = False

    def __call__(self, request: Request) -> Fault | None:
        if request.method != "PUT" and request.method != "POST":
            return None
        if self._part not in request.path or self.came:
            return None
        self.came = True
        return LoseReply() if self._lose else None


@pytest.mark.parametrize("at", ["/packs/", "/index/", "/branches/"])
@pytest.mark.parametrize("lose", [False, True], ids=["", "reply-lost"])
def test_an_import_goes_on_when_the_server_comes_back(
    machines: MakeMachine,
    s3_server: S3Server,
    source: Path,
    tmp_path: Path,
    at: str,
    lose: bool,
) -> None:
    with Proxy(s3_server.endpoint) as proxy:
        ada, bob = machines("ada"), machines("bob", proxy.endpoint)
        watch = Watch(at, lose=lose)
        proxy.plan = watch
        child = bob.start("import", "--json", source, "set")
        wait_until(lambda: watch.came)
        s3_server.kill()
        time.sleep(0.5)
        s3_server.start()
        _, err = child.communicate(timeout=80)
        assert child.returncode == 0, err
        assert b"Traceback" not in err
        assert len(ada.ok("log", "set", "--json").json) == 1
        ada.ok("export", "set", tmp_path / "out")
        assert describe(tmp_path / "out") == describe(source)


def test_an_import_whose_server_stays_away_fails_and_says_so(
    machines: MakeMachine, s3_server: S3Server, source: Path, tmp_path: Path
) -> None:
    with Proxy(s3_server.endpoint) as proxy:
        ada, bob = machines("ada"), machines("bob", proxy.endpoint)
        watch = Watch("/packs/")
        proxy.plan = watch
        child = bob.start("import", source, "set", "--timeout", "3")
        wait_until(lambda: watch.came)
        s3_server.kill()
        out, err = child.communicate(timeout=60)
        lines = err.decode().splitlines()
        assert (child.returncode, out) == (7, b""), lines
        assert any("cannot be reached" in line for line in lines)
        assert lines[-1].startswith("  hint: check the network and the server; --timeout")
        assert len(lines) <= 3

        s3_server.start()
        proxy.plan = None
        ada.fails(3, "log", "set")
        bob.ok("import", source, "set")
        assert len(ada.ok("log", "set", "--json").json) == 1
        ada.ok("export", "set", tmp_path / "out")
        assert describe(tmp_path / "out") == describe(source)
        assert list((bob.home / "cache/tmp").iterdir()) == []
